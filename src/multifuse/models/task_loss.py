"""The task loss of every sample, by the problem type of transformers."""

import torch
from torch import Tensor, nn

_REGRESSION_LOSSES = {
    "l1": nn.functional.l1_loss,
    "mse": nn.functional.mse_loss,
    "smooth_l1": nn.functional.smooth_l1_loss,
}


def loss_per_sample(
    logits: Tensor, labels: Tensor, problem_type: str | None, regression_loss: str
) -> tuple[Tensor, Tensor]:
    """Returns the losses (B,) of logits (B, num_labels), and which of them count (B,).

    Raises:
        ValueError: labels of a shape or dtype that does not fit the problem type.
    """
    all_samples = torch.ones(logits.shape[0], dtype=torch.bool, device=logits.device)
    if problem_type == "single_label_classification":
        if labels.shape != logits.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f"labels must be class indices ({logits.shape[0]},), got {labels.dtype} {tuple(labels.shape)}"
            )
        return nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-100), labels != -100
    if labels.numel() != logits.numel() or labels.shape[0] != logits.shape[0]:
        raise ValueError(f"labels must have shape {tuple(logits.shape)}, got {tuple(labels.shape)}")
    labels = labels.view_as(logits).to(logits.dtype)
    if problem_type == "multi_label_classification":
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    else:
        loss = _REGRESSION_LOSSES[regression_loss](logits, labels, reduction="none")
    return loss.mean(dim=-1), all_samples
