"""The sentiment job on its built-in default: which planted set is made, named, kept and refused."""

from pathlib import Path

import pytest

from multifuse.recipes.commands.main import main
from multifuse.recipes.data.features.planted import write_planted
from multifuse.recipes.data.features.planted_settings import EMBEDDED, SETTINGS
from multifuse.recipes.jobs import resumption
from multifuse.recipes.jobs.job import JobError
from multifuse.recipes.jobs.run import run
from multifuse.recipes.jobs.sentiment import SentimentJob


def test_the_named_setting_is_made_and_described(tmp_path: Path) -> None:
    for name in (None, "levels"):
        job = SentimentJob(output=tmp_path / str(name), planted=name)
        job.output.mkdir()
        data = job.make(writes=True)
        setting = SETTINGS[name or EMBEDDED]
        assert data.train.features["text"].values.shape[1] == setting.lengths["text"]
        assert job.record()["planted"] == job.description(data)["planted"] == (name or EMBEDDED)


def test_a_set_of_another_setting_is_replaced_unless_the_run_was_recorded(tmp_path: Path) -> None:
    write_planted(tmp_path / "planted.pkl", SETTINGS["cues"])
    job = SentimentJob(output=tmp_path, planted="levels")
    job.make(writes=True)
    made = (tmp_path / "planted.pkl").read_bytes()
    write_planted(tmp_path / "expected.pkl", SETTINGS["levels"])
    assert made == (tmp_path / "expected.pkl").read_bytes()
    resumption.record(tmp_path, job.record())
    write_planted(tmp_path / "planted.pkl", SETTINGS["levels"], seed=1)
    kept = (tmp_path / "planted.pkl").read_bytes()
    job.make(writes=True)
    assert (tmp_path / "planted.pkl").read_bytes() == kept


def test_a_setting_beside_a_file_and_an_unknown_one_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    with pytest.raises(JobError, match=r"--planted must be one of cues, default, .* got 'hints'"):
        run(SentimentJob(output=output, planted="hints"))
    arguments = ["--planted", "levels", "--data", "mosi.pkl", "--output", str(output)]
    assert main(["train", "mosi", *arguments]) == 2
    error = capsys.readouterr().err
    assert "--planted levels is a setting of the built-in default, got --data mosi.pkl too" in error
    assert error.count("\n") == 1
    assert not output.exists()
