"""Training steps stay finite for inputs of every scale, dtype and shape; non-finite values stay in their sample."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multifuse import CLCRConfig, CLCRForPrediction
from tests.sizes import SMALL_SIZES

WIDTHS = {"text": 6, "audio": 3, "vision": 2}


def network(**options: Any) -> CLCRForPrediction:
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in WIDTHS.items()}
    model: CLCRForPrediction = CLCRForPrediction(CLCRConfig(modalities=modalities, **{**SMALL_SIZES, **options}))
    return model


def _power_of_ten(exponent: float) -> float:
    return float(10**exponent)


@st.composite
def batches(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Draws one or more samples of one or more tokens, with missing modalities, constant inputs and all scales."""
    size, scale = draw(st.integers(1, 4)), draw(st.sampled_from([1e-4, 1.0, 1e4]) | st.floats(-4, 4).map(_power_of_ten))
    inputs, mask = {}, {}
    for name, width in WIDTHS.items():
        length = draw(st.integers(1, 7))
        values = torch.randn(size, length, width, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
        inputs[name] = scale * (torch.ones_like(values) if draw(st.booleans()) else values)
        lengths = torch.tensor(draw(st.lists(st.integers(0, length), min_size=size, max_size=size)))
        mask[name] = torch.arange(length) < lengths[:, None]
    return inputs, mask


def check_finite(model: CLCRForPrediction, inputs: dict[str, Tensor], mask: dict[str, Tensor]) -> None:
    output = model(inputs, mask, labels=torch.ones(len(mask["text"])))
    assert output.logits.isfinite().all()
    assert all(term.isfinite() for term in output.terms.values()), output.terms
    output.loss.backward()
    non_finite = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not non_finite
    torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-4).step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert model.eval()(inputs, mask).logits.isfinite().all()


@settings(max_examples=40)
@given(batches(), st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_a_training_step_stays_finite(batch: tuple[dict[str, Tensor], dict[str, Tensor]], dtype: torch.dtype) -> None:
    inputs, mask = batch
    check_finite(network().to(dtype).train(), {name: values.to(dtype) for name, values in inputs.items()}, mask)


@settings(max_examples=30)
@given(batches(), st.sampled_from([torch.bfloat16, torch.float16]))
def test_a_training_step_under_autocast_stays_finite(
    batch: tuple[dict[str, Tensor], dict[str, Tensor]], dtype: torch.dtype
) -> None:
    inputs, mask = batch
    with torch.autocast("cpu", dtype):
        check_finite(network().train(), inputs, mask)


@settings(max_examples=20)
@given(st.sampled_from([float("nan"), float("inf")]), st.integers(0, 2), st.sampled_from(sorted(WIDTHS)))
def test_a_non_finite_value_stays_in_its_sample(value: float, sample: int, modality: str) -> None:
    model = network().eval()
    inputs = {name: torch.randn(3, 5, width) for name, width in WIDTHS.items()}
    expected = model(inputs).logits
    inputs[modality][sample, 2, 0] = value
    others = [index for index in range(3) if index != sample]
    torch.testing.assert_close(model(inputs).logits[others], expected[others])
    training = network(dropout=0.0).train()
    assert training(inputs, labels=torch.ones(3)).logits[others].isfinite().all()


@pytest.mark.filterwarnings("ignore:.* was called in training without labels")
def test_debug_mode_names_a_non_finite_value() -> None:
    inputs = {name: torch.randn(3, 5, width) for name, width in WIDTHS.items()}
    inputs["audio"][1, 4, 2] = float("-inf")
    model = network(debug=True)
    message = r"inputs\['audio'\] must be finite at real tokens, has -inf at sample 1, token 4; 1 tokens in all"
    with pytest.raises(ValueError, match=message):
        model(inputs)
    padded = {"audio": torch.arange(5).expand(3, -1) < 4}
    assert model(inputs, padded).logits.isfinite().all(), "values at padding must not matter"


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_whitening_with_fewer_rows_than_features_is_finite_and_bounded(rows: int) -> None:
    model = network(debias=False).train()
    inputs = {name: torch.randn(rows, 1, width) for name, width in WIDTHS.items()}
    terms = model(inputs, labels=torch.ones(rows)).terms
    correlations = [
        float(value.detach()) for name, value in terms.items() if name.startswith("intra") and "total" not in name
    ]
    assert all(0 <= value <= 1 + 1e-5 for value in correlations), terms
