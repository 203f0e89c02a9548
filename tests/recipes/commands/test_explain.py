"""multifuse explain: its page from end to end, and the arguments that it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from multifuse import CLCRConfig, CLCRForPrediction, CLCRProcessor, FeatureInput, TextInput
from multifuse.baselines.late import LateFusionForPrediction
from multifuse.processing.processor import ModalityInput
from multifuse.recipes.commands.main import main
from tests import programs
from tests.files import bert, contents, mmsa_splits, save_unscaled, write
from tests.pages import parsed
from tests.sizes import SMALL_SIZES

SIZES = {**SMALL_SIZES, "num_levels": 3}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "mosi.pkl", mmsa_splits(count=12))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved(tmp_path / "run", {"text": 7, "audio": 5})


def saved(
    folder: Path, widths: dict[str, int], kind: type[CLCRForPrediction] = CLCRForPrediction, seed: int = 0
) -> Path:
    torch.manual_seed(seed)
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in widths.items()}
    kind(CLCRConfig(modalities=modalities, **SIZES)).save_pretrained(folder / "model")  # type: ignore[arg-type]
    save_unscaled(folder / "model", widths)
    return folder


def explain(*arguments: object) -> int:
    return main(["explain", *map(str, arguments)])


def test_a_trained_model_is_explained_with_what_evaluate_wrote(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "mosi", "--data", str(data), "--output", str(run), "--epochs", "1", "--device", "cpu"]) == 0
    missing = ["--missing", "--model", str(run), "--data", str(data), "--output", str(tmp_path / "out"), "--draws", "1"]
    assert main(["evaluate", *missing]) == 0
    capsys.readouterr()
    done = programs.multifuse("explain", run, "--data", data, "--evaluations", tmp_path / "out")
    assert done.stdout == f"Wrote {run / 'explain.html'}.\n"
    html = (run / "explain.html").read_text()
    page = parsed(html)
    for text in ("CLCRForPrediction on the test split of mosi.pkl", "Samples12", "Modalitiestext, vision, audio"):
        assert text in page.text
    mae = json.loads((run / "metrics.json").read_text())["test"]["mae"]
    assert f"MAE{mae:.4f}" in page.text
    assert "text + vision" in page.text
    assert html.count("<img") == 1
    assert "synthetic" not in page.text
    assert explain(run, "--data", data, "--evaluations", tmp_path / "out", "--output", tmp_path / "again.html") == 0
    assert (tmp_path / "again.html").read_text() == html


def test_evaluations_of_another_model_are_refused_even_if_its_folder_has_the_same_name(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widths = {"text": 7, "audio": 5}
    run, other, out = saved(tmp_path / "run", widths), saved(tmp_path / "other/run", widths, seed=1), tmp_path / "out"
    evaluation = ["--missing", "--model", str(other), "--data", str(data), "--output", str(out), "--draws", "1"]
    assert main(["evaluate", *evaluation]) == 0
    capsys.readouterr()
    assert explain(run, "--data", data, "--evaluations", out) == 2
    error = capsys.readouterr().err
    assert f"--evaluations: {out / 'missing.json'} is about another model: 'run' with weights" in error
    assert error.count("\n") == 1
    assert not (run / "explain.html").exists()
    assert explain(other, "--data", data, "--evaluations", out) == 0


def test_without_data_the_runs_own_synthetic_set_is_explained_and_named_so(tmp_path: Path, data: Path) -> None:
    run = saved(tmp_path / "run", {"text": 7, "audio": 5})
    data.rename(run / "planted.pkl")
    assert explain(run, "--split", "valid") == 0
    text = parsed((run / "explain.html").read_text()).text
    assert "the valid split of planted.pkl" in text
    assert "built-in synthetic set" in text


def test_the_tokens_of_a_text_encoder_are_shaded(tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    encoder = bert(tmp_path / "bert")
    torch.manual_seed(0)
    modalities = {
        "text": CLCRConfig.text_modality(str(encoder)),
        "audio": {"encoder": "temporal_conv", "input_size": 5},
    }
    CLCRForPrediction(CLCRConfig(modalities=modalities, **SIZES)).save_pretrained(tmp_path / "model")  # type: ignore[arg-type]
    inputs: dict[str, ModalityInput] = {"text": TextInput(), "audio": FeatureInput((0.0,) * 5, (1.0,) * 5)}
    CLCRProcessor(inputs, AutoTokenizer.from_pretrained(encoder)).save_pretrained(tmp_path / "model")
    data = write(tmp_path / "mosi.pkl", mmsa_splits(count=12))
    output = tmp_path / "page.html"
    assert explain(tmp_path, "--data", data, "--output", output) == 0
    html = output.read_text()
    text = parsed(html).text
    assert "[CLS] the film" in text
    assert "was good [SEP]" in text
    assert html.count('<span class="token') >= 3 * 3 * 6, "three samples with three levels of tokens"


def test_hostile_sentences_and_ids_become_no_markup(tmp_path: Path) -> None:
    pages = []
    for name, text in (("plain", "x"), ("hostile", "</p><script>alert(1)</script><img src=x onerror=alert(1)>\"'")):
        splits = mmsa_splits(count=6)
        for split in splits.values():
            split["raw_text"], split["id"] = np.array([text] * 6), np.array([f"{text}{row}" for row in range(6)])
        run = saved(tmp_path / name, {"text": 7, "audio": 5})
        assert explain(run, "--data", write(tmp_path / f"{name}.pkl", splits)) == 0
        pages.append(parsed((run / "explain.html").read_text()))
    plain, hostile = pages
    assert hostile.elements == plain.elements
    assert hostile.text.count("<script>alert(1)</script>") == 2 * 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "nowhere"}, "MODEL nowhere contains no saved model: it has no config.json"),
        ({"--data": "nowhere.pkl"}, "nowhere.pkl: cannot be opened"),
        ({"--evaluations": "nowhere"}, "--evaluations: nowhere contains no missing.json or noise.json"),
        ({"--output": "."}, "--output . already exists; choose another file"),
        ({"--output": "pyproject.toml/page.html"}, "pyproject.toml cannot be created: pyproject.toml is not a folder"),
    ],
)
def test_bad_arguments_give_a_one_line_error(
    model: Path, data: Path, changed: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--data": str(data), **{name: value for name, value in changed.items() if name != "model"}}
    before = contents(model)
    capsys.readouterr()
    assert explain(changed.get("model", model), *(f"{name}={value}" for name, value in options.items())) == 2
    error = capsys.readouterr().err
    assert error.startswith("multifuse explain: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert contents(model) == before


def test_only_clcr_models_with_one_score_or_class_are_explained(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widths = {"text": 7, "audio": 5}
    baseline = saved(tmp_path / "late", widths, LateFusionForPrediction)  # type: ignore[arg-type]
    assert explain(baseline, "--data", data) == 2
    assert "it is a LateFusionForPrediction, not one of ['CLCRForPrediction'" in capsys.readouterr().err
    modalities = {name: {"encoder": "temporal_conv", "input_size": width} for name, width in widths.items()}
    three = CLCRForPrediction(CLCRConfig(modalities=modalities, num_labels=3, problem_type="regression", **SIZES))  # type: ignore[arg-type]
    three.save_pretrained(tmp_path / "three")
    assert explain(tmp_path / "three", "--data", data) == 2
    assert "must predict one score or one class" in capsys.readouterr().err


def test_a_page_is_not_overwritten_and_data_that_do_not_fit_write_none(
    tmp_path: Path, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = saved(tmp_path / "other", {"text": 7, "audio": 6})
    assert explain(other, "--data", data) == 2
    assert "audio must have width 6, got 5" in capsys.readouterr().err
    assert not (other / "explain.html").exists()
    (model / "explain.html").write_text("mine")
    assert explain(model, "--data", data) == 2
    assert "already exists" in capsys.readouterr().err
    assert (model / "explain.html").read_text() == "mine"
