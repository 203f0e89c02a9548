"""ModalityDropout: leaves out whole modalities of samples in training, so that a model learns to do without them."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.masks import as_sequences, has_tokens


class ModalityDropout(nn.Module):
    """In training, masks each modality m of each sample with probability p_m, but never all that a sample has.

    Args:
        modalities: names, any Python identifiers.
        rate: p for all of them, or a mapping by name, in which a missing name means 0.

    Shape:
        ``forward(tokens, mask=None)``: tokens by modality (B, T_m, ...), or token ids (B, T_m); a vector (B, d), which
        is floating point, is one token, as in `IntraCED`; ``None`` for one that is left out. Mask by modality (B, T_m),
        of a vector also (B,) -> the mask of the remaining tokens, by modality (B, T_m). A sample that would lose
        everything keeps what it has. In eval mode, or with a rate of 0, the same tokens remain.

    Raises:
        ValueError: a rate outside [0, 1], an unknown modality, tokens or masks that do not fit.

    Source: ours; the paper leaves missing modalities open.

    Example:
        >>> dropout = ModalityDropout(("text", "audio"), rate=0.5)
        >>> mask = dropout({"text": torch.randn(4, 6, 8), "audio": torch.randn(4, 9, 8)})
        >>> bool((mask["text"].any(1) | mask["audio"].any(1)).all())
        True
    """

    def __init__(self, modalities: Iterable[str], rate: float | Mapping[str, float] = 0.0) -> None:
        super().__init__()
        self.modalities = checks.modality_names(modalities)
        self.rates = checks.rates("rate", rate, self.modalities)

    def forward(
        self, tokens: Mapping[str, Tensor | None], mask: Mapping[str, Tensor | None] | None = None
    ) -> dict[str, Tensor | None]:
        checks.by_modality("tokens", tokens, self.modalities)
        vectors = frozenset(name for name, values in tokens.items() if values is not None and _is_vector(name, values))
        masks = {**dict.fromkeys(tokens), **checks.modality_masks(mask, self.modalities)}
        masks.update(as_sequences(masks, vectors, 1))
        given = {name: values for name, values in as_sequences(tokens, vectors, 2).items() if values is not None}
        batch = next(iter(given.values())).shape[0] if given else 0
        for name, values in given.items():
            real = masks[name]
            if values.shape[0] != batch:
                sizes = f"batch size {values.shape[0]}, the modalities before it {batch}"
                raise ValueError(f"tokens[{name!r}] has {sizes}")
            if real is not None:
                checks.token_mask(f"mask[{name!r}]", real, *values.shape[:2])
        if not self.training or not any(self.rates[name] for name in given):
            return masks
        names = list(given)
        present = torch.stack([has_tokens(given[name], masks[name]) for name in names], dim=1)
        # Column by column: a tensor of the rates would be copied from the host, and a GPU would wait for it.
        drawn = torch.rand(present.shape, device=present.device).unbind(dim=1)
        kept = present & torch.stack([draw >= self.rates[name] for name, draw in zip(names, drawn, strict=True)], dim=1)
        kept = kept | ~kept.any(dim=1, keepdim=True)  # a modality that the sample lacks stays masked by its own mask
        for name, column in zip(names, kept.unbind(dim=1), strict=True):
            real, keeps = masks[name], column.unsqueeze(-1)
            masks[name] = keeps.expand(given[name].shape[:2]) if real is None else real & keeps
        return masks

    def extra_repr(self) -> str:
        return f"{self.modalities}, rates={self.rates}"


def _is_vector(name: str, values: Tensor) -> bool:
    """Tells a vector (B, d) from tokens and token ids, after checking that it is one of these."""
    if checks.tensor(f"tokens[{name!r}]", values).ndim < 2:
        raise ValueError(f"tokens[{name!r}] must have shape (batch, tokens, ...), got {tuple(values.shape)}")
    return values.ndim == 2 and values.is_floating_point()
