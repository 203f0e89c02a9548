"""The audio-visual examples and MOSEI's, each run by one command on its built-in synthetic data set."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.paths import ROOT

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("cremad", (), {"benchmark": "cremad", "classes": 6, "modalities": ["audio", "vision"]}),
        ("ks", ("--classes", "1", "2"), {"benchmark": "ks", "classes": 2}),
        ("ave", (), {"benchmark": "ave", "target": "label", "classes": 6}),
        ("ucf101", ("--frame-size", "24"), {"benchmark": "ucf101", "modalities": ["vision", "flow"]}),
        ("mosei", (), {"modalities": ["text", "vision", "audio"]}),
    ],
)
def test_the_built_in_data_trains_from_encoded_files_to_metrics(
    tmp_path: Path, name: str, flags: tuple[str, ...], expected: dict[str, Any]
) -> None:
    output = tmp_path / "run"
    arguments = ("--epochs", 1, "--output", output, "--device", "cpu", *flags)
    done = programs.run(EXAMPLES / f"train_{name}.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout
    content = json.loads((output / "metrics.json").read_text())
    assert content["synthetic"] is True
    assert {field: content[field] for field in expected} == expected
    assert ("mae" if name == "mosei" else "accuracy") in content["test"]
    assert (output / "model/model.safetensors").exists()
    assert not list(output.rglob(".*")), "a partial file was left behind"
