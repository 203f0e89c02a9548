"""Counts the operators of a training step that launch a kernel on a GPU: python -m benchmarks.launches.

One step (forward, backward, SGD with momentum) of CLCR and of other models at the sizes of MOSI, with ragged masks,
then parts of CLCR for inputs that are given. The count is made on a CPU, on the path that a GPU takes: everything is
plain torch, but for the projection, which is one operator. Views, allocations and scalars that stay on the host are
left out. With --compiled, the steps are compiled instead, which takes a minute or more each (see compiled_launches.py).
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.compiled_launches import CompiledStep, compiled_step
from benchmarks.compiled_launches import table as compiled_table
from benchmarks.peers import Transformer
from benchmarks.step_speed import ABLATIONS, BATCH, LENGTH, WIDTHS, built, loss_of
from multifuse import CLCRForPrediction, IntraCED
from multifuse._internal import devices
from multifuse.layers.exchange import LevelCodes
from multifuse.layers.exchange_levels import exchange_levels
from multifuse.layers.inter_cad import InterCADOutput
from multifuse.layers.stiefel import Bases, bases_of_levels
from multifuse.layers.token_budget import activation_of_levels
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


@contextmanager
def _path_of_a_gpu() -> Iterator[None]:
    """Lets tensors of the CPU take the path of a GPU, where the projection is one operator and no other is compiled."""
    with patch.object(transforms, "_IS_COMPILED", False), patch.object(devices, "is_gpu", lambda device: True):
        yield


def launches_in(function: Callable[[], object]) -> int:
    """Returns how many operators that launch a kernel a call dispatches on the path that a GPU takes."""
    return operators_in(function).total()


def operators_in(function: Callable[[], object]) -> Counter[str]:
    """Returns those operators, with the number of calls."""
    with _path_of_a_gpu(), _Counted() as counted:
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
    for name, model, loss in _losses():
        yield _step(name, model, partial(loss, model))


def _losses() -> Iterator[tuple[str, nn.Module, Callable[[nn.Module], Tensor]]]:
    """Yields every model with its name and its loss: CLCR, without one of its parts, and the models beside it."""
    inputs, labels, mask = ragged_batch()

    def loss(model: nn.Module) -> Tensor:
        return loss_of(model, inputs, labels, mask)

    yield "CLCR", built("clcr"), loss
    for name, changes in ABLATIONS.items():
        yield f"CLCR, {name}", built("clcr", **changes), loss
    for name in MODELS:
        if name not in ("clcr", "text"):
            yield name, built(name), loss
    yield "a 2-layer transformer", Transformer(WIDTHS), lambda model: l1_loss(model(inputs)[:, 0], labels)


def ragged_batch(size: int = BATCH) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    """Returns inputs, labels and masks of a batch at the sizes of MOSI."""
    inputs = {name: torch.randn(size, LENGTH, width) for name, width in WIDTHS.items()}
    mask = {name: torch.arange(LENGTH) < torch.randint(LENGTH // 2, LENGTH + 1, (size, 1)) for name in WIDTHS}
    return inputs, torch.randn(size), mask


def _step(what: str, model: nn.Module, loss: Callable[[], Tensor]) -> Launches:
    # On a GPU, torch's optimisers update all parameters by a few operators, which a CPU must be asked for.
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, foreach=True)
    with _path_of_a_gpu():
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
    clcr = model.clcr
    exchanges = [exchange for exchange in clcr.exchanges if isinstance(exchange, IntraCED)]
    yield _part("the hierarchy", model, lambda: _values(clcr.hierarchy(inputs, mask)))
    projectors = [exchange.projector for exchange in exchanges]
    yield _part("the bases of all levels", model, lambda: list(bases_of_levels(projectors)))
    levels = [{name: _leaf(values) for name, values in level.items()} for level in clcr.hierarchy(inputs, mask)]
    yield _part(
        "the exchanges of all levels, bases included",
        model,
        lambda: list(exchange_levels(exchanges, levels, mask)[:2]),  # type: ignore[arg-type]
    )
    codes = _without_graph(exchange_levels(exchanges, levels, mask))  # type: ignore[arg-type]
    yield _part("the budgets of all levels, from codes", model, partial(_activations, exchanges, codes, mask))
    codes = _without_graph(codes)
    yield _part("InterCAD", model, lambda: [clcr.aggregation(codes, mask).fused])
    outputs, aggregate = _without_graph(codes).outputs(), _detached(clcr.aggregation(codes, mask))

    def losses() -> list[Tensor]:
        correlations = model.intra_loss.correlations(outputs, mask)
        return [model.intra_loss.terms(correlations).total, model.inter_loss.terms(correlations, aggregate, True).total]

    yield _part("the regularisers", model, losses)
    layer = _exchange()
    yield _part("IntraCED by itself", layer, partial(_exchanged, layer, _tokens()))


def _exchange() -> IntraCED:
    return IntraCED(128, tuple(WIDTHS), shared_rank=48, private_rank=32)


def _tokens() -> dict[str, Tensor]:
    return {name: torch.randn(BATCH, LENGTH, 128, requires_grad=True) for name in WIDTHS}


def _exchanged(layer: nn.Module, tokens: dict[str, Tensor]) -> list[Tensor]:
    """Returns the tokens and streams of all modalities."""
    return [values for field in layer(tokens)[:3] for values in field.values()]


def _activations(exchanges: Sequence[IntraCED], codes: LevelCodes, mask: dict[str, Tensor]) -> list[Tensor]:
    evidence = codes.packing.rows(torch.linalg.vector_norm(codes.shared, dim=-1))
    real = torch.stack([*mask.values()], dim=1)
    return [activation_of_levels([exchange.budget for exchange in exchanges], evidence, real)]


def _without_graph(codes: LevelCodes) -> LevelCodes:
    """Returns codes and bases without the graph that computed them."""
    shared, private = map(_leaf, (codes.shared, codes.private))
    bases = Bases(*map(_leaf, codes.bases))
    return codes._replace(shared=shared, private=private, activation=codes.activation.detach(), bases=bases)


def _detached(aggregate: InterCADOutput) -> InterCADOutput:
    """Returns the aggregate without the graph that computed it."""
    return InterCADOutput(*map(_leaf, aggregate))


def _leaf(values: Tensor) -> Tensor:
    return values.detach().requires_grad_()


def _values(levels: Sequence[dict[str, Tensor]]) -> list[Tensor]:
    return [values for level in levels for values in level.values()]


def _part(what: str, model: nn.Module, outputs: Callable[[], list[Tensor]]) -> Launches:
    model.zero_grad()  # as in a step, so that no gradient is added to another
    kept: list[list[Tensor]] = []
    forward = launches_in(lambda: kept.append(outputs()))
    grads = [torch.ones_like(output) for output in kept[0]]
    return Launches(what, forward, launches_in(lambda: torch.autograd.backward(kept[0], grads)))


def measure_compiled() -> Iterator[CompiledStep]:
    """Counts the calls of compiled steps of the same models, and of one exchange by itself."""
    torch.manual_seed(0)
    for name, model, loss in _losses():
        yield compiled_step(name, model, loss)
    tokens = _tokens()
    yield compiled_step("IntraCED by itself", _exchange(), lambda layer: torch.stack(_exchanged(layer, tokens)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiled", action="store_true", help="count the calls of compiled steps")
    if parser.parse_args().compiled:
        print(compiled_table(list(measure_compiled())))
        return
    print(table(measure()))
    print(f"Most frequent in forward and backward of CLCR: {most_frequent()}.")


if __name__ == "__main__":
    main()
