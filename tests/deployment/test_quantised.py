"""torchao's int8 weights work in CLCR models, whose levels are then exchanged one by one."""

import pytest
import torch

from multifuse import CLCRConfig, CLCRForPrediction


def test_int8_weights_change_the_logits_little() -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": 16} for name in ("vision", "audio")}
    sizes = {"hidden_size": 32, "shared_rank": 16, "private_rank": 8}
    model = CLCRForPrediction(CLCRConfig(modalities=modalities, init_exchange="xavier", **sizes)).eval()  # type: ignore[arg-type]
    inputs = {"vision": torch.randn(8, 20, 16), "audio": torch.randn(8, 30, 16)}
    with torch.no_grad():
        expected = model(inputs).logits
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
        logits = model(inputs).logits
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, atol=0.02, rtol=0.0)
