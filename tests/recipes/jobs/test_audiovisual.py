"""The audio-visual job: from media to metrics, resumption, other backbones, and the arguments that it refuses."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, ViTConfig, ViTModel, Wav2Vec2Config, Wav2Vec2Model

from multifuse import CLCRForPrediction
from multifuse.processing import MultimodalCollator
from multifuse.recipes.commands.main import main
from multifuse.recipes.data.media import shards
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.clip_dataset import ClipDataset
from multifuse.recipes.data.media.planted_media import planted_options
from multifuse.recipes.data.media.preparation import Preparation, prepare
from multifuse.recipes.jobs import progress
from multifuse.recipes.jobs.audiovisual import AudioVisualJob
from multifuse.recipes.jobs.job import JobError
from multifuse.recipes.jobs.recipe import AV_DIGITS, PLANTED_CLIPS
from multifuse.recipes.jobs.run import run
from multifuse.recipes.measures.classification import classification_measures
from tests import media_files, programs
from tests.pages import parsed
from tests.paths import ROOT
from tests.recipes.jobs.test_recipe import started

Command = Callable[..., int]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes Kinetics-Sounds with two classes and 34 clips."""
    return media_files.kinetics_sounds(tmp_path_factory.mktemp("ks"), clips=34, train=28)


@pytest.fixture(scope="module")
def prepared(source: Path) -> Path:
    options = replace(planted_options("ks"), frames=2, frame_size=32)
    prepare(
        Preparation(AUDIOVISUAL_SETS["ks"], source / "media", source / "splits", source / "out", options, quiet=True)
    )
    return source / "out"


@pytest.fixture
def command() -> Command:
    """Returns a function that runs a training command in this process."""
    return lambda benchmark, *arguments: main(["train", benchmark, *map(str, arguments)])


def metrics(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "metrics.json").read_text())
    return content


def evaluate(mode: str, run: Path, *more: Any) -> programs.Done:
    output = run.with_name(f"{run.name} {mode}")
    return programs.multifuse("evaluate", f"--{mode}", "--model", run, "--output", output, "--draws", 1, *more)


def scored_with_modalities_missing(run: Path, *more: Any) -> dict[str, Any]:
    """Returns what `multifuse evaluate --missing` writes about a run's test split."""
    done = evaluate("missing", run, *more)
    assert done.returncode == 0, done.stderr
    output = run.with_name(f"{run.name} missing")
    assert (output / "missing.png").read_bytes().startswith(b"\x89PNG")
    content: dict[str, Any] = json.loads((output / "missing.json").read_text())
    return content


def explained(run: Path) -> str:
    """Returns the text of the page of `multifuse explain` in a run's folder."""
    return parsed((run / "explain.html").read_text()).text


def test_training_from_media_equals_training_from_the_prepared_set(
    source: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--epochs", 1, "--vision-backbone", "resnet-small", "--audio-backbone", "resnet-small", "--device", "cpu")
    sizes = ("--frame-size", 24, "--frames", 2, "--rate", 8000, "--seconds", 1, "--hop", 160, "--offset", 0.001)
    prepared = tmp_path / "prepared"
    arguments = ("--media", source / "media", "--splits", source / "splits", "--prepared", prepared, *sizes)
    assert command("ks", *arguments, *small, "--output", tmp_path / "one") == 0
    assert "SYNTHETIC" not in capsys.readouterr().out
    assert command("ks", "--data", prepared, *small, "--output", tmp_path / "two") == 0
    assert metrics(tmp_path / "one")["test"] == metrics(tmp_path / "two")["test"]
    content = metrics(tmp_path / "two")
    assert set(content["test"]) == {"accuracy", "macro_f1", "weighted_f1"}
    assert content["preparation"]["frame_size"] == 24
    assert content["preparation"]["spectrogram"]["offset"] == 0.001
    assert (content["classes"], content["synthetic"], content["samples"]["test"]) == (2, False, 6)
    model = CLCRForPrediction.from_pretrained(tmp_path / "two/model")
    assert list(model.config.modalities) == ["audio", "vision"]
    assert model.config.id2label == {0: "0", 1: "1"}
    for mode, message in (
        ("missing", "--data is required: the run folder contains no prepared set"),
        ("noise", "--noise is only for models of feature"),
    ):
        refused = evaluate(mode, tmp_path / "two")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert message in refused.stderr
    missing = scored_with_modalities_missing(tmp_path / "two", "--data", prepared)
    assert [subset["modalities"] for subset in missing["subsets"]] == [["audio", "vision"], ["audio"], ["vision"]]
    for clean in (missing["subsets"][0], missing["absences"][0]):
        assert {name: clean[name] for name in content["test"]} == pytest.approx(content["test"])
    assert main(["explain", str(tmp_path / "two"), "--data", str(prepared)]) == 0
    assert f"Accuracy{100 * content['test']['accuracy']:.2f} %" in explained(tmp_path / "two")
    assert "built-in synthetic set" not in explained(tmp_path / "two")


def test_the_page_of_a_run_on_the_embedded_clips_says_that_they_are_synthetic(
    prepared: Path, tmp_path: Path, command: Command
) -> None:
    run = tmp_path / "run"
    small = ("--epochs", 1, "--vision-backbone", "resnet-small", "--modalities", "vision", "--device", "cpu")
    assert command("ks", "--data", prepared, *small, "--output", run) == 0
    content = {**metrics(run), "synthetic": True}  # as of a run without --media or --data
    other = {**content, "preparation": {**content["preparation"], "clips": "those of another set"}}
    for written, says in ((content, True), (other, False)):
        (run / "metrics.json").write_text(json.dumps(written))
        (run / "explain.html").unlink(missing_ok=True)
        assert main(["explain", str(run), "--data", str(prepared)]) == 0
        assert ("built-in synthetic set" in explained(run)) == says


def test_a_single_modality_trains_with_the_paper_recipe(prepared: Path, tmp_path: Path, command: Command) -> None:
    arguments = ("--data", prepared, "--epochs", 1, "--recipe", "paper", "--vision-backbone", "resnet-small")
    assert command("ks", *arguments, "--modalities", "vision", "--output", tmp_path / "run") == 0
    content = metrics(tmp_path / "run")
    assert content["modalities"] == ["vision"]
    assert (content["recipe"]["optimizer"], content["recipe"]["lr"]) == ("sgd", 1e-3)


def test_a_baseline_trains_on_clips_and_is_recorded(prepared: Path, tmp_path: Path, command: Command) -> None:
    small = ("--vision-backbone", "resnet-small", "--audio-backbone", "resnet-small", "--device", "cpu", "--epochs", 1)
    arguments = ("--data", prepared, *small, "--model", "shared-private", "--output", tmp_path / "run")
    assert command("ks", *arguments) == 0
    content = metrics(tmp_path / "run")
    assert content["model"] == "shared-private"
    missing = scored_with_modalities_missing(tmp_path / "run", "--data", prepared)
    assert {name: missing["subsets"][0][name] for name in content["test"]} == pytest.approx(content["test"])


def test_segments_are_refused_for_a_baseline(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("ave", "--localise", "--model", "mult", "--output", tmp_path / "run") == 2
    assert capsys.readouterr().err == "multifuse train ave: error: --localise needs --model clcr, got mult\n"
    assert not (tmp_path / "run").exists()


def test_other_backbones_are_loaded_by_name(source: Path, tmp_path: Path, command: Command) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    ViTModel(ViTConfig(image_size=32, patch_size=16, **sizes)).save_pretrained(tmp_path / "vit")
    layers = {"conv_dim": (8, 8), "conv_stride": (10, 8), "conv_kernel": (20, 16), "num_feat_extract_layers": 2}
    pretrained = Wav2Vec2Model(
        Wav2Vec2Config(**layers, **sizes, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    )
    pretrained.save_pretrained(tmp_path / "audio")
    inputs = ("--media", source / "media", "--splits", source / "splits", "--frame-size", 32, "--frames", 2)
    sound = ("--sound", "waveform", "--rate", 8000, "--seconds", 1)
    names = ("--vision-backbone", tmp_path / "vit", "--audio-backbone", tmp_path / "audio")
    output = tmp_path / "run"
    assert command("ks", *inputs, *sound, *names, "--output", output, "--epochs", 1, "--lr", 1e-9, "--no-bf16") == 0
    trained = load_file(output / "model/model.safetensors")
    (name,) = (n for n in trained if "audio" in n and n.endswith("encoder.layers.1.final_layer_norm.weight"))
    torch.testing.assert_close(trained[name], pretrained.state_dict()["encoder.layers.1.final_layer_norm.weight"])


def test_two_processes_of_accelerate_train_one_model_whose_measures_count_every_sample_once(
    prepared: Path, tmp_path: Path
) -> None:
    example = ROOT / "examples/train_ks.py"
    # Without --multi_gpu, accelerate launch starts a single process on a machine without one.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--main_process_port", "29633"]
    small = ["--vision-backbone", "resnet-small", "--audio-backbone", "resnet-small", "--device", "cpu"]
    arguments = ["--data", str(prepared), "--output", str(tmp_path / "run"), "--epochs", "2", "--batch-size", "8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*launcher, example, *arguments, *small], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Read ") == 1, "more than one process printed"
    model = CLCRForPrediction.from_pretrained(tmp_path / "run/model").eval()
    for split in ("valid", "test"):
        clips = ClipDataset(shards.read_split(prepared, split), ("audio", "vision"))
        batch = MultimodalCollator()([clips[index] for index in range(len(clips))])
        with torch.no_grad():
            predictions = model(batch["inputs"], batch["mask"]).logits.argmax(-1)
        expected = classification_measures(predictions.numpy(), batch["labels"].numpy())
        assert metrics(tmp_path / "run")[split] == expected.as_dict()


class Stop(TrainerCallback):
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.epoch >= 1:
            raise KeyboardInterrupt


def test_an_interrupted_run_resumes_to_the_uninterrupted_result(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = AudioVisualJob(
        output=tmp_path / "uninterrupted",
        data_set=AUDIOVISUAL_SETS["ks"],
        data=prepared,
        audio_backbone="resnet-small",
        vision_backbone="resnet-small",
        recipe=replace(PLANTED_CLIPS, weight_average=0.9),
        epochs=3,
        device="cpu",
    )
    uninterrupted = run(job)
    parts = replace(job, output=tmp_path / "parts")
    quieten = progress.quieten
    with monkeypatch.context() as patch:
        patch.setattr(
            progress, "quieten", lambda trainer, choice: (quieten(trainer, choice), trainer.add_callback(Stop()))
        )
        with pytest.raises(KeyboardInterrupt):
            run(parts)
    other = shutil.copytree(prepared, tmp_path / "other" / prepared.name)
    rewritten = json.loads((other / "preparation.json").read_text()) | {"clips": "others"}
    (other / "preparation.json").write_text(json.dumps(rewritten))
    for changes, message in (({"data": other}, "data 'out' with SHA-256"), ({"loader_workers": 1}, "loader_workers 0")):
        with pytest.raises(JobError, match=f"was started with {message}"):
            run(replace(parts, resume=True, **changes))
    resumed = run(replace(parts, resume=True))
    assert (resumed.valid, resumed.test) == (uninterrupted.valid, uninterrupted.test)
    trained, expected = (load_file(tmp_path / name / "model/model.safetensors") for name in ("parts", "uninterrupted"))
    assert all(torch.equal(trained[name], expected[name]) for name in expected)


def test_events_are_localised_by_second(tmp_path: Path, command: Command) -> None:
    (tmp_path / "splits").mkdir()
    for split, ids in (("train", "abcd"), ("val", "e"), ("test", "f")):
        rows = "".join(f"{'Bark' if clip < 'c' else 'Clock'}&{clip}&good&1&3\n" for clip in ids)
        (tmp_path / f"splits/{split}Set.txt").write_text(rows)
        for clip in ids:
            media_files.video(tmp_path / f"media/{clip}.mp4", 10, sound=True)
    inputs = ("--media", tmp_path / "media", "--splits", tmp_path / "splits", "--frame-size", 16, "--hop", 1000)
    small = ("--vision-backbone", "resnet-small", "--audio-backbone", "resnet-small", "--epochs", 1)
    assert command("ave", *inputs, *small, "--localise", "--output", tmp_path / "run") == 0
    content = metrics(tmp_path / "run")
    assert (content["target"], content["classes"]) == ("segments", 3)
    assert json.loads((tmp_path / "run/model/config.json").read_text())["num_segments"] == 10
    missing = scored_with_modalities_missing(tmp_path / "run")
    assert {name: missing["subsets"][0][name] for name in content["test"]} == pytest.approx(content["test"])
    assert main(["explain", str(tmp_path / "run")]) == 0
    assert "Segments with a label10" in explained(tmp_path / "run")


def test_av_digits_trains_from_wav_and_png_to_metrics(tmp_path: Path, command: Command) -> None:
    data = media_files.av_digits(tmp_path / "data")
    assert command("av_digits", "--data", data, "--epochs", 1, "--output", tmp_path / "run") == 0
    content = metrics(tmp_path / "run")
    assert content["samples"] == {"train": 28, "valid": 6, "test": 6}
    assert content["modalities"] == ["audio", "vision"]
    assert content["recipe"]["augmentation"]["pair_anew"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--media", "."), "--media and --splits must be given together, got . and None"),
        (
            ("--data", "nowhere"),
            "nowhere contains no finished set; create one, or finish",
        ),
        (("--media", ".", "--splits", "nowhere"), "--splits nowhere is not a folder"),
        (("--data", "PREPARED", "--modalities", "flow"), "holds only ['audio', 'vision']"),
        (("--data", "PREPARED", "--vision-backbone", "./no-such-folder"), "--vision-backbone ./no-such-folder"),
        (("--data", "PREPARED", "--loader-workers", "-1"), "--loader-workers must be >= 0, got -1"),
        (("--data", "PREPARED", "--frames", "2"), "--frames 2 is for preparing media, but --data"),
        (("--data", "PREPARED", "--workers", "1"), "--workers 1 is for preparing media, but --data"),
        (("--data", "PREPARED", "--classes", "a", "b"), "--classes a b is for preparing media, but --data"),
        (("--data", "PREPARED", "--ignore-unlisted"), "--ignore-unlisted is for preparing media, but --data"),
        (("--data", "PREPARED", "--prepared", "p"), "--prepared p is for preparing media, but --data"),
        (("--frame-size", "0"), "frame_size must be an integer >= 1, got 0"),
        (
            ("--sound", "waveform", "--mels", "64"),
            "--mels 64 is only for the format spectrogram, and the chosen one is waveform",
        ),
        (
            ("--image-format", "png", "--quality", "90"),
            "--quality 90 is only for the format jpeg, and the chosen one is png",
        ),
        (
            ("--data", "PREPARED", "--modalities", "audio", "--vision-backbone", "resnet-18"),
            "--vision-backbone resnet-18 would have no effect: the modalities are ['audio']",
        ),
        (
            ("--modalities", "vision", "--audio-backbone", "resnet-18"),
            "--audio-backbone resnet-18 would have no effect: the modalities are ['vision']",
        ),
    ],
)
def test_bad_arguments_give_a_one_line_error(
    prepared: Path,
    tmp_path: Path,
    command: Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = tuple(str(prepared) if argument == "PREPARED" else argument for argument in arguments)
    assert command("ks", *arguments, "--output", tmp_path / "run") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("multifuse train ks: error: ")
    assert message in error
    assert not (tmp_path / "run/metrics.json").exists()


def test_a_missing_folder_of_digits_is_named_by_the_option_that_gave_it(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nowhere"
    assert command("av_digits", "--data", folder, "--output", tmp_path / "run") == 2
    assert f"--data {folder} is not a folder" in capsys.readouterr().err.splitlines()[-1]


def test_a_set_prepared_for_another_benchmark_is_refused(
    prepared: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("cremad", "--data", prepared, "--output", tmp_path / "run") == 2
    assert "was prepared for ks" in capsys.readouterr().err


@pytest.fixture
def job(prepared: Path, tmp_path: Path) -> AudioVisualJob:
    return AudioVisualJob(
        output=tmp_path / "run",
        data_set=AUDIOVISUAL_SETS["ks"],
        data=prepared,
        audio_backbone="resnet-small",
        vision_backbone="resnet-small",
        device="cpu",
    )


def test_a_recipe_reaches_the_model_of_clips_and_only_training_is_augmented(job: AudioVisualJob) -> None:
    recipe = replace(AV_DIGITS, level_floor=0.3, modality_floor=0.6, feature_dropout=0.25)
    trainer = started(replace(job, recipe=recipe))
    config = trainer.model.config
    assert (config.level_floor, config.modality_floor) == (0.3, 0.6)
    assert [entry["dropout"] for entry in config.modalities.values()] == [0.25, 0.25]
    train, valid = trainer.train_dataset, trainer.eval_dataset
    for name in ("audio", "vision"):
        assert not torch.equal(train[0].inputs[name], train[0].inputs[name]), "training is not augmented"
        assert torch.equal(valid[0].inputs[name], valid[0].inputs[name]), "the validation split is augmented"


def test_inputs_are_scaled_by_the_statistics_of_imagenet_and_of_the_training_spectrograms(job: AudioVisualJob) -> None:
    trainer = started(replace(job, recipe=replace(AV_DIGITS, augmentation=None)))
    entries: Any = trainer.model.config.modalities
    assert (entries["vision"]["mean"], entries["vision"]["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    train = trainer.train_dataset
    values = torch.stack([train[index].inputs["audio"] for index in range(len(train))]).double()
    assert entries["audio"]["mean"] == [pytest.approx(float(values.mean()), rel=1e-4)]
    assert entries["audio"]["std"] == [pytest.approx(float(values.std()), rel=1e-3)]


def test_a_batch_of_a_single_clip_which_batch_normalisation_may_not_accept_is_dropped(job: AudioVisualJob) -> None:
    clips = len(started(job).train_dataset)
    for batch_size, expected in ((clips - 1, [clips - 1]), (clips - 2, [clips - 2, 2]), (clips, [clips])):
        loader = started(replace(job, batch_size=batch_size)).get_train_dataloader()
        assert [len(batch["labels"]) for batch in loader] == expected
