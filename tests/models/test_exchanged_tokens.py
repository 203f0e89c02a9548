"""The exchanged tokens of a CLCR model: their weights, their mask, and what may not reach them."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multifuse import CLCRConfig, CLCRModel
from multifuse.layers.inter_cad import InterCADOutput
from multifuse.models.exchanged_tokens import token_memory
from tests.sizes import SMALL_SIZES

WIDTHS = {"text": 5, "audio": 3, "keys": 2}
Inputs = dict[str, Tensor]


def model(**options: Any) -> CLCRModel:
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in WIDTHS.items()}
    network: CLCRModel = CLCRModel(CLCRConfig(modalities=modalities, **{**SMALL_SIZES, **options})).eval()
    with torch.no_grad():  # weights that differ from sample to sample
        for layer in (network.aggregation.level_scorer[-1], network.aggregation.query):
            torch.nn.init.normal_(layer.weight, std=20.0)  # type: ignore[arg-type]
    return network


def batch(size: int, lengths: tuple[int, int, int], seed: int = 0) -> tuple[Inputs, Inputs]:
    generator = torch.Generator().manual_seed(seed)
    inputs, mask = {}, {}
    for (name, width), length in zip(WIDTHS.items(), lengths, strict=True):
        inputs[name] = torch.randn(size, length, width, generator=generator)
        mask[name] = torch.arange(length) < torch.randint(length + 1, (size, 1), generator=generator)
    mask["text"][:, 0] = True
    return inputs, mask


def memory(network: CLCRModel, inputs: Any, mask: Any) -> tuple[Tensor, Tensor]:
    output = network(inputs, mask, output_tokens=True)
    return output.last_hidden_state, output.attention_mask


def real_tokens(network: CLCRModel, inputs: Any, mask: Any, sample: int) -> Tensor:
    tokens, real = memory(network, inputs, mask)
    return tokens[sample][real[sample]]


def test_tokens_are_scaled_by_the_weights_of_their_level_and_modality_times_the_numbers_of_both() -> None:
    tokens = [
        {"a": torch.ones(2, 1, 1), "b": torch.ones(2, 2, 1)},
        {"a": torch.ones(2, 1, 1), "b": torch.ones(2, 2, 1)},
    ]
    level_weights = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    modality_weights = torch.tensor([[0.9, 0.1], [1.0, 0.0]])
    none = torch.empty(0)
    aggregate = InterCADOutput(none, none, none, level_weights, modality_weights, none, none)
    mask = {"b": torch.tensor([[True, False], [False, False]])}
    joined = token_memory(tokens, mask, aggregate, ("a", "b"))
    torch.testing.assert_close(joined.tokens[0, :, 0], torch.tensor([0.9, 0.1, 0.0, 2.7, 0.3, 0.0]))
    torch.testing.assert_close(joined.tokens[1, :, 0], torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]))
    assert joined.mask.tolist() == [[True, True, False] * 2, [True, False, False] * 2]


@settings(max_examples=15)
@given(st.integers(1, 3), st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 99), st.integers(1, 3))
def test_padding_changes_no_token_and_its_own_are_zero(
    size: int, lengths: tuple[int, int, int], seed: int, extra: int
) -> None:
    network = model()
    inputs, mask = batch(size, lengths, seed)
    longer = {n: torch.cat([v, v.new_full((size, extra, v.shape[2]), torch.nan)], 1) for n, v in inputs.items()}
    masks = {n: torch.cat([m, m.new_zeros(size, extra)], 1) for n, m in mask.items()}
    tokens, real = memory(network, longer, masks)
    assert not tokens[~real].any()
    assert tokens.isfinite().all()
    assert tokens.shape[:2] == real.shape == (size, 2 * (sum(lengths) + 3 * extra))
    plain, plain_real = memory(network, inputs, mask)
    torch.testing.assert_close(tokens[real], plain[plain_real], atol=2e-5, rtol=1e-4)


def test_samples_do_not_affect_each_others_tokens() -> None:
    network = model()
    inputs, mask = batch(3, (5, 4, 6))
    for sample in range(3):
        single, its_mask = ({n: v[sample : sample + 1] for n, v in given.items()} for given in (inputs, mask))
        alone = real_tokens(network, single, its_mask, 0)
        torch.testing.assert_close(alone, real_tokens(network, inputs, mask, sample), atol=2e-5, rtol=1e-4)


def test_a_sample_without_a_modality_has_the_tokens_of_a_batch_without_it() -> None:
    network = model()
    inputs, mask = batch(3, (5, 4, 6))
    hidden = {**mask, "audio": mask["audio"] & torch.tensor([[True], [False], [True]])}
    without = {name: values for name, values in inputs.items() if name != "audio"}
    ours = real_tokens(network, inputs, hidden, 1)
    torch.testing.assert_close(ours, real_tokens(network, without, mask, 1), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(ours, real_tokens(network, {**without, "audio": None}, mask, 1), atol=2e-5, rtol=1e-4)


def test_without_weights_the_tokens_are_those_of_the_exchanges_and_hooks_change_nothing() -> None:
    network = model(use_inter_cad=False)
    inputs, mask = batch(2, (5, 4, 6))
    tokens, real = memory(network, inputs, mask)
    network.exchanges[0].register_forward_hook(lambda module, inputs, output: None)  # now called one by one
    levels = network(inputs, mask).levels
    expected = torch.cat([level.tokens[name] for level in levels for name in WIDTHS], dim=1)
    torch.testing.assert_close(tokens[real], expected[real], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(memory(network, inputs, mask)[0], tokens, atol=2e-5, rtol=1e-4)


def test_segments_have_no_tokens_because_each_has_weights_of_its_own() -> None:
    inputs, mask = batch(2, (5, 4, 6))
    with pytest.raises(ValueError, match="output_tokens must be False with segments, got segments=2"):
        model()(inputs, mask, segments=2, output_tokens=True)
