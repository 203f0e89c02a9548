"""Preparation: from media files to Arrow shards, interruption and resumption, and every kind of bad clip."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_from_disk
from PIL import Image

from multifuse.recipes.data.media import preparation, shards
from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS
from multifuse.recipes.data.media.clip_rows import ClipRow, ClipTask, clip_row
from multifuse.recipes.data.media.planted_media import planted_options, write_planted_media
from multifuse.recipes.data.media.preparation import Preparation, prepare
from multifuse.recipes.data.media.preparation_record import RECORD, REPORT, prepared_record
from multifuse.recipes.data.split_lists.clips import SPLITS, PreparationError
from tests import media_files, programs
from tests.files import contents

OPTIONS = replace(planted_options("ks"), frames=2, frame_size=16)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes Kinetics-Sounds with two classes and fourteen clips."""
    return media_files.kinetics_sounds(tmp_path_factory.mktemp("ks"), clips=14, train=11)


@pytest.fixture(scope="module")
def flow_folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes precomputed flow of every clip, two images each."""
    folder = tmp_path_factory.mktemp("flow")
    for clip in (source / "media").iterdir():
        (folder / clip.stem).mkdir()
        for axis, number in product("xy", (1, 2)):
            Image.new("L", (8, 8), 100 * number).save(folder / clip.stem / f"flow_{axis}_{number:05d}.png")
    return folder


@pytest.fixture
def source_copy(source: Path, tmp_path: Path) -> Path:
    """Copies the source, so that a test may damage it."""
    return Path(shutil.copytree(source, tmp_path / "source"))


def job(source: Path, output: Path, **changes: Any) -> Preparation:
    base = Preparation(
        AUDIOVISUAL_SETS["ks"], source / "media", source / "splits", output, OPTIONS, shard_size=3, quiet=True
    )
    return replace(base, **changes)


def report(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / REPORT).read_text())
    return content


def stop_after(clips: int) -> Callable[[ClipTask], ClipRow]:
    """Returns a decoder that is interrupted after some clips, as by Ctrl-C."""
    done: list[str] = []

    def decoder(task: ClipTask) -> ClipRow:
        if len(done) == clips:
            raise KeyboardInterrupt
        done.append(task.clip.id)
        return clip_row(task)

    return decoder


def test_clips_become_rows_that_the_datasets_library_reads(source: Path, tmp_path: Path) -> None:
    result = prepare(job(source, tmp_path / "out"))
    assert result.clips == {"train": 9, "valid": 2, "test": 3}
    assert (result.skipped, result.unlisted, result.bad) == ([], [], 0)
    loaded = load_from_disk(str(tmp_path / "out"))
    assert {name: len(split) for name, split in loaded.items()} == result.clips
    row = shards.read_split(tmp_path / "out", "test").with_format("numpy")[1]
    assert row["id"] == "video12_000012_000014"
    assert row["label"] == 0
    assert row["spectrogram"].shape == OPTIONS.spectrogram.shape[::-1]
    assert np.isfinite(row["spectrogram"]).all()
    assert len(row["frames"]) == 2
    assert not list((tmp_path / "out").rglob(".*")), "a partial file was left behind"


@pytest.mark.parametrize("clips", [0, 1, 4, 10])
def test_an_interrupted_job_resumes_to_the_same_files(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clips: int
) -> None:
    prepare(job(source, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "clip_row", stop_after(clips))
        with pytest.raises(KeyboardInterrupt):
            prepare(job(source, tmp_path / "parts"))
    before = contents(tmp_path / "parts")
    assert REPORT not in before
    prepare(job(source, tmp_path / "parts"))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert all(contents(tmp_path / "parts")[name] == content for name, content in before.items())


@pytest.mark.parametrize(("name", "is_killed"), [("cremad", False), ("ks", False), ("ave", False), ("ucf101", True)])
def test_a_stopped_command_resumes_to_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_killed: bool
) -> None:
    """Kills the process, or interrupts it as Ctrl-C does: then it resumes with two workers, or with one."""
    planted = write_planted_media(name, tmp_path, divisor=4)
    command = ["prepare", name, "--media", str(planted.media), "--splits", str(planted.splits)]
    command += ["--frame-size", "64", "--shard-size", "3", "--output"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    once = programs.multifuse(*command, whole)
    assert once.returncode == 0, once.stderr
    assert f"Prepared {whole}: train" in once.stdout
    assert "skipped 0 of" in once.stdout
    assert "clip/s" in once.stderr
    if is_killed:
        process = [sys.executable, "-m", "multifuse", *command, str(parts)]
        before = killed_half_way(process, parts, shards_in_all=len(list(whole.rglob("*.arrow"))))
    else:
        with monkeypatch.context() as patch:
            patch.setattr(preparation, "clip_row", stop_after(4))
            assert programs.multifuse(*command, parts).returncode == 130
        before = contents(parts)
    assert not {REPORT, "dataset_dict.json"} & set(before), "the job finished before it was stopped"
    written = {path: path.stat().st_mtime_ns for path in parts.rglob("*.arrow")}
    assert written
    assert programs.multifuse(*command, parts, "--workers", 2 if is_killed else 1).returncode == 0
    assert contents(parts) == contents(whole)
    assert {path: path.stat().st_mtime_ns for path in written} == written, "existing shards were written again"


def killed_half_way(command: list[str], output: Path, shards_in_all: int) -> dict[str, bytes]:
    """Runs a job, kills it once half of its shards are written, and returns the content of its output."""
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(output.rglob("data-*.arrow"))) < shards_in_all // 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert len(list(output.rglob("data-*.arrow"))) >= shards_in_all // 2, "the job did not write half of its shards"
    return contents(output)


def test_an_existing_output_is_refused_with_other_options_or_lists(source_copy: Path, tmp_path: Path) -> None:
    prepare(job(source_copy, tmp_path / "out"))
    before = contents(tmp_path / "out")
    with pytest.raises(PreparationError, match="was started with frame_size 16, now 8"):
        prepare(job(source_copy, tmp_path / "out", options=replace(OPTIONS, frame_size=8)))
    with pytest.raises(PreparationError, match="was started with classes"):
        prepare(job(source_copy, tmp_path / "out", list_options={"classes": ["1"]}))
    with (source_copy / "splits/my_test.txt").open("a") as file:
        file.write("\nnew_1,10,1\n")
    with pytest.raises(PreparationError, match="was started with clips"):
        prepare(job(source_copy, tmp_path / "out"))
    assert contents(tmp_path / "out") == before


def test_a_job_resumes_from_the_same_files_only(
    source: Path, flow_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media, flow = tmp_path / "media", tmp_path / "flow"
    shutil.copytree(source / "media", media)
    shutil.copytree(flow_folder, flow)
    options = replace(OPTIONS, flow="folder")
    of_copies = job(source, tmp_path / "out", options=options, media=media, flow_folder=flow)
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "clip_row", stop_after(4))
        with pytest.raises(KeyboardInterrupt):
            prepare(of_copies)
    clip = "video00_000000_000002"
    other: dict[str, Any] = {
        "media": shutil.copytree(media, tmp_path / "other"),
        "flow_folder": shutil.copytree(flow, tmp_path / "o"),
    }
    media_files.video(other["media"] / f"{clip}.mp4", 12, sound=True)
    (other["flow_folder"] / clip / "flow_y_00002.png").write_bytes(b"other flow")

    def others_are_refused(base: Preparation) -> None:
        for name, option in (("media", "--media"), ("flow_folder", "--flow-folder")):
            with pytest.raises(
                PreparationError, match=rf"started with other files than those in {option} {other[name]}"
            ):
                prepare(replace(base, **{name: other[name]}))

    others_are_refused(of_copies)
    moved: dict[str, Any] = {
        "media": media.rename(tmp_path / "moved"),
        "flow_folder": flow.rename(tmp_path / "moved flow"),
    }
    of_moved = replace(of_copies, **moved)
    prepare(of_moved)
    prepare(job(source, tmp_path / "whole", options=options, flow_folder=flow_folder))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    others_are_refused(of_moved)


def test_a_set_of_an_earlier_version_which_does_not_record_its_files_resumes(source: Path, tmp_path: Path) -> None:
    prepare(job(source, tmp_path / "out"))
    path = tmp_path / "out" / RECORD
    earlier = prepared_record(path.parent)
    assert set(json.loads(path.read_text())) - set(earlier) == {"media_sha256"}, "which no digest of a set depends on"
    path.write_text(json.dumps(earlier))
    prepare(job(source, tmp_path / "out"))
    assert json.loads(path.read_text()) == earlier, "what was read before is not known"


def test_precomputed_flow_of_an_earlier_version_is_neither_read_nor_resumed(
    source: Path, flow_folder: Path, tmp_path: Path
) -> None:
    flow = job(source, tmp_path / "out", options=replace(OPTIONS, flow="folder"), flow_folder=flow_folder)
    prepare(flow)
    path = tmp_path / "out" / RECORD
    assert prepared_record(path.parent)["format"] == 3
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(PreparationError, match=r"has format 2, but this version .* as for format 3"):
        prepared_record(path.parent)
    with pytest.raises(PreparationError, match="was started with format 2, now 3"):
        prepare(flow)


def test_bad_clips_are_skipped_and_reported_up_to_a_fraction(source_copy: Path, tmp_path: Path) -> None:
    media = source_copy / "media"
    media_files.truncated(media / "video00_000000_000002.mp4", 0.3)
    media_files.video(media / "video03_000003_000005.mp4", 10)
    (media / "video12_000012_000014.mp4").unlink()
    media_files.video(media / "stranger.mp4", 4)
    with pytest.raises(PreparationError, match=r"of 15 clips \(.*\) are skipped, more than --max-bad 0\.2 allows"):
        prepare(job(source_copy, tmp_path / "out", max_bad=0.2))
    assert report(tmp_path / "out")["bad"] > 3
    result = prepare(job(source_copy, tmp_path / "out", max_bad=0.27))
    reasons = {entry["id"]: entry["reason"] for entry in result.skipped}
    assert reasons["video12_000012_000014"] == "has no media file"
    assert reasons["video03_000003_000005"] == "video03_000003_000005.mp4 has no sound"
    assert "video00_000000_000002.mp4 cannot be decoded" in reasons["video00_000000_000002"]
    assert result.clips == {"train": 7, "valid": 2, "test": 2}
    assert report(tmp_path / "out")["unlisted"] == [{"id": "stranger", "reason": "is in no split list"}]
    assert report(tmp_path / "out")["share"] == pytest.approx(4 / 15)
    # The limit also applies to a set that is finished already.
    with pytest.raises(PreparationError, match="more than --max-bad 0"):
        prepare(job(source_copy, tmp_path / "out", max_bad=0.0))
    assert prepare(job(source_copy, tmp_path / "out", max_bad=0.25, count_unlisted=False)).bad == 3


def test_the_command_says_that_clips_are_in_two_splits(tmp_path: Path) -> None:
    planted = write_planted_media("ave", tmp_path, divisor=8)
    seen = (planted.splits / "trainSet.txt").read_text().splitlines()[0]
    with (planted.splits / "testSet.txt").open("a") as test_list:
        test_list.write(f"{seen}\n")
    folders = ("--media", planted.media, "--splits", planted.splits, "--output", tmp_path / "out")
    done = programs.multifuse("prepare", "ave", *folders, "--frame-size", 16)
    assert done.returncode == 0, done.stderr
    assert "skipped 0 of 19; in several splits: 1, see" in done.stdout
    assert report(tmp_path / "out")["in_several_splits"] == [seen.split("&")[1]]


def test_clips_of_classes_that_are_not_chosen_do_not_count_as_unlisted(source: Path, tmp_path: Path) -> None:
    result = prepare(job(source, tmp_path / "out", list_options={"classes": ["1"]}, max_bad=0.0))
    assert (sum(result.clips.values()), result.unlisted, result.total) == (7, [], 7)


def test_missing_media_fail_before_anything_is_decoded(
    source_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (source_copy / "media").glob("video0*"):
        path.unlink()
    monkeypatch.setattr(preparation, "clip_row", stop_after(0))
    with pytest.raises(
        PreparationError, match=r"10 of 14 clips .* the first is video00_000000_000002: has no media file"
    ):
        prepare(job(source_copy, tmp_path / "out"))
    assert len(report(tmp_path / "out")["skipped"]) == 10
    assert set(contents(tmp_path / "out")) == {REPORT}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"workers": 0}, "--workers must be >= 1, got 0"),
        ({"max_bad": 1.5}, r"--max-bad must be in \[0, 1\], got 1.5"),
        ({"media": Path("nowhere")}, "--media nowhere is not a folder"),
        ({"options": replace(OPTIONS, flow="folder")}, "got flow 'folder' and --flow-folder None"),
    ],
)
def test_bad_arguments_are_named_and_nothing_is_written(
    source: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(PreparationError, match=message):
        prepare(job(source, tmp_path / "out", **changed))
    assert not (tmp_path / "out").exists()


def test_waveforms_and_computed_flow_are_stored_on_request(source: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, sound="waveform", flow="dis", image_format="png")
    prepare(job(source, tmp_path / "out", options=options))
    row = shards.read_split(tmp_path / "out", "test").with_format("numpy")[0]
    assert row["waveform"].shape == (options.spectrogram.samples,)
    assert row["waveform"].std() == pytest.approx(0.5 * 32767 / 2**0.5, rel=0.05)
    assert len(row["flow"]) == 2
    assert all(picture["bytes"].startswith(b"\x89PNG") for picture in row["flow"])


def test_a_split_without_clips_is_empty(source_copy: Path, tmp_path: Path) -> None:
    train = source_copy / "splits/my_train.txt"
    train.write_text("video00_000000_000002,2,0\nvideo01_000001_000003,2,1\n")
    result = prepare(job(source_copy, tmp_path / "out", count_unlisted=False))
    assert result.clips == {"train": 2, "valid": 0, "test": 3}
    assert [len(shards.read_split(tmp_path / "out", split)) for split in SPLITS] == [2, 0, 3]
