"""The models that the jobs train by name, and `--modalities`: what is trained, recorded and refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from multifuse.recipes.commands.main import main
from multifuse.recipes.jobs.job import JobError
from multifuse.recipes.jobs.models import CLIP_MODELS, MODELS, model_class
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob
from tests.files import bert, mmsa_splits, write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "small.pkl", mmsa_splits(count=12))


def test_every_name_is_that_of_a_model_of_its_own() -> None:
    classes = [model_class(name) for name in MODELS]
    assert all(issubclass(cls, PreTrainedModel) for cls in classes)
    assert len(set(classes)) == len(MODELS) == len(CLIP_MODELS) + 1


def test_the_names_of_models_load_no_heavy_module() -> None:
    code = (
        "import sys\nfrom multifuse.recipes.jobs.models import MODELS\n"
        "print([name for name in ('torch', 'transformers', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", CLIP_MODELS)
def test_every_model_trains_is_recorded_and_can_be_evaluated(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    arguments = ["--data", str(data), "--output", str(output), "--epochs", "1", "--device", "cpu", "--model", name]
    assert main(["train", "mosi", *arguments]) == 0, capsys.readouterr().err
    metrics = json.loads((output / "metrics.json").read_text())
    assert (metrics["model"], metrics["modalities"]) == (name, ["text", "vision", "audio"])
    assert json.loads((output / "job.json").read_text())["model"] == name
    evaluate = ["--missing", "--model", str(output), "--data", str(data), "--draws", "1"]
    assert main(["evaluate", *evaluate, "--output", str(tmp_path / "out")]) == 0, capsys.readouterr().err
    missing = json.loads((tmp_path / "out/missing.json").read_text())
    assert missing["subsets"][0]["mae"] == pytest.approx(metrics["test"]["mae"], abs=1e-4)


def test_chosen_modalities_are_used_in_the_usual_order_recorded_and_kept_on_resumption(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    job = SentimentJob(output, epochs=1, data=data, model="late-fusion", modalities=("audio", "text"), device="cpu")
    run(job)
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["modalities"] == ["text", "audio"]
    assert job.record()["modalities"] == ["text", "audio"]
    (output / "metrics.json").unlink()
    arguments = ["--data", str(data), "--output", str(output), "--epochs", "1", "--device", "cpu", "--resume"]
    assert main(["train", "mosi", *arguments, "--model", "late-fusion", "--modalities", "text"]) == 2
    assert "was started with modalities ['text', 'audio'], now ['text']" in capsys.readouterr().err


def test_a_text_encoder_alone_is_a_modality(tmp_path: Path, data: Path) -> None:
    (tmp_path / "encoder").mkdir()
    encoder = str(bert(tmp_path / "encoder"))
    run(SentimentJob(tmp_path / "run", epochs=1, data=data, text_encoder=encoder, modalities=("text",), device="cpu"))
    assert json.loads((tmp_path / "run/metrics.json").read_text())["modalities"] == ["text"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "transformer"}, "--model must be one of ('clcr', 'late-fusion'"),
        ({"modalities": ("smell", "audio")}, "--modalities must be some of ('text', 'vision', 'audio'), got ['smell',"),
        ({"modalities": ()}, "--modalities must be some of ('text', 'vision', 'audio'), got []"),
        ({"text_encoder": "bert", "modalities": ("audio",)}, "--text-encoder bert needs text among --modalities, got"),
        (
            {"text_encoder": "bert", "model": "text", "modalities": ("text", "audio")},
            "--model text reads only the text, got --modalities text audio",
        ),
        ({"modalities": ("text", "vision")}, "no_vision.pkl stores no features of that name"),
    ],
)
def test_models_and_modalities_that_do_not_fit_are_named_before_anything_is_written(
    options: dict[str, str | tuple[str, ...]], message: str, tmp_path: Path
) -> None:
    splits = mmsa_splits(count=4)
    for split in splits.values():
        del split["vision"], split["vision_lengths"]
    data = write(tmp_path / "no_vision.pkl", splits)
    with pytest.raises(JobError) as error:
        run(SentimentJob(tmp_path / "run", data=data, device="cpu", **options))  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
