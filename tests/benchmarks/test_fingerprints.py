"""What tells data and encoders apart, and result files that are refused or accepted."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.fingerprints import ResultsError, check, check_same, of_encoder, result_files, write_result
from benchmarks.machine import COMMIT, machine


def test_an_encoder_is_known_by_its_files_and_not_by_its_folder(tmp_path: Path) -> None:
    for name, weights in (("one", "1"), ("same", "1"), ("other", "2")):
        (tmp_path / name / ".cache").mkdir(parents=True)
        (tmp_path / name / "weights").write_text(weights)
        (tmp_path / name / ".cache/when").write_text(name)
    one, same, other = (of_encoder(str(tmp_path / name)) for name in ("one", "same", "other"))
    assert one == same != other
    (tmp_path / "same/weights").rename(tmp_path / "same/renamed")
    assert of_encoder(str(tmp_path / "same")) != one


def test_an_encoder_of_the_hub_is_known_by_its_name_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(from_pretrained=lambda name: SimpleNamespace(_commit_hash="abc"))
    monkeypatch.setattr("benchmarks.fingerprints.AutoConfig", config)
    assert of_encoder("some/encoder") == "some/encoder@abc"


def test_files_of_other_data_and_files_that_do_not_say_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run.json"
    write_result(path, {"mae": 0.5, "fingerprint": "a", "encoder_fingerprint": None})
    check([path], {"fingerprint": "a", "encoder_fingerprint": None})
    with pytest.raises(ResultsError, match=r"run\.json was made with other data \(fingerprint a, not b\)"):
        check([path], {"fingerprint": "b"})
    with pytest.raises(ResultsError, match=r"another text encoder \(encoder_fingerprint None, not c\)"):
        check([path], {"fingerprint": "a", "encoder_fingerprint": "c"})
    path.write_text(json.dumps({"mae": 0.5}))
    with pytest.raises(ResultsError, match="does not say with what data it was made: such files can only be summ"):
        check([path], {"fingerprint": "a"})


def test_files_that_differ_are_named_and_old_files_may_stand_together(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no results"):
        result_files(tmp_path)
    results: list[dict[str, Any]] = [{}, {}, {"fingerprint": "a"}]
    for number, result in enumerate(results):
        write_result(tmp_path / f"{number}.json", result)
    paths = result_files(tmp_path)
    check_same(paths[:2], ["fingerprint"], "set")
    with pytest.raises(ResultsError, match=r"^set: .*0\.json and .*2\.json were made with different data"):
        check_same(paths, ["fingerprint"], "set")


def test_a_result_file_names_the_commit_of_the_checkout_and_the_processor(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_result(path, {"machine": machine()})
    result = json.loads(path.read_text())
    assert result["commit"] == COMMIT
    assert COMMIT is None or re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", COMMIT)
    assert re.fullmatch(r".+ \w+, \d+ cores, \d+ threads", result["machine"])
