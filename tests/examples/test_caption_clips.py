"""`examples/caption_clips.py`: its clips and captions, and what it prints when it is run at a tiny size."""

import ast
import runpy
from collections import Counter
from pathlib import Path

import torch

from tests import programs
from tests.paths import ROOT

EXAMPLE = ROOT / "examples/caption_clips.py"


def test_captions_are_made_of_the_words_that_the_tokenizer_knows() -> None:
    names = runpy.run_path(str(EXAMPLE))
    tokenizer = names["word_tokenizer"]()
    data, captions = names["samples"](50, 0, tokenizer)
    assert len(set(captions)) > 40
    for sample, caption in zip(data, captions, strict=True):
        assert tokenizer.decode(sample.label, skip_special_tokens=True) == caption
        assert sample.label[-1] == tokenizer.eos_token_id
        assert {name: values.shape[1] for name, values in sample.inputs.items()} == {"audio": 8, "vision": 8}
    assert names["exact_match"](captions, captions[:1] * 50) == 100 * Counter(captions)[captions[0]] / 50


def test_the_program_trains_and_prints_a_row_per_model(tmp_path: Path) -> None:
    sizes = {"--epochs": 2, "--train-samples": 512, "--test-samples": 16, "--size": 16}
    threads = torch.get_num_threads()
    done = programs.run(EXAMPLE, *(word for option in sizes.items() for word in option), cwd=tmp_path)
    torch.set_num_threads(threads)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
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
