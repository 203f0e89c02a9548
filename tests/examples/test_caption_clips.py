"""`examples/caption_clips.py`: its clips and captions, and what it prints when it is run at a tiny size."""

import ast
import runpy
import sys
from collections import Counter

import pytest
import torch

from tests.paths import ROOT

EXAMPLE = str(ROOT / "examples/caption_clips.py")


def test_captions_are_made_of_the_words_that_the_tokenizer_knows() -> None:
    names = runpy.run_path(EXAMPLE)
    tokenizer = names["word_tokenizer"]()
    data, captions = names["samples"](50, 0, tokenizer)
    assert len(set(captions)) > 40
    for sample, caption in zip(data, captions, strict=True):
        assert tokenizer.decode(sample.label, skip_special_tokens=True) == caption
        assert sample.label[-1] == tokenizer.eos_token_id
        assert {name: values.shape[1] for name, values in sample.inputs.items()} == {"audio": 8, "vision": 8}
    assert names["exact_match"](captions, captions[:1] * 50) == 100 * Counter(captions)[captions[0]] / 50


def test_the_program_trains_and_prints_a_row_per_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"--epochs": 2, "--train-samples": 512, "--test-samples": 16, "--size": 16}
    monkeypatch.setattr(sys, "argv", [EXAMPLE, *(str(word) for option in sizes.items() for word in option)])
    threads = torch.get_num_threads()
    runpy.run_path(EXAMPLE, run_name="__main__")
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    losses = [ast.literal_eval(line)["loss"] for line in printed.splitlines() if line.startswith("{'loss'")]
    assert len(losses) == 4
    assert all(float(later) < float(first) for first, later in (losses[:2], losses[2:]))
    rows: dict[str, float] = {}
    for line in printed.splitlines():
        if line.startswith("| ") and "exact match" not in line:
            name, score = line.strip("| ").split(" | ")
            rows[name] = float(score)
    assert list(rows) == ["the most frequent caption", "CLCR", "without fusion"]
    assert all(0 <= score <= 100 for score in rows.values())
    assert printed.count("caption:  a ") == printed.count("sentence: ") == 3
