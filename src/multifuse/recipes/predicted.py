"""What a model predicts for a batch, as rows of a table: a score, or a class with its probability."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Row = dict[str, str]


@torch.no_grad()
def predicted(model: PreTrainedModel, batch: Mapping[str, Any], ids: Sequence[str]) -> Iterator[Row]:
    """Yields a row per sample, or per segment, of a batch of ``inputs``, ``mask`` and, if known, ``labels``."""
    logits: Tensor = model(inputs=batch["inputs"], mask=batch["mask"]).logits.float()
    labels = batch.get("labels")
    for index, name in enumerate(ids):
        label = None if labels is None else labels[index]
        if model.config.problem_type != "single_label_classification":
            yield _with_label({"id": name, "score": f"{float(logits[index, 0]):.4f}"}, label, "{:.4f}".format)
        elif logits.ndim == 2:
            yield _with_label({"id": name, **_class(model, logits[index])}, label, _namer(model))
        else:
            for segment, of_segment in enumerate(logits[index]):
                row = {"id": name, "segment": str(segment + 1), **_class(model, of_segment)}
                yield _with_label(row, None if label is None else label[segment], _namer(model))


def _class(model: PreTrainedModel, logits: Tensor) -> Row:
    probabilities = nn.functional.softmax(logits, dim=-1)
    best = int(probabilities.argmax())
    return {"class": model.config.id2label[best], "probability": f"{float(probabilities[best]):.4f}"}


def _namer(model: PreTrainedModel) -> Any:
    return lambda label: model.config.id2label[int(label)]


def _with_label(row: Row, label: Tensor | None, shown: Any) -> Row:
    return row if label is None else {**row, "label": shown(label.item())}
