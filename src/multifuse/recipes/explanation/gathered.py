"""Gathers, in one pass over a split, what a CLCR model computes besides its predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from multifuse._internal.pooling import pooling_of
from multifuse.layers import cached_bases
from multifuse.layers.inter_cad import InterCAD
from multifuse.models import CLCRForPrediction
from multifuse.models.outputs import CLCRModelOutput
from multifuse.recipes.explanation.shown import Alphas, ShownSample, chosen, segments_text
from multifuse.recipes.measures.scores import Scoring

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class About:
    """What was explained, in names for the page."""

    model: str
    data: str
    split: str
    synthetic: bool = False


class Aggregates(NamedTuple):
    """What InterCAD computed for U samples, or U segments of samples, in the order of the split."""

    level_weights: Floats
    """(U, L): omega."""
    modality_weights: Floats
    """(U, M): beta."""
    private_gates: Floats
    """(U, M): eta."""
    present: NDArray[np.bool_]
    """(U, M): whether the sample, or segment, has tokens of the modality; weight and gate are 0 where it has none."""
    shared: Floats
    """(U, M, d): the pooled shared streams, summed over the levels with weights omega; 0 where there are no tokens."""
    private: Floats
    """(U, M, d): the pooled private streams, summed in the same way."""


@dataclass(frozen=True)
class AlphaSummary:
    """Alpha of the tokens of one modality at one level; it counts as 0 where a sample has no other modality."""

    level: int
    modality: str
    tokens: int
    active: float
    """The fraction of tokens with alpha > 0; nan without tokens."""
    mean_alpha: float
    """nan without tokens."""


@dataclass(frozen=True)
class Explanation:
    """What a model computed on a split."""

    about: About
    kind: str
    """The name of the model's class."""
    samples: int
    modalities: tuple[str, ...]
    levels: int
    measures: tuple[tuple[str, str], ...]
    """Names and values of the measures."""
    classes: tuple[str, ...] | None
    """The names of the classes; ``None`` for a regression."""
    segments: bool
    """Whether ``aggregates`` and ``labels`` are those of segments, not of samples."""
    labels: NDArray[Any]
    """(U,): scores, or indices of classes with -100 where there is no label."""
    aggregates: Aggregates
    alpha_summaries: tuple[AlphaSummary, ...]
    shown: tuple[ShownSample, ...]
    """A few samples with alpha of their tokens."""

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Which samples or segments have a label, (U,)."""
        return np.ones(len(self.labels), bool) if self.classes is None else self.labels != -100


class _Pass(NamedTuple):
    """Of N samples: logits, labels and alpha, and the aggregates."""

    logits: Floats
    labels: NDArray[Any]
    alphas: list[Alphas]
    aggregates: Aggregates


def explained(
    model: CLCRForPrediction,
    batches: DataLoader[Any],
    scoring: Scoring[Any],
    about: About,
    ids: Sequence[str],
    sentences: Sequence[str] | None = None,
    tokens: Callable[[int], tuple[str, ...]] | None = None,
) -> Explanation:
    """Runs a model over a split in evaluation mode, and gathers what it computes.

    Args:
        model: a regression of one score, or a classification of samples or of segments.
        batches: batches of a collator, in the order of the split.
        scoring: how the logits are measured; its measures name each other as in training.
        about: the names on the page.
        ids: the id of every sample.
        sentences: what is said in every sample, if known.
        tokens: returns the text tokens of a sample by its index, if the model reads them.

    Raises:
        ValueError: logits that are not finite.
    """
    result = _one_pass(model, batches)
    if not np.isfinite(result.logits).all():
        raise ValueError("the model's predictions are not finite")
    measures = scoring.measure(result.logits, result.labels)
    values = {scoring.choice.of(name): getattr(measures, name) for name in scoring.choice.each_epoch}
    modalities = tuple(model.config.modalities)
    classes = _classes(model)
    return Explanation(
        about=about,
        kind=type(model).__name__,
        samples=len(result.labels),
        modalities=modalities,
        levels=model.config.active_levels,
        measures=tuple(
            (measure.label, "undefined" if np.isnan(value) else measure.text(value))
            for measure, value in values.items()
        ),
        classes=classes,
        segments=model.segments is not None,
        labels=result.labels.reshape(-1),
        aggregates=result.aggregates,
        alpha_summaries=tuple(_alpha_summaries(result.alphas, modalities)),
        shown=tuple(_shown(result, classes, ids, sentences, tokens)),
    )


def _classes(model: CLCRForPrediction) -> tuple[str, ...] | None:
    if model.config.problem_type != "single_label_classification":
        return None
    return tuple(str(model.config.id2label[index]) for index in range(model.config.num_labels))


@torch.no_grad()
def _one_pass(model: CLCRForPrediction, batches: DataLoader[Any]) -> _Pass:
    model.eval()
    logits, labels, aggregates = [], [], []
    alphas: list[Alphas] = []
    with cached_bases(model), _summaries(model.clcr.aggregation) as summaries:
        for batch in batches:
            # The two steps of the model's forward, which does not return what the aggregation read.
            encoded = model.clcr(batch["inputs"], batch["mask"], segments=model.segments)
            logits.append(model.head(encoded.fused).float().numpy())
            labels.append(batch["labels"].numpy())
            alphas += _alphas(encoded)
            aggregates.append(_aggregates(encoded, summaries, model))
    joined = Aggregates(*(np.concatenate(parts) for parts in zip(*aggregates)))
    return _Pass(np.concatenate(logits), np.concatenate(labels), alphas, joined)


@contextmanager
def _summaries(aggregation: InterCAD) -> Iterator[Mapping[str, Tensor]]:
    """Keeps the pooled streams of the last batch, (U, L, M, d), as InterCAD normalises them."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[Any, Any, Tensor], None]:
        return lambda module, inputs, output: kept.update({name: output})

    norms = {"shared": aggregation.shared_norm, "private": aggregation.private_norm}
    handles = [norm.register_forward_hook(keep(name)) for name, norm in norms.items()]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _aggregates(encoded: CLCRModelOutput, summaries: Mapping[str, Tensor], model: CLCRForPrediction) -> Aggregates:
    assert encoded.aggregate is not None
    fields = [encoded.aggregate.level_weights, encoded.aggregate.modality_weights, encoded.aggregate.private_gates]
    weights, beta, gates = (field.float().flatten(0, -2) for field in fields)
    assert encoded.levels is not None
    assert encoded.mask is not None
    pooling = pooling_of(encoded.levels[0].activation, encoded.mask, tuple(model.config.modalities), model.segments)
    present = pooling.present > 0
    shared, private = (
        (torch.einsum("ul,ulmd->umd", weights, summaries[name].float()) * present.unsqueeze(-1)).numpy()
        for name in ("shared", "private")
    )
    return Aggregates(weights.numpy(), beta.numpy(), gates.numpy(), present.numpy(), shared, private)


def _alphas(encoded: CLCRModelOutput) -> Iterator[Alphas]:
    """Yields alpha of the real tokens of every sample, 0 where a sample has no other modality to exchange with."""
    assert encoded.levels is not None
    assert encoded.mask is not None
    first = encoded.levels[0].activation
    real = {
        name: np.ones(tuple(alpha.shape), bool) if (mask := encoded.mask.get(name)) is None else mask.numpy()
        for name, alpha in first.items()
    }
    for row in range(len(next(iter(first.values())))):
        present = {name for name in real if real[name][row].any()}
        yield tuple(
            {
                name: alpha[row].float().numpy()[real[name][row]] * bool(present - {name})
                for name, alpha in level.activation.items()
            }
            for level in encoded.levels
        )


def _alpha_summaries(alphas: Sequence[Alphas], modalities: Sequence[str]) -> Iterator[AlphaSummary]:
    for level in range(len(alphas[0])):
        for name in modalities:
            values = np.concatenate([sample[level][name] for sample in alphas])
            means = (float((values > 0).mean()), float(values.mean())) if len(values) else (np.nan, np.nan)
            yield AlphaSummary(level + 1, name, len(values), *means)


def _shown(
    result: _Pass,
    classes: tuple[str, ...] | None,
    ids: Sequence[str],
    sentences: Sequence[str] | None,
    tokens: Callable[[int], tuple[str, ...]] | None,
) -> Iterator[ShownSample]:
    if classes is None:
        scores = result.logits[:, 0]
        predictions = [f"{score:+.2f}" for score in scores]
        labels = [f"{label:+.2f}" for label in result.labels]
    else:
        odds = np.exp(result.logits - result.logits.max(-1, keepdims=True))
        probabilities = (odds.max(-1) / odds.sum(-1)).reshape(len(odds), -1)
        scores = probabilities.mean(1)
        names = result.logits.argmax(-1)
        predictions = [f"{segments_text(row, classes)} ({score:.0%})" for row, score in zip(names, scores, strict=True)]
        labels = [segments_text(row, classes) for row in result.labels]
    for index, rule in chosen(scores, "prediction" if classes is None else "certainty"):
        yield ShownSample(
            id=ids[index],
            rule=rule,
            prediction=predictions[index],
            label=labels[index],
            sentence=None if sentences is None else sentences[index],
            tokens=None if tokens is None else tokens(index),
            alphas=result.alphas[index],
        )
