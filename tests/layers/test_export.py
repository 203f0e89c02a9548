"""Layers by themselves can be exported with free sizes, saved to a file and loaded from it."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from multifuse import InterCAD, IntraCED, StiefelProjector
from multifuse.layers.exchange import IntraCEDOutput

NAMES = ("text", "audio")
SIZES: dict[str, Any] = {"shared_rank": 8, "private_rank": 4}


def tokens(batch: int, text: int, audio: int) -> dict[str, Tensor]:
    return {"text": torch.randn(batch, text, 16), "audio": torch.randn(batch, audio, 16)}


class Levels(nn.Module):
    """Two exchanges and their aggregation, as in a model of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges = nn.ModuleList(IntraCED(16, NAMES, num_heads=2, **SIZES) for _ in range(2))
        self.aggregation = InterCAD(16, NAMES, num_levels=2)

    def forward(self, tokens: dict[str, Tensor]) -> Any:
        levels: list[IntraCEDOutput] = [exchange(tokens) for exchange in self.exchanges]
        return self.aggregation(levels)


LAYERS: dict[str, nn.Module] = {
    "IntraCED": IntraCED(16, NAMES, num_heads=2, **SIZES),
    "StiefelProjector": StiefelProjector(16, NAMES, **SIZES),
    "InterCAD": Levels(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_an_exported_layer_can_be_saved_and_gives_the_same_at_other_sizes(name: str) -> None:
    layer = LAYERS[name].eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    free = {name: {0: batch, 1: torch.export.Dim(name, min=2, max=500)} for name in NAMES}
    with torch.no_grad():
        program = torch.export.export(layer, (tokens(3, 5, 9),), dynamic_shapes=(free,))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for sizes in ((3, 5, 9), (2, 30, 4)):
        inputs = tokens(*sizes)
        with torch.no_grad():
            ours, theirs = layer(inputs), loaded(inputs)
        assert type(theirs) is type(ours)
        for value, expected in zip(*map(_pytree.tree_leaves, (theirs, ours)), strict=True):
            torch.testing.assert_close(value, expected)
