"""The benchmark for GPUs: its report, what it says without a GPU, and a short run where there is one."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_speed
from benchmarks.gpu_speed import GpuReport, ModelOnGpu, OpOnGpu
from benchmarks.models_speed import NAMES
from benchmarks.reports import report_path, write_report
from benchmarks.timing import Timing


def milliseconds(value: float) -> Timing:
    return Timing(value / 1000, value / 1000, value / 1000, 1)


def report() -> GpuReport:
    clcr = ModelOnGpu(
        "CLCR",
        {"eager": milliseconds(9), "graph": milliseconds(3)},
        {"inference of 1": milliseconds(1)},
        870,
        1043,
        95.0,
    )
    late = ModelOnGpu("late fusion", {"eager": milliseconds(4)}, {}, 0, 300, 50.0)
    op = OpOnGpu(milliseconds(0.5), bytes_moved=10**9, copy_bandwidth=4e12)
    return GpuReport({"gpu": "A Card 80GB"}, [clcr, late], {"the budgets": 0.021}, op, {1024: 3.0})


def test_the_share_is_the_bandwidth_over_the_bytes_moved_in_that_of_a_copy() -> None:
    assert report().op.share == pytest.approx(0.5)


def test_the_table_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    figures = report_path(tmp_path, report().machine["gpu"])
    write_report(figures, report().as_json(), report().as_table())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a-card-80gb.json", "a-card-80gb.md"]
    lines = (tmp_path / "a-card-80gb.md").read_text().splitlines()
    assert "| model | eager | graph | inference of 1 | operators | kernels | MiB |" in lines
    assert "| CLCR | 9.00 | 3.00 | 1.00 | 870 | 1043 | 95 |" in lines
    assert "| late fusion | 4.00 |  |  |  | 300 | 50 |" in lines
    assert json.loads(figures.read_text())["share_of_copy_bandwidth"] == pytest.approx(0.5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_speed", "--results", str(tmp_path / "new")])
    gpu_speed.main()
    assert "no GPU" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_on_a_gpu_everything_is_measured(tmp_path: Path) -> None:
    measured = gpu_speed.measured(0.1, compiled=())
    assert {model.model for model in measured.models} == {*NAMES.values(), gpu_speed.TRANSFORMER}
    assert all(model.kernels > 0 and model.mebibytes > 0 for model in measured.models)
    assert all(0 < share < 1 for share in measured.parts.values())
    assert 0 < measured.op.share < 1.5
    write_report(tmp_path / "card.json", measured.as_json(), measured.as_table())
