"""Small models, batches and explanations for the tests."""

from typing import Any

import torch
from torch.utils.data import DataLoader

from multifuse import CLCRConfig, CLCRForPrediction, CLCRForSegmentPrediction
from multifuse.recipes.explanation.gathered import About, Explanation, explained
from multifuse.recipes.measures.scores import CLASSES, SENTIMENT
from tests.sizes import SMALL_SIZES

ABOUT = About("model", "data.pkl", "test")
WIDTHS = {"text": 4, "audio": 3, "vision": 5}


def model(modalities: int = 3, segments: int | None = None, classes: int = 0, **fields: Any) -> CLCRForPrediction:
    torch.manual_seed(0)
    names = list(WIDTHS)[:modalities]
    entries = {name: {"encoder": "temporal_conv", "input_size": WIDTHS[name]} for name in names}
    sizes: dict[str, Any] = {**SMALL_SIZES, "num_levels": 3, **fields}
    if classes:
        sizes |= {"problem_type": "single_label_classification", "num_labels": classes}
    if segments is None:
        network = CLCRForPrediction(CLCRConfig(modalities=entries, **sizes))
    else:
        network = CLCRForSegmentPrediction(CLCRConfig(modalities=entries, num_segments=segments, **sizes))
    network.eval()
    return network


def batches(network: CLCRForPrediction, samples: int = 12, lacking: bool = False) -> "DataLoader[Any]":
    """Draws samples of 3 to 7 tokens per modality; some lack modalities, or any, if ``lacking``."""
    generator = torch.Generator().manual_seed(1)
    names = list(network.config.modalities)
    inputs = {name: torch.randn(samples, 7, WIDTHS[name], generator=generator) for name in names}
    lengths = {name: torch.randint(3, 8, (samples, 1), generator=generator) for name in names}
    if lacking:
        lengths[names[0]][::3] = 0
        for name in names:
            lengths[name][1] = 0  # the second sample has nothing at all
            lengths[name][4] *= name == names[0]  # the fifth has the first modality only
    mask = {name: torch.arange(7) < lengths[name] for name in names}
    size = (samples,) if network.segments is None else (samples, network.segments)
    if network.config.problem_type == "single_label_classification":
        labels = torch.randint(network.config.num_labels, size, generator=generator)
        if network.segments is not None:
            labels[0] = -100
    else:
        labels = 2 * torch.randn(size, generator=generator)
    return [  # type: ignore[return-value]
        {
            "inputs": {name: inputs[name][rows] for name in names},
            "mask": {name: mask[name][rows] for name in names},
            "labels": labels[rows],
        }
        for rows in torch.arange(samples).split(5)
    ]


def explanation(samples: int = 12, lacking: bool = False, **options: Any) -> Explanation:
    network = model(**options)
    scoring: Any = CLASSES if network.config.problem_type == "single_label_classification" else SENTIMENT
    ids = [f"sample {index}" for index in range(samples)]
    return explained(network, batches(network, samples, lacking), scoring, ABOUT, ids)
