"""transformers' Trainer with the recipe's optimiser and weight average, and with batches grouped by text length.

In a distributed run, each batch of a one-process run is divided among the processes, so that both take the same steps.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from accelerate.data_loader import SeedableRandomSampler, prepare_data_loader
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import seed_worker

from multifuse.layers import cached_bases
from multifuse.layers.backbone_levels import BackboneLevels
from multifuse.layers.text_levels import TextLevels
from multifuse.recipes.jobs.recipe import Recipe
from multifuse.recipes.trainer.checkpoints import WholeCheckpoints
from multifuse.recipes.trainer.weight_average import WeightAverage

_LAYER = re.compile(r"\.(?:stages|layer|layers|h|block|blocks)\.(\d+)\.")


class RecipeTrainer(WholeCheckpoints):
    """A Trainer whose optimiser, weight average and batches follow a `Recipe`."""

    def __init__(self, *args: Any, recipe: Recipe, **kwargs: Any) -> None:
        self.recipe = recipe
        self.average: WeightAverage | None = None
        super().__init__(*args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as Trainer does; the model ends as that of the best epoch, averaged if the recipe averages weights."""
        if self.recipe.weight_average is None:
            return super().train(*args, **kwargs)
        self.average = WeightAverage(self.model, self.recipe.weight_average)
        averaging = _Averaging(self.average)
        self.add_callback(averaging)
        try:
            return super().train(*args, **kwargs)
        finally:
            self.average = None
            self.remove_callback(averaging)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        with self._averaged():
            agree_on_statistics(self.model)
            with cached_bases(self.model):
                return super().evaluation_loop(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        with self._averaged():
            super().save_model(output_dir, _internal_call)
            if self.average is not None and output_dir is not None and self.args.should_save:
                self.average.save_trained(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average is not None:
            self.average.resume(Path(resume_from_checkpoint))

    def _averaged(self) -> AbstractContextManager[Any]:
        """Returns a context in which the model has its averaged weights, if they are averaged."""
        return nullcontext() if self.average is None else self.average.in_place()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if getattr(self, "optimizer", None) is None:
            module = self.model if model is None else model
            self.optimizer = build_optimizer(module, self.recipe, self.args.learning_rate)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        if getattr(self, "lr_scheduler", None) is None:
            optimizer = self.optimizer if optimizer is None else optimizer
            factor = partial(lr_factor, recipe=self.recipe, steps=num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        scheduler: torch.optim.lr_scheduler.LRScheduler = self.lr_scheduler
        return scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        lengths = getattr(dataset, "lengths", None)
        if lengths is None:
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        batch_size = self.args.train_batch_size * self.args.world_size
        return _EpochSampler(batch_size, [max(length, 1) for length in lengths], self.args.seed)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Returns Trainer's loader; with several processes, one that divides each batch without padding the last.

        Accelerate would fill up the last batch with repeated samples.
        """
        if self.args.world_size == 1:
            loader: DataLoader[Any] = super().get_train_dataloader()
            return loader
        assert self.train_dataset is not None
        sampler = self._get_train_sampler()
        if not isinstance(sampler, _EpochSampler):
            sampler = SeedableRandomSampler(self.train_dataset, data_seed=self.args.data_seed)
        batch_size = self.args.train_batch_size * self.args.world_size
        batches = BatchSampler(sampler, batch_size, self.args.dataloader_drop_last)
        rank_batches = RankBatches(batches, self.args.process_index, self.args.world_size)
        workers = self.args.dataloader_num_workers
        prepared: DataLoader[Any] = prepare_data_loader(
            DataLoader(
                self.train_dataset,
                batch_sampler=rank_batches,
                collate_fn=self.data_collator,
                num_workers=workers,
                pin_memory=self.args.dataloader_pin_memory,
                worker_init_fn=partial(seed_worker, num_workers=workers, rank=self.args.process_index),
            ),
            self.accelerator.device,
            num_processes=1,  # the batches are divided already
            put_on_device=True,
        )
        return prepared


class _EpochSampler(LengthGroupedSampler):  # type: ignore[misc]
    """Groups samples of similar length, in an order set by the seed and the epoch: a resumed run has the same order."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(1_000_003 * self.seed + self.epoch)
        indices: Iterator[int] = super().__iter__()
        return indices


class RankBatches(Sampler[list[int]]):
    """One rank's part of every batch: every ``ranks``-th sample, so that parts differ by at most one sample.

    A last batch with fewer samples than ranks is dropped.
    """

    def __init__(self, batches: BatchSampler, rank: int, ranks: int) -> None:
        self.batches, self.rank, self.ranks = batches, rank, ranks
        self.batch_size = batches.batch_size // ranks

    def set_epoch(self, epoch: int) -> None:
        self.batches.sampler.set_epoch(epoch)  # type: ignore[union-attr]

    def __len__(self) -> int:
        remainder = len(self.batches.sampler) % self.batches.batch_size  # type: ignore[arg-type]
        return len(self.batches) - (not self.batches.drop_last and 0 < remainder < self.ranks)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            if len(batch) >= self.ranks:
                yield batch[self.rank :: self.ranks]


class _Averaging(TrainerCallback):
    """Updates a weight average after every step."""

    def __init__(self, average: WeightAverage) -> None:
        self.average = average

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.average.update(state.global_step)


@torch.no_grad()
def agree_on_statistics(model: nn.Module) -> None:
    """Averages the running statistics of batch normalisation over the processes, if there are several.

    Each process normalises by its part of a batch; after this, all evaluate, and the first saves, the same model.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for statistic in (module.running_mean, module.running_var):
                if statistic is not None:
                    distributed.all_reduce(statistic)
                    statistic /= distributed.get_world_size()


def build_optimizer(model: nn.Module, recipe: Recipe, lr: float) -> torch.optim.Optimizer:
    """Returns the recipe's optimiser for a model's parameters."""
    groups = parameter_groups(model, recipe, lr)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def lr_factor(step: int, recipe: Recipe, steps: int) -> float:
    """Returns the factor of the learning rates at a step: the recipe's warm-up, then its schedule."""
    warmup = recipe.warmup * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if recipe.schedule == "constant":
        return 1.0
    return max(0.0, (steps - step) / max(1.0, steps - warmup))


def parameter_groups(model: nn.Module, recipe: Recipe, lr: float) -> list[dict[str, Any]]:
    """Groups parameters by learning rate and weight decay; AdamW does not decay vectors and scalars."""
    encoder_lr = {}
    for module in model.modules():
        if isinstance(module, TextLevels) or (isinstance(module, BackboneLevels) and module.pretrained):
            top_lr = lr * recipe.encoder_lr_scale
            for parameter, layers_above in _depths(module.model):
                encoder_lr[id(parameter)] = top_lr * recipe.layer_decay**layers_above
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        parameter_lr = encoder_lr.get(id(parameter), lr)
        decay = 0.0 if parameter.ndim < 2 and recipe.optimizer == "adamw" else recipe.weight_decay
        groups.setdefault((parameter_lr, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": group_lr, "weight_decay": decay}
        for (group_lr, decay), parameters in groups.items()
    ]


def _depths(encoder: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Returns every parameter of an encoder with the number of layers (or stages, if it has those) above it.

    Embeddings, and what is defined before the first layer (a stem, a feature extractor), are below all layers.
    """
    indices = {name: _LAYER.search(f".{name}.") for name, _ in encoder.named_parameters()}
    count = 1 + max((int(match[1]) for match in indices.values() if match), default=-1)
    depths = []
    below = count > 0
    for name, parameter in encoder.named_parameters():
        match = indices[name]
        below = below and not match
        if match:
            depths.append((parameter, count - 1 - int(match[1])))
        else:
            depths.append((parameter, count if below or "embed" in name else 0))
    return depths
