"""IntraCED: the invariants of the exchange, as properties of random sizes, weights and masks."""

from inspect import signature
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import multi_head_attention_forward

from multifuse import IntraCED
from multifuse.layers import IntraCEDOutput
from tests.batches import Sizes, batch, exchange, padded, sizes

SIZES = Sizes(3, 14, 6, 5, 2, {"text": 5, "vision": 7, "audio": 1})


def assert_close(ours: IntraCEDOutput, expected: IntraCEDOutput, tolerance: float = 1e-4) -> None:
    for field, first, second in zip(ours._fields, ours, expected, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert torch.allclose(first[name], second[name], atol=tolerance), (field, name)


@given(sizes(min_modalities=2), st.floats(-100, 100))
def test_private_content_does_not_leak(drawn: Sizes, size: float) -> None:
    layer = exchange(drawn)
    tokens, mask = batch(drawn)
    before = layer(tokens, mask)
    for name in drawn.modalities:
        direction = torch.randn(drawn.batch, drawn.lengths[name], drawn.private_rank)
        moved = tokens[name] + size * direction @ layer.projector.private_basis(name).mT
        after = layer({**tokens, name: moved}, mask)
        tolerance = 2e-5 * (1 + abs(size))
        for other in drawn.modalities:
            assert torch.allclose(after.shared[other], before.shared[other], atol=tolerance)
            assert torch.allclose(after.activation[other], before.activation[other], atol=10 * tolerance)
            if other != name:
                assert torch.allclose(after.tokens[other], before.tokens[other], atol=tolerance)


@given(sizes(), st.integers(1, 5), st.sampled_from([0.0, 1e4, float("inf"), float("nan")]))
def test_padding_changes_nothing(drawn: Sizes, extra: int, fill: float) -> None:
    layer = exchange(drawn)
    tokens, mask = batch(drawn)
    plain, longer = layer(tokens, mask), layer(*padded(tokens, mask, extra, fill))
    for first, second in zip(plain, longer, strict=True):
        for name in first:
            assert torch.allclose(first[name], second[name][:, : drawn.lengths[name]], atol=1e-4)


@given(sizes())
def test_tokens_at_padding_are_the_input_and_streams_are_zero(drawn: Sizes) -> None:
    tokens, mask = batch(drawn)
    output = exchange(drawn)(tokens, mask)
    for name in drawn.modalities:
        assert torch.equal(output.tokens[name][~mask[name]], tokens[name][~mask[name]])
        for stream in output[1:]:
            assert not stream[name][~mask[name]].any()


@given(sizes())
def test_samples_do_not_affect_each_other(drawn: Sizes) -> None:
    layer = exchange(drawn)
    tokens, mask = batch(drawn)
    together = layer(tokens, mask)
    for row in range(drawn.batch):
        single = layer({n: v[row : row + 1] for n, v in tokens.items()}, {n: m[row : row + 1] for n, m in mask.items()})
        assert_close(single, IntraCEDOutput(*({n: v[row : row + 1] for n, v in f.items()} for f in together)))


@given(sizes(min_modalities=2))
def test_an_absent_modality_equals_one_left_out(drawn: Sizes) -> None:
    layer = exchange(drawn)
    tokens, mask = batch(drawn)
    absent = drawn.modalities[0]
    without = layer({n: v for n, v in tokens.items() if n != absent}, {n: m for n, m in mask.items() if n != absent})
    as_none = layer({**tokens, absent: None}, {**mask, absent: None})
    masked = layer(tokens, {**mask, absent: torch.zeros_like(mask[absent])})
    assert_close(as_none, without, 0.0)
    for first, second in zip(masked, without, strict=True):
        for name in second:
            assert torch.allclose(first[name], second[name], atol=1e-5)
    assert torch.equal(masked.tokens[absent], tokens[absent])


def test_an_absent_modality_receives_no_gradient_and_others_are_finite() -> None:
    layer = exchange(SIZES)
    tokens, mask = batch(SIZES)
    tokens["vision"].requires_grad_()
    mask["vision"][1] = False
    mask["text"][1] = False
    output = layer(tokens, mask)
    torch.stack([output.shared[n].square().sum() for n in SIZES.modalities]).sum().backward()
    grad = tokens["vision"].grad
    assert grad is not None
    assert grad.isfinite().all()
    assert not grad[1].any()
    assert grad[0].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@given(sizes(), st.randoms(use_true_random=False))
def test_reordering_the_modalities_reorders_the_output(drawn: Sizes, random: Random) -> None:
    layer = exchange(drawn)
    order = list(drawn.modalities)
    random.shuffle(order)
    other = exchange(drawn._replace(lengths={name: drawn.lengths[name] for name in order}))
    state = layer.state_dict()
    indices = [drawn.modalities.index(name) for name in order]
    state["projector.private_weight"] = state["projector.private_weight"][indices]
    other.load_state_dict(state)
    tokens, mask = batch(drawn)
    assert_close(other({n: tokens[n] for n in order}, mask), layer(tokens, mask))


@given(sizes())
def test_gamma_zero_is_the_identity(drawn: Sizes) -> None:
    tokens, mask = batch(drawn)
    output = exchange(drawn, gamma=0.0)(tokens, mask)
    for name in drawn.modalities:
        assert torch.equal(output.tokens[name], tokens[name])
        assert not output.activation[name].any()


@given(sizes())
def test_content_outside_both_subspaces_affects_only_the_tokens(drawn: Sizes) -> None:
    layer = exchange(drawn)
    tokens, mask = batch(drawn)
    name = drawn.modalities[0]
    shared, private = layer.projector.shared_basis, layer.projector.private_basis(name)
    noise = torch.randn(drawn.dim)
    outside = noise - shared @ (shared.mT @ noise) - private @ (private.mT @ noise)
    moved = layer({**tokens, name: tokens[name] + outside}, mask)
    plain = layer(tokens, mask)
    assert torch.allclose(moved.tokens[name], plain.tokens[name] + outside, atol=1e-4)
    for field in plain._fields[1:]:
        for other in drawn.modalities:
            assert torch.allclose(getattr(moved, field)[other], getattr(plain, field)[other], atol=1e-3)


@given(sizes(max_modalities=3))
def test_streams_are_their_codes_in_the_ambient_space(drawn: Sizes) -> None:
    layer = exchange(drawn)
    tokens, mask = batch(drawn)
    output = layer(tokens, mask)
    for name in drawn.modalities:
        shared_basis, private_basis = layer.projector.shared_basis, layer.projector.private_basis(name)
        assert torch.allclose(output.shared[name], output.shared_code[name] @ shared_basis.mT, atol=1e-5)
        assert torch.allclose(output.private[name], output.private_code[name] @ private_basis.mT, atol=1e-5)
        update = output.tokens[name] - tokens[name]
        projected = update @ shared_basis @ shared_basis.mT
        assert torch.allclose(projected, update, atol=1e-4), "the exchange left the shared subspace"


def test_the_exchange_matches_torchs_multi_head_attention_on_the_shared_codes() -> None:
    two_modalities = Sizes(2, 12, 8, 4, 4, {"text": 5, "audio": 3})
    layer = exchange(two_modalities)
    tokens, mask = batch(two_modalities)
    output = layer(tokens, mask)
    codes = layer.projector(tokens).shared
    expected, _ = multi_head_attention_forward(
        codes["text"].transpose(0, 1),
        codes["audio"].transpose(0, 1),
        codes["audio"].transpose(0, 1),
        embed_dim_to_check=8,
        num_heads=4,
        in_proj_weight=layer.query_key_value.weight,
        in_proj_bias=layer.query_key_value.bias,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=layer.output.weight,
        out_proj_bias=layer.output.bias,
        training=False,
        key_padding_mask=~mask["audio"],
    )
    update = output.activation["text"].unsqueeze(-1) * expected.transpose(0, 1)
    ours = output.shared_code["text"] - codes["text"] * mask["text"].unsqueeze(-1)
    assert torch.allclose(ours, update, atol=1e-5)


def test_a_single_modality_passes_unchanged() -> None:
    tokens, mask = batch(SIZES)
    output = exchange(SIZES)({"text": tokens["text"]}, mask)
    assert torch.equal(output.tokens["text"], tokens["text"])


def test_compiles_as_one_graph() -> None:
    layer = exchange(SIZES)
    tokens, mask = batch(SIZES)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_close(compiled(tokens, mask), layer(tokens, mask), 1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_training_saves_no_tensor_as_large_as_the_attention_weights(masked: bool) -> None:
    length = 256
    layer = IntraCED(8, ("one", "other"), shared_rank=4, private_rank=2, num_heads=2, dropout=0.1).train()
    tokens = {name: torch.randn(2, length, 8, requires_grad=True) for name in layer.modalities}
    mask = {name: torch.rand(2, length) < 0.8 for name in layer.modalities} if masked else None
    saved_sizes: list[int] = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        saved_sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        layer(tokens, mask)
    assert len(saved_sizes) > 10
    assert max(saved_sizes) < length * length


def test_dropout_of_everything_closes_the_exchange() -> None:
    layer = IntraCED(8, ("one", "other"), shared_rank=4, private_rank=2, num_heads=2, dropout=1.0)
    tokens = {name: torch.randn(2, 5, 8) for name in layer.modalities}
    assert torch.equal(layer.train()(tokens).tokens["one"], tokens["one"])
    assert not torch.equal(layer.eval()(tokens).tokens["one"], tokens["one"])


def test_the_meta_device_and_empty_batches_are_supported() -> None:
    tokens, _ = batch(SIZES)
    on_meta = exchange(SIZES).to("meta")({name: values.to("meta") for name, values in tokens.items()})
    assert on_meta.tokens["text"].shape == tokens["text"].shape
    empty = exchange(SIZES)({name: values[:0] for name, values in tokens.items()})
    assert empty.tokens["text"].shape == (0, 5, 14)
    no_audio_tokens = exchange(SIZES)({**tokens, "audio": tokens["audio"][:, :0]})
    without = exchange(SIZES)({name: tokens[name] for name in ("text", "vision")})
    assert torch.allclose(no_audio_tokens.tokens["text"], without.tokens["text"], atol=1e-5)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_heads must divide shared_rank, got num_heads=4, shared_rank=6"):
        IntraCED(16, ("text",), shared_rank=6, private_rank=4, num_heads=4)
    with pytest.raises(ValueError, match=r"dropout must be in \[0.0, 1.0\], got 2"):
        IntraCED(16, ("text",), shared_rank=4, private_rank=4, dropout=2)
    layer = exchange(SIZES)
    tokens, mask = batch(SIZES)
    with pytest.raises(ValueError, match=r"\['smell'\]; this module knows \['text', 'vision', 'audio'\]"):
        layer({"smell": tokens["text"]})
    with pytest.raises(ValueError, match="at least one of the modalities"):
        layer({})
    with pytest.raises(ValueError, match=r"mask\['text'\] must have shape \(3, 5\), got \(3, 4\)"):
        layer(tokens, {"text": mask["text"][:, :4]})
    with pytest.raises(ValueError, match=r"mask\['text'\] must be bool, .* got torch.int64 with the values 2$"):
        layer(tokens, {"text": 2 * mask["text"].long()})
    with pytest.raises(ValueError, match="batch size 2, the modalities before it 3"):
        layer({**tokens, "audio": tokens["audio"][:2]})


WIDTHS = {"text": 12, "keys": 20, "image": 7}


def between(**options: Any) -> IntraCED:
    torch.manual_seed(0)
    return IntraCED(WIDTHS, **{"common_dim": 16, "num_heads": 2, **options})


def test_tokens_of_different_widths_leave_in_their_own_and_streams_in_the_common_one() -> None:
    layer = between()
    tokens = {name: torch.randn(3, 4, width) for name, width in WIDTHS.items()}
    output = layer(tokens)
    assert {name: tuple(values.shape) for name, values in output.tokens.items()} == {
        name: (3, 4, width) for name, width in WIDTHS.items()
    }
    assert all(values.shape == (3, 4, 16) for values in output.shared.values())
    assert all(not torch.equal(output.tokens[name], tokens[name]) for name in WIDTHS)
    sum(values.sum() for values in output.tokens.values()).backward()  # type: ignore[union-attr]
    assert layer.adapters is not None
    assert all(weight.grad is not None and weight.grad.any() for weight in layer.adapters.parameters())


def test_padding_changes_nothing_in_layers_with_adapters() -> None:
    layer, mask = between(), torch.tensor([[True, True, False], [True, False, False]])
    tokens = {name: torch.randn(2, 3, width) for name, width in WIDTHS.items()}
    noisy = {name: values + 100 * ~mask.unsqueeze(-1) for name, values in tokens.items()}
    masks = dict.fromkeys(WIDTHS, mask)
    before, after = layer(tokens, masks), layer(noisy, masks)
    for name in WIDTHS:
        torch.testing.assert_close(before.tokens[name][mask], after.tokens[name][mask])
        torch.testing.assert_close(before.activation[name], after.activation[name])


@pytest.mark.parametrize("dim", [16, WIDTHS])
def test_an_identity_start_returns_every_token_as_it_came_and_can_leave_it(dim: Any) -> None:
    layer = IntraCED(dim, tuple(WIDTHS), init="identity", num_heads=2)
    tokens = {name: torch.randn(3, 4, layer.widths[name]) for name in WIDTHS}
    output = layer(tokens)
    for name, values in tokens.items():
        assert torch.equal(output.tokens[name], values)
    torch.stack([values.sum() for values in output.tokens.values()]).sum().backward()
    assert layer.output.weight.grad is not None
    assert layer.output.weight.grad.any()


@pytest.mark.parametrize("length", [1, 4])
def test_a_vector_is_one_token_that_receives_all_of_what_the_budget_lets_a_sequence_receive_in_part(
    length: int,
) -> None:
    layer = between().eval()
    tokens = {"text": torch.randn(3, length, 12), "image": torch.randn(3, 7)}
    as_vector, as_token = layer(tokens), layer({**tokens, "image": tokens["image"].unsqueeze(1)})
    assert as_vector.tokens["image"].shape == (3, 7)
    assert torch.equal(as_vector.activation["image"], torch.ones(3, 1))
    torch.testing.assert_close(as_token.activation["image"], torch.full((3, 1), 0.68))
    whole, part = (given.tokens["image"].view(3, 7) - tokens["image"] for given in (as_vector, as_token))
    torch.testing.assert_close(whole * as_token.activation["image"], part)
    torch.testing.assert_close(as_vector.tokens["text"], as_token.tokens["text"])


def test_a_vector_takes_no_part_if_it_is_masked_or_gamma_is_0_and_its_budget_has_a_gradient_of_0() -> None:
    tokens = {"text": torch.randn(2, 12), "image": torch.randn(2, 7)}
    layer = between().train()
    output = layer(tokens, {"image": torch.tensor([[True], [False]])})
    assert output.activation["image"].tolist() == [[1.0], [0.0]]
    without_tokens = layer(tokens, {"image": torch.tensor([True, False])})
    assert torch.equal(without_tokens.tokens["text"], output.tokens["text"])
    torch.stack([values.sum() for values in output.tokens.values()]).sum().backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in layer.budget.parameters())
    assert not between(gamma=0.0)(tokens).activation["image"].any()


def test_default_ranks_are_the_shares_of_the_reference_configuration() -> None:
    expected = ((128, 4, (48, 32)), (64, 4, (24, 16)), (100, 4, (36, 25)), (4, 1, (1, 1)), (8, 4, (4, 2)))
    for dim, heads, ranks in expected:
        layer = IntraCED(dim, ("a", "b"), num_heads=heads)
        assert (layer.shared_rank, layer.private_rank) == ranks
    assert IntraCED({"a": 30, "b": 24}).dim == 24


def test_widths_and_modalities_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="modalities must be given, unless dim has widths by modality, got dim=16"):
        IntraCED(16)
    with pytest.raises(ValueError, match=r"modalities must be those of dim, \['text', 'keys', 'image'\], got"):
        IntraCED(WIDTHS, ("text",))
    with pytest.raises(ValueError, match=r"dim\['a'\] must be an integer >= 1, got 0"):
        IntraCED({"a": 0, "b": 3})
    with pytest.raises(ValueError, match="common_dim is only for widths by modality, got common_dim=8 and dim=16"):
        IntraCED(16, ("a", "b"), common_dim=8)
    with pytest.raises(ValueError, match="num_heads=4 needs a width of 5 for the default ranks, got 4"):
        IntraCED(4, ("a", "b"))
    with pytest.raises(ValueError, match="init must be one of"):
        IntraCED(16, ("a", "b"), init="zero")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tokens\['image'\] must have shape \(batch, tokens, 7\), got \(3, 4, 12\)"):
        between()({"image": torch.randn(3, 4, 12)})


def test_a_printed_layer_shows_every_argument() -> None:
    arguments = set(signature(IntraCED).parameters) - {"dim", "modalities", "common_dim", "device", "dtype"}
    shown = between(init="identity").extra_repr()
    assert "common_dim=" in shown
    assert "init='identity'" in shown
    assert all(f"{name}=" in shown for name in arguments)
