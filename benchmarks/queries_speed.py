"""Measures what skipping the queries of tokens with alpha = 0 saves, and how many tokens a budget leaves active."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.timing import Comparison, in_turns
from multifuse import TokenBudget
from multifuse.ops.attention import attend_others

HEADS, RANK, MODALITIES = 4, 48, 3
SIZES = ((64, 50), (8, 512))
FRACTIONS = (0.1, 0.5, 0.8)
"""Fractions of tokens that take part in the exchange."""


def compare(seconds: float) -> Iterator[Comparison]:
    """Compares the exchange's attention, without gradients, for the queries that take part and for all of them."""
    torch.manual_seed(0)
    for samples, length in SIZES:
        query_key_value = torch.randn(samples, MODALITIES * length, 3 * RANK)
        lengths = [length] * MODALITIES
        for fraction in FRACTIONS:
            asking = torch.rand(samples, MODALITIES * length) < fraction
            all_of_them = partial(attend_others, query_key_value, lengths, HEADS)
            times = in_turns({"ours": partial(all_of_them, asking=asking), "theirs": all_of_them}, seconds / 4)
            what = f"attention of {100 * fraction:.0f} % of the queries, ({samples}, {length})"
            yield Comparison(what, "all of them", times["ours"], times["theirs"])


def taking_part(gamma: float) -> float:
    """Returns the fraction of tokens with alpha > 0 in an untrained budget, for evidence from a normal distribution."""
    evidence = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((TokenBudget(gamma)(evidence) > 0).float().mean())
