"""Outputs that cannot be written, or that contain other results: a one-line error, and nothing is changed."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from multifuse import CLCRConfig, CLCRForPrediction
from multifuse.recipes.commands.main import main
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.planted_media import planted_options
from multifuse.recipes.data.media.preparation import Preparation, prepare
from multifuse.recipes.data.split_lists.clips import PreparationError
from multifuse.recipes.files import OutputError, whole
from multifuse.recipes.jobs import resumption
from multifuse.recipes.jobs.job import JobError
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob
from multifuse.recipes.trainer.checkpoints import native_writes
from tests import media_files
from tests.files import contents, mmsa_splits, save_unscaled, write
from tests.sizes import SMALL_SIZES


class Disk:
    """A separate file system of any size, writable or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, kilobytes: int) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(self.folder)], check=True)

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = Disk(folder)
    try:
        mounted.mount(4096)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system cannot be mounted here: the user is not root, or the container forbids it")
    yield mounted
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "small.pkl", mmsa_splits(count=12))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media_files.kinetics_sounds(tmp_path_factory.mktemp("ks"), clips=8, train=6)


def training(data: Path, output: Path, **changes: Any) -> SentimentJob:
    job = SentimentJob(output=output, data=data, epochs=4, batch_size=8, device="cpu", config=SMALL_SIZES)
    return replace(job, **changes)


def preparation(clips: Path, output: Path) -> Preparation:
    options = replace(planted_options("ks"), frames=2, frame_size=16)
    return Preparation(
        AUDIOVISUAL_SETS["ks"], clips / "media", clips / "splits", output, options, shard_size=2, quiet=True
    )


def saved_model(folder: Path) -> Path:
    modalities = {
        name: {"encoder": "temporal_conv", "input_size": width} for name, width in (("text", 7), ("audio", 5))
    }
    CLCRForPrediction(CLCRConfig(modalities=modalities, **SMALL_SIZES)).save_pretrained(folder / "model")  # type: ignore[arg-type]
    save_unscaled(folder / "model", {"text": 7, "audio": 5})
    return folder


def run_command(*arguments: Any) -> int:
    return main(list(map(str, arguments)))


def evaluation(model: Path, data: Path, output: Path) -> int:
    options = ("--missing", "--model", model, "--data", data, "--output", output, "--draws", 1)
    return run_command("evaluate", *options)


def test_a_full_disk_stops_training_at_a_complete_checkpoint_from_which_it_resumes(
    tmp_path: Path, data: Path, disk: Disk
) -> None:
    expected = run(training(data, tmp_path / "undisturbed"))
    checkpoint = sum(map(len, contents(next((tmp_path / "undisturbed/checkpoints").iterdir())).values()))
    disk.remount(f"size={3 * checkpoint // 2048}k")
    output = disk.folder / "run"
    with pytest.raises(OutputError, match=r"checkpoint-4 cannot be written: No space left on device") as caught:
        run(training(data, output))
    assert "\n" not in str(caught.value)
    newest = resumption.newest_checkpoint(output)
    assert newest is not None
    assert newest.name == "checkpoint-2"
    assert [path for path in output.rglob("*") if path.name.startswith(".")] == []
    disk.remount(f"size={20 * checkpoint // 1024}k")
    resumed = run(training(data, output, resume=True))
    assert (resumed.valid, resumed.test, resumed.best_epoch) == (expected.valid, expected.test, expected.best_epoch)
    weights = "model/model.safetensors"
    assert contents(output)[weights] == contents(tmp_path / "undisturbed")[weights]


def test_a_full_disk_stops_preparation_at_a_complete_shard_from_which_it_resumes(
    tmp_path: Path, clips: Path, disk: Disk
) -> None:
    prepare(preparation(clips, tmp_path / "undisturbed"))
    expected = contents(tmp_path / "undisturbed")
    disk.remount(f"size={sum(map(len, expected.values())) // 2048}k")
    with pytest.raises(OutputError, match=r"cannot be written: No space left on device"):
        prepare(preparation(clips, disk.folder / "set"))
    before = contents(disk.folder / "set")
    assert "report.json" not in before
    assert all(expected[name] == content for name, content in before.items())
    disk.remount("size=4096k")
    prepare(preparation(clips, disk.folder / "set"))
    assert contents(disk.folder / "set") == expected


def test_a_full_disk_leaves_no_partial_evaluation(
    tmp_path: Path, data: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved_model(tmp_path)
    disk.remount("size=16k")
    assert evaluation(model, data, disk.folder / "missing") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert contents(disk.folder) == {}


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """Makes writes beyond ``most`` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "python": lambda path: path.write_bytes(bytes(1 << 20)),
    "torch": lambda path: torch.save({"weight": torch.zeros(1 << 18)}, path),
    "safetensors": lambda path: save_file({"weight": torch.zeros(1 << 18)}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_failed_write_of_any_writer_names_the_file_and_keeps_the_old_one(tmp_path: Path, writer: str) -> None:
    target = tmp_path / "weights"
    target.write_text("old")

    def fail() -> None:
        with whole(target) as partial, native_writes(target):
            WRITERS[writer](partial)

    with small_files(4096), pytest.raises(OutputError, match=r"weights cannot be written: .") as caught:
        fail()
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {"weights": b"old"}


@pytest.fixture(params=["a file in its place", "a file above it", "a read-only disk"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Returns an output that cannot be created, next to a file that must not change."""
    if request.param == "a read-only disk":
        disk: Disk = request.getfixturevalue("disk")
        (disk.folder / "kept").write_text("kept")
        disk.remount("ro")
        return disk.folder / "run"
    (tmp_path / "kept").write_text("kept")
    return tmp_path / "kept" if request.param == "a file in its place" else tmp_path / "kept/run"


def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path,
    data: Path,
    clips: Path,
    unwritable: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = saved_model(tmp_path)
    before = contents(tmp_path)

    def must_not_be_called(*_: Any) -> None:
        raise AssertionError("work was started")

    with monkeypatch.context() as patch:
        patch.setattr("multifuse.recipes.data.features.mmsa.read_mmsa", must_not_be_called)
        patch.setattr("multifuse.recipes.jobs.sentiment.read_mmsa", must_not_be_called)
        patch.setattr("multifuse.recipes.data.media.preparation.clip_row", must_not_be_called)
        capsys.readouterr()
        assert run_command("train", "mosi", "--data", data, "--output", unwritable) == 2
        assert evaluation(model, data, unwritable) == 2
        lines = capsys.readouterr().err.splitlines()
        with pytest.raises(OutputError, match=r"cannot be (created|written)") as caught:
            prepare(preparation(clips, unwritable))
    assert [str(unwritable) in line and "cannot be" in line for line in [*lines, str(caught.value)]] == 3 * [True]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["model/config.json", "training.png", "metrics.json", "checkpoints/checkpoint-2/a"])
@pytest.mark.parametrize("resume", [False, True])
def test_training_refuses_an_output_that_contains_other_results(
    tmp_path: Path, data: Path, name: str, resume: bool
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("other")
    if resume and name.startswith("checkpoints"):
        (tmp_path / name).with_name("trainer_state.json").write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(JobError, match=r"already holds|which says how the run was started, cannot be read"):
        run(training(data, tmp_path, resume=resume))
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{}"),
        ("train/data-00000-of-00001.arrow", "other"),
        ("report.json", '{"of": "something else"}'),
        ("preparation.json", "damaged"),
        ("preparation.json", "[]"),
    ],
)
def test_preparation_refuses_an_output_that_contains_other_results(
    tmp_path: Path, clips: Path, name: str, content: str
) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    before = contents(tmp_path)
    with pytest.raises(PreparationError, match=r"contains a file that no preparation wrote|cannot be read as"):
        prepare(preparation(clips, tmp_path))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["missing.json", "missing.png"])
def test_evaluation_refuses_an_output_that_contains_other_results(
    tmp_path: Path, data: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = saved_model(tmp_path / "run"), tmp_path / "missing"
    output.mkdir()
    (output / name).write_text("other")
    assert evaluation(model, data, output) == 2
    assert f"already contains {name}" in capsys.readouterr().err
    assert contents(output) == {name: b"other"}


def test_output_is_synced_to_disk_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file and folder is synced before the rename, and the parent folder after it."""
    events: list[str] = []
    fsync, replace_file = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        events.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(tmp_path)))
        fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        events.append("rename")
        replace_file(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    with whole(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "file").write_text("content")
    assert events == ["/.folder.partial/file", "/.folder.partial", "rename", ""]
