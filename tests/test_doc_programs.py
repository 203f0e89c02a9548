"""The programs on pages that are written to be copied: every Python block runs, each after those before it."""

import re
from typing import Any

import pytest
import torch

from tests.paths import ROOT

PAGES = ("comparing.md",)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_one_after_the_other(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert len(blocks) > 3
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    assert "CLCRForPrediction: " in capsys.readouterr().out
