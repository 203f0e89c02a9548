"""The recipe's optimiser: learning rates by depth, weight decay by kind, the schedule, batches by length."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from multifuse.layers.text_levels import TextLevels
from multifuse.training.recipes import FEATURES, FINE_TUNING, FINE_TUNING_SMALL, PAPER, fine_tuning_or_features
from multifuse.training.trainer import build_optimizer, lr_factor, parameter_groups

WIDTH = 48


def network() -> nn.ModuleDict:
    bert = BertModel(
        BertConfig(vocab_size=20, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8),
        add_pooling_layer=False,
    )
    return nn.ModuleDict({"text": TextLevels(bert, 3), "head": nn.Linear(WIDTH, 1)})


def test_an_encoder_learns_slower_with_depth() -> None:
    model = network()
    chosen = replace(FINE_TUNING, encoder_lr_scale=0.1, layer_decay=0.5, weight_decay=0.01)
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, chosen, 1e-3)
        for parameter in group["params"]
    }
    assert len(rates) == len(list(model.parameters()))
    named = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert named["head.weight"] == (1e-3, 0.01)
    assert named["head.bias"] == (1e-3, 0.0)
    for layer, expected in ((2, 1e-4), (1, 5e-5), (0, 2.5e-5)):
        assert named[f"text.model.encoder.layer.{layer}.output.dense.weight"][0] == pytest.approx(expected)
    assert named["text.model.embeddings.word_embeddings.weight"][0] == pytest.approx(1.25e-5)


def test_the_paper_recipe_is_the_published_one() -> None:
    optimizer = build_optimizer(network(), PAPER, PAPER.lr)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.9
    assert {(group["lr"], group["weight_decay"]) for group in optimizer.param_groups} == {(1e-3, 1e-4)}
    assert (PAPER.epochs, PAPER.batch_size, PAPER.schedule) == (100, 64, "constant")


def test_the_default_recipe_depends_on_the_encoder() -> None:
    assert fine_tuning_or_features(None) is FEATURES
    assert fine_tuning_or_features(768) is FINE_TUNING
    assert fine_tuning_or_features(384) is FINE_TUNING_SMALL


def test_the_schedule_warms_up_and_falls_to_zero() -> None:
    chosen = replace(FINE_TUNING, warmup=0.1, schedule="linear")
    factors = [lr_factor(step, chosen, 100) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0.0
    assert factors[:11] == sorted(factors[:11])
    assert lr_factor(99, PAPER, 100) == 1.0
