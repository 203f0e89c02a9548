"""What a run costs: the numbers of steps, the formula of memory, and that the parts of a step add up to a real step."""

import pytest
import torch

from benchmarks.throughput import RUNS, Cost, kept, kept_by_formula, model_of, speed_row, steps_table, timed_step
from multifuse import CLCRConfig, CLCRForPrediction


def test_steps_are_whole_batches_and_one_for_the_rest_times_the_epochs() -> None:
    assert RUNS["mosei"].steps() == 20 * 511
    assert RUNS["ks"].steps() == 50 * 208
    assert "| MOSEI, the paper's recipe | 16,326 | 64 | 256 | 100 | 25,600 |" in steps_table()


@pytest.mark.parametrize("length", [3, 20, 50, 128])
def test_the_formula_gives_what_a_sample_keeps_for_the_backward_pass(length: int) -> None:
    modalities = {name: {"encoder": "temporal_conv", "input_size": 5} for name in ("text", "audio")}
    config = CLCRConfig(modalities=modalities, hidden_size=64, shared_rank=32, private_rank=16)
    network: CLCRForPrediction = CLCRForPrediction(config).train()

    def counted(size: int) -> int:
        inputs = {name: torch.randn(size, length, 5) for name in modalities}
        return sum(kept(network, (inputs, torch.ones(size), None)))

    by_sample = (counted(12) - counted(4)) / 8
    formula = kept_by_formula(config, dict.fromkeys(modalities, length), dict.fromkeys(modalities, 5))
    # Vectors of a sample, such as InterCAD's, are not in the formula.
    assert formula < by_sample < 1.1 * formula + 4 * 150 * config.hidden_size


def test_a_timed_step_has_the_gradients_of_a_plain_one() -> None:
    run = RUNS["mosei"]
    model, batch = model_of(run), run.batch(2)
    torch.manual_seed(1)  # of dropout
    model(batch[0], batch[2], labels=batch[1]).loss.backward()
    expected = {name: weight.grad for name, weight in model.named_parameters()}

    class Kept(torch.optim.SGD):
        def zero_grad(self, set_to_none: bool = True) -> None:
            pass

    model.zero_grad()
    torch.manual_seed(1)
    encoders, fusion, update = timed_step(model, Kept(model.parameters(), lr=0.0), batch)
    assert encoders > 0
    assert fusion > 0
    assert update >= 0
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name])


def test_the_time_of_a_run_is_that_of_its_steps_at_the_recipes_batch() -> None:
    cost = Cost(1, 0.64, 0.32, 0.5, 0, 0, 0, 0, 0.0)
    assert speed_row(RUNS["mosei"], cost).endswith("| 20.0 ms | 10.0 ms | 500 ms | 21.92 | 4.1 h |")
