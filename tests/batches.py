"""Random batches of tokens with ragged masks for the tests of layers and losses."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from multifuse import IntraCED

Tokens = dict[str, Tensor]


class Sizes(NamedTuple):
    """The sizes of a layer and of a batch, with ``lengths`` per modality."""

    batch: int
    dim: int
    shared_rank: int
    private_rank: int
    heads: int
    lengths: dict[str, int]

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.lengths)


@st.composite
def sizes(draw: st.DrawFn, min_modalities: int = 1, max_modalities: int = 4) -> Sizes:
    """Draws small sizes of every kind: one or more modalities, T = 1, full and partial ranks."""
    heads = draw(st.sampled_from([1, 2, 4]))
    shared_rank = heads * draw(st.integers(1, 3))
    private_rank = draw(st.integers(1, 6))
    dim = shared_rank + private_rank + draw(st.sampled_from([0, 1, 5]))
    names = ["text", "vision", "keys", "type"][: draw(st.integers(min_modalities, max_modalities))]
    lengths = {name: draw(st.integers(1, 7)) for name in names}
    return Sizes(draw(st.integers(1, 4)), dim, shared_rank, private_rank, heads, lengths)


def exchange(sizes: Sizes, gamma: float = 1.0) -> IntraCED:
    """Returns an IntraCED of these sizes in eval mode."""
    torch.manual_seed(1)
    layer = IntraCED(
        sizes.dim,
        sizes.modalities,
        shared_rank=sizes.shared_rank,
        private_rank=sizes.private_rank,
        num_heads=sizes.heads,
        gamma=gamma,
    )
    return layer.eval()


def batch(sizes: Sizes, seed: int = 0) -> tuple[Tokens, Tokens]:
    """Returns tokens and masks; in every modality, each sample has at least its first token."""
    generator = torch.Generator().manual_seed(seed)
    tokens, mask = {}, {}
    for name, length in sizes.lengths.items():
        tokens[name] = torch.randn(sizes.batch, length, sizes.dim, generator=generator)
        real_lengths = torch.randint(1, length + 1, (sizes.batch, 1), generator=generator)
        mask[name] = torch.arange(length) < real_lengths
    return tokens, mask


def padded(tokens: Tokens, mask: Tokens, extra: int, fill: float) -> tuple[Tokens, Tokens]:
    """Returns the batch with ``extra`` masked tokens of value ``fill`` appended to every sequence."""
    longer = {n: torch.cat([v, v.new_full((len(v), extra, v.shape[2]), fill)], 1) for n, v in tokens.items()}
    masks = {n: torch.cat([m, m.new_zeros(len(m), extra)], 1) for n, m in mask.items()}
    return longer, masks
