"""The task loss of every sample, by the problem type of transformers."""

import torch
from torch import Tensor, nn

from multifuse._internal import checks

REGRESSION_LOSSES = {
    "l1": nn.functional.l1_loss,
    "mse": nn.functional.mse_loss,
    "smooth_l1": nn.functional.smooth_l1_loss,
}
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
IGNORED = -100


def loss_per_sample(logits: Tensor, labels: Tensor, problem_type: str, regression_loss: str) -> tuple[Tensor, Tensor]:
    """Returns the losses (B,) of logits (B, num_labels), and which of them count (B,).

    Values of labels are checked where that costs nothing: on a GPU it would wait for the device.

    Raises:
        ValueError: labels of a shape, dtype or value that does not fit the problem type; an unknown problem type or
            loss.
    """
    checks.choice("problem_type", problem_type, PROBLEM_TYPES)
    if problem_type == "single_label_classification":
        labels = class_indices(labels, logits.shape[:1], logits.shape[1])
        return nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED), labels != IGNORED
    if labels.numel() != logits.numel() or labels.shape[:1] != logits.shape[:1]:
        raise ValueError(
            f"labels must have shape {tuple(logits.shape)} for {problem_type}, got {labels.dtype} {tuple(labels.shape)}"
        )
    if labels.is_complex():
        raise ValueError(f"labels must be real for {problem_type}, got {labels.dtype}")
    labels = labels.view_as(logits).to(logits.dtype)
    if problem_type == "multi_label_classification":
        _check_values(labels, (labels < 0) | (labels > 1), "between 0 and 1 for multi_label_classification")
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    else:
        checks.choice("regression_loss", regression_loss, tuple(REGRESSION_LOSSES))
        loss = REGRESSION_LOSSES[regression_loss](logits, labels, reduction="none")
    return loss.mean(dim=-1), torch.ones(logits.shape[0], dtype=torch.bool, device=logits.device)


def class_indices(labels: Tensor, shape: tuple[int, ...], classes: int) -> Tensor:
    """Returns labels as integers, having checked them; -100 is one that is ignored."""
    if labels.shape != shape or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        expected = f"class indices, integers of shape {tuple(shape)}"
        raise ValueError(f"labels must be {expected}, got {labels.dtype} {tuple(labels.shape)}")
    labels = labels.long()
    outside = (labels != IGNORED) & ((labels < 0) | (labels >= classes))
    _check_values(labels, outside, f"class indices from 0 to {classes - 1}, or {IGNORED} to be ignored")
    return labels


def _check_values(labels: Tensor, wrong: Tensor, expected: str) -> None:
    if not checks.can_look_at(labels) or not wrong.any():
        return
    sample = int(wrong.view(len(wrong), -1).any(1).nonzero()[0])
    raise ValueError(f"labels must be {expected}, got {labels[wrong][0].item()} at sample {sample}")
