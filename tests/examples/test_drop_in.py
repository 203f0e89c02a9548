"""The programs in `examples/drop_in`: each is short, and what it prints after a few steps is what it claims."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import programs
from tests.paths import ROOT

FOLDER = ROOT / "examples/drop_in"
PROGRAMS = sorted(FOLDER.glob("*.py"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


Runner = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Returns a function that runs a program, and returns the lines that it prints."""

    def lines(name: str, *arguments: str) -> list[str]:
        done = programs.run(FOLDER / f"{name}.py", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return lines


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+|\d+e-\d+|\d+e\+\d+|\b\d+\b", line)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_is_short_and_on_the_page_with_what_it_prints(program: Path) -> None:
    assert len(program.read_text().splitlines()) <= 90
    page = (ROOT / "docs/programs.md").read_text()
    assert f"(../examples/drop_in/{program.name})" in page
    printed = re.findall(r"^    (\S.*)$", program.read_text().split('"""')[1], re.MULTILINE)
    assert printed
    for line in printed:
        assert line in page, line


def test_two_encoders_start_as_they_are_and_exchange_within_the_budget(run: Runner) -> None:
    first, last = run("two_encoders", "--steps", "2")
    assert first.startswith("step 0: accuracy ")
    assert last.startswith("step 2: accuracy ")
    for line in (first, last):
        assert all(abs(alpha - 0.68) < 0.05 for alpha in numbers(line)[-2:]), line


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")
def test_the_lightning_module_compiles_without_a_break_and_drives_the_regulariser_down(run: Runner) -> None:
    lines = run("lightning_module", "--backend", "eager", "--steps", "12")
    first, last = (numbers(line) for line in lines if line.startswith("step "))
    assert (first[0], last[0]) == (0, 12)
    assert last[2] < 0.8 * first[2]


def test_all_depths_tell_more_than_the_last(run: Runner) -> None:
    all_depths, last_depth = (numbers(line) for line in run("several_depths", "--steps", "60"))
    assert len(all_depths) == 4
    assert sum(all_depths[1:]) == pytest.approx(1, abs=0.02)
    assert last_depth[1:] == [1]
    assert all_depths[0] > last_depth[0] + 5


def test_an_encoder_of_ones_own_learns_and_the_regularisers_fall(run: Runner) -> None:
    first, last = (numbers(line) for line in run("own_encoder", "--steps", "25"))
    assert last[1] > first[1] + 15
    assert last[2] < first[2]
    assert last[3] < first[3]


def test_trainer_learns_and_the_saved_model_predicts_the_same(run: Runner) -> None:
    before, after, loaded = run("with_trainer", "--steps", "50")
    assert numbers(after)[1] > numbers(before)[1] + 15
    assert numbers(loaded) == [0]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_lora_learns_and_the_loaded_adapter_predicts_the_same(run: Runner) -> None:
    trained, before, after, loaded = run("lora", "--steps", "20")
    assert numbers(trained)[0] == 1536
    assert numbers(after)[1] > numbers(before)[1] + 15
    assert max(numbers(loaded)) < 1e-4


def test_every_regulariser_lowers_what_it_measures(run: Runner) -> None:
    header, *rows = run("whitening_regulariser", "--steps", "60")
    assert header.split() == ["canonical", "features", "explained", "words", "speakers"]
    left = {row[:18].strip(): numbers(row[18:]) for row in rows}
    assert list(left) == ["none", "Barlow Twins", "VICReg", "deep CCA", "WhiteningXCorrLoss"]
    for name in ("deep CCA", "WhiteningXCorrLoss"):
        assert left[name][0] < 0.5 * left["none"][0], name
    for name in ("Barlow Twins", "VICReg"):
        assert left[name][1] < 0.5 * left["none"][1], name


def test_a_clip_computes_the_same_from_the_patches_that_have_a_weight_alone(run: Runner) -> None:
    used, *rows = run("vision_language_selector", "--steps", "2")
    assert numbers(used)[0] == 64
    assert [row.split()[0] for row in rows] == ["all", "16", "8"]
    program = runpy.run_path(str(FOLDER / "vision_language_selector.py"))
    vision = program["small_clip"]().vision_model.eval()
    selector = vision.encoder = program["SelectingEncoder"](vision.encoder, 64, k=8)
    torch.nn.init.normal_(selector.score[-1].weight, std=4.0)
    pictures, _ = program["samples"](4, 32)
    tokens = vision.pre_layrnorm(vision.embeddings(pictures))
    most = int((selector.weights(tokens) > 0).sum(dim=1).max())
    assert 8 <= most < 32
    outputs = []
    for selector.kept in (None, most, 4):
        outputs.append(vision(pixel_values=pictures).pooler_output)
    torch.testing.assert_close(outputs[1], outputs[0])
    assert not torch.allclose(outputs[2], outputs[0])
