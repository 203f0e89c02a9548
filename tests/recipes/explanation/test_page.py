"""The page: the same for the same input, complete for unusual models, and never any markup from the data."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multifuse.recipes.explanation.gathered import About, explained
from multifuse.recipes.explanation.maps import StreamMap
from multifuse.recipes.explanation.page import _class_colours, _scatters, _score_colours, page
from multifuse.recipes.explanation.sweeps import Sweep, SweepTable
from multifuse.recipes.measures.scores import CLASSES, SENTIMENT
from tests.pages import parsed
from tests.recipes.explanation.explanations import ABOUT, batches, explanation, model

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


def test_points_have_the_colours_that_the_legends_give_their_modality_and_their_class() -> None:
    whole = replace(
        explanation(samples=3, modalities=2), labels=np.array([2, 0, 2]), classes=("never", "bark", "clock")
    )
    streams = StreamMap("shared", np.zeros((4, 2)), np.array([0, 1, 1, 0]), np.array([0, 0, 1, 2]))
    by_modality, by_class = (
        ([colour for *_, colour in scatter.points], dict(scatter.legend)) for scatter in _scatters(whole, streams)
    )
    points, legend = by_modality
    assert len(set(legend.values())) == 2
    assert points == [legend[name] for name in ("text", "audio", "audio", "text")]
    points, legend = by_class
    assert sorted(legend) == ["clock", "never"]
    assert points == [legend[name] for name in ("clock", "clock", "never", "clock")]


def test_the_rarest_classes_share_a_colour() -> None:
    names = [f"class {index}" for index in range(12)]
    labels = np.repeat(np.arange(12), [1, 1, *range(2, 12)])
    colours, legend = _class_colours(labels, names)
    assert legend[-1][0] == "2 other classes"
    assert [name for name, _ in legend[:-1]] == names[2:]
    assert colours[0] == colours[1] == legend[-1][1]


def test_the_lowest_score_is_blue_0_is_grey_and_the_highest_is_red() -> None:
    colours, legend = _score_colours(np.array([-3.0, 0.0, 3.0]))
    low, middle, high = ([int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in colours)
    assert low[2] == max(low) > low[0]
    assert len(set(middle)) == 1
    assert high[0] == max(high) > high[2]
    assert (legend[0], legend[2], legend[-1]) == (("-3.0", colours[0]), ("0", colours[1]), ("+3.0", colours[2]))


def test_a_shown_sample_has_its_own_label_sentence_and_tokens() -> None:
    ids, sentences = [f"id {index}" for index in range(12)], [f"sentence {index}" for index in range(12)]
    for options, scoring in (({}, SENTIMENT), ({"classes": 3}, CLASSES)):
        network = model(**options)  # type: ignore[arg-type]
        data = batches(network)
        labels = torch.cat([batch["labels"] for batch in data])
        shown = explained(network, data, scoring, ABOUT, ids, sentences, lambda index: (f"token {index}",)).shown
        for sample in shown:
            index = ids.index(sample.id)
            assert (sample.sentence, sample.tokens) == (f"sentence {index}", (f"token {index}",))
            label = labels[index]
            expected = network.config.id2label[int(label)] if options else f"{float(label):+.2f}"
            assert sample.label == expected
        assert len({sample.id for sample in shown}) == 3
