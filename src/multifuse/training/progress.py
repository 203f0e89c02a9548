"""What a job prints: what it read, one line an epoch beside a progress bar, and the table of measures at the end."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.utils import logging

from multifuse.data.mmsa import MMSAData
from multifuse.training.sentiment import SentimentMeasures

_LABELS = {
    "mae": "MAE",
    "corr": "Corr",
    "acc7": "Acc-7",
    "acc5": "Acc-5",
    "acc2_has0": "Acc-2 has0",
    "f1_has0": "F1 has0",
    "acc2_non0": "Acc-2 non0",
    "f1_non0": "F1 non0",
}


class EpochLines(ProgressCallback):
    """Trainer's progress bar of the steps alone, with one readable line an epoch in place of its dictionaries."""

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """No second bar while an epoch is evaluated."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        if "loss" in logs:
            self._train_loss = float(logs["loss"])
        if "eval_mae" in logs:
            tqdm.write(
                f"epoch {logs['epoch']:.0f}/{args.num_train_epochs:.0f}  "
                f"train loss {getattr(self, '_train_loss', float('nan')):.3f}  valid MAE {logs['eval_mae']:.3f}  "
                f"Corr {logs['eval_corr']:.3f}  Acc-2 non0 {100 * logs['eval_acc2_non0']:.1f} %"
            )


def quieten_loading() -> None:
    """Turns off what transformers prints while it loads and saves models."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def quieten(trainer: Trainer) -> None:
    """Replaces Trainer's own printing."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(EpochLines)


def announce(path: Path | None, data: MMSAData, planted_note: str) -> None:
    """Says what was read, what was replaced, and whether it is synthetic."""
    console = Console(soft_wrap=True)
    if path is None:
        console.print(f"[bold]{planted_note}[/bold]")
    counts = ", ".join(f"{name} {len(getattr(data, name).labels)}" for name in ("train", "valid", "test"))
    widths = ", ".join(
        f"{name} (T = {sequence.values.shape[1]}, D = {sequence.values.shape[2]})"
        for name, sequence in data.train.features.items()
    )
    console.print(f"Read {path or 'the embedded default'}: {counts}; features: {widths or 'none'}.", highlight=False)
    for name, count in data.replaced.items():
        if count:
            console.print(f"Replaced {count} non-finite values in {name} by 0.", highlight=False)


def report(valid: SentimentMeasures, test: SentimentMeasures, best_epoch: float, output: Path) -> None:
    """Prints the table of measures."""
    console = Console()
    table = Table(title=f"Sentiment measures, epoch {best_epoch:.0f} (chosen on valid by MAE)")
    table.add_column("measure")
    table.add_column("valid", justify="right")
    table.add_column("test", justify="right")
    values = asdict(valid), asdict(test)
    for name, label in _LABELS.items():
        table.add_row(label, *(_shown(name, split[name]) for split in values))
    console.print(table)
    console.print(f"Wrote {output}/metrics.json, model/ and training.png.", highlight=False, soft_wrap=True)


def _shown(name: str, value: float) -> str:
    return f"{value:.4f}" if name in ("mae", "corr") else f"{100 * value:.2f} %"
