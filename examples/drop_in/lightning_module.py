"""IntraCED in a LightningModule, in bf16-mixed and compiled: does the tone of a voice agree with what is said?

Needs the extra `examples`. With --backend, another backend of torch.compile than inductor, such as "eager". Prints:

    step 0: accuracy 0.508, intra 0.371
    step 300: accuracy 1.000, intra 0.004
"""

import argparse
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from multifuse import IntraCED, IntraLevelLoss

WORDS, BINS, WIDTHS = 50, 20, {"text": 32, "audio": 48}


class Network(nn.Module):
    """Words and a spectrogram, an exchange of their tokens, and a head on the mean tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTHS["text"], padding_idx=0)
        self.sound = nn.Sequential(nn.Conv1d(BINS, WIDTHS["audio"], 3, padding=1), nn.GELU())
        self.exchange = IntraCED(WIDTHS)
        self.regulariser = IntraLevelLoss(modalities=WIDTHS)
        self.head = nn.Sequential(nn.Linear(sum(WIDTHS.values()), 64), nn.GELU(), nn.Linear(64, 1))

    def forward(self, ids: Tensor, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        mask = {"text": ids != 0}
        tokens = {"text": self.words(ids), "audio": self.sound(spectrogram.mT).mT}
        output = self.exchange(tokens, mask)
        means = [output.tokens["text"].sum(1) / mask["text"].sum(1, keepdim=True), output.tokens["audio"].mean(1)]
        return self.head(torch.cat(means, dim=-1)).squeeze(-1), self.regulariser([output], mask).total


class Agreement(lightning.LightningModule):
    def __init__(self, backend: str, lr: float) -> None:
        super().__init__()
        self.network, self.lr = Network(), lr
        self.network.compile(backend=backend, fullgraph=True)  # in place, so that the names of the weights stay

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        logits, intra = self.network(*batch[:2])
        loss: Tensor = nn.functional.binary_cross_entropy_with_logits(logits, batch[2]) + 0.1 * intra
        return loss

    def test_step(self, batch: list[Tensor], index: int) -> None:
        logits, intra = self.network(*batch[:2])
        self.log("accuracy", ((logits > 0) == batch[2].bool()).float().mean())
        self.log("intra", intra)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def samples(count: int) -> TensorDataset:
    """Returns token ids (0 = padding), spectrograms, and whether a word < 3 comes with a voice that rises."""
    ids = torch.randint(5, WORDS, (count, 10)) * (torch.arange(10) < torch.randint(3, 11, (count, 1)))
    ids[:, 1] = torch.randint(1, 5, (count,))
    rises = torch.rand(count) < 0.5
    slope = torch.linspace(-1, 1, 24)[:, None] * torch.linspace(-1, 1, BINS)
    spectrogram = 0.5 * torch.randn(count, 24, BINS) + torch.where(rises, 1.0, -1.0)[:, None, None] * slope
    return TensorDataset(ids, spectrogram, ((ids[:, 1] < 3) == rises).float())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    args = parser.parse_args()
    lightning.seed_everything(0, verbose=False)
    module = Agreement(args.backend, args.lr)
    train, test = DataLoader(samples(64 * args.steps), batch_size=64), DataLoader(samples(512), batch_size=256)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = lightning.Trainer(max_epochs=1, precision="bf16-mixed", enable_model_summary=False, **quiet)
    for _ in range(2):
        (scores,) = trainer.test(module, test, verbose=False)
        print(f"step {trainer.global_step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        if trainer.global_step == 0:
            trainer.fit(module, train)


if __name__ == "__main__":
    main()
