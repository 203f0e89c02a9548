"""WhiteningXCorrLoss keeps two branches of a model from repeating each other, beside three other such regularisers.

One branch predicts what is said, the other who speaks. Prints what they share on new samples, and the accuracies in %:

                        canonical  features  explained  words  speakers
    none                    0.258      0.437      0.409   99.8      99.4
    Barlow Twins            0.095      0.010      0.115   99.2      99.1
    VICReg                  0.078      0.009      0.012   99.5      98.9
    deep CCA                0.023      0.183      0.070   99.5      99.4
    WhiteningXCorrLoss      0.019      0.176      0.061   99.6      99.4
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from multifuse import WhiteningXCorrLoss

WORDS, SPEAKERS, DIM, INPUT = 6, 4, 12, 32


def covariances(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    both = torch.cat([x, y], dim=1).mT.cov()  # of x, of x with y, and of y:
    return both[:DIM, :DIM], both[:DIM, DIM:], both[DIM:, DIM:]


def barlow_twins(x: Tensor, y: Tensor) -> Tensor:
    """The squared correlations of all pairs of features (Zbontar et al., 2021), here all of them driven to 0."""
    xx, xy, yy = covariances(x, y)
    return (xy.square() / torch.outer(xx.diag(), yy.diag())).sum() / DIM


def vicreg(x: Tensor, y: Tensor) -> Tensor:
    """The squared covariances of all pairs of features, and the hinge that keeps variances (Bardes et al., 2022)."""
    xx, xy, yy = covariances(x, y)
    return xy.square().sum() / DIM + (1 - torch.cat([xx.diag(), yy.diag()]).sqrt()).relu().mean()


def deep_cca(x: Tensor, y: Tensor) -> Tensor:
    """The mean canonical correlation, from eigenvalues and singular values (Andrew et al., 2013), here minimised."""
    xx, xy, yy = covariances(x, y)
    for covariance in (xx, yy):
        values, vectors = torch.linalg.eigh(covariance + 1e-3 * torch.eye(DIM))
        xy = (vectors * values.rsqrt() @ vectors.mT @ xy).mT
    return torch.sum(torch.linalg.svdvals(xy)) / DIM


def explained(x: Tensor, y: Tensor) -> Tensor:
    xx, xy, yy = covariances(x, y)  # the share of the variance of y that a linear map of x explains:
    return torch.trace(xy.mT @ torch.linalg.solve(xx, xy)) / torch.trace(yy)


def samples(count: int) -> tuple[Tensor, list[Tensor]]:
    """Returns noisy mixtures, and labels by branch: every speaker says one word more often than the others."""
    mixing = torch.randn(WORDS + SPEAKERS, INPUT, generator=torch.Generator().manual_seed(0))
    speaker = torch.randint(SPEAKERS, (count,))
    word = torch.where(torch.rand(count) < 0.3, speaker, torch.randint(WORDS, (count,)))
    both = torch.cat([one_hot(word, WORDS), one_hot(speaker, SPEAKERS)], dim=1).float()
    return torch.tanh(both @ mixing) + 0.6 * torch.randn(count, INPUT), [word, speaker]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    steps, whitened = parser.parse_args().steps, WhiteningXCorrLoss(debias=True)
    losses: dict[str, Any] = {"none": lambda x, y: 0.0, "Barlow Twins": barlow_twins, "VICReg": vicreg}
    print(f"{'':<20}canonical  features  explained  words  speakers")
    for name, loss in {**losses, "deep CCA": deep_cca, "WhiteningXCorrLoss": whitened}.items():
        torch.manual_seed(0)
        branches = [nn.Sequential(nn.Linear(INPUT, 64), nn.GELU(), nn.Linear(64, DIM)) for _ in range(2)]
        heads = [nn.Linear(DIM, classes) for classes in (WORDS, SPEAKERS)]
        optimizer = torch.optim.AdamW(nn.ModuleList([*branches, *heads]).parameters(), lr=2e-3)
        for step in range(steps + 1):
            inputs, labels = samples(256 if step < steps else 4096)
            codes = [branch(inputs) for branch in branches]
            logits = [head(code) for head, code in zip(heads, codes, strict=True)]
            task = torch.stack([cross_entropy(*pair) for pair in zip(logits, labels, strict=True)]).sum()
            optimizer.zero_grad()
            (task + loss(*codes)).backward()
            optimizer.step()
        left = "".join(f"{measure(*codes):11.3f}" for measure in (whitened, barlow_twins, explained))
        right = [100 * (of.argmax(dim=1) == label).float().mean() for of, label in zip(logits, labels, strict=True)]
        print(f"{name:<18}{left}{right[0]:7.1f}{right[1]:10.1f}")


if __name__ == "__main__":
    main()
