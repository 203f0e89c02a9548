"""The entries of CLCRConfig.modalities: what no encoder reads is refused, what earlier versions saved is read."""

import json
from typing import Any

import numpy as np
import pytest

from multifuse import CLCRConfig

FEATURES = {"encoder": "temporal_conv", "input_size": 5}
TEXT = {"encoder": "text", "config": {"model_type": "bert"}}
FRAMES = CLCRConfig.backbone_modality("image", 3, "resnet-small")
WAVEFORM = {"encoder": "audio", "config": {"model_type": "wav2vec2"}}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**FEATURES, "dropuot": 0.9}, r"modalities\['a'\] has no key 'dropuot', got dropuot=0.9; did you mean 'drop"),
        ({**FEATURES, "grid": (1, 1)}, r"modalities\['a'\] has no key 'grid', got grid=\(1, 1\); those of 'temporal_c"),
        ({**TEXT, "dropout": 0.5}, r"modalities\['a'\] has no key 'dropout', got dropout=0.5; those of 'text' are"),
        ({**FEATURES, "dropout": 5}, r"modalities\['a'\]\['dropout'\] must be in \[0.0, 1.0\], got 5"),
        ({**FEATURES, "dropout": "x"}, r"modalities\['a'\]\['dropout'\] must be in \[0.0, 1.0\], got 'x'"),
        ({**FEATURES, "dropout": float("nan")}, r"modalities\['a'\]\['dropout'\] must be in \[0.0, 1.0\], got nan"),
        ({**FRAMES, "grid": 3}, r"modalities\['a'\]\['grid'\] must be \(rows, columns\).*got 3"),
        ({**FRAMES, "mean": 0.5}, r"modalities\['a'\]\['mean'\] must be a list of numbers.*got 0.5"),
        ({**FRAMES, "mean": []}, r"modalities\['a'\]\['mean'\] must have 1 number or 3, one per channel, got \[\]"),
        ({**FRAMES, "mean": ["x"]}, r"modalities\['a'\]\['mean'\] must be in.*got 'x'"),
        ({**FRAMES, "std": [1.0, 1.0]}, r"modalities\['a'\]\['std'\] must have 1 number or 3.*got \[1.0, 1.0\]"),
        ({**FRAMES, "std": [0.0]}, r"modalities\['a'\]\['std'\] must be in .*got 0.0"),
        ({"encoder": "image", "config": {"model_type": "resnet"}, "mean": [0, 0]}, "1 number or 3, one per channel"),
    ],
)
def test_a_wrong_entry_is_named_by_modality_key_and_value_in_one_line(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        CLCRConfig(modalities={"a": entry})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {**FEATURES, "dropout": 0},
        {**FRAMES, "mean": (0.1, 0.2, 0.3), "std": [1], "grid": (None, 2), "dropout": 0.5},
        {**WAVEFORM, "mean": [0.5], "std": [2.0]},
    ],
)
def test_every_key_that_an_encoder_reads_is_accepted(entry: dict[str, Any]) -> None:
    assert CLCRConfig(modalities={"a": entry}).modalities == {"a": entry}


def test_a_key_that_an_earlier_version_saved_is_read_and_one_with_a_typo_refused() -> None:
    saved = CLCRConfig(modalities={"a": TEXT}).to_dict()
    saved["modalities"]["a"]["dropout"] = 0.5
    assert CLCRConfig.from_dict(saved).modalities == saved["modalities"]
    saved["modalities"]["a"]["confg"] = {}
    with pytest.raises(ValueError, match=r"no key 'confg'.*did you mean 'config'"):
        CLCRConfig.from_dict(saved)


def test_numpys_numbers_are_saved_as_pythons() -> None:
    numpys = {
        "a": {"encoder": "temporal_conv", "input_size": np.int64(5), "dropout": np.float32(0.5)},
        "b": {**FRAMES, "mean": np.zeros(3, np.float32), "grid": [np.int64(1), None]},
        "c": {"encoder": "text", "config": {"model_type": "bert", "hidden_size": np.int32(16)}},
    }
    config = CLCRConfig(modalities=numpys, num_labels=np.int64(2), label2id={"LABEL_0": np.int64(0)})
    saved = json.loads(config.to_json_string())
    assert saved["modalities"]["a"] == {"encoder": "temporal_conv", "input_size": 5, "dropout": 0.5}
    assert saved["modalities"]["b"]["mean"] == [0.0, 0.0, 0.0]
    assert saved["modalities"]["b"]["grid"] == [1, None]
    assert saved["modalities"]["c"]["config"]["hidden_size"] == 16
    assert type(config.num_labels) is int
