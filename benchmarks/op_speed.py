"""Compares the op with `clamp`, a sort, plain torch, and entmax's bisection."""

from collections.abc import Callable, Iterator

import torch
from entmax import budget_bisect
from torch import Tensor

from benchmarks.timing import Comparison, in_turns
from multifuse.ops import portable, project_capped_simplex

SIZES = ((64, 50), (4096, 512))


def compare(seconds: float) -> Iterator[Comparison]:
    """Compares forward, and forward + backward, at a small size, where dispatch dominates, and at a large one."""
    for size in SIZES:
        generator = torch.Generator().manual_seed(0)
        z = torch.rand(size, generator=generator) * 1.2 - 0.1
        budget = torch.full((size[0],), 0.4 * size[1])
        large = size == SIZES[-1]
        forward = in_turns(_functions(z, budget), seconds)
        targets = {"clamp": 4.0 if large else None, "entmax.budget_bisect": 1 / 75 if large else 1 / 80}
        for peer, timing in forward.items():
            if peer != "ours":
                yield Comparison(f"op forward {size}", peer, forward["ours"], timing, targets.get(peer))
        forward_backward = in_turns(
            {name: _with_backward(function, z, budget) for name, function in _forward_and_backward().items()}, seconds
        )
        yield Comparison(
            f"op forward + backward {size}",
            "clamp",
            forward_backward["ours"],
            forward_backward["clamp"],
            1.0 if large else None,
        )


def sort_based(z: Tensor, budget: Tensor) -> Tensor:
    """Projects onto the simplex by sorting, the common implementation; exact where no alpha reaches 1."""
    ordered = z.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(-1) - budget.unsqueeze(-1)
    count = (ordered * torch.arange(1, z.shape[-1] + 1) > excess).sum(-1, keepdim=True)
    return (z - (excess.gather(-1, count - 1) / count).clamp(min=0.0)).clamp(0.0, 1.0)


def _functions(z: Tensor, budget: Tensor) -> dict[str, Callable[[], object]]:
    return {
        "ours": lambda: project_capped_simplex(z, budget),
        "clamp": lambda: z.clamp(0.0, 1.0),
        "a sort": lambda: sort_based(z, budget),
        "plain torch": lambda: portable.project(z, budget, None),
        "entmax.budget_bisect": lambda: budget_bisect(z, budget=budget.unsqueeze(-1), dim=-1),
    }


def _forward_and_backward() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    return {"ours": project_capped_simplex, "clamp": lambda z, budget: z.clamp(0.0, 1.0)}


def _with_backward(function: Callable[[Tensor, Tensor], Tensor], z: Tensor, budget: Tensor) -> Callable[[], object]:
    z, grad = z.clone().requires_grad_(), torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    return lambda: torch.autograd.grad(function(z, budget), z, grad)
