"""Learns which 4 of 64 tokens carry the class, with weights by soft top-k, sparsemax and softmax, and keeps only those.

    python examples/token_selection.py --seed 0

Every token is the noisy sum of two random codes, of a digit and of a flag, and the code of the flag is scaled by one to
three. The class is the sum of the digits of the four tokens whose flag is set. A model scores the tokens, encodes them
and classifies their weighted sum. Once trained, it is tested with all tokens, and with the 16, 8 and 4 tokens that have
the largest weights: then only these are encoded.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from multifuse.ops import keep_top, soft_topk

TOKENS, CARRIERS, DIGITS, DIM, WIDTH = 64, 4, 3, 32, 128
CLASSES = CARRIERS * (DIGITS - 1) + 1
KEPT = (None, 16, 8, 4)
SELECTORS: dict[str, Callable[[Tensor], Tensor]] = {
    f"soft_topk, k = {CARRIERS}": lambda scores: soft_topk(scores, CARRIERS),
    "sparsemax (soft_topk, k = 1)": lambda scores: CARRIERS * soft_topk(scores, 1),
    "softmax": lambda scores: CARRIERS * scores.softmax(dim=-1),
}
"""The weights of each sum to 4, so that the models differ only in how this is spread over the tokens."""


def batch(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws tokens (B, T, d) and classes (B,). The codes are the same in every batch."""
    codes = torch.randn(2 + DIGITS, DIM, generator=torch.Generator().manual_seed(0))
    digits = torch.randint(DIGITS, (count, TOKENS), generator=random)
    carries = torch.rand(count, TOKENS, generator=random).argsort(dim=1) < CARRIERS
    strength = 1 + 2 * torch.rand(count, TOKENS, 1, generator=random)
    noise = torch.randn(count, TOKENS, DIM, generator=random)
    return strength * codes[carries.long()] + codes[2 + digits] + noise, (digits * carries).sum(dim=1)


class Classifier(nn.Module):
    """Scores the tokens, encodes them, and classifies their weighted sum."""

    def __init__(self, selector: Callable[[Tensor], Tensor], hidden: int) -> None:
        super().__init__()
        self.selector = selector
        first = [nn.Linear(DIM, hidden), nn.GELU()] if hidden else []
        self.score = nn.Sequential(*first, nn.Linear(hidden or DIM, 1))
        self.encode = nn.Sequential(nn.Linear(DIM, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU())
        self.classify = nn.Linear(WIDTH, CLASSES)

    def weights(self, tokens: Tensor) -> Tensor:
        return self.selector(self.score(tokens).squeeze(-1))

    def forward(self, tokens: Tensor, kept: int | None = None) -> Tensor:
        alpha = self.weights(tokens)
        if kept is not None:
            tokens, _, indices = keep_top(tokens, alpha, kept)
            alpha = alpha.gather(1, indices)
            alpha = alpha * CARRIERS / alpha.sum(dim=1, keepdim=True)  # the kept tokens share what the others had
        logits: Tensor = self.classify(torch.einsum("bt,btw->bw", alpha, self.encode(tokens)))
        return logits


def train(model: Classifier, steps: int, random: torch.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        tokens, classes = batch(32, random)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens), classes).backward()
        optimizer.step()
        schedule.step()


def milliseconds(model: Classifier, tokens: Tensor, kept: int | None) -> float:
    """Returns the processor time of the fastest of ten forward passes."""
    times = []
    for _ in range(10):
        start = time.process_time()
        model(tokens, kept)
        times.append(time.process_time() - start)
    return 1000 * min(times)


@torch.no_grad()
def table_row(name: str, model: Classifier, tokens: Tensor, classes: Tensor) -> str:
    used = (model.weights(tokens) > 0).sum(dim=1).float().mean()
    accuracies = [100 * (model(tokens, kept).argmax(dim=1) == classes).float().mean() for kept in KEPT]
    times = [milliseconds(model, tokens[:256], kept) for kept in KEPT]
    return f"| {name} | {used:.1f} | {' | '.join(f'{value:.1f}' for value in (*accuracies, *times))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=600, help="training steps of each model, with 32 samples each")
    parser.add_argument("--hidden", type=int, default=0, help="hidden width of the map to scores; 0: it is linear")
    parser.add_argument("--test-samples", type=int, default=2048)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # so that processor times can be compared
    tokens, classes = batch(arguments.test_samples, torch.Generator().manual_seed(arguments.seed + 1_000_000))
    counts = ["all", *(f"{kept} tokens" for kept in KEPT[1:])]
    columns = [*(f"accuracy in %, {count}" for count in counts), *(f"ms, {count}" for count in counts)]
    print(f"| selector | non-zero tokens | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}", flush=True)
    for name, selector in SELECTORS.items():
        torch.manual_seed(arguments.seed)
        model = Classifier(selector, arguments.hidden)
        train(model, arguments.steps, torch.Generator().manual_seed(arguments.seed))
        print(table_row(name, model, tokens, classes), flush=True)


if __name__ == "__main__":
    main()
