"""What every job writes of the course of its epochs."""

from multifuse.recipes.jobs.epoch_metrics import measured_epochs


def test_the_epochs_of_a_resumed_run_hold_no_times_and_nothing_of_training() -> None:
    """Trainer adds a time to the first evaluation of a process: a resumed run would differ from an undisturbed one."""
    history = [
        {"epoch": 1.0, "loss": 0.5, "learning_rate": 1e-3},
        {
            "epoch": 1.0,
            "eval_mae": 0.4,
            "eval_corr": float("nan"),
            "eval_runtime": 1.0,
            "eval_model_preparation_time": 2.0,
        },
        {"epoch": 1.0, "eval_mae": 0.3, "eval_level_weight_1": 0.2, "eval_samples_per_second": 9.0, "eval_loss": 0.6},
    ]
    epochs = measured_epochs(history, "mae")
    assert epochs == [
        {"epoch": 1.0, "corr": None, "mae": 0.4},
        {"epoch": 1.0, "level_weight_1": 0.2, "loss": 0.6, "mae": 0.3},
    ]
    assert [[*entry][1:] for entry in epochs] == [["corr", "mae"], ["level_weight_1", "loss", "mae"]]
