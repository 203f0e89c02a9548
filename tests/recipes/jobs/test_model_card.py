"""The card of a trained model: what it says is so, its example runs, and it reaches the Hub with the model."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, ModelCard

from multifuse import CLCRForPrediction, CLCRProcessor
from multifuse.recipes.commands.main import main
from multifuse.recipes.commands.training_options import command_line
from tests.files import bert, contents, mmsa_splits, write
from tests.hub import local_hub

NAME = "people/model"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains on a small feature file with a text encoder."""
    folder = tmp_path_factory.mktemp("card")
    options = ["--data", str(write(folder / "small.pkl", mmsa_splits())), "--text-encoder", str(bert(folder))]
    options += ["--output", str(folder / "run"), "--epochs", "1", "--seed", "7", "--device", "cpu", "--no-bf16"]
    assert main(["train", "mosi", *options]) == 0
    return folder / "run"


def test_a_card_says_what_metrics_json_says(run: Path) -> None:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    card = ModelCard.load(run / "model/README.md")
    assert (card.data.library_name, card.data.license) == ("multifuse", "apache-2.0")
    results = {(result.dataset_split, result.metric_type): result.metric_value for result in card.data.eval_results}
    assert results == {(split, name): value for split in ("valid", "test") for name, value in metrics[split].items()}
    for said in (
        f"| MAE | {metrics['valid']['mae']:.4f} | {metrics['test']['mae']:.4f} |",
        "`small.pkl`",
        "6 of train, 6 of valid, 6 of test",
        "Seed 7, float32",
        f"torch {torch.__version__}",
        "was chosen by mae on the validation split",
        '"optimizer": "adamw"',
        f"multifuse train mosi --data small.pkl --text-encoder {run.parent.name} --epochs 1 --seed 7",
    ):
        assert said in card.text, said
    assert str(run.parent.parent) not in str(card), "it names a folder of this machine"
    assert "synthetic" not in card.text


def test_the_example_of_a_card_predicts(run: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (run / "model/README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"folder": run / "model"}
    exec(compile(block, "README.md", "exec"), names)
    assert names["logits"].shape == (1, 1)


def test_a_command_is_shown_without_what_differs_between_runs_of_it() -> None:
    options = ["--data=/home/me/mosi file.pkl", "--output", "/tmp/run", "--output=run", "--resume", "--model", "mult"]
    assert command_line("multifuse train mosi", options) == "multifuse train mosi '--data=mosi file.pkl' --model mult"


def test_a_model_its_processor_and_its_card_reach_the_hub(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run / "model"
    with local_hub(monkeypatch, tmp_path / "cache") as files:
        HfApi().upload_folder(repo_id=NAME, folder_path=folder, token="token")
        arrived = {name.removeprefix(f"{NAME}/"): content for name, content in files.items()}
        assert arrived == contents(folder)

        files.clear()
        ModelCard.load(folder / "README.md").push_to_hub(NAME, token="token")
        CLCRForPrediction.from_pretrained(folder).push_to_hub(NAME, token="token")
        CLCRProcessor.from_pretrained(folder).push_to_hub(NAME, token="token")
        assert {name.removeprefix(f"{NAME}/") for name in files} == set(contents(folder))
        for name, content in files.items():
            (tmp_path / Path(name).name).write_bytes(content)
    assert ModelCard.load(tmp_path / "README.md").text == ModelCard.load(folder / "README.md").text
    given = CLCRProcessor.from_pretrained(tmp_path)(text=["the film"], audio=[torch.ones(2, 5).tolist()])
    ours, expected = (CLCRForPrediction.from_pretrained(path)(**given).logits for path in (tmp_path, folder))
    assert torch.equal(ours, expected)


def test_an_abbreviated_option_is_refused_because_the_card_knows_options_by_their_names(tmp_path: Path) -> None:
    for benchmark in ("mosi", "cremad"):
        with pytest.raises(SystemExit) as stopped:
            main(["train", benchmark, "--out", str(tmp_path / "run")])
        assert stopped.value.code == 2
