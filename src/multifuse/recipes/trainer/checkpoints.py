"""A Trainer that writes its checkpoints atomically, so that a run survives a kill at any point."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from multifuse.recipes.files import OutputError, beside, discard, put_in_place, remove
from multifuse.recipes.jobs import resumption

_LEAST_FREE = 1 << 20


class WholeCheckpoints(Trainer):
    """Writes each checkpoint under a hidden name, and moves it into place once all of it is on the disk.

    With ``save_total_limit=2``, the best and the last checkpoint are kept even after training, so that a run killed
    during its final evaluation needs no further training. (With 1, Trainer deletes the last one after training.)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hidden: Path | None = None
        self.add_callback(_ResumeInPlace)

    def _get_output_dir(self, trial: Any = None) -> str:
        """Returns the folder in which Trainer looks for checkpoints and writes them."""
        return self.args.output_dir if self._hidden is None else str(self._hidden)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        final = _checkpoint(self.args, self.state.global_step)
        hidden = beside(final.parent / "checkpoint", "partial")
        try:
            if self.args.should_save:
                remove(hidden)
            self.accelerator.wait_for_everyone()
            self._hidden = hidden
            with native_writes(final):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                _name_best(self.args, self.state)
                if self.args.should_save:
                    self.state.save_to_json(str(hidden / final.name / TRAINER_STATE_NAME))
                    resumption.seal(hidden / final.name)
                    put_in_place(hidden / final.name, final)
        finally:
            self._hidden = None
            if self.args.should_save:
                remove(hidden)
        _discard_others(self.args, self.state)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with resumption.reading(resume_from_checkpoint):
            if not self.is_fsdp_enabled and not any(Path(resume_from_checkpoint).glob("model*.safetensors")):
                raise resumption.CheckpointError(
                    f"{resume_from_checkpoint} holds no safetensors; pickled weights are refused, they could run code"
                )
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with resumption.reading(str(checkpoint)):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with resumption.reading(str(checkpoint)):
            super()._load_rng_state(checkpoint)

    def _load_best_model(self) -> None:
        best = Path(self.state.best_model_checkpoint)
        resumption.check_seal(best)
        with resumption.reading(best):
            super()._load_best_model()


class _ResumeInPlace(TrainerCallback):
    """Finds the best checkpoint of a resumed run in its present folder, and deletes older ones that a kill left."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step > 0:
            _name_best(args, state)
            _discard_others(args, state)


def _discard_others(args: TrainingArguments, state: TrainerState) -> None:
    """Deletes all checkpoints but the last and the best, if the number of checkpoints is limited."""
    if args.should_save and args.save_total_limit is not None:
        for step, checkpoint in resumption.checkpoints(Path(args.output_dir)):
            if step < state.global_step and str(checkpoint) != state.best_model_checkpoint:
                discard(checkpoint)


def _name_best(args: TrainingArguments, state: TrainerState) -> None:
    """Points the state to the best checkpoint in the run's present folder: it may have been moved."""
    if state.best_global_step:
        state.best_model_checkpoint = str(_checkpoint(args, state.best_global_step))


def _checkpoint(args: TrainingArguments, step: int) -> Path:
    return Path(args.output_dir) / f"checkpoint-{step}"


@contextmanager
def native_writes(path: Path) -> Iterator[None]:
    """Turns the errors of torch's and safetensors' writers on a full or broken disk into one that names ``path``.

    Raises:
        OutputError: if ``path`` cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, OutputError) or (isinstance(error, RuntimeError) and "inline_container" not in str(error)):
            raise
        full = shutil.disk_usage(path.parent).free < _LEAST_FREE
        reason = "No space left on device" if full else " ".join(str(error).split())
        raise OutputError(f"{path} cannot be written: {reason}") from error
