"""Files and folders are written atomically."""

from pathlib import Path

import pytest

from multifuse.recipes.files import whole


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    target.write_text("old")

    def fail() -> None:
        with whole(target) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_files_and_folders_are_replaced_completely(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with whole(tmp_path / "file") as partial:
            partial.write_text(content)
        with whole(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / content).touch()
    assert (tmp_path / "file").read_text() == "two"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["two"]


def test_a_kill_between_two_renames_loses_no_folder(tmp_path: Path) -> None:
    """The old folder was moved aside and the new one is not in place yet, so the old one must be restored."""
    old = tmp_path / ".folder.old"
    old.mkdir()
    (old / "file").write_text("old")

    def fail() -> None:
        with whole(tmp_path / "folder"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "folder/file").read_text() == "old"
    old.mkdir()  # the new folder is in place, but the old one was not deleted completely
    with whole(tmp_path / "folder") as partial:
        partial.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
