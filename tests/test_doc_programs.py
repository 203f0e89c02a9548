"""The programs on pages that are written to be copied: every Python block runs, each after those before it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.paths import ROOT

PAGES = {"comparing.md": "CLCRForPrediction: ", "export.md": "('mean',)"}
"""What the programs of each page print, among other things."""


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_one_after_the_other(
    page: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert len(blocks) > 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert PAGES[page] in capsys.readouterr().out
