"""The batches of training: texts of similar length together, in an order of its own for every seed and epoch."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import TrainingArguments

from multifuse.recipes.jobs.recipe import FEATURES
from multifuse.recipes.trainer.trainer import RecipeTrainer

BATCH = 4


class Texts(Dataset[dict[str, Tensor]]):
    """Samples of 1 to 20 tokens."""

    lengths = [1 + index % 20 for index in range(400)]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"index": torch.tensor(index)}


def epoch(folder: Path, seed: int, number: int) -> list[list[int]]:
    """Returns the samples of every batch of an epoch."""
    options: dict[str, Any] = {"use_cpu": True, "report_to": [], "dataloader_pin_memory": False}
    arguments = TrainingArguments(
        str(folder), per_device_train_batch_size=BATCH, seed=seed, remove_unused_columns=False, **options
    )
    trainer = RecipeTrainer(nn.Linear(1, 1), arguments, recipe=FEATURES, train_dataset=Texts())
    loader: Any = trainer.get_train_dataloader()
    loader.set_epoch(number)
    return [batch["index"].tolist() for batch in loader]


def test_every_seed_and_every_epoch_has_an_order_of_its_own_that_can_be_repeated(tmp_path: Path) -> None:
    orders = {(seed, number): epoch(tmp_path, seed, number) for seed in (1, 2) for number in (0, 1)}
    assert len({str(order) for order in orders.values()}) == 4
    assert epoch(tmp_path, 2, 1) == orders[2, 1]


def test_an_epoch_has_every_sample_once_with_those_of_similar_length(tmp_path: Path) -> None:
    batches = epoch(tmp_path, 1, 0)
    assert sorted(index for batch in batches for index in batch) == list(range(400))
    lengths = [[Texts.lengths[index] for index in batch] for batch in batches]
    assert all(max(batch) - min(batch) <= BATCH for batch in lengths)
