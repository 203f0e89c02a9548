"""The methods of transformers' Trainer that our subclasses override or call, some of them private, are unchanged.

All names are read from our classes and their source, so the tests also cover future overrides.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from multifuse.recipes.jobs.progress import EpochLines
from multifuse.recipes.trainer import checkpoints, trainer
from multifuse.recipes.trainer.trainer import RecipeTrainer

SUBCLASSES = [cls for cls in RecipeTrainer.__mro__ if cls not in Trainer.__mro__]
"""RecipeTrainer and all classes between it and Trainer, including mixins."""
ADDED = {"_averaged"}
"""The methods that the subclasses add; all others must override one of Trainer's."""
CALLBACKS = [
    EpochLines,
    *(
        value
        for module in (checkpoints, trainer)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, TrainerCallback) and value is not TrainerCallback
    ),
]


def methods(cls: type) -> dict[str, Callable[..., Any]]:
    """Returns the functions that a class itself defines."""
    return {name: value for name, value in vars(cls).items() if inspect.isfunction(value)}


OVERRIDES = [(cls, name) for cls in SUBCLASSES for name in methods(cls) if name not in ADDED]


def nodes(cls: type) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(textwrap.dedent(inspect.getsource(cls))))


def calls(cls: type) -> list[tuple[str, ast.Call]]:
    """Returns every ``super().name(...)`` in a class, and every ``self.name(...)`` that the subclasses do not add."""
    named_calls = []
    for node in nodes(cls):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = ast.unparse(node.func.value), node.func.attr
            if owner == "super()" or (owner == "self" and name not in ADDED):
                named_calls.append((name, node))
    return named_calls


CALLS = [(cls, name, call) for cls in SUBCLASSES for name, call in calls(cls)]


def test_the_classes_and_their_methods_are_found() -> None:
    assert [cls.__name__ for cls in SUBCLASSES] == ["RecipeTrainer", "WholeCheckpoints"]
    assert {"_save_checkpoint", "_get_output_dir", "_load_rng_state"} <= {name for _, name in OVERRIDES}
    assert {"_save_checkpoint", "_get_train_sampler"} <= {name for _, name, _ in CALLS}


def test_added_methods_are_defined_and_hide_none_of_trainers() -> None:
    defined = {name for cls in SUBCLASSES for name in methods(cls)}
    assert defined.issuperset(ADDED)
    assert not [name for name in ADDED if hasattr(Trainer, name)]


@pytest.mark.parametrize(("cls", "name"), OVERRIDES)
def test_an_override_accepts_what_trainer_passes(cls: type, name: str) -> None:
    assert inspect.isfunction(getattr(Trainer, name, None)), (
        f"Trainer has no method {name}: add it to ADDED if it is ours"
    )
    ours, trainers = (inspect.signature(getattr(owner, name)).parameters for owner in (cls, Trainer))
    kinds = {parameter.kind for parameter in ours.values()}
    if {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} <= kinds:
        return
    assert list(ours)[: len(trainers)] == list(trainers), "Trainer's positional or keyword arguments do not match"
    for parameter in list(ours.values())[len(trainers) :]:
        assert parameter.default is not inspect.Parameter.empty, f"Trainer does not pass {parameter.name}"
    for parameter in trainers.values():
        if parameter.default is not inspect.Parameter.empty:
            assert ours[parameter.name].default is not inspect.Parameter.empty, f"Trainer may not pass {parameter.name}"


def test_trainer_still_calls_the_overridden_methods() -> None:
    called = set(re.findall(r"self\.(\w+)", inspect.getsource(Trainer)))
    without_effect = {name for _, name in OVERRIDES} - called - {"__init__", "train"}
    assert not without_effect


@pytest.mark.parametrize(("cls", "name", "call"), CALLS)
def test_trainer_accepts_what_we_pass(cls: type, name: str, call: ast.Call) -> None:
    assert inspect.isfunction(getattr(Trainer, name, None)), f"{cls.__name__} calls {name}, which Trainer lacks"
    positional = [argument for argument in call.args if not isinstance(argument, ast.Starred)]
    by_name = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
    signature = inspect.signature(getattr(Trainer, name))
    if len(positional) < len(call.args) or len(by_name) < len(call.keywords):
        signature.bind_partial(None, *positional, **by_name)
    else:
        signature.bind(None, *positional, **by_name)


def test_trainer_has_the_attributes_that_we_read(tmp_path: Path) -> None:
    plain = Trainer(nn.Linear(1, 1), TrainingArguments(str(tmp_path), use_cpu=True, report_to=[]))
    accesses = [
        node
        for cls in SUBCLASSES
        for node in nodes(cls)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
    ]
    ours = ADDED | {node.attr for node in accesses if isinstance(node.ctx, ast.Store)}
    read = {node.attr for node in accesses if isinstance(node.ctx, ast.Load)}
    assert {"args", "state", "accelerator", "model"} <= read
    assert not [name for name in read - ours if not hasattr(plain, name)]


@pytest.mark.parametrize("cls", CALLBACKS)
def test_callbacks_handle_only_events_that_trainer_has(cls: type) -> None:
    unknown = [name for name in methods(cls) if name.startswith("on_") and not hasattr(TrainerCallback, name)]
    assert not unknown
