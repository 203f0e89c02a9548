"""A modality that is missing, in whichever way it is said, in every layer and in the models, in training and after."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from multifuse import (
    CLCRConfig,
    CLCRForPrediction,
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
from multifuse.recipes.baselines.fusion import CrossAttentionForPrediction, LateFusionForPrediction

NAMES = ("text", "audio", "keys")
DIM, BATCH = 8, 3
Inputs = dict[str, Any]
Outputs = dict[str, Tensor]


def batch() -> tuple[Inputs, Inputs]:
    """Ragged tokens of three modalities; the first of each is real."""
    generator = torch.Generator().manual_seed(3)
    inputs: Inputs = {}
    mask: Inputs = {}
    for name, length in zip(NAMES, (5, 4, 6), strict=True):
        inputs[name] = torch.randn(BATCH, length, DIM, generator=generator)
        mask[name] = torch.arange(length) < torch.randint(1, length + 1, (BATCH, 1), generator=generator)
    return inputs, mask


def ways(absent: Iterable[str]) -> dict[str, tuple[Inputs, Inputs]]:
    """The batch without some modalities, said in three ways."""
    inputs, mask = batch()
    left = [name for name in NAMES if name not in absent]
    hidden = {name: own if name in left else torch.zeros_like(own) for name, own in mask.items()}
    none = dict.fromkeys(absent)
    return {
        "left out": ({name: inputs[name] for name in left}, {name: mask[name] for name in left}),
        "None": ({**inputs, **none}, {**mask, **none}),
        "masked": (inputs, hidden),
    }


def by_name(prefix: str, values: dict[str, Tensor], left: Iterable[str]) -> Outputs:
    return {f"{prefix} {name}": values[name] for name in left}


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make()


def hierarchy() -> Any:
    return SemanticHierarchyEncoder(DIM, {name: TemporalConvLevels(DIM, DIM, 2) for name in NAMES}, num_levels=2)


class Layers(torch.nn.Module):
    """Every layer and loss of the method after the other, as a model of one's own may call them."""

    def __init__(self) -> None:
        super().__init__()
        self.hierarchy = hierarchy()
        self.dropout = ModalityDropout(NAMES, 0.0)
        self.exchanges = torch.nn.ModuleList(
            IntraCED(DIM, NAMES, shared_rank=4, private_rank=3, num_heads=2) for _ in range(2)
        )
        self.aggregation = InterCAD(DIM, NAMES, num_levels=2)
        self.losses = torch.nn.ModuleList([IntraLevelLoss(modalities=NAMES), InterLevelLoss(modalities=NAMES)])

    def forward(self, inputs: Inputs, mask: Inputs, left: list[str]) -> Outputs:
        levels = self.hierarchy(inputs, mask)
        masks = self.dropout(levels[0], mask)
        exchanged = [exchange(tokens, masks) for exchange, tokens in zip(self.exchanges, levels, strict=True)]
        aggregate = self.aggregation(exchanged, masks)
        outputs = {f"aggregate {name}": value for name, value in aggregate._asdict().items()}
        for level, own in enumerate(exchanged):
            for name, values in own._asdict().items():
                outputs |= by_name(f"level {level} {name}", values, left)
        for loss, read in zip(self.losses, ((exchanged,), (exchanged, aggregate)), strict=True):
            outputs |= {f"{type(loss).__name__} {n}": v for n, v in loss(*read, masks)._asdict().items()}
        return outputs


class Projected(torch.nn.Module):
    """The projector, given no masks: it reads every token by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.projector = StiefelProjector(DIM, NAMES, shared_rank=4, private_rank=3)

    def forward(self, inputs: Inputs, mask: Inputs, left: list[str]) -> Outputs:
        codes = self.projector(inputs)
        return by_name("shared", codes.shared, left) | by_name("private", codes.private, left)


class Model(torch.nn.Module):
    """A whole model, with its loss where it has one."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        modalities = {name: {"encoder": "temporal_conv", "input_size": DIM} for name in NAMES}
        sizes = {"hidden_size": DIM, "shared_rank": 4, "private_rank": 3, "num_heads": 2, "num_levels": 2}
        self.model = kind(CLCRConfig(modalities=modalities, dropout=0.0, num_segments=2, **sizes))

    def forward(self, inputs: Inputs, mask: Inputs, left: list[str]) -> Outputs:
        if isinstance(self.model, CLCRModel):
            return {"fused": self.model(inputs, mask).fused}
        labels = torch.ones(BATCH, 2) if isinstance(self.model, CLCRForSegmentPrediction) else torch.ones(BATCH)
        output = self.model(inputs, mask, labels=labels)
        return {"logits": output.logits, "loss": output.loss, **(output.terms or {})}


MODULES: dict[str, Callable[[], Any]] = {
    "every layer": Layers,
    "StiefelProjector": Projected,
    **{
        kind.__name__: lambda kind=kind: Model(kind)  # type: ignore[misc]
        for kind in (
            *(CLCRModel, CLCRForPrediction, CLCRForSegmentPrediction),
            *(LateFusionForPrediction, CrossAttentionForPrediction),
        )
    },
}


@pytest.mark.parametrize("name", list(MODULES))
@settings(max_examples=12)
@given(absent=st.sets(st.sampled_from(NAMES), min_size=1, max_size=2), training=st.booleans())
def test_left_out_none_and_masked_are_one_in_outputs_and_gradients(name: str, absent: set[str], training: bool) -> None:
    left = [own for own in NAMES if own not in absent]
    found, gradients = {}, {}
    for way, (inputs, mask) in ways(sorted(absent)).items():
        module = seeded(MODULES[name]).train(training)
        outputs = found[way] = module(inputs, mask, left)
        sum(value.square().sum() for value in outputs.values()).backward()
        gradients[way] = {n: p.grad for n, p in module.named_parameters()}
    for way in ("None", "masked"):
        assert found[way].keys() == found["left out"].keys()
        for output, expected in found["left out"].items():
            torch.testing.assert_close(found[way][output], expected, atol=2e-5, rtol=1e-4, msg=f"{way}: {output}")
        for parameter, expected_grad in gradients["left out"].items():
            own, like = gradients[way][parameter], expected_grad
            if like is None:
                assert own is None or not own.any() or name == "StiefelProjector", (
                    f"{way}: {parameter} takes a gradient"
                )
            elif own is not None and name != "StiefelProjector":
                torch.testing.assert_close(own, like, atol=1e-4, rtol=1e-3, msg=f"{way}: {parameter}")


@pytest.mark.filterwarnings("ignore:.* was called in training without labels")
@pytest.mark.parametrize("name", ["CLCRForPrediction", "CLCRForSegmentPrediction", "CrossAttentionForPrediction"])
@settings(max_examples=12)
@given(lacks=st.lists(st.sampled_from([None, *NAMES]), min_size=BATCH, max_size=BATCH), training=st.booleans())
def test_each_sample_is_predicted_without_what_it_lacks(name: str, lacks: list[str | None], training: bool) -> None:
    inputs, mask = batch()
    module = seeded(MODULES[name]).model.train(training)
    some = {own: real & torch.tensor([lack != own for lack in lacks])[:, None] for own, real in mask.items()}
    together = module(inputs, some).logits
    for sample, lack in enumerate(lacks):
        one = slice(sample, sample + 1)
        alone = {own: values[one] for own, values in inputs.items() if own != lack}
        logits = module(alone, {own: mask[own][one] for own in alone}).logits
        torch.testing.assert_close(together[one], logits, atol=2e-5, rtol=1e-4)
