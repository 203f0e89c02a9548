"""What a job prints: what it has read, a progress bar with one line per epoch, and the final table of measures."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging

from multifuse.recipes.data.features.descriptions import listed
from multifuse.recipes.data.features.mmsa import MMSAData
from multifuse.recipes.measures.measures import Choice


class EpochLines(ProgressCallback):
    """Trainer's progress bar over the steps, with one readable line per epoch instead of printed dictionaries."""

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.choice = choice
        self._train_loss: float | None = None

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Shows no second bar while an epoch is evaluated."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        if "loss" in logs:
            self._train_loss = float(logs["loss"])
        if f"eval_{self.choice.metric}" in logs:
            shown = [self.choice.of(name) for name in self.choice.each_epoch]
            measures = "  ".join(f"{item.label} {item.text(logs[f'eval_{item.name}'], digits=1)}" for item in shown)
            # If Trainer logs less than once in an epoch, there may be none.
            loss = "" if self._train_loss is None else f"train loss {self._train_loss:.3f}  "
            self._train_loss = None
            tqdm.write(f"epoch {logs['epoch']:.0f}/{args.num_train_epochs:.0f}  {loss}valid {measures}")


def quieten_loading() -> None:
    """Silences what transformers prints while it loads and saves models."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def quieten(trainer: Trainer, choice: Choice) -> None:
    """Replaces Trainer's own output with one line per epoch."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(EpochLines(choice))


def announce_features(path: Path | None, data: MMSAData, planted_note: str) -> None:
    """Prints what was read, how many values were replaced, and a note if the data are synthetic."""
    console = Console(soft_wrap=True)
    if path is None:
        console.print(f"[bold]{planted_note}[/bold]")
    counts = ", ".join(f"{name} {len(getattr(data, name).labels)}" for name in ("train", "valid", "test"))
    widths = ", ".join(
        f"{name} (T = {sequence.values.shape[1]}, D = {sequence.values.shape[2]})"
        for name, sequence in data.train.features.items()
    )
    console.print(
        f"Read {path or 'the built-in default'}: {counts}; features: {widths or 'none'}.", highlight=False, markup=False
    )
    for name, count in data.replaced.items():
        if count:
            console.print(f"Replaced {count} non-finite values in {name} with 0.", highlight=False)
    for line in _padding_lines(data):
        console.print(line, highlight=False, markup=False)
    if data.ignored:
        console.print(f"Not read: {listed(data.ignored)}.", highlight=False, markup=False)


def _padding_lines(data: MMSAData) -> Iterator[str]:
    """Yields what is unusual about the padding of a feature file, one line per kind and modality."""
    for modality in data.padding["train"]:
        unit = "token ids" if modality == "text_bert" else "non-zero rows"
        texts = {
            "in_front": f"Samples of {modality} with padding in front, which were moved to the start",
            "absent": f"Samples without {modality}",
            "zero_tokens": f"Samples of {modality} whose lengths count rows of zeros at an end as tokens",
            "contradictions": f"Samples of {modality} whose lengths and values contradict each other",
            "dropped_rows": f"Dropped {unit} of {modality}, outside of what the lengths keep",
            "mask_differs": f"Samples of {modality} whose lengths are not those of the mask of text_bert",
        }
        for field, text in texts.items():
            counts = {split: getattr(data.padding[split][modality], field) for split in data.padding}
            if any(counts.values()):
                yield f"{text}: {', '.join(f'{split} {count}' for split, count in counts.items())}."


def announce_clips(folder: Path, counts: dict[str, int], modalities: tuple[str, ...], note: str | None) -> None:
    """Prints what was read, and a note if the data are synthetic."""
    console = Console(soft_wrap=True)
    if note is not None:
        console.print(f"[bold]{note}[/bold]")
    clips = ", ".join(f"{split} {count}" for split, count in counts.items())
    console.print(f"Read {folder}: {clips}; modalities: {', '.join(modalities)}.", highlight=False, markup=False)


def report(choice: Choice, valid: Any, test: Any, best_epoch: float, output: Path) -> None:
    """Prints the table of measures and the names of the written files."""
    console = Console()
    table = Table(title=f"{choice.title}, epoch {best_epoch:.0f} (chosen on valid by {choice.label})")
    table.add_column("measure")
    table.add_column("valid", justify="right")
    table.add_column("test", justify="right")
    values = asdict(valid), asdict(test)
    for measure in choice.shown:
        table.add_row(measure.label, *(measure.text(split[measure.name]) for split in values))
    console.print(table)
    console.print(
        f"Wrote {output}/metrics.json, model/ and training.png.", highlight=False, markup=False, soft_wrap=True
    )
