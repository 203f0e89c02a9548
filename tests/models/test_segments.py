"""CLCRForSegmentPrediction: segments in time, ignored labels, and padding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multifuse import CLCRConfig, CLCRForPrediction, CLCRForSegmentPrediction
from tests.sizes import SMALL_SIZES


def config(segments: int, **options: Any) -> CLCRConfig:
    modalities = {name: {"encoder": "temporal_conv", "input_size": 3} for name in ("audio", "vision")}
    return CLCRConfig(modalities=modalities, num_segments=segments, **{**SMALL_SIZES, **options})


def model(segments: int, **options: Any) -> CLCRForSegmentPrediction:
    torch.manual_seed(0)
    network: CLCRForSegmentPrediction = CLCRForSegmentPrediction(config(segments, **options)).eval()
    return network


def inputs(audio: int = 12, vision: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "audio": torch.randn(2, audio, 3, generator=generator),
        "vision": torch.randn(2, vision, 3, generator=generator),
    }


def test_every_output_has_a_dimension_of_segments() -> None:
    output = model(4, num_labels=5, problem_type="single_label_classification")(inputs())
    assert output.logits.shape == (2, 4, 5)
    assert output.level_weights.shape == (2, 4, 2)
    assert output.modality_weights.shape == output.private_gates.shape == (2, 4, 2)


def test_one_segment_equals_the_whole_sample() -> None:
    unsegmented = CLCRForPrediction(config(1)).eval()
    segmented = model(1)
    unsegmented.load_state_dict(segmented.state_dict())
    torch.testing.assert_close(segmented(inputs()).logits[:, 0], unsegmented(inputs()).logits)


def test_a_segment_depends_on_its_own_time() -> None:
    """Without the exchange, a change in the last quarter is out of reach of the first segment."""
    network = model(4, use_intra_ced=False, num_levels=1)
    changed = inputs(40, 40)
    before = network(changed).logits
    changed["audio"][:, 30:] += 1.0
    after = network(changed).logits
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 3], after[:, 3])


def test_a_segment_without_a_real_token_lacks_the_modality() -> None:
    mask = {"audio": torch.arange(12).expand(2, -1) >= 6}
    output = model(4)(inputs(), mask)
    assert not output.modality_weights[:, :2, 0].any()
    assert output.modality_weights[:, 2:, 0].all()
    assert output.logits.isfinite().all()


def test_the_segments_of_a_sample_do_not_depend_on_longer_samples_in_its_batch() -> None:
    network, alone = model(4), inputs()
    padded = {name: torch.nn.functional.pad(values, (0, 0, 0, 9)) for name, values in alone.items()}
    mask = {name: torch.arange(values.shape[1] + 9).expand(2, -1) < values.shape[1] for name, values in alone.items()}
    torch.testing.assert_close(network(padded, mask).logits, network(alone).logits)


@pytest.mark.parametrize("problem", ["single_label_classification", "regression", "multi_label_classification"])
def test_ignored_segments_do_not_count(problem: str) -> None:
    network = model(4, problem_type=problem, num_labels=1 if problem == "regression" else 3)
    shape = (2, 4, 3) if problem.startswith("multi") else (2, 4)
    labels = torch.ones(shape, dtype=torch.long if problem.startswith("single") else torch.float)
    partly_ignored, ignored = labels.clone(), [(0, 1), (1, 3)]
    for sample, segment in ignored:
        partly_ignored[sample, segment] = -100
    logits = network(inputs()).logits
    loss = network(inputs(), labels=partly_ignored).loss
    counted = torch.tensor([[(sample, segment) not in ignored for segment in range(4)] for sample in range(2)])
    expected = network.task_loss(logits[counted], labels[counted])
    torch.testing.assert_close(loss, expected)


def test_it_trains_with_every_loss_term_and_loads_after_saving(tmp_path: Path) -> None:
    network = model(4, num_labels=5, problem_type="single_label_classification").train()
    output = network(inputs(), labels=torch.randint(0, 5, (2, 4)))
    output.loss.backward()
    assert output.terms["inter_mixing"] > 0
    network.eval().save_pretrained(tmp_path)
    loaded = CLCRForSegmentPrediction.from_pretrained(tmp_path)
    assert torch.equal(loaded(inputs()).logits, network(inputs()).logits)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"labels must have shape \(2, 4\) \(samples, segments\), got \(2, 3\)"):
        model(4)(inputs(), labels=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="num_segments must be an integer >= 1, got 0"):
        model(0)
