"""InterCAD: weights, absent modalities, padding, order, and independence of the shared output from private content."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from multifuse import InterCAD
from multifuse.layers import InterCADOutput, IntraCEDOutput
from tests.batches import Sizes, Tokens, batch, exchange, padded, sizes

SIZES = Sizes(4, 12, 4, 4, 2, {"text": 5, "vision": 3, "audio": 1})


def levels_of(drawn: Sizes, tokens: Tokens, mask: Tokens, count: int) -> list[IntraCEDOutput]:
    layer = exchange(drawn)
    return [layer({name: values * (level + 1) for name, values in tokens.items()}, mask) for level in range(count)]


def untrained(drawn: Sizes, levels: int = 2, **options: float) -> InterCAD:
    torch.manual_seed(2)
    return InterCAD(drawn.dim, drawn.modalities, num_levels=levels, **options).eval()  # type: ignore[arg-type]


def aggregation(drawn: Sizes, levels: int = 2, **options: float) -> InterCAD:
    """Returns a layer whose weights depend on its input, as after training: all of them start uniform."""
    layer = untrained(drawn, levels, **options)
    for linear in (layer.level_scorer[-1], layer.query, layer.gate_score):
        nn.init.normal_(linear.weight)  # type: ignore[arg-type]
    return layer


def assert_close(ours: InterCADOutput, expected: InterCADOutput, tolerance: float = 1e-4) -> None:
    for field, first, second in zip(ours._fields, ours, expected, strict=True):
        assert torch.allclose(first, second, atol=tolerance), field


@given(sizes(), st.integers(1, 4))
def test_weights_are_distributions_and_shapes_are_as_documented(drawn: Sizes, count: int) -> None:
    tokens, mask = batch(drawn)
    output = aggregation(drawn, count)(levels_of(drawn, tokens, mask, count), mask)
    b, d, m = drawn.batch, drawn.dim, len(drawn.modalities)
    assert output.fused.shape == (b, 2 * d)
    assert torch.equal(output.fused, torch.cat([output.shared, output.private], -1))
    assert output.level_descriptors.shape == (b, count, d)
    assert output.private_gates.shape == (b, m)
    assert torch.allclose(output.level_weights.sum(-1), torch.ones(b), atol=1e-5)
    assert torch.allclose(output.modality_weights.sum(-1), torch.ones(b), atol=1e-5)
    assert ((output.private_gates > 0) & (output.private_gates < 1)).all()


@given(sizes(min_modalities=2))
def test_an_absent_modality_equals_one_left_out(drawn: Sizes) -> None:
    layer = aggregation(drawn)
    tokens, mask = batch(drawn)
    absent = drawn.modalities[-1]
    mask[absent] = torch.zeros_like(mask[absent])
    without = {name: values for name, values in tokens.items() if name != absent}
    masked = layer(levels_of(drawn, tokens, mask, 2), mask)
    assert_close(masked, layer(levels_of(drawn, without, mask, 2), mask), 1e-5)
    assert not masked.modality_weights[:, -1].any()
    assert not masked.private_gates[:, -1].any()


@given(sizes(), st.integers(1, 4))
def test_padding_changes_nothing(drawn: Sizes, extra: int) -> None:
    layer = aggregation(drawn)
    tokens, mask = batch(drawn)
    longer, masks = padded(tokens, mask, extra, 1e3)
    assert_close(layer(levels_of(drawn, longer, masks, 2), masks), layer(levels_of(drawn, tokens, mask, 2), mask))


@given(sizes())
def test_samples_do_not_affect_each_other(drawn: Sizes) -> None:
    layer = aggregation(drawn)
    tokens, mask = batch(drawn)
    together = layer(levels_of(drawn, tokens, mask, 2), mask)
    first, first_mask = ({n: v[:1] for n, v in values.items()} for values in (tokens, mask))
    assert_close(layer(levels_of(drawn, first, first_mask, 2), first_mask), InterCADOutput(*(v[:1] for v in together)))


def test_reordering_the_modalities_reorders_the_columns() -> None:
    tokens, mask = batch(SIZES)
    levels = levels_of(SIZES, tokens, mask, 2)
    layer = aggregation(SIZES)
    permuted = InterCAD(SIZES.dim, ("audio", "text", "vision"), num_levels=2).eval()
    permuted.load_state_dict(layer.state_dict())
    ours, reordered = layer(levels, mask), permuted(levels, mask)
    assert torch.allclose(reordered.fused, ours.fused, atol=1e-5)
    assert torch.allclose(reordered.modality_weights, ours.modality_weights[:, [2, 0, 1]], atol=1e-5)
    assert torch.allclose(reordered.private_gates, ours.private_gates[:, [2, 0, 1]], atol=1e-5)


def test_private_content_affects_the_shared_output_only_through_the_level_weights() -> None:
    tokens, mask = batch(SIZES)
    levels = levels_of(SIZES, tokens, mask, 2)
    moved = [level._replace(private={n: v + 3 for n, v in level.private.items()}) for level in levels]
    uniform = aggregation(SIZES, level_floor=1.0)  # level weights fixed, everything else adaptive
    assert torch.equal(uniform(moved, mask).shared, uniform(levels, mask).shared)
    assert not torch.equal(uniform(moved, mask).private, uniform(levels, mask).private)


def test_initial_weights_are_uniform_unless_the_last_level_is_preferred() -> None:
    """What has more weight by chance, before it has been weighed, keeps it."""
    tokens, mask = batch(SIZES)
    output = untrained(SIZES, 3)(levels_of(SIZES, tokens, mask, 3), mask)
    assert_weights(output.level_weights, [1 / 3] * 3)
    assert_weights(output.modality_weights, [1 / 3] * 3)
    assert_weights(output.private_gates, [0.5] * 3)
    last = untrained(SIZES, 3, init_last_level=0.9)(levels_of(SIZES, tokens, mask, 3), mask)
    assert_weights(last.level_weights, [0.05, 0.05, 0.9])


@pytest.mark.parametrize("field", ["level_weights", "modality_weights", "private_gates"])
def test_an_optimiser_that_pushes_one_weight_does_not_collapse_it_in_the_first_steps(field: str) -> None:
    """A logit that sums 128 features moves by 128 learning rates a step if it is not scaled; beta's even faster."""
    wide = Sizes(32, 128, 24, 16, 2, {"text": 5, "vision": 3, "audio": 2})
    tokens, mask = batch(wide)
    layer = untrained(wide, 3)
    with torch.no_grad():
        levels = levels_of(wide, tokens, mask, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    start = getattr(layer(levels, mask), field)[:, 0].mean().item()
    for _ in range(40):
        optimizer.zero_grad()
        (-getattr(layer(levels, mask), field)[:, 0].mean()).backward()
        optimizer.step()
    pushed = getattr(layer(levels, mask), field)[:, 0].mean().item()
    assert start < pushed < start + 0.35


def assert_weights(weights: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(weights, torch.tensor(expected).expand_as(weights))


def test_without_adaptive_weights_the_weights_are_uniform_and_the_gates_one() -> None:
    tokens, mask = batch(SIZES)
    mask["vision"][0] = False
    output = aggregation(SIZES, adaptive=False)(levels_of(SIZES, tokens, mask, 2), mask)
    assert torch.allclose(output.level_weights, torch.full((4, 2), 0.5))
    assert torch.allclose(output.modality_weights[0], torch.tensor([0.5, 0.0, 0.5]))
    assert torch.allclose(output.modality_weights[1], torch.full((3,), 1 / 3))
    assert torch.equal(output.private_gates[0], torch.tensor([1.0, 0.0, 1.0]))


def test_a_floor_is_divided_among_the_present_modalities() -> None:
    tokens, mask = batch(SIZES)
    mask["vision"][0] = False
    output = aggregation(SIZES, modality_floor=0.6, level_floor=0.5)(levels_of(SIZES, tokens, mask, 2), mask)
    assert output.modality_weights[0, 1] == 0
    assert (output.modality_weights[0, [0, 2]] >= 0.3 - 1e-6).all()
    assert (output.modality_weights[1] >= 0.2 - 1e-6).all()
    assert torch.allclose(output.modality_weights.sum(-1), torch.ones(4))
    assert (output.level_weights >= 0.25 - 1e-6).all()


def test_a_low_temperature_sharpens_the_weights() -> None:
    tokens, mask = batch(SIZES)
    levels = levels_of(SIZES, tokens, mask, 2)
    plain, sharp = aggregation(SIZES)(levels, mask), aggregation(SIZES, modality_temperature=0.1)(levels, mask)
    assert (sharp.modality_weights.amax(-1) > plain.modality_weights.amax(-1)).all()


def test_a_sample_without_any_modality_stays_finite() -> None:
    tokens, mask = batch(SIZES)
    for real in mask.values():
        real[0] = False
    layer = aggregation(SIZES)
    output = layer(levels_of(SIZES, tokens, mask, 2), mask)
    output.fused.square().sum().backward()
    assert all(value.isfinite().all() for value in output)
    assert not output.fused[0].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def test_bad_arguments_are_named() -> None:
    tokens, mask = batch(SIZES)
    levels = levels_of(SIZES, tokens, mask, 2)
    with pytest.raises(ValueError, match="levels must hold 2 levels, got 1"):
        aggregation(SIZES)(levels[:1], mask)
    with pytest.raises(ValueError, match=r"levels\[1\] has modalities"):
        aggregation(SIZES)([levels[0], levels_of(SIZES, {"text": tokens["text"]}, mask, 1)[0]], mask)
    codes = [level._replace(tokens={}, shared={}, private={}) for level in levels]
    with pytest.raises(ValueError, match=r"levels\[0\] must hold the streams of width 12, holds codes only"):
        aggregation(SIZES)(codes, mask)
    # As many tokens in all at both levels, so that nothing else would notice.
    moved = levels_of(SIZES, {**tokens, "text": tokens["text"][:, :3], "vision": tokens["text"]}, {}, 1)
    with pytest.raises(ValueError, match=r"tokens of 'text': levels\[1\] has \(batch, tokens\) \(4, 3\), levels\[0\]"):
        aggregation(SIZES)([levels[0], *moved])
    with pytest.raises(ValueError, match="level_temperature must be finite and > 0, got 0"):
        aggregation(SIZES, level_temperature=0)
    with pytest.raises(ValueError, match=r"modality_floor must be in \[0.0, 1.0\], got 1.5"):
        aggregation(SIZES, modality_floor=1.5)


def test_float64_is_aggregated_in_float64() -> None:
    small = Sizes(2, 5, 2, 2, 1, {"text": 2, "audio": 1})
    layer, tokens = aggregation(small).double(), batch(small)[0]
    exchanged = exchange(small).double()

    def aggregated(*values: Tensor) -> tuple[Tensor, ...]:
        output = exchanged(dict(zip(tokens, values, strict=True)))
        return tuple(layer([output, output]))

    inputs = [values.double().requires_grad_() for values in tokens.values()]
    assert {field.dtype for field in aggregated(*inputs)} == {torch.float64}
    assert torch.autograd.gradcheck(aggregated, inputs)
