"""Counts the operators of a training step that launch a kernel on a GPU: python -m benchmarks.launches.

One step (forward, backward, SGD with momentum) of CLCR and of other models at the sizes of MOSI, with ragged masks,
then parts of CLCR for inputs that are given. The count is made on a CPU, on the path that a GPU takes: everything is
plain torch, but for the projection, which is one operator. Views, allocations and scalars that stay on the host are
left out.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.peers import Transformer
from benchmarks.step_speed import ABLATIONS, BATCH, LENGTH, WIDTHS, built, loss_of
from multifuse import CLCRForPrediction, IntraCED
from multifuse.layers.exchange_levels import exchange_levels
from multifuse.layers.stiefel import Bases, bases_of_levels
from multifuse.ops import transforms
from multifuse.recipes.jobs.models import MODELS

_ON_THE_HOST = (
    "empty",
    "new_empty",
    "promote_types",
    "result_type",
    "scalar_tensor",
    "is_same_size",
    "_record_function",
)
_METADATA = ("_unsafe_view", "_reshape_alias", "squeeze_", "lift_fresh")


@dataclass(frozen=True)
class Launches:
    """Numbers of operators that launch a kernel, in each phase of a step."""

    what: str
    forward: int
    backward: int
    optimiser: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.backward + self.optimiser


class _Counted(TorchDispatchMode):
    """Counts the operators that reach a device while the mode is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view and name not in _METADATA and not name.startswith(_ON_THE_HOST):
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def launches_in(function: Callable[[], object]) -> int:
    """Returns how many operators that launch a kernel a call dispatches on the path that a GPU takes."""
    return operators_in(function).total()


def operators_in(function: Callable[[], object]) -> Counter[str]:
    """Returns those operators, with the number of calls."""
    with patch.object(transforms, "_IS_COMPILED", False), _Counted() as counted:
        function()
    calls: Counter[str] = counted.calls
    return calls


def launches_of_step(name: str) -> int:
    """Returns the launches of a whole training step of a model, by its name in `MODELS`."""
    model = built(name)
    return _step(name, model, partial(loss_of, model, *ragged_batch())).total


def most_frequent(count: int = 12) -> str:
    """Returns the operators that a step of CLCR calls most often, before the optimiser."""
    model = built("clcr")
    calls = operators_in(lambda: loss_of(model, *ragged_batch()).backward())
    return ", ".join(f"{name} {number}" for name, number in calls.most_common(count))


def measure() -> list[Launches]:
    """Counts the steps of all models, then the parts of CLCR."""
    torch.manual_seed(0)
    return [*_models(), *_parts()]


def table(rows: Sequence[Launches]) -> str:
    """Returns the counts in Markdown."""
    lines = ["| what | forward | backward | optimiser | together |", "|---|---|---|---|---|"]
    lines += [f"| {row.what} | {row.forward} | {row.backward} | {row.optimiser} | {row.total} |" for row in rows]
    return "\n".join(lines) + "\n"


def _models() -> Iterator[Launches]:
    inputs, labels, mask = ragged_batch()
    configs: dict[str, dict[str, object]] = {
        "CLCR": {},
        **{f"CLCR, {name}": changes for name, changes in ABLATIONS.items()},
    }
    for name, changes in configs.items():
        model = built("clcr", **changes)
        yield _step(name, model, partial(loss_of, model, inputs, labels, mask))
    for name in MODELS:
        if name not in ("clcr", "text"):
            model = built(name)
            yield _step(name, model, partial(loss_of, model, inputs, labels, mask))
    transformer = Transformer(WIDTHS)
    yield _step("a 2-layer transformer", transformer, lambda: nn.functional.l1_loss(transformer(inputs)[:, 0], labels))


def ragged_batch(size: int = BATCH) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Returns inputs, labels and masks of a batch at the sizes of MOSI."""
    inputs = {name: torch.randn(size, LENGTH, width) for name, width in WIDTHS.items()}
    mask = {name: torch.arange(LENGTH) < torch.randint(LENGTH // 2, LENGTH + 1, (size, 1)) for name in WIDTHS}
    return inputs, torch.randn(size), mask


def _step(what: str, model: nn.Module, loss: Callable[[], Tensor]) -> Launches:
    # On a GPU, torch's optimisers update all parameters by a few operators, which a CPU must be asked for.
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, foreach=True)
    loss().backward()
    optimiser.step()  # makes the momentum
    optimiser.zero_grad()
    losses: list[Tensor] = []
    forward = launches_in(lambda: losses.append(loss()))
    return Launches(what, forward, launches_in(lambda: losses[0].backward()), launches_in(optimiser.step))


def _parts() -> Iterator[Launches]:
    inputs, _, mask = ragged_batch()
    model = built("clcr")
    assert isinstance(model, CLCRForPrediction)
    clcr, names = model.clcr, tuple(WIDTHS)
    yield _part("the hierarchy", lambda: _values(clcr.hierarchy(inputs, mask)))
    exchanges = [exchange for exchange in clcr.exchanges if isinstance(exchange, IntraCED)]
    projectors = [exchange.projector for exchange in exchanges]
    yield _part("the bases of all levels", lambda: list(bases_of_levels(projectors)))
    levels = [
        {name: values.detach().requires_grad_() for name, values in level.items()}
        for level in clcr.hierarchy(inputs, mask)
    ]
    yield _part(
        "the exchanges of all levels, bases included", lambda: list(exchange_levels(exchanges, levels, mask)[:2])
    )  # type: ignore[arg-type]
    codes = exchange_levels(exchanges, levels, mask)  # type: ignore[arg-type]
    leaves = _without_graph(codes)
    yield _part("InterCAD", lambda: [clcr.aggregation(leaves, mask).fused])
    aggregate, outputs = clcr.aggregation(leaves, mask), leaves.outputs()

    def losses() -> list[Tensor]:
        correlations = model.intra_loss.correlations(outputs, mask)
        return [model.intra_loss.terms(correlations).total, model.inter_loss.terms(correlations, aggregate, True).total]

    yield _part("the regularisers", losses)
    layer = IntraCED(128, names, shared_rank=48, private_rank=32)
    tokens = {name: torch.randn(BATCH, LENGTH, 128, requires_grad=True) for name in names}
    yield _part("IntraCED by itself", lambda: [values for field in layer(tokens)[:3] for values in field.values()])


def _without_graph(codes: Any) -> Any:
    """Returns codes and bases without the graph that computed them."""
    shared, private = (values.detach().requires_grad_() for values in (codes.shared, codes.private))
    bases = Bases(*(basis.detach().requires_grad_() for basis in codes.bases))
    return codes._replace(shared=shared, private=private, activation=codes.activation.detach(), bases=bases)


def _values(levels: Sequence[dict[str, Tensor]]) -> list[Tensor]:
    return [values for level in levels for values in level.values()]


def _part(what: str, outputs: Callable[[], list[Tensor]]) -> Launches:
    kept: list[list[Tensor]] = []
    forward = launches_in(lambda: kept.append(outputs()))
    grads = [torch.ones_like(output) for output in kept[0]]
    return Launches(what, forward, launches_in(lambda: torch.autograd.backward(kept[0], grads)))


def main() -> None:
    print(table(measure()))
    print(f"Most frequent in forward and backward of CLCR: {most_frequent()}.")


if __name__ == "__main__":
    main()
