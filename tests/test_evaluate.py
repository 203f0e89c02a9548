"""python -m multifuse.evaluate --missing: its tables by the command line, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.data.mmsa import read_mmsa, standardised
from multifuse.data.utterances import datasets
from multifuse.evaluate import main
from multifuse.training.missing import at_random, on_subsets
from multifuse.training.sentiment import sentiment_measures
from tests.files import mmsa_splits, write

WIDTHS = {"text": 7, "audio": 5, "vision": 4}


def model() -> CLCRForPrediction:
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in WIDTHS.items()}
    config = CLCRConfig(modalities=modalities, hidden_size=16, shared_rank=8, private_rank=4, num_heads=2)
    network: CLCRForPrediction = CLCRForPrediction(config).eval()
    return network


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "mosi.pkl", mmsa_splits(count=12))


def saved(folder: Path) -> Path:
    model().save_pretrained(folder / "model")
    return folder


def batches(data: Path) -> torch.utils.data.DataLoader:  # type: ignore[type-arg]
    splits, collator = datasets(standardised(read_mmsa(data)), tuple(WIDTHS))
    return torch.utils.data.DataLoader(splits["test"], batch_size=5, collate_fn=collator)


def test_every_subset_is_scored_as_the_model_scores_it_without_the_others(data: Path) -> None:
    network, given = model(), batches(data)
    subsets = list(on_subsets(network, given))
    assert [own.modalities for own in subsets][:2] == [("text", "audio", "vision"), ("text", "audio")]
    assert len(subsets) == 7
    with torch.no_grad():
        alone = torch.cat(
            [network({"vision": b["inputs"]["vision"]}, {"vision": b["mask"]["vision"]}).logits for b in given]
        )
    labels = torch.cat([batch["labels"] for batch in given])
    (vision,) = (own.measures for own in subsets if own.modalities == ("vision",))
    assert vision == sentiment_measures(alone[:, 0].numpy(), labels.numpy())


def test_absence_at_rate_0_is_the_whole_model_and_repeats_with_its_seed(data: Path) -> None:
    network, given = model(), batches(data)
    first, again = (list(at_random(network, given, (0.0, 0.6), draws=3, seed=5)) for _ in range(2))
    assert first == again
    assert first[0].mae == next(iter(on_subsets(network, given))).measures.mae
    assert first[0].mae_deviation == 0
    assert first[1].mae_deviation > 0


def test_by_the_command_line(tmp_path: Path, data: Path) -> None:
    folder, output = saved(tmp_path / "run"), tmp_path / "missing"
    command = [sys.executable, "-m", "multifuse.evaluate", "--missing", "--model", str(folder)]
    done = subprocess.run(
        [*command, "--data", str(data), "--output", str(output), "--draws", "2"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "text + audio" in done.stdout
    report = json.loads((output / "missing.json").read_text())
    assert [own["rate"] for own in report["absences"]] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert len(report["subsets"]) == 7
    assert (output / "missing.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--model": "nowhere"}, "--model nowhere holds no saved model: no config.json"),
        ({"--data": "nowhere.pkl"}, "nowhere.pkl: cannot be opened"),
        ({"--draws": "0"}, "--draws must be >= 1, got 0"),
    ],
)
def test_bad_arguments_end_in_one_line(
    tmp_path: Path,
    data: Path,
    changed: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, output = saved(tmp_path / "run"), tmp_path / "missing"
    capsys.readouterr()
    given = {"--model": str(folder), "--data": str(data), "--output": str(output), **changed}
    monkeypatch.setattr(sys, "argv", ["evaluate", "--missing", *(part for pair in given.items() for part in pair)])
    assert main() == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_features_of_another_width_and_finished_outputs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = saved(tmp_path / "run"), tmp_path / "missing"
    splits = mmsa_splits(count=12)
    for split in splits.values():
        del split["audio"], split["audio_lengths"]
    data = write(tmp_path / "without.pkl", splits)
    command = ["evaluate", "--missing", "--model", str(folder), "--data", str(data), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 2
    assert "audio must be 5 wide, is None" in capsys.readouterr().err
    output.mkdir()
    (output / "missing.json").write_text("{}")
    assert main() == 2
    assert "already holds missing.json" in capsys.readouterr().err
    assert (output / "missing.json").read_text() == "{}"
