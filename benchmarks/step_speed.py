"""Compares a training step of CLCR at the sizes of MOSI with those of other models, and measures its parts."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.peers import Projected, Transformer
from benchmarks.timing import Comparison, in_turns
from multifuse import CLCRConfig, CLCRForPrediction, IntraCED
from multifuse._internal.checks import Tokens
from multifuse.baselines.cross_attention import CrossAttention
from multifuse.baselines.late import LateFusion
from multifuse.layers.stiefel import Bases, bases_of_levels
from multifuse.layers.token_budget import activation_of_levels
from multifuse.losses.streams import measure
from multifuse.recipes.jobs.models import model_class

BATCH, LENGTH, WIDTHS = 64, 50, {"text": 768, "vision": 20, "audio": 5}
ABLATIONS: dict[str, dict[str, object]] = {
    "no hierarchy": {"use_hierarchy": False},
    "no IntraCED": {"use_intra_ced": False},
    "no InterCAD": {"use_inter_cad": False},
    "no regularisers": {"lambda_intra": 0.0, "lambda_inter": 0.0},
}


def compare(seconds: float) -> Iterator[Comparison]:
    """Compares the step with other models and with ablations, its parts with the step, and the exchange with torch."""
    inputs, labels = _batch()
    model = _clcr()
    functions = {"ours": sgd_step(model, lambda: loss_of(model, inputs, labels))}
    for name, peer in {
        "a 2-layer transformer": Transformer(WIDTHS),
        "cross-modal nn.MultiheadAttention": Projected(WIDTHS, CrossAttention),
        "late fusion": Projected(WIDTHS, LateFusion),
    }.items():
        functions[name] = _peer_step(peer, inputs, labels)
    for name, changes in ABLATIONS.items():
        functions[f"CLCR, {name}"] = _ablated_step(changes, inputs, labels)
    parts = {
        "StiefelProjector and whitening losses": _projector_and_losses(model, inputs),
        "the token budgets": _budgets(model),
    }
    times = in_turns({**functions, **parts}, 4 * seconds)
    for name in list(functions)[1:]:
        target = 0.55 if name == "a 2-layer transformer" else None
        yield Comparison("CLCR's training step", name, times["ours"], times[name], target)
    for name in parts:
        target = 0.12 if name.startswith("Stiefel") else None
        yield Comparison(f"share of {name} in a step", "CLCR's step", times[name], times["ours"], target)
    yield _exchange(seconds)


def training_step() -> Callable[[], object]:
    """Returns one training step of the reference configuration at the sizes of MOSI."""
    inputs, labels = _batch()
    model = _clcr()
    return sgd_step(model, lambda: loss_of(model, inputs, labels))


def projector_and_losses(device: str = "cpu") -> Callable[[], object]:
    """Returns the part of that step that computes `StiefelProjector` and the whitening losses."""
    return _projector_and_losses(_clcr().to(device), {name: values.to(device) for name, values in _batch()[0].items()})


def budgets(device: str = "cpu") -> Callable[[], object]:
    """Returns the part of that step that computes all token budgets, from shared codes to alpha."""
    return _budgets(_clcr().to(device))


def _batch() -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(BATCH, LENGTH, width) for name, width in WIDTHS.items()}, torch.randn(BATCH)


def built(name: str, **changes: object) -> nn.Module:
    """Returns a model by its name in `MODELS`, with encoders of stored features at the sizes of MOSI."""
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in WIDTHS.items()}
    model: nn.Module = model_class(name)(CLCRConfig(modalities=modalities, **changes))  # type: ignore[arg-type]
    return model.train()


def _clcr(**changes: object) -> CLCRForPrediction:
    model = built("clcr", **changes)
    assert isinstance(model, CLCRForPrediction)
    return model


def loss_of(
    model: nn.Module, inputs: dict[str, Tensor], labels: Tensor, mask: dict[str, Tensor] | None = None
) -> Tensor:
    """Returns the loss of a training step."""
    loss: Tensor = model(inputs, mask, labels=labels).loss
    return loss


def sgd_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], object]:
    """Returns a function that takes a step with the gradient of a loss, by SGD with momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def _peer_step(peer: nn.Module, inputs: dict[str, Tensor], labels: Tensor) -> Callable[[], object]:
    return sgd_step(peer, lambda: nn.functional.l1_loss(peer(inputs)[:, 0], labels))


def _ablated_step(changes: dict[str, object], inputs: dict[str, Tensor], labels: Tensor) -> Callable[[], object]:
    model = _clcr(**changes)
    return sgd_step(model, lambda: loss_of(model, inputs, labels))


def _projector_and_losses(model: CLCRForPrediction, inputs: dict[str, Tensor]) -> Callable[[], object]:
    """Returns a call of the bases of all levels and both regularisers, forward and backward, for given codes."""
    projectors = [exchange.projector for exchange in model.clcr.exchanges if isinstance(exchange, IntraCED)]
    with torch.no_grad():
        encoded = model.clcr(inputs)
    assert encoded.levels is not None
    levels = [
        level._replace(
            shared_code={name: code.clone().requires_grad_() for name, code in level.shared_code.items()},
            private_code={name: code.clone().requires_grad_() for name, code in level.private_code.items()},
        )
        for level in encoded.levels
    ]
    names = model.clcr.hierarchy.modalities
    inputs_of_losses = [
        code for level in levels for code in (*level.shared_code.values(), *level.private_code.values())
    ]
    weights = [weight for projector in projectors for weight in projector.parameters()]

    def call() -> None:
        bases = bases_of_levels(projectors)
        correlations = measure(levels, {}, names, model.config.eps, True, False)
        losses = model.intra_loss.terms(correlations).total
        losses = losses + model.inter_loss.terms(correlations, encoded.aggregate, False).total
        total = losses + bases.shared.sum() + bases.private.sum()
        torch.autograd.grad(total, [*inputs_of_losses, *weights])

    return call


def _budgets(model: CLCRForPrediction) -> Callable[[], object]:
    """Returns a call of the token budgets of all levels, from shared codes to alpha, forward and backward."""
    budgets = [exchange.budget for exchange in model.clcr.exchanges if isinstance(exchange, IntraCED)]
    size = len(budgets), BATCH, len(WIDTHS), LENGTH, model.config.shared_rank
    codes = torch.randn(size, device=model.device, requires_grad=True)
    inputs = [codes, *(weight for budget in budgets for weight in budget.parameters())]

    def call() -> None:
        alpha = activation_of_levels(budgets, torch.linalg.vector_norm(codes, dim=-1), None)
        torch.autograd.grad(alpha, inputs, torch.ones_like(alpha))

    return call


def _exchange(seconds: float) -> Comparison:
    """Compares IntraCED, given its bases, with an `nn.MultiheadAttention` for the same cross-attentions on codes."""
    names, rank = tuple(WIDTHS), 48
    layer = IntraCED(128, names, shared_rank=rank, private_rank=32)
    attention = nn.MultiheadAttention(rank, layer.num_heads, batch_first=True)
    tokens = {name: torch.randn(BATCH, LENGTH, 128, requires_grad=True) for name in names}
    codes = {name: torch.randn(BATCH, LENGTH, rank, requires_grad=True) for name in names}
    bases = Bases(*(basis.detach() for basis in layer.projector.bases()))

    present = {name: Tokens(values, None) for name, values in tokens.items()}

    def ours() -> None:
        output = layer.with_bases(tokens, present, bases)
        torch.stack([sum_of(streams) for streams in (output.tokens, output.shared, output.private)]).sum().backward()

    def theirs() -> None:
        outputs = {}
        for name in names:
            others = torch.cat([codes[other] for other in names if other != name], dim=1)
            outputs[name] = attention(codes[name], others, others, need_weights=False)[0]
        sum_of(outputs).backward()

    times = in_turns({"ours": ours, "theirs": theirs}, seconds)
    return Comparison(
        "IntraCED, forward + backward", "nn.MultiheadAttention on the codes", times["ours"], times["theirs"], 1.0
    )


def sum_of(streams: dict[str, Tensor]) -> Tensor:
    return torch.stack([stream.sum() for stream in streams.values()]).sum()
