"""What layers and models are given by mistake: one line that names the argument, the modality and the value."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from multifuse import (
    BackboneLevels,
    CLCRConfig,
    CLCRForPrediction,
    InterCAD,
    IntraCED,
    IntraLevelLoss,
    ModalityDropout,
    SemanticHierarchyEncoder,
    TemporalConvLevels,
    TextLevels,
    TokenBudget,
    WhiteningXCorrLoss,
)
from multifuse.baselines import LateFusionForPrediction
from multifuse.models.task_loss import loss_per_sample
from multifuse.ops import project_capped_simplex

NAMES = ("text", "audio")
MODALITIES: dict[str, Any] = {name: {"encoder": "temporal_conv", "input_size": 3} for name in NAMES}
SMALL: dict[str, Any] = {"hidden_size": 16, "shared_rank": 8, "private_rank": 4, "num_levels": 2}


def layer() -> IntraCED:
    return IntraCED(16, NAMES, shared_rank=8, private_rank=4)


def model(**options: Any) -> CLCRForPrediction:
    network: CLCRForPrediction = CLCRForPrediction(CLCRConfig(modalities=MODALITIES, **{**SMALL, **options}))
    network.eval()
    return network


def tokens(width: int = 16, batch: int = 4) -> dict[str, torch.Tensor]:
    return {name: torch.randn(batch, 5, width) for name in NAMES}


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "modalities as two arguments": (
        lambda: layer()(*tokens().values()),  # type: ignore[arg-type]
        r"mask must be a mapping by modality, such as {'text': ..., 'audio': ...}, got a tensor of shape \(4, 5, 16\)",
    ),
    "a list": (lambda: layer()(list(tokens().values())), "tokens must be a mapping by modality.*got list$"),  # type: ignore[arg-type]
    "numpy arrays": (
        lambda: layer()({name: values.numpy() for name, values in tokens().items()}),  # type: ignore[misc]
        r"tokens\['text'\] must be a torch.Tensor, got numpy.ndarray",
    ),
    "half inputs": (
        lambda: layer()({"text": tokens()["text"].half()}),
        r"tokens\['text'\] is torch.float16, but the weights are torch.float32: convert one of them, or use autocast",
    ),
    "another width": (
        lambda: layer()({"audio": torch.randn(4, 5, 7)}),
        r"tokens\['audio'\] must have shape \(batch, tokens, 16\), got \(4, 5, 7\)",
    ),
    "one mask for all": (lambda: layer()(tokens(), torch.ones(4, 5)), "mask must be a mapping by modality"),  # type: ignore[arg-type]
    "a mask in numpy": (
        lambda: layer()(tokens(), {"text": np.ones((4, 5))}),  # type: ignore[dict-item]
        r"mask\['text'\] must be a torch.Tensor, got numpy.ndarray",
    ),
    "a mask of another length": (
        lambda: layer()(tokens(), {"text": torch.ones(4, 6)}),
        r"mask\['text'\] must have shape \(4, 5\), got \(4, 6\)",
    ),
    "a model given a tensor": (
        lambda: model()(tokens(3)["text"]),
        "inputs must be a mapping by modality.*tensor",
    ),
    "a model given one mask for all": (
        lambda: model()(tokens(3), torch.ones(4, 5)),  # type: ignore[arg-type]
        "mask must be a mapping by modality",
    ),
    "a mask that is a list": (
        lambda: WhiteningXCorrLoss()(torch.randn(8, 2), torch.randn(8, 2), [1] * 8),  # type: ignore[arg-type]
        "mask must be a torch.Tensor, got list",
    ),
    "a model given half inputs": (
        lambda: model()({"audio": tokens(3)["audio"].half()}),
        "modality 'audio': inputs is torch.float16, but the weights are torch.float32",
    ),
    "a model of bfloat16": (
        lambda: model().to(torch.bfloat16)(tokens(3)),
        "modality 'text': inputs is torch.float32, but the weights are torch.bfloat16",
    ),
    "a model given another width": (
        lambda: model()({"audio": torch.randn(4, 5, 2)}),
        r"modality 'audio': inputs must have shape \(batch, tokens, 3\), got \(4, 5, 2\)",
    ),
    "a model given a mask of another length": (
        lambda: model()(tokens(3), {"audio": torch.ones(4, 9)}),
        r"modality 'audio': mask must have shape \(4, 5\), got \(4, 9\)",
    ),
    "modalities of two batches": (
        lambda: model()({"text": torch.randn(4, 5, 3), "audio": torch.randn(3, 5, 3)}),
        r"tokens\['audio'\] has batch size 3, the modalities before it 4",
    ),
    "labels of another batch": (
        lambda: model()(tokens(3), labels=torch.randn(5)),
        r"labels must have shape \(4, 1\) for regression, got torch.float32 \(5,\)",
    ),
    "labels in a list": (lambda: model()(tokens(3), labels=[0, 1, 2, 1]), "labels must be a torch.Tensor, got list"),
    "a class out of range": (
        lambda: model(num_labels=3)(tokens(3), labels=torch.tensor([0, 1, 2, 7])),
        "labels must be class indices from 0 to 2, or -100 to be ignored, got 7 at sample 3",
    ),
    "a negative class": (
        lambda: model(num_labels=3)(tokens(3), labels=torch.tensor([0, -1, -100, 1])),
        "class indices from 0 to 2, or -100 to be ignored, got -1 at sample 1",
    ),
    "fractional classes": (
        lambda: model(num_labels=3, problem_type="single_label_classification")(tokens(3), labels=torch.rand(4)),
        r"labels must be class indices, integers of shape \(4,\), got torch.float32 \(4,\)",
    ),
    "several labels beyond 1": (
        lambda: model(num_labels=3)(tokens(3), labels=torch.full((4, 3), 5.0)),
        "labels must be between 0 and 1 for multi_label_classification, got 5.0 at sample 0",
    ),
    "one level in place of all": (
        lambda: InterCAD(16, NAMES, num_levels=2)(layer()(tokens())),  # type: ignore[arg-type]
        "levels must be a sequence with the IntraCEDOutput of every level, got IntraCEDOutput",
    ),
    "tokens in place of levels": (
        lambda: IntraLevelLoss()([tokens()]),  # type: ignore[list-item]
        "levels must be a sequence with the IntraCEDOutput of every level, got dict at index 0",
    ),
    "a projector given a tensor": (lambda: layer().projector(tokens()["text"]), "tokens must be a mapping by modality"),
    "a hierarchy given a tensor": (
        lambda: SemanticHierarchyEncoder(16, {"text": TemporalConvLevels(3, 16)})(tokens(3)["text"]),  # type: ignore[arg-type]
        "inputs must be a mapping by modality",
    ),
    "a budget in numpy": (lambda: TokenBudget()(np.ones((3, 4))), "evidence must be a torch.Tensor, got numpy.ndarray"),
    "an op given a list": (lambda: project_capped_simplex([0.5, 1.0], 1.0), "z must be a torch.Tensor, got list"),  # type: ignore[arg-type]
    "integer features": (
        lambda: model()({name: torch.randint(9, (4, 6, 3)) for name in NAMES}),
        "^modality 'text': inputs must be floating point, got torch.int64$",
    ),
    "integer features in training": (
        lambda: model(dropout=0.1).train()({name: torch.randint(9, (4, 6, 3)) for name in NAMES}),
        "^modality 'text': inputs must be floating point, got torch.int64$",
    ),
    "complex features": (
        lambda: TemporalConvLevels(3, 8)(torch.randn(2, 5, 3, dtype=torch.complex64)),
        "^inputs must be floating point, got torch.complex64$",
    ),
    "integer tokens": (
        lambda: layer()({name: torch.ones(2, 5, 16, dtype=torch.int32) for name in NAMES}),
        r"^tokens\['text'\] must be floating point, got torch.int32$",
    ),
    "a projector given integers": (
        lambda: layer().projector({"text": torch.ones(2, 5, 16, dtype=torch.int64)}),
        r"^tokens\['text'\] must be floating point, got torch.int64$",
    ),
    "a loss of integers": (
        lambda: WhiteningXCorrLoss()(torch.randn(9, 2), torch.randint(9, (9, 2))),
        "^y must be floating point, got torch.int64$",
    ),
    "a loss of complex numbers": (
        lambda: WhiteningXCorrLoss()(torch.randn(9, 2, dtype=torch.complex64), torch.randn(9, 2)),
        "^x must be floating point, got torch.complex64$",
    ),
    "a loss without features": (
        lambda: WhiteningXCorrLoss()(torch.randn(9, 0), torch.randn(9, 2)),
        r"^x and y must have at least one feature, got \(9, 0\), \(9, 2\)$",
    ),
    "complex labels": (
        lambda: model()(tokens(3), labels=torch.randn(4, dtype=torch.complex64)),
        "^labels must be real for regression, got torch.complex64$",
    ),
    "a loss in numpy": (lambda: WhiteningXCorrLoss()(np.ones((9, 2)), np.ones((9, 2))), "x must be a torch.Tensor"),
}


NO_NUMBERS: dict[str, tuple[Callable[[], object], str]] = {
    "dim": (lambda: IntraCED("64", NAMES), "^dim must be an integer >= 1, got '64'$"),  # type: ignore[arg-type]
    "dim and ranks": (
        lambda: IntraCED([64], NAMES, shared_rank=8, private_rank=4),  # type: ignore[arg-type]
        r"^dim must be an integer >= 1, got \[64\]$",
    ),
    "gamma": (lambda: IntraCED(64, NAMES, gamma=None), "^gamma must be finite and >= 0, got None$"),  # type: ignore[arg-type]
    "init_participation": (
        lambda: TokenBudget(init_participation="half"),  # type: ignore[arg-type]
        r"^init_participation must be in \(0, 1\), got 'half'$",
    ),
    "dropout": (lambda: IntraCED(64, NAMES, dropout=None), r"^dropout must be in \[0.0, 1.0\], got None$"),  # type: ignore[arg-type]
    "dropout of features": (
        lambda: TemporalConvLevels(3, 8, dropout=[0.1]),  # type: ignore[arg-type]
        r"^dropout must be in \[0.0, 1.0\], got \[0.1\]$",
    ),
    "level_temperature": (
        lambda: InterCAD(16, NAMES, num_levels=2, level_temperature=None),  # type: ignore[arg-type]
        "^level_temperature must be finite and > 0, got None$",
    ),
    "rate": (lambda: ModalityDropout(NAMES, None), r"^rate must be in \[0.0, 1.0\], got None$"),  # type: ignore[arg-type]
    "a rate by name": (
        lambda: ModalityDropout(NAMES, {"text": "0.5"}),  # type: ignore[dict-item]
        r"^rate\['text'\] must be in \[0.0, 1.0\], got '0.5'$",
    ),
    "eps": (lambda: WhiteningXCorrLoss(eps=None), "^eps must be finite and > 0, got None$"),  # type: ignore[arg-type]
    "eps of a regulariser": (lambda: IntraLevelLoss(eps="1"), "^eps must be finite and > 0, got '1'$"),  # type: ignore[arg-type]
    "encoders": (
        lambda: SemanticHierarchyEncoder(16, [TemporalConvLevels(3, 16)]),  # type: ignore[arg-type]
        "^encoders must be a mapping by modality, got list$",
    ),
    "a text encoder that is none": (
        lambda: TextLevels(torch.nn.Linear(2, 2)),
        "^model must have config.hidden_size and config.num_hidden_layers, .* got a Linear$",
    ),
    "a backbone that is none": (lambda: BackboneLevels(torch.nn.Linear(2, 2), 8), "^model must .* got a Linear$"),
}


@pytest.mark.parametrize("name", list(NO_NUMBERS))
def test_an_argument_of_a_constructor_that_is_no_number_is_named_in_one_line(name: str) -> None:
    call, message = NO_NUMBERS[name]
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", list(WRONG))
def test_a_mistake_is_named_in_one_line(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_inputs_of_another_dtype_are_taken_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer()({name: values.bfloat16() for name, values in tokens().items()}).tokens["text"].isfinite().all()


def test_double_inputs_which_autocast_does_not_convert_are_named() -> None:
    inputs = {name: values.double() for name, values in tokens().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ValueError, match=r"tokens\['text'\] is torch.float64, but the weights are torch.float32"):
            layer()(inputs)
        with pytest.raises(ValueError, match=r"inputs is torch.float64, but the weights are torch.float32"):
            TemporalConvLevels(16, 8)(inputs["text"])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_classes_are_integers_of_any_type(dtype: torch.dtype) -> None:
    labels = torch.tensor([0, 1, 2, 1])
    network, inputs = model(num_labels=3), tokens(3)
    assert torch.equal(network(inputs, labels=labels.to(dtype)).loss, network(inputs, labels=labels).loss)


@pytest.mark.parametrize(
    ("options", "labels", "expected"),
    [
        ({}, torch.randn(4), "regression"),
        ({"num_labels": 3}, torch.tensor([0, 1, 2, 1]), "single_label_classification"),
        ({"num_labels": 3}, torch.ones(4, 3), "multi_label_classification"),
        ({"num_labels": 3, "problem_type": "regression"}, torch.randn(4, 3), "regression"),
    ],
)
def test_the_problem_type_is_inferred_as_transformers_does(
    options: dict[str, Any], labels: torch.Tensor, expected: str
) -> None:
    network = model(**options)
    assert network(tokens(3), labels=labels).loss.isfinite()
    assert network.config.problem_type == expected


@pytest.mark.parametrize("wrong", [torch.full((4,), 0.5), torch.tensor([0, 1, 2, 7]), torch.full((4, 3), 5.0)], ids=str)
def test_labels_that_are_refused_do_not_decide_the_problem_type(wrong: torch.Tensor) -> None:
    network, right = model(num_labels=3), torch.tensor([0, 1, 2, 1])
    with pytest.raises(ValueError, match="labels must"):
        network(tokens(3), labels=wrong)
    assert network.config.problem_type is None
    assert network(tokens(3), labels=right).loss.isfinite()
    assert network.config.problem_type == "single_label_classification"


@pytest.mark.parametrize("kind", [CLCRForPrediction, LateFusionForPrediction])
def test_the_problem_type_of_a_model_is_not_that_of_another_one_of_the_same_config(kind: Any) -> None:
    config = CLCRConfig(modalities=MODALITIES, num_labels=3, **SMALL)
    first, second = kind(config), kind(config)
    first(tokens(3), labels=torch.tensor([0, 1, 2, 1]))
    second(tokens(3), labels=torch.ones(4, 3))
    assert first.config.problem_type == "single_label_classification"
    assert second.config.problem_type == "multi_label_classification"
    assert config.problem_type is None


def test_a_model_within_a_model_has_its_config() -> None:
    network = model()
    assert network.clcr.config is network.config


@pytest.mark.parametrize(
    ("name", "value"), [("problem_type", "multi_label"), ("problem_type", None), ("regression_loss", "huber")]
)
def test_an_unknown_problem_type_or_loss_is_not_taken_for_a_regression(name: str, value: str | None) -> None:
    options: dict[str, Any] = {"problem_type": "regression", "regression_loss": "l1", name: value}
    with pytest.raises(ValueError, match=f"{name} must be one of .*, got {value!r}"):
        loss_per_sample(torch.randn(4, 1), torch.randn(4), **options)


def test_an_empty_batch_has_a_loss_of_zero_in_training() -> None:
    """As the last batch of a rank that has no sample left."""
    network = model().train()
    loss = network(tokens(3, batch=0), labels=torch.randn(0)).loss
    assert loss == 0
    loss.backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("lamda_intra", "lambda_intra"),
        ("share_rank", "shared_rank"),
        ("num_label", "num_labels"),
        ("xyz", None),
    ],
)
def test_a_field_that_does_not_exist_is_refused_with_the_nearest_one(name: str, nearest: str | None) -> None:
    hint = "" if nearest is None else f".*did you mean '{nearest}'"
    with pytest.raises(ValueError, match=f"CLCRConfig has no field '{name}', got {name}=0{hint}"):
        CLCRConfig(modalities=MODALITIES, **{name: 0})


def test_a_config_with_all_that_transformers_writes_is_read_back(tmp_path: Any) -> None:
    network = model(num_labels=3)
    network(tokens(3), labels=torch.tensor([0, 1, 2, 1]))
    network.save_pretrained(tmp_path)
    config = CLCRForPrediction.from_pretrained(tmp_path).config
    assert config.problem_type == "single_label_classification"
    assert config.num_labels == 3


def test_a_file_with_a_frameworks_fields_is_read_and_one_with_a_typo_refused() -> None:
    """Trainer sets ``use_cache`` on every config, and saves it."""
    saved = {**CLCRConfig(modalities=MODALITIES, **SMALL).to_dict(), "use_cache": False, "pad_token_id": 0}
    assert CLCRConfig.from_dict(saved).hidden_size == 16
    with pytest.raises(ValueError, match="no field 'lamda_intra', got lamda_intra=0; did you mean 'lambda_intra'"):
        CLCRConfig.from_dict({**saved, "lamda_intra": 0})


def test_training_without_labels_warns_once_that_the_regularisers_are_left_out() -> None:
    """Trainer's label smoothing and compute_loss_func take the labels away, and the regularisers with them."""
    network = model().train()
    with pytest.warns(RuntimeWarning, match=r"without labels.*lambda_intra=0.1, lambda_inter=0.1"):
        network(tokens(3))
    network(tokens(3))  # a second warning would be an error here
    model().eval()(tokens(3))
    model(lambda_intra=0.0, lambda_inter=0.0).train()(tokens(3))


@pytest.mark.parametrize("training", [False, True])
def test_debug_names_the_term_of_the_loss_that_is_not_finite(training: bool) -> None:
    network = model(debug=True).train(training)
    with pytest.raises(ValueError, match=r"the terms of the loss must be finite, got {'task': nan"):
        network(tokens(3), labels=torch.full((4,), float("nan")))


def test_nan_in_one_sample_makes_every_term_of_the_loss_nan_as_it_makes_the_gradients() -> None:
    network = model().train()
    inputs = tokens(3, batch=40)
    inputs["audio"][3, 2, 1] = float("nan")
    output = network(inputs, labels=torch.randn(40))
    assert all(term.isnan() for term in output.terms.values()), output.terms
