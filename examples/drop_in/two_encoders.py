"""IntraCED between two Hugging Face encoders of different widths: does the word name the bright quarter of the picture?

With --text and --image, the names of pretrained ones. Prints the accuracy on new samples, and the mean alpha:

    step 0: accuracy 51.4 %, alpha: text 0.68, image 0.68
    step 500: accuracy 99.8 %, alpha: text 0.67, image 0.67
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, BertModel, ViTConfig, ViTModel

from multifuse import IntraCED

SIZE, WORDS = 32, 4


class WordAndPicture(nn.Module):
    """Two encoders as they are, an exchange of their tokens, and a head on the mean tokens."""

    def __init__(self, text: Any, image: Any) -> None:
        super().__init__()
        self.text, self.image = text, image
        widths = {"text": text.config.hidden_size, "image": image.config.hidden_size}
        self.exchange = IntraCED(widths, init="identity")  # pretrained tokens stay as they are before training
        self.head = nn.Sequential(nn.Linear(sum(widths.values()), 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> tuple[Tensor, Any]:
        tokens = {
            "text": self.text(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state,
            "image": self.image(pixel_values=pixel_values).last_hidden_state,
        }
        output = self.exchange(tokens, {"text": attention_mask})
        means = torch.cat([output.tokens["text"].mean(dim=1), output.tokens["image"].mean(dim=1)], dim=-1)
        return self.head(means).squeeze(-1), output.activation


def samples(count: int, size: int) -> tuple[dict[str, Tensor], Tensor]:
    """Returns inputs, and whether the word (its number is a token id) names the quarter that is bright."""
    named = torch.randint(WORDS, (count,))
    bright = torch.where(torch.rand(count) < 0.4, named, torch.randint(WORDS, (count,)))
    pictures = 0.3 * torch.randn(count, 3, size, size)
    half = size // 2
    for picture, quarter in zip(pictures.unfold(2, half, half).unfold(3, half, half), bright.tolist(), strict=True):
        picture[:, quarter // 2, quarter % 2] += 1.0
    ids = torch.stack([torch.full_like(named, 101), 1000 + named], dim=1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pictures}
    return inputs, (named == bright).float()


def small_encoders() -> tuple[Any, Any]:
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    text = BertModel(BertConfig(vocab_size=1100, hidden_size=48, **sizes), add_pooling_layer=False)
    image = ViTModel(ViTConfig(hidden_size=64, image_size=SIZE, patch_size=8, **sizes), add_pooling_layer=False)
    return text, image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="name or folder of a text encoder; lower --lr for a pretrained one")
    parser.add_argument("--image", help="name or folder of a vision transformer")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    torch.manual_seed(0)
    text, image = small_encoders()
    text = AutoModel.from_pretrained(args.text) if args.text else text
    image = AutoModel.from_pretrained(args.image) if args.image else image
    model, size = WordAndPicture(text, image), image.config.image_size
    test, labels = samples(512, size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    for step in range(args.steps + 1):
        if step in (0, args.steps):
            with torch.no_grad():
                logits, activation = model.eval()(**test)
            used = ", ".join(f"{name} {alpha.mean():.2f}" for name, alpha in activation.items())
            print(f"step {step}: accuracy {100 * ((logits > 0) == labels.bool()).float().mean():.1f} %, alpha: {used}")
        inputs, target = samples(64, size)
        loss = nn.functional.binary_cross_entropy_with_logits(model.train()(**inputs)[0], target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
