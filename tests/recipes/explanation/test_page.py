"""The page: the same for the same input, complete for unusual models, and never any markup from the data."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifuse.recipes.explanation.gathered import About
from multifuse.recipes.explanation.page import page
from multifuse.recipes.explanation.sweeps import Sweep, SweepTable
from tests.pages import parsed
from tests.recipes.explanation.explanations import explanation

HOSTILE = "</p></td><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload='x' {{ 7 * 7 }} {% if %} ]]>-->"


def test_the_same_explanation_gives_the_same_page() -> None:
    assert page(explanation(samples=20)) == page(explanation(samples=20))


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"modalities": 1}, ["This model has one modality: nothing is exchanged", "nothing to choose from"]),
        ({"num_levels": 1}, ["nothing to choose from", "level 1"]),
        ({"lacking": True}, ["absent"]),
        ({"samples": 1, "modalities": 2}, ["too few for a map", "Lowest and middle and highest prediction"]),
        (
            {"classes": 3, "segments": 4, "samples": 3},
            ["Segments with a label", "no label x 4", "mean probability of their segments"],
        ),
        ({"classes": 14, "samples": 40}, ["other classes", "the probability of the predicted class"]),
        ({"gamma": 0.0}, ["0 %"]),
    ],
)
def test_unusual_models_and_samples_give_a_complete_page(options: dict[str, Any], texts: list[str]) -> None:
    result = parsed(page(explanation(**options)))
    for text in texts:
        assert text in result.text, text
    assert "nan" not in result.text


def test_tokens_are_shaded_by_their_alpha() -> None:
    whole = explanation(samples=3)
    values: dict[str, list[float]] = {"text": [0.0, 0.25, 1.0], "audio": [], "vision": [1.0, 1.0]}
    alphas = ({name: np.array(alpha, np.float32) for name, alpha in values.items()},)
    sample = replace(whole.shown[0], tokens=("not", "bad", "<b>"), alphas=alphas)
    html = page(replace(whole, levels=1, shown=(sample,)))
    assert '<span class="token none" style="--share:0.0" title="0.00">not</span>' in html
    assert '<span class="token" style="--share:0.25" title="0.25">bad</span>' in html
    assert '<span class="token" style="--share:1.0" title="1.00">&lt;b&gt;</span>' in html


def _with_texts(text: str, samples: int) -> str:
    """Returns a page on which every text that a file or a folder can name is this one."""
    whole = explanation(samples=samples, classes=2, modalities=1)
    tokens = (text,) * len(whole.shown[0].alphas[0]["text"])
    sample = replace(whole.shown[0], id=text, prediction=text, label=text, sentence=text, tokens=tokens)
    about = About(text, text, "test")
    sweep = Sweep(text, text, (SweepTable(text, (text,), ((text,),)),), "AAAA")
    return page(replace(whole, about=about, classes=(text, text), shown=(sample,)), [sweep])


def test_no_text_of_the_data_becomes_markup() -> None:
    hostile, plain = parsed(_with_texts(HOSTILE, 6)), parsed(_with_texts("plain", 6))
    assert hostile.elements == plain.elements
    assert "{{ 7 * 7 }}" in hostile.text
    assert hostile.text.count("alert(1)") >= 2 * 10


@settings(max_examples=20, deadline=None)
@given(st.text(alphabet="<>\"'&/=!-{}%#a ", min_size=1, max_size=20))
def test_no_drawn_text_becomes_markup(text: str) -> None:
    assert parsed(_with_texts(text, 4)).elements == parsed(_with_texts("plain", 4)).elements
