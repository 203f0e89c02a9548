"""CLCRConfig: what is saved is what is loaded, whatever the number of labels and their names."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multifuse import CLCRConfig, CLCRForPrediction

MODALITIES = {"audio": {"encoder": "temporal_conv", "input_size": 3}}
PROBLEM_TYPES = (None, "regression", "single_label_classification", "multi_label_classification")


def labelled(num_labels: int, problem_type: str | None, names: list[str] | None, **fields: Any) -> CLCRConfig:
    if names is None:
        return CLCRConfig(modalities=MODALITIES, problem_type=problem_type, num_labels=num_labels, **fields)
    id2label = dict(enumerate(names[:num_labels]))
    label2id = {name: index for index, name in id2label.items()}
    return CLCRConfig(modalities=MODALITIES, problem_type=problem_type, id2label=id2label, label2id=label2id, **fields)


@given(
    num_labels=st.integers(1, 5),
    problem_type=st.sampled_from(PROBLEM_TYPES),
    names=st.none() | st.lists(st.text(max_size=4), min_size=5, max_size=5, unique=True),
)
def test_a_saved_config_is_loaded_with_its_labels(
    num_labels: int, problem_type: str | None, names: list[str] | None
) -> None:
    if problem_type == "single_label_classification" and num_labels == 1:
        with pytest.raises(ValueError, match="requires `num_labels > 1`"):
            labelled(num_labels, problem_type, names)
        return
    config = labelled(num_labels, problem_type, names)
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        loaded = CLCRConfig.from_pretrained(folder)
    assert loaded.num_labels == num_labels
    assert loaded.to_dict() == config.to_dict()


def test_a_saved_regression_of_two_outputs_is_loaded(tmp_path: Path) -> None:
    config = labelled(2, "regression", None, hidden_size=16, shared_rank=8, private_rank=4)
    model = CLCRForPrediction(config).eval()
    model.save_pretrained(tmp_path)
    inputs = {"audio": torch.randn(3, 6, 3)}
    loaded = CLCRForPrediction.from_pretrained(tmp_path)
    assert loaded(inputs).logits.shape == (3, 2)
    torch.testing.assert_close(loaded(inputs).logits, model(inputs).logits)


def test_a_config_that_was_saved_without_its_two_labels_is_loaded_by_naming_their_number(tmp_path: Path) -> None:
    labelled(2, "regression", None).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["id2label"], content["label2id"]
    path.write_text(json.dumps(content))
    assert CLCRConfig.from_pretrained(tmp_path, num_labels=2).num_labels == 2
