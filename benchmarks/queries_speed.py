"""What passing over the queries of tokens without a share saves, and how many such tokens a budget leaves."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.timing import Comparison, in_turns
from multifuse import TokenBudget
from multifuse.ops.attention import attend_others

HEADS, RANK, MODALITIES = 4, 48, 3
SIZES = ((64, 50), (8, 512))
SHARES = (0.1, 0.5, 0.8)
"""Of tokens that take part."""


def compare(seconds: float) -> Iterator[Comparison]:
    """The exchange's attention, without gradients: the queries that take part against all of them."""
    torch.manual_seed(0)
    for samples, length in SIZES:
        query_key_value = torch.randn(samples, MODALITIES * length, 3 * RANK)
        lengths = [length] * MODALITIES
        for share in SHARES:
            asking = torch.rand(samples, MODALITIES * length) < share
            all_of_them = partial(attend_others, query_key_value, lengths, HEADS)
            times = in_turns({"ours": partial(all_of_them, asking=asking), "theirs": all_of_them}, seconds / 4)
            what = f"attention of {100 * share:.0f} % of the queries, ({samples}, {length})"
            yield Comparison(what, "all of them", times["ours"], times["theirs"])


def taking_part(gamma: float) -> float:
    """The share of tokens with alpha > 0 in a budget before training, of evidence drawn from a normal distribution."""
    evidence = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((TokenBudget(gamma)(evidence) > 0).float().mean())
