"""What a resumed run relies on: only complete checkpoints, and the record of its job."""

from pathlib import Path

from multifuse.recipes.jobs import resumption


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert resumption.newest_checkpoint(tmp_path) is None
    for step, state in ((20, "{}"), (100, "{}"), (140, '{"half'), (180, None), ("last", "{}")):
        folder = tmp_path / resumption.CHECKPOINTS / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    newest = resumption.newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "checkpoint-100"


def test_a_job_is_compared_field_by_field_with_the_recorded_one(tmp_path: Path) -> None:
    job = {"data": "mosi.pkl", "seed": 1111, "lr": 2.5e-4, "betas": (0.9, 0.99)}
    assert resumption.differences(tmp_path, job) == [], "without a record, nothing can differ"
    resumption.record(tmp_path, job)
    assert resumption.differences(tmp_path, job) == []
    changed = {**job, "lr": 1e-3, "data": None}
    assert resumption.differences(tmp_path, changed) == ["data 'mosi.pkl', now None", "lr 0.00025, now 0.001"]


def test_what_earlier_records_lack_is_not_compared_and_a_digest_is_shown_beside_its_name(tmp_path: Path) -> None:
    job = {"data": "mosi.pkl", "data_sha256": "1" * 64, "bf16": False, "seed": 1}
    earlier = {"data": "mosi.pkl", "seed": 1}
    resumption.record(tmp_path, earlier)
    assert resumption.differences(tmp_path, job) == []
    assert resumption.differences(tmp_path, {**job, "seed": 2}) == ["seed 1, now 2"]
    resumption.record(tmp_path, job)
    assert resumption.differences(tmp_path, earlier) == []
    other = {**job, "data_sha256": "2" * 64}
    shown = "data 'mosi.pkl' with SHA-256 111111111111, now 'mosi.pkl' with SHA-256 222222222222"
    assert resumption.differences(tmp_path, other) == [shown]
    assert resumption.differences(tmp_path, {**other, "data": "mosei.pkl"}) == ["data 'mosi.pkl', now 'mosei.pkl'"]
    resumption.record(tmp_path, {"text_encoder": "bert", "text_encoder_sha256": "1" * 64})
    elsewhere = {"text_encoder": "bert", "text_encoder_sha256": None}
    assert resumption.differences(tmp_path, elsewhere)[0].endswith("now 'bert' outside any local folder")


def test_the_remains_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    names = (".checkpoint.partial/checkpoint-40", ".checkpoint-20.old", "checkpoint-20")
    for name in names:
        (tmp_path / resumption.CHECKPOINTS / name).mkdir(parents=True)
    resumption.clear_remains(tmp_path)
    assert [path.name for path in (tmp_path / resumption.CHECKPOINTS).iterdir()] == ["checkpoint-20"]
