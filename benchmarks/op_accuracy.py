"""Compares the op with a float64 reference on random and adversarial rows: python -m benchmarks.op_accuracy [--rows N].

Prints, for the compiled and the plain-torch path, the worst error of a float32 result relative to max(1, |z|_max) of
its row (the documented bound is 2e-6), and the worst excess of a row's sum over its budget, per token at the same
scale.
"""

import argparse

import numpy as np
import torch

from multifuse.ops import backend, portable, project_capped_simplex
from tests import reference

LENGTHS = (1, 2, 3, 7, 31, 33, 50, 129, 500, 1025, 4097)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random = np.random.default_rng(args.seed)
    worst = {f"compiled ({backend('cpu')})": [0.0, 0.0], "plain torch": [0.0, 0.0]}
    done = 0
    while done < args.rows:
        length, kind = int(random.choice(LENGTHS)), done // 10 % reference.ROW_KINDS
        z = reference.adversarial_rows(random, 10, length, kind)
        budget = (random.uniform(0, 1.1, size=10) * length).astype(np.float32).astype(np.float64)
        mask = random.random(z.shape) < 0.8 if random.random() < 0.5 else None
        expected = reference.project(z, budget, mask)
        rows, budgets = torch.tensor(z).float(), torch.tensor(budget).float()
        masks = None if mask is None else torch.tensor(mask)
        results = (project_capped_simplex(rows, budgets, masks), portable.project(rows, budgets, masks)[0])
        for name, result in zip(worst, results, strict=True):
            alpha = result.double().numpy()
            scale = np.maximum(1, np.abs(z).max(1))
            error = np.abs(alpha - expected).max(1) / scale
            excess = (alpha.sum(1) - budget) / (length * scale)
            worst[name] = [max(worst[name][0], float(error.max())), max(worst[name][1], float(excess.max()))]
        done += len(z)
    for name, (error, excess) in worst.items():
        print(f"{name}: {done} rows, worst error {error:.2e}, worst excess over the budget per token {excess:.2e}")


if __name__ == "__main__":
    main()
