"""multifuse export: what it writes and prints, and the arguments that it refuses."""

from pathlib import Path

import pytest
import torch

from multifuse import CLCRConfig
from multifuse.baselines import LateFusionForPrediction
from multifuse.deployment import formats
from multifuse.recipes.commands.main import main


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Saves the model with the fewest operators."""
    folder = tmp_path_factory.mktemp("saved")
    config = CLCRConfig(
        modalities={"audio": {"encoder": "temporal_conv", "input_size": 5}},
        hidden_size=8,
        num_levels=1,
        shared_rank=4,
        private_rank=2,
    )
    LateFusionForPrediction(config).save_pretrained(folder)
    return folder


def test_the_command_writes_a_program_and_says_how_it_was_compared(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "model.pt2"
    assert main(["export", str(saved), "--output", str(output)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [
        f"Wrote {output} (export)",
        "inputs: audio, audio.mask",
        "outputs: logits",
        "sizes: batch from 1, audio_length from 1 to 1024",
    ]
    assert printed[4].startswith("largest difference from the model: ")
    program = torch.export.load(output).module()
    inputs = {"audio": torch.randn(2, 70, 5), "audio.mask": torch.ones(2, 70, dtype=torch.bool)}
    assert program(inputs)["logits"].shape == (2, 1)


def test_a_file_that_ends_in_onnx_becomes_an_onnx_model(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(formats, "_NEEDS", {"onnx": ("no_such_library",)})
    assert main(["export", str(saved), "--output", str(tmp_path / "model.onnx")]) == 2
    assert "format 'onnx' needs no_such_library" in capsys.readouterr().err


def test_wrong_arguments_end_in_one_line(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken.pt2"
    taken.touch()
    for arguments, message in (
        ([saved, "--format", "export", "--output", taken], f"--output {taken} already exists"),
        ([tmp_path, "--format", "onnx", "--output", tmp_path / "m.onnx"], f"MODEL {tmp_path} contains no saved model"),
        (
            [saved, "--format", "export", "--output", tmp_path / "m.pt2", "--tolerance", "0"],
            "tolerance must be finite and > 0",
        ),
    ):
        capsys.readouterr()
        assert main(["export", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["taken.pt2"]
