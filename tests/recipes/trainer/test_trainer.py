"""The recipe's optimiser and schedule, and the batches and statistics of several processes."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.distributed as distributed
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.utils.data import BatchSampler, SequentialSampler
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from multifuse.layers.backbone_levels import BackboneLevels
from multifuse.layers.text_levels import TextLevels
from multifuse.models.encoders import load_pretrained
from multifuse.recipes.jobs.recipe import (
    CLIPS,
    CLIPS_FINE_TUNING,
    FEATURES,
    FINE_TUNING,
    FINE_TUNING_SMALL,
    PAPER,
    clip_recipe,
    fine_tuning_or_features,
)
from multifuse.recipes.trainer.trainer import (
    RankBatches,
    agree_on_statistics,
    build_optimizer,
    lr_factor,
    parameter_groups,
)

WIDTH = 48


def network() -> nn.ModuleDict:
    bert = BertModel(
        BertConfig(vocab_size=20, hidden_size=WIDTH, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8),
        add_pooling_layer=False,
    )
    return nn.ModuleDict({"text": TextLevels(bert, 3), "head": nn.Linear(WIDTH, 1)})


def test_lower_layers_of_an_encoder_learn_more_slowly() -> None:
    model = network()
    recipe = replace(FINE_TUNING, encoder_lr_scale=0.1, layer_decay=0.5, weight_decay=0.01)
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, recipe, 1e-3)
        for parameter in group["params"]
    }
    assert len(rates) == len(list(model.parameters()))
    named = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert named["head.weight"] == (1e-3, 0.01)
    assert named["head.bias"] == (1e-3, 0.0)
    for layer, expected in ((2, 1e-4), (1, 5e-5), (0, 2.5e-5)):
        assert named[f"text.model.encoder.layer.{layer}.output.dense.weight"][0] == pytest.approx(expected)
    assert named["text.model.embeddings.word_embeddings.weight"][0] == pytest.approx(1.25e-5)


RESNET = ResNetConfig(num_channels=3, embedding_size=4, hidden_sizes=[4, 6], depths=[2, 1], layer_type="basic")
WAV2VEC2 = Wav2Vec2Config(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    conv_dim=(8, 8),
    conv_stride=(10, 8),
    conv_kernel=(20, 16),
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
)


@pytest.mark.parametrize(
    ("backbone", "kind", "depths"),
    [
        (
            ResNetModel(RESNET),
            "image",
            {
                "encoder.stages.1.layers.0.layer.0.convolution.weight": 0,
                "encoder.stages.0.layers.1.layer.0.convolution.weight": 1,
                "encoder.stages.0.layers.0.layer.0.convolution.weight": 1,
                "embedder.embedder.convolution.weight": 2,
            },
        ),
        (
            Wav2Vec2Model(WAV2VEC2),
            "audio",
            {
                "encoder.layers.1.feed_forward.output_dense.weight": 0,
                "encoder.layers.0.feed_forward.output_dense.weight": 1,
                "feature_projection.projection.weight": 2,
                "feature_extractor.conv_layers.1.conv.weight": 2,
            },
        ),
    ],
)
def test_lower_layers_of_a_pretrained_backbone_learn_more_slowly_and_a_new_one_at_the_full_rate(
    tmp_path: Path, backbone: PreTrainedModel, kind: Literal["image", "audio"], depths: dict[str, int]
) -> None:
    recipe = replace(CLIPS, encoder_lr_scale=0.1, layer_decay=0.5)
    levels = BackboneLevels(backbone, 8, kind=kind)
    model = nn.ModuleDict({"levels": levels, "head": nn.Linear(8, 1)})

    def rates() -> dict[str, float]:
        groups = parameter_groups(model, recipe, 1e-3)
        by_id = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
        return {name: by_id[id(parameter)] for name, parameter in model.named_parameters()}

    assert set(rates().values()) == {1e-3}
    backbone.save_pretrained(tmp_path)
    load_pretrained(levels, str(tmp_path))
    pretrained_rates = rates()
    assert pretrained_rates["head.weight"] == pretrained_rates["levels.levels.projection.weight"] == 1e-3
    for name, layers_above in depths.items():
        assert pretrained_rates[f"levels.model.{name}"] == pytest.approx(1e-4 * 0.5**layers_above), name


def test_clips_with_pretrained_backbones_have_a_separate_recipe() -> None:
    assert clip_recipe("ks", synthetic=False, pretrained=True) is CLIPS_FINE_TUNING
    assert clip_recipe("ks", synthetic=False) is CLIPS
    assert CLIPS_FINE_TUNING.encoder_lr_scale < 1


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
    recipe = replace(FINE_TUNING, warmup=0.1, schedule="linear")
    factors = [lr_factor(step, recipe, 100) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0.0
    assert factors[:11] == sorted(factors[:11])
    assert lr_factor(99, PAPER, 100) == 1.0


def statistics_of_rank(rank: int, meeting: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False))
    weight = next(model.parameters()).detach().clone()
    statistics = dict(model.named_buffers())
    statistics["1.running_mean"].fill_(2.0 * rank)
    statistics["1.running_var"].fill_(3.0 + rank)
    agree_on_statistics(model)
    assert statistics["1.running_mean"].eq(1.0).all()
    assert statistics["1.running_var"].eq(3.5).all()
    assert torch.equal(next(model.parameters()), weight)
    distributed.destroy_process_group()


def test_processes_evaluate_with_the_same_statistics(tmp_path: Path) -> None:
    spawn(statistics_of_rank, (tmp_path / "meeting",), nprocs=2)
    model = nn.BatchNorm1d(3)
    agree_on_statistics(model)
    assert model.running_mean is not None
    assert not model.running_mean.any(), "a single process has nothing to agree on"


@pytest.mark.parametrize(("samples", "ranks"), [(16, 2), (19, 2), (17, 2), (21, 4), (18, 4), (3, 4)])
def test_ranks_divide_every_batch_and_no_sample_comes_twice(samples: int, ranks: int) -> None:
    batches = BatchSampler(SequentialSampler(range(samples)), 8, drop_last=False)
    rank_batches = [list(RankBatches(batches, rank, ranks)) for rank in range(ranks)]
    assert {len(parts) for parts in rank_batches} == {len(RankBatches(batches, 0, ranks))}
    expected = [batch for batch in batches if len(batch) >= ranks]
    assert [sorted(chain(*parts)) for parts in zip(*rank_batches, strict=True)] == expected
    for parts in zip(*rank_batches, strict=True):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_embeddings_that_are_defined_after_the_layers_are_below_them_and_a_last_norm_is_not() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    encoder = DebertaV2Model(DebertaV2Config(vocab_size=20, relative_attention=True, pos_att_type=["c2p"], **sizes))
    encoder.add_module("final_norm", nn.LayerNorm(8))
    model = nn.ModuleDict({"text": TextLevels(encoder, 2)})
    groups = parameter_groups(model, replace(FINE_TUNING, encoder_lr_scale=0.1, layer_decay=0.5), 1e-3)
    by_id = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    rates = {name.removeprefix("text.model."): by_id[id(weight)] for name, weight in model.named_parameters()}
    assert rates["encoder.layer.1.output.dense.weight"] == pytest.approx(1e-4)
    assert rates["encoder.rel_embeddings.weight"] == pytest.approx(2.5e-5)
    assert rates["embeddings.word_embeddings.weight"] == pytest.approx(2.5e-5)
    assert rates["final_norm.weight"] == pytest.approx(1e-4)
