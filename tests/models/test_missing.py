"""Missing modalities, expressed in any way, in every layer and model, in training and in eval mode."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multifuse import (
    CLCRConfig,
    CLCRForSegmentPrediction,
    CLCRModel,
    InterCAD,
    InterLevelLoss,
    IntraCED,
    IntraLevelLoss,
    ModalityDropout,
    SemanticHierarchyEncoder,
    StiefelProjector,
    TemporalConvLevels,
)
from multifuse.recipes.jobs.models import CLIP_MODELS, model_class
from tests.sizes import SMALL_SIZES

NAMES = ("text", "audio", "keys")
DIM, BATCH = 8, 3
Inputs = dict[str, Any]
Outputs = dict[str, Tensor]


def batch() -> tuple[Inputs, Inputs]:
    """Returns ragged tokens of three modalities with masks; the first token of each is real."""
    generator = torch.Generator().manual_seed(3)
    inputs: Inputs = {}
    mask: Inputs = {}
    for name, length in zip(NAMES, (5, 4, 6), strict=True):
        inputs[name] = torch.randn(BATCH, length, DIM, generator=generator)
        mask[name] = torch.arange(length) < torch.randint(1, length + 1, (BATCH, 1), generator=generator)
    return inputs, mask


def ways(absent: Iterable[str]) -> dict[str, tuple[Inputs, Inputs]]:
    """Returns the batch without some modalities, expressed in three ways."""
    inputs, mask = batch()
    present = [name for name in NAMES if name not in absent]
    hidden = {name: real if name in present else torch.zeros_like(real) for name, real in mask.items()}
    none = dict.fromkeys(absent)
    return {
        "left out": ({name: inputs[name] for name in present}, {name: mask[name] for name in present}),
        "None": ({**inputs, **none}, {**mask, **none}),
        "masked": (inputs, hidden),
    }


def by_name(prefix: str, values: dict[str, Tensor], present: Iterable[str]) -> Outputs:
    return {f"{prefix} {name}": values[name] for name in present}


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make()


def hierarchy() -> Any:
    return SemanticHierarchyEncoder(DIM, {name: TemporalConvLevels(DIM, DIM, 2) for name in NAMES}, num_levels=2)


class Layers(torch.nn.Module):
    """Every layer and loss of the method in turn, as a user's model may call them."""

    def __init__(self) -> None:
        super().__init__()
        self.hierarchy = hierarchy()
        self.dropout = ModalityDropout(NAMES, 0.0)
        self.exchanges = torch.nn.ModuleList(
            IntraCED(DIM, NAMES, shared_rank=4, private_rank=3, num_heads=2) for _ in range(2)
        )
        self.aggregation = InterCAD(DIM, NAMES, num_levels=2)
        self.losses = torch.nn.ModuleList([IntraLevelLoss(modalities=NAMES), InterLevelLoss(modalities=NAMES)])

    def forward(self, inputs: Inputs, mask: Inputs, present: list[str]) -> Outputs:
        levels = self.hierarchy(inputs, mask)
        masks = self.dropout(levels[0], mask)
        exchanged = [exchange(tokens, masks) for exchange, tokens in zip(self.exchanges, levels, strict=True)]
        aggregate = self.aggregation(exchanged, masks)
        outputs = {f"aggregate {name}": value for name, value in aggregate._asdict().items()}
        for level, streams in enumerate(exchanged):
            for name, values in streams._asdict().items():
                outputs |= by_name(f"level {level} {name}", values, present)
        for loss, arguments in zip(self.losses, ((exchanged,), (exchanged, aggregate)), strict=True):
            outputs |= {f"{type(loss).__name__} {n}": v for n, v in loss(*arguments, masks)._asdict().items()}
        return outputs


class Projected(torch.nn.Module):
    """The projector, which takes no masks because it reads every token separately."""

    def __init__(self) -> None:
        super().__init__()
        self.projector = StiefelProjector(DIM, NAMES, shared_rank=4, private_rank=3)

    def forward(self, inputs: Inputs, mask: Inputs, present: list[str]) -> Outputs:
        codes = self.projector(inputs)
        return by_name("shared", codes.shared, present) | by_name("private", codes.private, present)


class Model(torch.nn.Module):
    """A complete model, with its loss if it has one."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        modalities = {name: {"encoder": "temporal_conv", "input_size": DIM} for name in NAMES}
        sizes = {**SMALL_SIZES, "hidden_size": DIM, "shared_rank": 4, "private_rank": 3}
        self.model = kind(CLCRConfig(modalities=modalities, dropout=0.0, num_segments=2, **sizes))

    def forward(self, inputs: Inputs, mask: Inputs, present: list[str]) -> Outputs:
        if isinstance(self.model, CLCRModel):
            return {"fused": self.model(inputs, mask).fused}
        labels = torch.ones(BATCH, 2) if isinstance(self.model, CLCRForSegmentPrediction) else torch.ones(BATCH)
        output = self.model(inputs, mask, labels=labels)
        return {"logits": output.logits, "loss": output.loss, **(output.terms or {})}


KINDS: list[Any] = [CLCRModel, CLCRForSegmentPrediction, *map(model_class, CLIP_MODELS)]
MODULES: dict[str, Callable[[], Any]] = {
    "every layer": Layers,
    "StiefelProjector": Projected,
    **{
        kind.__name__: lambda kind=kind: Model(kind)  # type: ignore[misc]
        for kind in KINDS
    },
}


@pytest.mark.parametrize("name", list(MODULES))
@settings(max_examples=12)
@given(absent=st.sets(st.sampled_from(NAMES), min_size=1, max_size=2), training=st.booleans())
def test_left_out_none_and_masked_give_equal_outputs_and_gradients(name: str, absent: set[str], training: bool) -> None:
    present = [modality for modality in NAMES if modality not in absent]
    results, gradients = {}, {}
    for way, (inputs, mask) in ways(sorted(absent)).items():
        module = seeded(MODULES[name]).train(training)
        outputs = results[way] = module(inputs, mask, present)
        sum(value.square().sum() for value in outputs.values()).backward()
        gradients[way] = {n: p.grad for n, p in module.named_parameters()}
    for way in ("None", "masked"):
        assert results[way].keys() == results["left out"].keys()
        for output, expected in results["left out"].items():
            torch.testing.assert_close(results[way][output], expected, atol=2e-5, rtol=1e-4, msg=f"{way}: {output}")
        for parameter, expected_grad in gradients["left out"].items():
            grad = gradients[way][parameter]
            if expected_grad is None:
                assert grad is None or not grad.any(), f"{way}: {parameter} receives a gradient"
            elif grad is not None:
                torch.testing.assert_close(grad, expected_grad, atol=1e-4, rtol=1e-3, msg=f"{way}: {parameter}")


@pytest.mark.filterwarnings("ignore:.* was called in training without labels")
@pytest.mark.parametrize("name", [name for name in MODULES if name.endswith("Prediction")])
@settings(max_examples=12)
@given(lacks=st.lists(st.sampled_from([None, *NAMES]), min_size=BATCH, max_size=BATCH), training=st.booleans())
def test_each_sample_is_predicted_as_if_its_missing_modality_were_left_out(
    name: str, lacks: list[str | None], training: bool
) -> None:
    inputs, mask = batch()
    module = seeded(MODULES[name]).model.train(training)
    hidden = {
        modality: real & torch.tensor([missing != modality for missing in lacks])[:, None]
        for modality, real in mask.items()
    }
    together = module(inputs, hidden).logits
    for sample, missing in enumerate(lacks):
        row = slice(sample, sample + 1)
        single = {modality: values[row] for modality, values in inputs.items() if modality != missing}
        logits = module(single, {modality: mask[modality][row] for modality in single}).logits
        torch.testing.assert_close(together[row], logits, atol=2e-5, rtol=1e-4)
