"""The plan of the evidence: a file for every run, equal grids, and learning rates that ``valid`` alone chooses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evidence.plan import CLCR, CONFIGS, MODELS, SECTIONS, Section, grid, learning_rate, missing, rows
from benchmarks.evidence.runs import Run
from multifuse import CLCRConfig
from multifuse.recipes.jobs.models import MODELS as TRAINED
from multifuse.recipes.measures import classification

SECTION = Section("tiny", ("text",), fusions=(CLCR, "late-fusion"), seeds=(7, 8), learning_rates=(0.001, 0.002, 0.004))
RUNS = st.builds(
    Run,
    data=st.just("data"),
    model=st.sampled_from([*TRAINED, "svm"]),
    seed=st.integers(0, 20),
    lr=st.none() | st.floats(1e-8, 10),
    modalities=st.none() | st.sampled_from([("text",), ("audio",), ("text", "audio")]),
    config=st.sampled_from([(), *(tuple(row.items()) for table in CONFIGS.values() for row in table.values())]),
    epochs=st.none() | st.integers(1, 50),
)


def write(run: Run, results: Path, metric: str = "mae", valid: float = 0.5, test: float = 0.5) -> None:
    path = run.path(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"valid": {metric: valid}, "test": {metric: test}, "run": {"lr": run.lr}}))


@given(RUNS, RUNS)
def test_different_runs_have_different_files(first: Run, second: Run) -> None:
    assert (first == second) == (first.path(Path()) == second.path(Path()))


def test_the_names_of_files_stay_as_they_are() -> None:
    run = Run("planted-default", CLCR, 3, 5e-4, config=(("gamma", 0.5), ("use_inter_cad", False)))
    assert run.path(Path("x")) == Path("x/planted-default/clcr.gamma=0.5.use_inter_cad=False.lr=0.0005.seed=3.json")
    assert Run("mosi", "late-fusion", 1, 1e-3, ("text",)).name == "late-fusion.text.lr=0.001"
    assert Run("mosi", "svm", 1).name == "svm"
    assert Run("mosi", CLCR, 1, 0.002, epochs=1).name == "clcr.epochs=1.lr=0.002"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.data)
def test_no_two_rows_of_a_data_set_share_a_file_unless_they_are_the_same_run(section: Section, tmp_path: Path) -> None:
    for table in section.tables:
        runs = [run for row in rows(section, table, tmp_path) for run in row.runs]
        assert len({run.path(tmp_path) for run in runs}) == len(runs)


def test_every_configuration_is_one_of_clcrs() -> None:
    modalities = {name: {"encoder": "temporal_conv", "input_size": 3} for name in ("text", "audio")}
    for table in CONFIGS.values():
        for fields in table.values():
            CLCRConfig(modalities=modalities, **fields)


def test_every_model_is_tried_at_the_same_learning_rates_with_one_seed(tmp_path: Path) -> None:
    tried = grid(SECTION, tmp_path)
    assert [row.label for row in tried] == [CLCR, "late-fusion", "text alone"]
    for row in tried:
        assert [run.lr for run in row.runs] == [0.001, 0.002, 0.004]
        assert {run.seed for run in row.runs} == {7}


def test_several_seeds_choose_by_their_mean_once_all_are_done(tmp_path: Path) -> None:
    section, run = replace(SECTION, choosing_seeds=2), Run("tiny", CLCR, 7)
    scores = {0.001: (0.5, 0.6), 0.002: (0.4, 0.5), 0.004: (0.3, 0.9)}  # the last one is best for the first seed alone
    for lr, of_rate in scores.items():
        for seed, score in zip((7, 8), of_rate, strict=True):
            assert learning_rate(section, run, tmp_path) is None
            write(replace(run, lr=lr, seed=seed), tmp_path, valid=score)
    assert learning_rate(section, run, tmp_path) == 0.002
    assert [(one.lr, one.seed) for one in grid(section, tmp_path)[0].runs[:3]] == [(0.001, 7), (0.001, 8), (0.002, 7)]


@pytest.mark.parametrize("greater_is_better", [False, True])
def test_the_learning_rate_with_the_best_valid_score_is_chosen(tmp_path: Path, greater_is_better: bool) -> None:
    section = replace(SECTION, choice=classification.CHOICE) if greater_is_better else SECTION
    run = Run("tiny", CLCR, 7)
    best, worse = (0.9, 0.3) if greater_is_better else (0.3, 0.9)
    # Scores on test, and those of another seed, another model and another configuration, would choose 0.004.
    for lr in section.learning_rates:
        valid, other = (best if lr == 0.002 else 0.6), (best if lr == 0.004 else worse)
        write(replace(run, lr=lr), tmp_path, section.choice.metric, valid, other)
        for different in (
            replace(run, lr=lr, seed=8),
            replace(run, lr=lr, model="late-fusion"),
            replace(run, lr=lr, config=(("gamma", 0.5),)),
        ):
            write(different, tmp_path, section.choice.metric, other, other)
    assert learning_rate(section, run, tmp_path) == 0.002
    assert learning_rate(section, replace(run, config=(("gamma", 0.5),)), tmp_path) == 0.002
    assert {r.lr for row in rows(section, "budget", tmp_path) for r in row.runs} == {0.002}


def test_the_lowest_of_equally_good_learning_rates_is_chosen(tmp_path: Path) -> None:
    for lr, valid in ((0.004, 0.5), (0.001, 0.7), (0.002, 0.5)):
        write(Run("tiny", CLCR, 7, lr), tmp_path, valid=valid)
    assert learning_rate(SECTION, Run("tiny", CLCR, 7), tmp_path) == 0.002


def test_a_grid_goes_on_beyond_its_edge_until_the_best_is_inside(tmp_path: Path) -> None:
    run = Run("tiny", CLCR, 7)
    for lr, valid in ((0.001, 0.5), (0.002, 0.4), (0.004, 0.3)):
        assert learning_rate(SECTION, run, tmp_path) is None, "no rate may be chosen before the grid is done"
        write(replace(run, lr=lr), tmp_path, valid=valid)
    assert learning_rate(SECTION, run, tmp_path) is None
    (tried, *_) = grid(SECTION, tmp_path)
    assert [tried_run.lr for tried_run in tried.runs] == [0.001, 0.002, 0.004, 0.008]
    write(replace(run, lr=0.008), tmp_path, valid=0.2)
    write(replace(run, lr=0.016), tmp_path, valid=0.1)
    assert learning_rate(SECTION, run, tmp_path) == 0.016, "the highest rate that is tried is the last"
    write(replace(run, lr=0.016), tmp_path, valid=0.9)
    assert learning_rate(SECTION, run, tmp_path) == 0.008


def test_models_that_are_not_trained_have_neither_learning_rates_nor_seeds(tmp_path: Path) -> None:
    svm, ridge = (row for row in rows(SECTION, MODELS, tmp_path) if "pooled" in row.label)
    assert (svm.runs, ridge.runs) == ((Run("tiny", "svm", 7),), (Run("tiny", "ridge", 7),))


def test_the_grid_is_missing_first_and_then_what_its_results_ask_for(tmp_path: Path) -> None:
    by_stage = missing(SECTION, tmp_path)
    tried = next(by_stage)
    assert len(tried) == 9
    for run in tried:
        write(run, tmp_path, valid=abs(run.lr - 0.002) if run.lr else 0)
    of_models = next(by_stage)
    assert [(run.model, run.modalities, run.seed, run.lr) for run in of_models] == [
        ("svm", None, 7, None),
        ("ridge", None, 7, None),
        (CLCR, None, 8, 0.002),
        ("late-fusion", None, 8, 0.002),
        ("late-fusion", ("text",), 8, 0.002),
    ]
    for run in of_models:
        write(run, tmp_path)
    assert list(missing(SECTION, tmp_path)) == [[]]


def test_only_the_close_models_have_the_additional_seeds(tmp_path: Path) -> None:
    section = replace(SECTION, fusions=(CLCR, "late-fusion", "low-rank"), close=(CLCR, "late-fusion"), close_seeds=(9,))
    section = replace(section, tables=(MODELS, "budget"), learning_rates=(0.001,))
    for row in grid(section, tmp_path):
        write(row.runs[0], tmp_path)
    seeds = {row.label: [run.seed for run in row.runs] for row in rows(section, MODELS, tmp_path)}
    assert seeds[CLCR] == seeds["late-fusion"] == [7, 8, 9]
    assert seeds["low-rank"] == seeds["text alone"] == [7, 8]
    assert {row.label: len(row.runs) for row in rows(section, "budget", tmp_path)}["gamma 0.5"] == 2
    with_configs = replace(section, configs_are_close=True)
    assert [run.seed for run in rows(with_configs, "budget", tmp_path)[-1].runs] == [7, 8, 9]
    assert rows(with_configs, MODELS, tmp_path) == rows(section, MODELS, tmp_path)
    of_models = next(runs for runs in missing(section, tmp_path) if runs)
    assert {run.seed for run in of_models if run.is_trained} == {8, 9}
