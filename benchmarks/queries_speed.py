"""What leaving out the queries of tokens without a share would save, and how many such tokens a budget leaves."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from benchmarks.timing import Comparison, in_turns
from multifuse import TokenBudget

HEADS, WIDTH = 4, 12
SIZES = ((64, 50), (8, 512))
SHARES = (0.1, 0.5, 0.8)
"""Of tokens that take part."""


def compare(seconds: float) -> Iterator[Comparison]:
    """Attention, output projection and share, without gradients: the queries that take part against all of them."""
    torch.manual_seed(0)
    for samples, tokens in SIZES:
        for taking_part in SHARES:
            exchange = _Exchange(samples, tokens, taking_part)
            times = in_turns({"ours": exchange.of_some, "theirs": exchange.of_all}, seconds / 4)
            yield Comparison(
                f"{100 * taking_part:.0f} % of the queries, ({samples}, {tokens})",
                "all of them",
                times["ours"],
                times["theirs"],
            )


def taking_part(gamma: float) -> float:
    """The share of tokens with alpha > 0 in a budget before training, of evidence drawn from a normal distribution."""
    evidence = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((TokenBudget(gamma)(evidence) > 0).float().mean())


class _Exchange:
    def __init__(self, samples: int, tokens: int, taking_part: float) -> None:
        self.queries = torch.randn(samples, HEADS, tokens, WIDTH)
        self.keys, self.values = torch.randn(2, samples, HEADS, 2 * tokens, WIDTH).unbind()
        share = torch.rand(samples, tokens)
        self.share = share.masked_fill(share > taking_part, 0.0)
        self.weight = torch.randn(HEADS * WIDTH, HEADS * WIDTH)

    @torch.no_grad()
    def of_all(self) -> Tensor:
        return self._brought(self.queries, self.share)

    @torch.no_grad()
    def of_some(self) -> Tensor:
        most = int((self.share > 0).sum(dim=1).max())
        share, index = self.share.topk(most, dim=1)
        few = self._brought(self.queries.gather(2, index[:, None, :, None].expand(-1, HEADS, -1, WIDTH)), share)
        return few.new_zeros(*self.share.shape, HEADS * WIDTH).scatter(1, index.unsqueeze(-1).expand_as(few), few)

    def _brought(self, queries: Tensor, share: Tensor) -> Tensor:
        attended = scaled_dot_product_attention(queries, self.keys, self.values).transpose(1, 2).flatten(2)
        return share.unsqueeze(-1) * linear(attended, self.weight)
