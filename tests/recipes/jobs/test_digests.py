"""Digests of what a run reads: they change with the content, and not with the place."""

import shutil
from pathlib import Path

import pytest

from multifuse.recipes.jobs import digests


def test_an_encoder_is_told_by_its_files_wherever_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "one/bert"
    folder.mkdir(parents=True)
    for name in ("config.json", "vocab.txt", "model.safetensors", "README.md"):
        (folder / name).write_text(name)
    before = digests.encoder_digest("text-encoder", str(folder))
    moved = Path(shutil.copytree(folder, tmp_path / "two/bert"))
    (moved / "README.md").write_text("other")
    assert before is not None
    assert digests.encoder_digest("text-encoder", str(moved)) == before
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        changed = Path(shutil.copytree(folder, tmp_path / f"{name}/bert"))
        (changed / name).write_text(name.upper())
        assert digests.encoder_digest("text-encoder", str(changed)) != before, name
    assert digests.encoder_digest("text-encoder", "google/bert") is None


def test_a_prepared_set_is_told_by_its_record_and_by_the_ends_and_sizes_of_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_ENDS", 4)
    folder = tmp_path / "set"
    (folder / "train").mkdir(parents=True)
    record, shard = {"frames": 3}, folder / "train/data-00000-of-00001.arrow"
    shard.write_bytes(b"abcdefghijkl")
    before = digests.prepared_digest(folder, record)
    assert digests.prepared_digest(Path(shutil.copytree(folder, tmp_path / "moved")), record) == before
    for content in (b"Xbcdefghijkl", b"abcdefghijkX", b"abcdefgXhijkl"):
        shard.write_bytes(content)
        assert digests.prepared_digest(folder, record) != before, content
    shard.write_bytes(b"abcdefghijkl")
    assert digests.prepared_digest(folder, record) == before
    assert digests.prepared_digest(folder, {"frames": 2}) != before
