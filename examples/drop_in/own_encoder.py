"""CLCR's layers behind an encoder of one's own, in a plain training loop: which movement comes with which sound?

Any module that maps (input, mask) to L sequences, and has their width as ``output_dim``, is an encoder. Prints:

    step 0: accuracy 3.1 %, intra 0.610, inter 1.112
    step 120: accuracy 100.0 %, intra 0.122, inter 0.370
"""

import argparse
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from multifuse import InterCAD, InterLevelLoss, IntraCED, IntraLevelLoss, SemanticHierarchyEncoder, TemporalConvLevels

LEVELS, DIM, LENGTH, KINDS, SIZES = 3, 32, 16, 3, {"movement": 6, "sound": 10}


class RecurrentLevels(nn.Module):
    """Levels of a sequence: the outputs of stacked recurrent layers. Padding at the end reaches no real token."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.output_dim = output_dim
        inputs = [input_dim] + [output_dim] * (LEVELS - 1)
        self.layers = nn.ModuleList(nn.GRU(width, output_dim, batch_first=True) for width in inputs)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        levels = []
        for layer in self.layers:
            inputs, _ = layer(inputs)
            levels.append(inputs)
        return levels


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sound = TemporalConvLevels(SIZES["sound"], DIM, LEVELS)
        encoders = {"movement": RecurrentLevels(SIZES["movement"], 24), "sound": sound}
        self.hierarchy = SemanticHierarchyEncoder(DIM, encoders, LEVELS)
        self.exchanges = nn.ModuleList(IntraCED(DIM, SIZES) for _ in range(LEVELS))
        self.aggregation = InterCAD(DIM, SIZES, num_levels=LEVELS)
        self.head = nn.Sequential(nn.LayerNorm(2 * DIM), nn.Linear(2 * DIM, KINDS**2))

    def forward(self, inputs: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> tuple[Tensor, Any, Any]:
        tokens = self.hierarchy(inputs, mask)
        levels = [exchange(level, mask) for exchange, level in zip(self.exchanges, tokens, strict=True)]
        aggregate = self.aggregation(levels, mask)
        return self.head(aggregate.fused), levels, aggregate


def samples(count: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Returns sequences that hold one event each, their masks, and the class of the two kinds of events."""
    inputs, mask, label = {}, {}, torch.zeros(count, dtype=torch.long)
    for name, size in SIZES.items():
        kind, place = torch.randint(KINDS, (count,)), torch.randint(LENGTH // 2, (count,))
        event = 4.0 * one_hot(place, LENGTH)[:, :, None] * one_hot(kind, size)[:, None]
        inputs[name] = event + 0.5 * torch.randn(count, LENGTH, size)
        mask[name] = torch.arange(LENGTH) < torch.randint(LENGTH // 2, LENGTH + 1, (count, 1))
        label = KINDS * label + kind
    return inputs, mask, label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    args = parser.parse_args()
    torch.manual_seed(0)
    model, intra_loss, inter_loss = Model(), IntraLevelLoss(modalities=SIZES), InterLevelLoss(modalities=SIZES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(args.steps + 1):
        inputs, mask, labels = samples(64)
        logits, levels, aggregate = model(inputs, mask)
        intra, inter = intra_loss(levels, mask).total, inter_loss(levels, aggregate, mask).total
        if step in (0, args.steps):
            accuracy = (logits.argmax(dim=-1) == labels).float().mean()  # every batch is new
            print(f"step {step}: accuracy {100 * accuracy:.1f} %, intra {intra:.3f}, inter {inter:.3f}")
        optimizer.zero_grad()
        (cross_entropy(logits, labels) + 0.1 * intra + 0.1 * inter).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
