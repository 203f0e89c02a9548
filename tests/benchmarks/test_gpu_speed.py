"""The benchmark for GPUs: its report, what it says without a GPU, and a short run where there is one."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_speed
from benchmarks.gpu_kernels import ELEMENTWISE, Kernels, by_kind, kind_of
from benchmarks.gpu_report import GpuReport, ModelOnGpu, OpOnGpu, PartOnGpu
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
        Kernels(1043, {"matrix products": 3.0, "attention": 0.5}),
        95.0,
    )
    late = ModelOnGpu("late fusion", {"eager": milliseconds(4)}, {}, 0, Kernels(300, {"matrix products": 1.0}), 50.0)
    op = OpOnGpu((4, 5), milliseconds(0.5), bytes_moved=10**9, copy_bandwidth=4e12)
    parts = {"the budgets": PartOnGpu(0.0214, Kernels(12, {"the projection": 0.02}))}
    return GpuReport({"gpu": "A Card 80GB"}, 64, [clcr, late], parts, op, {1024: 3.0})


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
    assert "| model | all | matrix products | attention |" in lines
    assert "| CLCR | 3.500 | 3.000 | 0.500 |" in lines
    assert "| late fusion | 1.000 | 1.000 |  |" in lines
    assert "- the budgets: 0.021, 12 kernels (the projection 0.020 ms)" in lines
    assert json.loads(figures.read_text())["share_of_copy_bandwidth"] == pytest.approx(0.5)


def test_kernels_are_added_up_by_what_their_names_say_that_they_compute() -> None:
    attention = (
        "fmha_cutlassB_f32_aligned_64x64_k32_sm80(PyTorchMemEffAttention::AttentionBackwardKernel<cutlass::arch>"
    )
    product = (
        "sm80_xmma_gemm_f32f32_f32f32_f32_nt_n_tilesize32x32x8_stage3_warpsize1x2x1_ffma_execute_kernel__5x_cublas"
    )
    kernels = by_kind([(attention, 300.0), (product, 50.0), (product, 25.0), ("Memcpy DtoD (Device -> Device)", 2.0)])
    assert kernels == Kernels(4, {"attention": 0.3, "matrix products": 0.075, "copies and fills": 0.002})
    assert kernels.total == pytest.approx(0.377)
    ours = "void multifuse::project_in_registers<float, 16, 32>(multifuse::Projection<float>)"
    added = (
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, std::array<char*, 3ul>>"
    )
    assert [kind_of(ours), kind_of(added)] == ["the projection", ELEMENTWISE]
    convolutions = ("sm80_xmma_fprop_implicit_gemm_f32f32", "wgrad2d_grouped_direct_kernel", "nchwToNhwcKernel")
    assert {kind_of(name) for name in convolutions} == {"convolutions"}


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
    assert all(model.kernels.total > 0 and model.mebibytes > 0 for model in measured.models)
    assert all(0 < part.share < 1 for part in measured.parts.values())
    assert 0 < measured.op.share < 1.5
    write_report(tmp_path / "card.json", measured.as_json(), measured.as_table())
