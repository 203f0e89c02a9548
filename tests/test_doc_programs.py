"""The programs in the documents: every Python block of a page runs after those before it, and so do some commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import distributed
from transformers import BertConfig

from multifuse import CLCRConfig
from multifuse.recipes.commands.main import main
from multifuse.recipes.data.features.planted_settings import EMBEDDED, SETTINGS
from tests.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:^<!-- not run: (?P<reason>.+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S)
JOURNEY = ("index.md", "missing.md")
"""Pages whose commands are run too, in one folder: from training to predictions, and to an evaluation."""
SMALL = {"train": ["--epochs", "1", "--device", "cpu"]}
"""What is added to a command, so that it takes a second."""


class Block(NamedTuple):
    language: str
    code: str
    reason: str | None
    """Why it is not run."""


def blocks(page: Path, *languages: str) -> list[Block]:
    found = [Block(match["language"], match["code"], match["reason"]) for match in _BLOCK.finditer(page.read_text())]
    return [block for block in found if block.language in languages]


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def reader_s_own() -> dict[str, Any]:
    """Returns the names that a page takes from its reader: a config with a BERT, and a batch."""
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    bert = BertConfig(vocab_size=50, hidden_size=8, **sizes).to_dict()
    modalities = {
        "text": {"encoder": "text", "config": bert},
        "audio": {"encoder": "temporal_conv", "input_size": 5},
    }
    config = CLCRConfig(modalities=modalities, hidden_size=16, shared_rank=4, private_rank=4, num_levels=2)
    inputs = {"text": torch.randint(50, (4, 6)), "audio": torch.randn(4, 7, 5)}
    mask = {"text": torch.ones(4, 6, dtype=torch.bool), "audio": torch.ones(4, 7, dtype=torch.bool)}
    return {"config": config, "inputs": inputs, "mask": mask, "labels": torch.randn(4)}


def execute(page: Path, block: Block, names: dict[str, Any]) -> None:
    code = compile(block.code, page.name, "exec")
    if block.reason is None:
        exec(code, names)


@pytest.mark.filterwarnings("ignore:Grad strides do not match")  # DistributedDataParallel, of convolutions on a CPU
@pytest.mark.parametrize("page", [p for p in WITH_PYTHON if p.name not in JOURNEY], ids=lambda page: page.name)
def test_the_python_blocks_of_a_page_run_one_after_the_other(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    if page.name == "processes.md":
        request.getfixturevalue("one_process")
        names = reader_s_own()
    for block in blocks(page, "python"):
        execute(page, block, names)


def test_the_start_page_leads_from_training_to_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        SETTINGS, EMBEDDED, replace(SETTINGS[EMBEDDED], sizes=dict.fromkeys(("train", "valid", "test"), 16))
    )
    names: dict[str, Any] = {}
    for page in (ROOT / "docs" / name for name in JOURNEY):
        for block in blocks(page, "python", "bash"):
            if block.language == "python":
                execute(page, block, names)
            for line in block.code.splitlines() if block.language == "bash" else ():
                program, *arguments = shlex.split(line)
                if program == "multifuse":
                    assert main([*arguments, *SMALL.get(arguments[0], ())]) == 0, line
    printed = capsys.readouterr().out
    assert printed.count("predicted ") == 2
    assert "'audio': 0.0}" in printed
    assert len((tmp_path / "runs/start/scores.csv").read_text().splitlines()) == 17
    for file in ("metrics.json", "training.png", "model/config.json"):
        assert (tmp_path / "runs/start" / file).exists(), file


def test_the_readme_shows_the_drop_in_layer() -> None:
    assert any("IntraCED" in block.code for block in blocks(ROOT / "README.md", "python"))


def test_every_block_that_is_not_run_gives_a_reason_and_is_python() -> None:
    for page in PAGES:
        commented = page.read_text().count("<!-- not run: ")
        assert commented == sum(block.reason is not None for block in blocks(page, "python")), page.name
