"""What is read of the files of multifuse evaluate, and files that it did not write."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from multifuse.recipes.explanation.sweeps import read_sweeps
from multifuse.recipes.jobs.model_identity import ModelIdentity

MODEL = ModelIdentity("run", "0123456789abcdef")
ABOUT = {"model": MODEL.as_dict(), "data": "mosi.pkl", "split": "test", "draws": 5, "seed": 1}
MISSING = {
    **ABOUT,
    "subsets": [{"modalities": ["text", "audio"], "mae": 0.75, "corr": None, "acc2_non0": 0.5}],
    "absences": [{"rate": 0.1, "mae": 0.8, "mae_deviation": 0.01, "corr": 0.25, "acc2_non0": 0.5}],
}
CLIPS = {
    **ABOUT,
    "subsets": [{"modalities": ["audio"], "accuracy": 0.75, "macro_f1": 0.5}],
    "absences": [{"rate": 0.0, "accuracy": 0.75, "accuracy_deviation": 0.0, "macro_f1": 0.5}],
}
SCORES = {"mae": 0.75, "mae_deviation": 0.0, "corr": 0.5, "acc2_non0": 0.5}
NOISE = {**ABOUT, "late": [], "corrupted": [{**SCORES, "kind": "drop", "level": 0.5}]}


def write(folder: Path, name: str, content: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_tables_have_the_measures_of_training_with_their_deviations(tmp_path: Path) -> None:
    write(tmp_path, "missing", MISSING)
    write(tmp_path, "noise", NOISE)
    (tmp_path / "noise.png").write_bytes(b"\x89PNG rest")
    (tmp_path / "missing.png").write_bytes(b"<svg onload=alert(1)>")
    missing, noise = read_sweeps([tmp_path], MODEL, required=True)
    assert missing.data == "mosi.pkl, test split; draws: 5"
    subsets, absences = missing.tables
    assert subsets.columns == ("modalities", "MAE", "Corr", "Acc-2 non0")
    assert subsets.rows == (("text + audio", "0.7500", "undefined", "50.00 %"),)
    assert absences.rows == (("10 %", "0.8000 ± 0.0100", "0.2500", "50.00 %"),)
    assert missing.figure is None, "a file that is no PNG was taken for one"
    (drops,) = noise.tables
    assert (drops.title, drops.rows[0][0]) == ("Rate of dropped tokens", "0.5")
    assert noise.figure == base64.b64encode(b"\x89PNG rest").decode()


def test_accuracies_of_clips_are_shown(tmp_path: Path) -> None:
    (sweep,) = read_sweeps([write(tmp_path, "missing", CLIPS)], MODEL, required=True)
    assert sweep.tables[1].columns == ("absent", "Accuracy", "F1 macro")
    assert sweep.tables[1].rows == (("0 %", "75.00 % ± 0.00 %", "50.00 %"),)


def test_folders_without_an_evaluation_are_refused_only_where_one_was_asked_for(tmp_path: Path) -> None:
    assert read_sweeps([tmp_path], MODEL, required=False) == ()
    with pytest.raises(ValueError, match=r"contains no missing.json or noise.json"):
        read_sweeps([tmp_path], MODEL, required=True)


@pytest.mark.parametrize(
    "content",
    [[], {}, 3, {**MISSING, "subsets": 3}, {**MISSING, "subsets": [{"modalities": 3}]}, {**MISSING, "absences": [{}]}],
)
def test_other_json_is_named_in_one_line(tmp_path: Path, content: Any) -> None:
    write(tmp_path, "missing", content)
    with pytest.raises(ValueError, match=r"missing.json is not a report of multifuse evaluate: .*") as caught:
        read_sweeps([tmp_path], MODEL, required=False)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "noise.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"noise.json is not a report of multifuse evaluate"):
        read_sweeps([tmp_path], MODEL, required=False)


@pytest.mark.parametrize("model", [None, 3, {}, {"name": "run"}])
def test_a_report_that_names_no_model_is_refused(tmp_path: Path, model: Any) -> None:
    write(tmp_path, "missing", {**MISSING, "model": model})
    with pytest.raises(ValueError, match=r"missing.json does not say which model it is about; evaluate"):
        read_sweeps([tmp_path], MODEL, required=False)


def test_a_report_of_other_weights_is_refused_and_a_renamed_folder_is_not(tmp_path: Path) -> None:
    write(tmp_path, "missing", {**MISSING, "model": {"name": "renamed", "weights": MODEL.weights}})
    assert len(read_sweeps([tmp_path], MODEL, required=True)) == 1
    write(tmp_path, "missing", {**MISSING, "model": {"name": "run", "weights": "other"}})
    with pytest.raises(ValueError, match=r"missing.json is about another model: 'run' with weights 'other', not 'run'"):
        read_sweeps([tmp_path], MODEL, required=True)
