"""Damaged, forged and moved checkpoints: any change is refused, and no code runs."""

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from multifuse.recipes.jobs import resumption
from multifuse.recipes.jobs.job import JobError
from multifuse.recipes.jobs.resumption import CheckpointError
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob
from tests.files import contents, mmsa_splits, write
from tests.sizes import SMALL_SIZES


def job(folder: Path, name: str = "run", **changes: Any) -> SentimentJob:
    base = SentimentJob(
        output=folder / name, data=folder / "small.pkl", epochs=3, batch_size=8, device="cpu", config=SMALL_SIZES
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a run and leaves it as a kill after its last epoch would, next to the weights that it should end with."""
    folder = tmp_path_factory.mktemp("pristine")
    write(folder / "small.pkl", mmsa_splits(count=12))
    run(job(folder))
    (folder / "run/model/model.safetensors").rename(folder / "expected")
    shutil.rmtree(folder / "run/model")
    for name in ("metrics.json", "training.png"):
        (folder / "run" / name).unlink()
    return folder


def newest(folder: Path) -> Path:
    checkpoint = resumption.newest_checkpoint(folder / "run")
    assert checkpoint is not None
    return checkpoint


def change_state(checkpoint: Path, **fields: Any) -> None:
    path = checkpoint / "trainer_state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    resumption.seal(checkpoint)


def test_a_moved_run_ends_with_its_own_best_epoch(pristine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "moved"))
    change_state(newest(folder), best_model_checkpoint="where/it/was/started")
    run(job(folder, resume=True))
    assert (folder / "run/model/model.safetensors").read_bytes() == (pristine / "expected").read_bytes()
    assert load_file(newest(folder) / "model.safetensors").keys() == load_file(folder / "expected").keys()
    assert (newest(folder) / "model.safetensors").read_bytes() != (folder / "expected").read_bytes(), (
        "the best epoch is the last, so this tests nothing"
    )


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "add"])
def test_a_checkpoint_with_any_file_damaged_is_refused(pristine: Path, tmp_path: Path, damage: str) -> None:
    names = [path.name for path in newest(pristine).iterdir() if path.name != "trainer_state.json"]
    assert len(names) >= 5
    for name in names:
        folder = Path(shutil.copytree(pristine, tmp_path / name))
        path = newest(folder) / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "flip":
            path.write_bytes(bytes(content))
        elif damage == "cut":
            path.write_bytes(bytes(content[: len(content) // 2]))
        elif damage == "remove":
            path.unlink()
        else:
            path.with_name(f"pytorch_{name}").write_bytes(b"more")
        before = contents(folder)
        with pytest.raises(CheckpointError, match=r"is damaged: .* not as written|cannot be read") as caught:
            run(job(folder, resume=True))
        assert str(newest(folder)) in str(caught.value)
        assert contents(folder) == before


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_hostile_checkpoint_with_a_forged_seal_runs_nothing(pristine: Path, tmp_path: Path, name: str) -> None:
    folder, marker = Path(shutil.copytree(pristine, tmp_path / "run")), tmp_path / "executed"
    checkpoint = newest(folder)
    torch.save({"state": _Hostile(marker)}, checkpoint / name)
    if name == "rng_state.pth":  # read at the start of an epoch
        change_state(checkpoint, global_step=4)
    resumption.seal(checkpoint)
    if name == "training_args.bin":  # never read
        run(job(folder, resume=True))
    else:
        with pytest.raises(CheckpointError, match="cannot be resumed from: UnpicklingError"):
            run(job(folder, resume=True))
    assert not marker.exists()


def test_pickled_weights_are_refused(pristine: Path, tmp_path: Path) -> None:
    folder, marker = Path(shutil.copytree(pristine, tmp_path / "run")), tmp_path / "executed"
    checkpoint = newest(folder)
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    for content in (weights, {"head": _Hostile(marker)}):
        torch.save(content, checkpoint / "pytorch_model.bin")
        resumption.seal(checkpoint)
        with pytest.raises(CheckpointError, match="holds no safetensors; pickled weights are refused"):
            run(job(folder, resume=True))
    assert not marker.exists()


def test_a_missing_best_checkpoint_is_an_error(pristine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "run"))
    (best,) = [path for path in (folder / "run/checkpoints").iterdir() if path != newest(folder)]
    shutil.rmtree(best)
    with pytest.raises(CheckpointError, match=f"{best.name}.*cannot be read"):
        run(job(folder, resume=True))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", pickle.dumps({})])
def test_a_damaged_record_is_refused(pristine: Path, tmp_path: Path, content: bytes) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "run"))
    (folder / "run/job.json").write_bytes(content)
    with pytest.raises(JobError, match=r"job\.json, which says how the run was started, cannot be read"):
        run(job(folder, resume=True))
