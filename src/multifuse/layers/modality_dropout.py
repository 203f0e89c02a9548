"""ModalityDropout: leaves out whole modalities of samples in training, so that a model learns to do without them."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.masks import has_tokens


class ModalityDropout(nn.Module):
    """Masks, in training, every modality m of every sample with probability p_m, but never all that a sample has.

    Args:
        modalities: names, any Python identifiers.
        rate: p for all of them, or a mapping by name (0 for one that it lacks).

    ``forward(tokens, mask=None)``: tokens by modality (B, T_m, ...), ``None`` for one that is left out, mask by
    modality (B, T_m) bool -> the mask of what is left, by modality. A sample that would lose everything keeps what it
    has. Without a rate, or in eval mode, the mask comes back as it was given.

    Raises:
        ValueError: a rate outside [0, 1], an unknown modality.

    Source: ours; the paper leaves missing modalities open.
    """

    def __init__(self, modalities: Iterable[str], rate: float | Mapping[str, float] = 0.0) -> None:
        super().__init__()
        self.modalities = checks.modality_names(modalities)
        self.rates = checks.rates("rate", rate, self.modalities)

    def forward(
        self, tokens: Mapping[str, Tensor | None], mask: Mapping[str, Tensor | None] | None = None
    ) -> dict[str, Tensor | None]:
        left_of: dict[str, Tensor | None] = {**dict.fromkeys(tokens), **({} if mask is None else mask)}
        held = {name: values for name, values in tokens.items() if values is not None}
        if not self.training or not any(self.rates[name] for name in held):
            return left_of
        names = list(held)
        present = torch.stack([has_tokens(held[name], left_of[name]) for name in names], dim=1)
        rates = torch.tensor([self.rates[name] for name in names], device=present.device)
        left = present & (torch.rand(present.shape, device=present.device) >= rates)
        left = left | ~left.any(dim=1, keepdim=True)  # what a sample lacks stays masked by its own mask
        for name, own in zip(names, left.unbind(dim=1), strict=True):
            real, kept = left_of[name], own.unsqueeze(-1)
            left_of[name] = kept.expand(held[name].shape[:2]) if real is None else real & kept
        return left_of

    def extra_repr(self) -> str:
        return f"rates={self.rates}"
