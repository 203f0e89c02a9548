"""IntraCED and InterCAD against their equations, written out sample by sample, with every parameter drawn at random."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from multifuse import InterCAD, IntraCED
from multifuse.layers.exchange import IntraCEDOutput
from tests.reference import project_row

NAMES, DIM, HEADS, LEVELS = ("text", "vision", "audio"), 12, 2, 3
LENGTHS = {"text": 6, "vision": 1, "audio": 9}


def random_parameters(module: nn.Module) -> None:
    """Zeros and ones, with which modules start, would hide most of the equations."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "weight" not in name or parameter.ndim < 2 or not parameter.any():
                parameter.add_(0.3 * torch.randn_like(parameter))


def inputs(seed: int) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Returns tokens of all levels, and masks by which one sample lacks a modality and another one has nothing."""
    torch.manual_seed(seed)
    levels = [{name: torch.randn(5, length, DIM) for name, length in LENGTHS.items()} for _ in range(LEVELS)]
    mask = {name: torch.rand(5, length) < 0.7 for name, length in LENGTHS.items()}
    mask["text"][0] = False
    for of_modality in mask.values():
        of_modality[1] = False
    return levels, mask


def exchanged_sample(layer: IntraCED, tokens: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Returns the tokens, both streams and alpha of one sample, of which only the real tokens are given."""
    codes = {name: values @ layer.projector.shared_basis for name, values in tokens.items()}
    result = {}
    for name, values in tokens.items():
        basis = layer.projector.shared_basis
        evidence = codes[name].norm(dim=-1)
        deviation = evidence.var(unbiased=False).add((1e-4 * evidence.mean()) ** 2).sqrt()
        standard = (evidence - evidence.mean()) / deviation
        steepness = layer.budget.log_sharpness.exp()
        wanted = torch.sigmoid(steepness * (standard - layer.budget.threshold))
        budget = layer.budget.gamma * torch.sigmoid(layer.budget.participation_logit) * len(values)
        alpha = torch.from_numpy(project_row(wanted.numpy(), float(budget)))
        others = torch.cat([torch.zeros(0, layer.shared_rank), *(codes[m] for m in codes if m != name)])
        received = alpha.unsqueeze(-1) * attention(layer, codes[name], others)
        private = layer.projector.private_basis(name)
        result[name] = (
            values + received @ basis.T,
            (codes[name] + received) @ basis.T,
            values @ private @ private.T,
            alpha,
        )
    return result


def attention(layer: IntraCED, queries: Tensor, others: Tensor) -> Tensor:
    if not len(others):
        return torch.zeros_like(queries)
    weights = layer.query_key_value.weight.split(layer.shared_rank)
    biases = layer.query_key_value.bias.split(layer.shared_rank)
    query, key, value = (
        (given @ weight.T + bias).unflatten(-1, (HEADS, -1)).transpose(0, 1)
        for given, weight, bias in zip((queries, others, others), weights, biases, strict=True)
    )
    shares = torch.softmax(query @ key.mT / math.sqrt(layer.shared_rank // HEADS), dim=-1)
    attended: Tensor = layer.output((shares @ value).transpose(0, 1).flatten(1))
    return attended


def aggregated_sample(layer: InterCAD, streams: list[dict[str, tuple[Tensor, Tensor]]]) -> tuple[Tensor, Tensor]:
    """Returns ``z_sh (+) u_pr`` and omega of one sample, by the shared and private streams of its modalities."""

    def norm(values: Tensor, module: nn.LayerNorm) -> Tensor:
        return layer_norm(values, (DIM,), module.weight, module.bias, module.eps)

    names = list(streams[0])
    shared = {name: torch.stack([norm(of[name][0].mean(0), layer.shared_norm) for of in streams]) for name in names}
    private = {name: torch.stack([norm(of[name][1].mean(0), layer.private_norm) for of in streams]) for name in names}
    if not names:
        levels = torch.zeros(LEVELS, DIM)
    else:
        levels = torch.stack([shared[name] + private[name] for name in names]).mean(0)
    scores = layer.level_scorer(levels + layer.anchors).squeeze(-1) / math.sqrt(DIM) + layer.level_bias
    omega = torch.softmax(scores, dim=0)
    if not names:
        return torch.zeros(2 * DIM), omega
    shared_of = torch.stack([omega @ shared[name] for name in names])
    private_of = torch.stack([omega @ private[name] for name in names])
    beta = torch.softmax(layer.key(shared_of) @ layer.query(shared_of.mean(0)) / DIM, dim=0)
    gates = norm(layer.gate_projection(private_of), layer.gate_norm)
    eta = torch.sigmoid(layer.gate_score(gates).squeeze(-1) / math.sqrt(DIM))
    return torch.cat([beta @ layer.value(shared_of), eta @ private_of]), omega


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_the_layers_compute_their_equations(seed: int, gamma: float) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        levels, mask = inputs(seed)
        exchanges = [IntraCED(DIM, NAMES, shared_rank=4, private_rank=3, num_heads=HEADS, gamma=gamma) for _ in levels]
        aggregation = InterCAD(DIM, NAMES, num_levels=LEVELS)
        for module in (*exchanges, aggregation):
            random_parameters(module)
        with torch.no_grad():
            outputs = [exchange(tokens, mask) for exchange, tokens in zip(exchanges, levels, strict=True)]
            aggregate = aggregation(outputs, mask)
            for sample in range(5):
                streams = [
                    compared(exchange, tokens, mask, output, sample)
                    for exchange, tokens, output in zip(exchanges, levels, outputs, strict=True)
                ]
                fused, omega = aggregated_sample(aggregation, streams)
                torch.testing.assert_close(aggregate.fused[sample], fused, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(aggregate.level_weights[sample], omega, rtol=1e-9, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


def compared(
    exchange: IntraCED, tokens: Mapping[str, Tensor], mask: Mapping[str, Tensor], output: IntraCEDOutput, sample: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Compares one sample of a level with the equations, and returns its streams."""
    real = {name: mask[name][sample] for name in NAMES if mask[name][sample].any()}
    expected = exchanged_sample(exchange, {name: tokens[name][sample, kept] for name, kept in real.items()})
    for name, kept in real.items():
        fields = (output.tokens, output.shared, output.private, output.activation)
        for field, values in zip(fields, expected[name], strict=True):
            torch.testing.assert_close(field[name][sample, kept], values, rtol=1e-9, atol=1e-9)
    return {name: (values[1], values[2]) for name, values in expected.items()}
