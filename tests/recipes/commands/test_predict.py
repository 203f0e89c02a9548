"""multifuse predict: new samples and sets of them, what it prints and writes, and the arguments that it refuses."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from multifuse import CLCRConfig, CLCRForPrediction, CLCRProcessor
from multifuse.processing import FrameInput
from multifuse.recipes.commands.main import main
from multifuse.recipes.data.media import shards
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.clip_dataset import ClipDataset
from multifuse.recipes.data.media.media_index import MediaIndex
from multifuse.recipes.data.media.planted_media import planted_options
from multifuse.recipes.data.media.preparation import Preparation, prepare
from tests import media_files
from tests.files import bert, mmsa_splits, write
from tests.sizes import SMALL_SIZES


def predict(capsys: pytest.CaptureFixture[str], *arguments: Any) -> list[dict[str, str]]:
    """Runs the command, and returns the rows that it prints."""
    capsys.readouterr()
    assert main(["predict", *map(str, arguments)]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a model on Kinetics-Sounds with lossless frames, in ``run``; ``ks/media`` holds its files."""
    folder = tmp_path_factory.mktemp("clips")
    source = media_files.kinetics_sounds(folder / "ks", clips=12, train=6)
    options = replace(planted_options("ks"), frames=2, frame_size=32, image_format="png")
    prepare(
        Preparation(AUDIOVISUAL_SETS["ks"], source / "media", source / "splits", folder / "set", options, quiet=True)
    )
    small = [
        "--epochs",
        "1",
        "--vision-backbone",
        "resnet-small",
        "--audio-backbone",
        "resnet-small",
        "--device",
        "cpu",
    ]
    assert main(["train", "ks", "--data", str(folder / "set"), "--output", str(folder / "run"), *small]) == 0
    return folder


def test_a_clips_file_is_read_as_its_preparation_read_it(clips: Path) -> None:
    rows = shards.read_split(clips / "set", "test")
    index = MediaIndex(clips / "ks/media", preferred=(".mp4",))
    processor = CLCRProcessor.from_pretrained(clips / "run/model")
    dataset = ClipDataset(rows, ("audio", "vision"))
    for position, name in enumerate(rows.with_format(None)["id"]):
        path = index.find((name,)).pictures[0]
        batch = processor(audio=path, vision=path)
        for modality, values in dataset[position].inputs.items():
            assert torch.equal(batch["inputs"][modality][0], values), (name, modality)


def test_a_new_clip_is_classified_with_or_without_its_sound(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = media_files.video(clips / "new.mp4", sound=True)
    (row,) = predict(capsys, clips / "run", "--video", film)
    processor, model = (cls.from_pretrained(clips / "run/model") for cls in (CLCRProcessor, CLCRForPrediction))
    logits = model.eval()(**processor(audio=film, vision=film)).logits
    assert row["class"] == model.config.id2label[int(logits.argmax())]
    assert float(row["probability"]) == pytest.approx(logits.softmax(-1).max().item(), abs=1e-3)
    (sound,) = predict(capsys, clips / "run", "--audio", film)
    assert sound["id"] == "new"


def test_a_picture_and_a_silent_film_are_samples_without_sound(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, silent = tmp_path / "picture.png", media_files.video(tmp_path / "silent.mp4")
    Image.new("RGB", (40, 30), (200, 100, 0)).save(picture)
    processor, model = (cls.from_pretrained(clips / "run/model") for cls in (CLCRProcessor, CLCRForPrediction))
    for path in (picture, silent):
        (row,) = predict(capsys, clips / "run", "--video", path)
        logits = model.eval()(**processor(vision=path)).logits
        assert float(row["probability"]) == pytest.approx(logits.softmax(-1).max().item(), abs=1e-3)
    assert main(["predict", str(clips / "run"), "--video", str(picture)]) == 0
    assert capsys.readouterr().err == f"multifuse predict: --video {picture} has no sound: audio is missing\n"
    assert main(["predict", str(clips / "run"), "--video", str(silent), "--audio", str(silent)]) == 2
    assert capsys.readouterr().err == f"multifuse predict: error: --audio {silent} has no sound\n"
    assert main(["predict", str(sound_model(clips, tmp_path)), "--video", str(picture)]) == 2
    error = f"multifuse predict: error: --video {picture} has no sound: the model reads only audio\n"
    assert capsys.readouterr().err == error


def test_a_prepared_set_has_a_row_per_clip(clips: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = predict(capsys, clips / "run", "--data", clips / "set", "--split", "valid")
    assert [row["id"] for row in rows] == list(shards.read_split(clips / "set", "valid").with_format(None)["id"])
    assert set(rows[0]) == {"id", "class", "probability", "label"}
    output = tmp_path / "rows.csv"
    assert main(["predict", str(clips / "run"), "--data", str(clips / "set"), "--output", str(output)]) == 0
    assert len(list(csv.DictReader(output.read_text().splitlines()))) == len(shards.read_split(clips / "set", "test"))
    assert main(["predict", str(clips / "run"), "--data", str(clips / "set"), "--output", str(output)]) == 2
    assert "already exists; choose another file" in capsys.readouterr().err


def sound_model(clips: Path, folder: Path) -> Path:
    """Saves an untrained model of the sounds alone."""
    processor = CLCRProcessor.from_pretrained(clips / "run/model")
    config = CLCRForPrediction.from_pretrained(clips / "run/model").config
    audio = CLCRConfig(
        modalities={"audio": config.modalities["audio"]}, num_labels=2, problem_type=config.problem_type, **SMALL_SIZES
    )
    CLCRForPrediction(audio).save_pretrained(folder / "sounds")
    CLCRProcessor({"audio": processor.modalities["audio"]}).save_pretrained(folder / "sounds")
    return folder / "sounds"


def flow_model(clips: Path, folder: Path, *others: str) -> Path:
    """Saves an untrained model of optical flow, and of other modalities."""
    processor = CLCRProcessor.from_pretrained(clips / "run/model")
    modalities = dict(CLCRForPrediction.from_pretrained(clips / "run/model").config.modalities)
    modalities["flow"] = CLCRConfig.backbone_modality("image", 2, "resnet-small", mean=[0.5, 0.5], std=[0.25, 0.25])
    config = CLCRConfig(
        modalities={name: modalities[name] for name in ("flow", *others)},
        num_labels=2,
        problem_type="single_label_classification",
        **SMALL_SIZES,
    )
    CLCRForPrediction(config).save_pretrained(folder)
    frames = processor.modalities["vision"]
    assert isinstance(frames, FrameInput)
    read = {name: processor.modalities[name] for name in others}
    CLCRProcessor({"flow": replace(frames, flow="dis"), **read}).save_pretrained(folder)
    return folder


def test_a_picture_has_no_flow_to_predict_from(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, film = tmp_path / "picture.png", media_files.video(tmp_path / "still.mp4", 1)
    Image.new("RGB", (40, 30), (200, 100, 0)).save(picture)
    flow, both = flow_model(clips, tmp_path / "flow"), flow_model(clips, tmp_path / "both", "vision")
    silent = flow_model(clips, tmp_path / "silent", "audio")
    for path in (picture, film):
        lack = f"--video {path} has no two successive frames"
        capsys.readouterr()
        assert main(["predict", str(flow), "--video", str(path)]) == 2
        assert capsys.readouterr() == ("", f"multifuse predict: error: {lack}: the model reads only flow\n")
        assert main(["predict", str(silent), "--video", str(path)]) == 2
        both_lacks = f"--video {path} has no sound; {lack}"
        assert capsys.readouterr().err == f"multifuse predict: error: {both_lacks}: the model reads only flow, audio\n"
        (row,) = predict(capsys, both, "--video", path)
        logits = (
            CLCRForPrediction.from_pretrained(both)
            .eval()(**CLCRProcessor.from_pretrained(both)(vision=path, flow=path))
            .logits
        )
        assert float(row["probability"]) == pytest.approx(logits.softmax(-1).max().item(), abs=1e-3)
        assert main(["predict", str(both), "--video", str(path)]) == 0
        assert capsys.readouterr().err == f"multifuse predict: {lack}: flow is missing\n"


def test_samples_of_a_set_that_hold_nothing_for_the_model_are_counted(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(clips / "ks", tmp_path / "ks")
    still = shards.read_split(clips / "set", "test").with_format(None)["id"][0]
    media_files.video(source / f"media/{still}.mp4", 1, sound=True)
    options = replace(planted_options("ks"), frames=2, frame_size=32, flow="dis")
    report = prepare(
        Preparation(AUDIOVISUAL_SETS["ks"], source / "media", source / "splits", tmp_path / "set", options, quiet=True)
    )
    note = f"{still}.mp4 has a single frame and so no optical flow"
    assert report.notes == [{"id": still, "split": "test", "note": note}]
    model = flow_model(clips, tmp_path / "flow")
    assert main(["predict", str(model), "--data", str(tmp_path / "set")]) == 0
    assert f"nothing can be read of 1 of 6 samples, such as {still}:" in capsys.readouterr().err
    assert main(["predict", str(model), "--data", str(tmp_path / "set"), "--split", "train"]) == 0
    assert "nothing can be read" not in capsys.readouterr().err


def with_changes(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_set_of_another_benchmark_or_prepared_otherwise_is_refused(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(clips / "set", tmp_path / "set")
    shutil.copytree(clips / "run/model", tmp_path / "model")
    record = json.loads((clips / "set/preparation.json").read_text())

    def refused(command: list[str], model: Path, *, message: str, **changes: Any) -> None:
        with_changes(tmp_path / "set/preparation.json", **{**record, **changes})
        assert main([*command, str(model), "--data", str(tmp_path / "set")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1

    offset = {"spectrogram": {**record["spectrogram"], "offset": 10.0}}
    refused(["predict"], clips / "run", message="was prepared for ave, not for ks", benchmark="ave")
    evaluate = ["evaluate", "--missing", "--output", str(tmp_path / "out"), "--model"]
    for command in (["predict"], ["explain"], evaluate):
        refused(command, clips / "run", message="audio with offset 10.0, not", **offset)
    refused(
        ["predict"],
        tmp_path / "model",
        message="vision with frames 3, not 2, frame_size 24, not 32",
        frames=3,
        frame_size=24,
    )
    with_changes(tmp_path / "model/config.json", id2label={0: "bark", 1: "1"}, label2id={"bark": 0, "1": 1})
    refused(["predict"], tmp_path / "model", message="class 0 of the set is '0', but of the model 'bark'")
    with_changes(tmp_path / "set/preparation.json", **{**record, "quality": 3, "shard_size": 1})
    assert predict(capsys, clips / "run", "--data", tmp_path / "set"), "what a model does not see does not matter"


def test_a_model_that_was_saved_without_names_or_settings_reads_any_set_of_as_many_classes(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(clips / "run/model", tmp_path / "model")
    (tmp_path / "model/processor_config.json").unlink()
    with_changes(
        tmp_path / "model/config.json",
        id2label={0: "LABEL_0", 1: "LABEL_1"},
        label2id={"LABEL_0": 0, "LABEL_1": 1},
    )
    assert predict(capsys, tmp_path / "model", "--data", clips / "set")


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a model that reads words and stored audio features, in ``run``; ``mosi.pkl`` is its file."""
    folder = tmp_path_factory.mktemp("sentiment")
    (folder / "bert").mkdir()
    data, encoder = write(folder / "mosi.pkl", mmsa_splits(count=12)), bert(folder / "bert")
    options = ["--modalities", "text", "audio", "--epochs", "1", "--device", "cpu", "--output", str(folder / "run")]
    options += ["--no-bf16"]  # predict computes in float32
    assert main(["train", "mosi", "--data", str(data), "--text-encoder", str(encoder), *options]) == 0
    return folder


def test_a_sentence_is_scored_without_the_training_file(
    sentiment: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (sentiment / "run").rename(tmp_path / "moved")
    (row,) = predict(capsys, tmp_path / "moved", "--text", "the film was good")
    (tmp_path / "moved").rename(sentiment / "run")
    assert set(row) == {"id", "score"}
    assert -10 < float(row["score"]) < 10


def test_scores_of_a_feature_file_are_those_of_training(sentiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = predict(capsys, sentiment / "run", "--data", sentiment / "mosi.pkl")
    errors = [abs(float(row["score"]) - float(row["label"])) for row in rows]
    metrics = json.loads((sentiment / "run/metrics.json").read_text())
    assert sum(errors) / len(errors) == pytest.approx(metrics["test"]["mae"], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--audio", "a.wav"], "--audio a.wav: the model reads audio as features of another program; use --data"),
        (["--video", "v.mp4", "--text", "good"], "--video v.mp4: the model reads audio as features of another"),
        (["--text", "good", "--data", "x.pkl"], "--data x.pkl is a set, --text a new sample: give one of both"),
        (["--text", "good", "--split", "train"], "--split train is for --data, and --text is a new sample"),
        (["--text", "good", "--padding", "lengths"], "--padding lengths is for --data, and --text is a new sample"),
        ([], "--data is required: the run folder contains no planted set"),
        (["--output", "pyproject.toml/rows.csv"], "pyproject.toml is not a folder"),
    ],
)
def test_bad_arguments_give_a_one_line_error(
    sentiment: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["predict", str(sentiment / "run"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("multifuse predict: error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_run_without_a_processor_and_inputs_that_the_model_lacks_are_refused(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(clips / "run"), "--text", "hello"]) == 2
    assert "--text hello: the model reads only audio, vision" in capsys.readouterr().err
    assert main(["predict", str(clips / "run"), "--video", "nowhere.mp4"]) == 2
    assert "predict: error: --video nowhere.mp4 cannot be decoded" in capsys.readouterr().err
    assert main(["predict", str(clips / "run"), "--audio", "nowhere.wav"]) == 2
    assert "predict: error: --audio nowhere.wav cannot be decoded" in capsys.readouterr().err
    CLCRForPrediction.from_pretrained(clips / "run/model").save_pretrained(tmp_path)
    assert main(["predict", str(tmp_path), "--audio", "a.wav"]) == 2
    assert f"MODEL {tmp_path} has no processor_config.json" in capsys.readouterr().err
