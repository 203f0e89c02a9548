"""InterCAD over the hidden layers of two frozen encoders: which word and which colour are there?

Each depth has widths of its own. The numbers of tokens must be those of the other depths, hence the pooling. Prints:

    all depths: accuracy 79.1 %, level weights 0.40 0.27 0.34
    last depth: accuracy 49.8 %, level weights 1.00
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel

from multifuse import InterCAD, IntraCED

KINDS, SIZE, COMMON = 3, 32, 32


def frozen_encoders() -> tuple[Any, Any]:
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "hidden_size": 24}
    text = BertModel(BertConfig(vocab_size=30, initializer_range=0.2, **sizes), add_pooling_layer=False)
    stages = {"hidden_sizes": [16, 32, 64], "depths": [1, 1, 1], "layer_type": "basic"}
    image = ResNetModel(ResNetConfig(embedding_size=16, **stages))
    return text.eval().requires_grad_(False), image.eval().requires_grad_(False)


@torch.no_grad()
def features(text: Any, image: Any, ids: Tensor, pictures: Tensor) -> list[dict[str, Tensor]]:
    """Returns the tokens of both encoders, one dict for each depth."""
    words = text(input_ids=ids, output_hidden_states=True).hidden_states[1:]
    stages = image(pixel_values=pictures, output_hidden_states=True).hidden_states[1:]
    grids = [adaptive_avg_pool2d(stage, 2).flatten(2).mT for stage in stages]  # the later stages have fewer pixels
    return [{"text": of_text, "image": of_image} for of_text, of_image in zip(words, grids, strict=True)]


class Depths(nn.Module):
    """An exchange at every depth, from widths of their own to a common one, InterCAD over the depths, and a head."""

    def __init__(self, depths: list[dict[str, Tensor]]) -> None:
        super().__init__()
        widths = [{name: tokens.shape[-1] for name, tokens in depth.items()} for depth in depths]
        self.exchanges = nn.ModuleList(IntraCED(of_depth, common_dim=COMMON) for of_depth in widths)
        self.aggregation = InterCAD(COMMON, widths[0], num_levels=len(depths))
        self.head = nn.Sequential(nn.LayerNorm(2 * COMMON), nn.Linear(2 * COMMON, KINDS**2))

    def forward(self, depths: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
        levels = [exchange(tokens) for exchange, tokens in zip(self.exchanges, depths, strict=True)]
        output = self.aggregation(levels)
        return self.head(output.fused), output.level_weights


def samples(encoders: tuple[Any, Any], count: int) -> tuple[list[dict[str, Tensor]], Tensor]:
    """Returns features, computed once since the encoders are frozen, and the class of a word and a colour."""
    word, colour = torch.randint(KINDS, (2, count))
    ids = torch.randint(10, 30, (count, 8))
    ids[torch.arange(count), torch.randint(8, (count,))] = word
    pictures = torch.randn(count, 3, SIZE, SIZE)
    pictures[torch.arange(count), colour, 8:24, 8:24] += 1.0
    return features(*encoders, ids, pictures), KINDS * word + colour


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    torch.manual_seed(0)
    encoders = frozen_encoders()
    (train, labels), (test, test_labels) = samples(encoders, 2048), samples(encoders, 512)
    for name, depths in {"all depths": slice(None), "last depth": slice(-1, None)}.items():
        model = Depths(train[depths])
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(args.steps):
            rows = torch.randint(2048, (64,))
            batch = [{modality: tokens[rows] for modality, tokens in depth.items()} for depth in train[depths]]
            cross_entropy(model(batch)[0], labels[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            logits, weights = model(test[depths])
        accuracy = 100 * (logits.argmax(dim=-1) == test_labels).float().mean()
        shown = " ".join(f"{weight:.2f}" for weight in weights.mean(dim=0))
        print(f"{name}: accuracy {accuracy:.1f} %, level weights {shown}")


if __name__ == "__main__":
    main()
