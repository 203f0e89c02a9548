"""SemanticHierarchyEncoder and TextLevels: the levels of every modality, from small but real transformers encoders."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel

from multifuse import SemanticHierarchyEncoder, TemporalConvLevels, TextLevels
from multifuse.layers.level import sinusoidal_positions

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 7,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}


def text_levels(num_levels: int = 3) -> TextLevels:
    torch.manual_seed(0)
    return TextLevels(BertModel(BertConfig(**SMALL)), num_levels).eval()


def hierarchy(**options: Any) -> SemanticHierarchyEncoder:
    torch.manual_seed(0)
    encoders = {"text": text_levels(), "keys": TemporalConvLevels(5, 12)}
    return SemanticHierarchyEncoder(12, encoders, **options).eval()


def test_text_levels_are_means_of_thirds_of_the_hidden_layers() -> None:
    levels = text_levels()
    ids = torch.randint(0, 50, (2, 6))
    hidden = levels.model(ids, output_hidden_states=True).hidden_states[1:]
    groups = (hidden[:3], hidden[3:5], hidden[5:])  # seven layers: 3, 2, 2
    for ours, group in zip(levels(ids), groups, strict=True):
        assert torch.allclose(ours, torch.stack(group).mean(0), atol=1e-6)


def test_text_levels_accept_any_encoder_and_a_mapping_of_inputs() -> None:
    torch.manual_seed(0)
    levels = TextLevels(MPNetModel(MPNetConfig(**SMALL)), 2).eval()
    ids = torch.randint(2, 50, (2, 6))
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    from_mapping = levels({"input_ids": ids, "attention_mask": mask.long()})
    for ours, expected in zip(levels(ids, mask), from_mapping, strict=True):
        assert torch.equal(ours, expected)


def test_a_sample_without_text_is_finite_and_does_not_affect_others() -> None:
    levels = text_levels()
    ids = torch.randint(0, 50, (2, 6))
    mask = torch.ones(2, 6, dtype=torch.bool)
    full = levels(ids, mask)
    mask[1] = False
    for ours, expected in zip(levels(ids, mask), full, strict=True):
        assert ours.isfinite().all()
        assert torch.allclose(ours[0], expected[0], atol=1e-5)


def test_levels_are_layer_normalised_zero_at_padding_and_only_of_present_modalities() -> None:
    encoder = hierarchy()
    ids, features = torch.randint(0, 50, (2, 6)), torch.randn(2, 4, 5)
    mask = {"keys": torch.arange(4) < torch.tensor([[4], [2]])}
    levels = encoder({"text": ids, "keys": features}, mask)
    assert len(levels) == 3
    for level in levels:
        assert level["text"].shape == (2, 6, 12)
        assert torch.allclose(level["text"].mean(-1), torch.zeros(2, 6), atol=1e-5)
        assert not level["keys"][1, 2:].any()
    assert set(encoder({"keys": features, "text": None})[0]) == {"keys"}


@pytest.mark.parametrize("fill", [1e6, float("nan")])
def test_padded_features_change_nothing(fill: float) -> None:
    encoder = hierarchy()
    features = torch.randn(2, 4, 5)
    longer = torch.cat([features, torch.full((2, 3, 5), fill)], 1)
    mask = {"keys": (torch.arange(7) < 4).expand(2, 7)}
    for short, long in zip(encoder({"keys": features}), encoder({"keys": longer}, mask), strict=True):
        assert torch.allclose(short["keys"], long["keys"][:, :4], atol=1e-5)


def test_learned_positions_are_limited_and_sinusoidal_ones_are_not() -> None:
    features = torch.randn(1, 9, 5)
    with pytest.raises(ValueError, match=r"inputs have 9 tokens.*max_positions=8"):
        hierarchy(max_positions=8)({"keys": features})
    levels = hierarchy(max_positions=8, positions="sinusoidal")({"keys": features})
    assert levels[0]["keys"].shape == (1, 9, 12)


def test_sinusoidal_positions_match_the_published_formula() -> None:
    positions = sinusoidal_positions(50, 6, torch.device("cpu"))
    frequency = 10000 ** (-torch.arange(3) / 3)
    assert torch.allclose(positions[7, :3], torch.sin(7 * frequency), atol=1e-5)
    assert torch.allclose(positions[7, 3:], torch.cos(7 * frequency), atol=1e-5)


def of_two(num_levels: int, **options: Any) -> SemanticHierarchyEncoder:
    torch.manual_seed(0)
    encoders = {"audio": TemporalConvLevels(4, 8, num_levels), "vision": TemporalConvLevels(5, 8, num_levels)}
    return SemanticHierarchyEncoder(12, encoders, num_levels, **options)


def batch_of_two(batch: int, audio: int, vision: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    inputs = {"audio": torch.randn(batch, audio, 4), "vision": torch.randn(batch, vision, 5)}
    return inputs, {name: torch.rand(values.shape[:2]) < 0.7 for name, values in inputs.items()}


def flat(levels: list[dict[str, Tensor]]) -> list[Tensor]:
    return [values for level in levels for values in level.values()]


def test_one_compiled_graph_trains_on_every_pair_of_lengths() -> None:
    layer = of_two(1).train()
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for sizes in ((3, 50, 20), (2, 33, 34), (4, 7, 40), (5, 100, 3), (6, 16, 16)):
            inputs, mask = batch_of_two(*sizes)
            results = []
            for run in (compiled, layer):
                levels = flat(run(inputs, mask))
                loss = sum(values.square().sum() for values in levels)
                assert isinstance(loss, Tensor)
                results.append([*levels, *torch.autograd.grad(loss, list(layer.parameters()))])
            for ours, expected in zip(*results, strict=True):
                torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_the_lengths_stay_free_in_an_exported_hierarchy(positions: str) -> None:
    layer = of_two(2, positions=positions).eval()
    most = 1024 if positions == "learned" else 4096
    batch = torch.export.Dim("batch", min=1, max=64)
    free = {name: {0: batch, 1: torch.export.Dim(name, min=2, max=most)} for name in layer.modalities}
    exported = torch.export.export(layer, batch_of_two(3, 50, 20), dynamic_shapes=(free, free)).module()
    for sizes in ((2, 2, 7), (4, 100, 31), (1, 7, 100)):
        inputs, mask = batch_of_two(*sizes)
        for ours, expected in zip(flat(exported(inputs, mask)), flat(layer(inputs, mask)), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_bad_encoders_and_inputs_are_named() -> None:
    class TwoLevels(nn.Module):
        output_dim = 5

        def forward(self, inputs: Tensor, mask: Tensor | None) -> list[Tensor]:
            return [inputs, inputs]

    with pytest.raises(ValueError, match=r"encoders\['text'\] must have its width .* has None"):
        SemanticHierarchyEncoder(8, {"text": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"encoders\['a'\] must give 3 levels, gave 2"):
        SemanticHierarchyEncoder(8, {"a": TwoLevels()})({"a": torch.randn(1, 2, 5)})
    with pytest.raises(ValueError, match="smell"):
        hierarchy()({"smell": torch.randn(1, 2, 5)})
    with pytest.raises(ValueError, match="num_levels must not exceed the encoder's 7 hidden layers, got 8"):
        text_levels(8)
    with pytest.raises(ValueError, match="must hold 'input_ids'"):
        text_levels()({"ids": torch.ones(1, 2, dtype=torch.long)})


@pytest.mark.parametrize(("id", "sample"), [(50, 0), (-1, 1)])
def test_a_token_id_that_the_vocabulary_lacks_is_named_also_at_padding(id: int, sample: int) -> None:
    ids, mask = torch.ones(2, 4, dtype=torch.long), torch.arange(4) < torch.tensor([[3], [3]])
    ids[sample, 3] = id
    message = f"^modality 'text': input_ids must be from 0 to 49, also at padding, because vocab_size is 50, got {id} "
    with pytest.raises(ValueError, match=f"{message}at sample {sample}, token 3$"):
        hierarchy()({"text": ids}, {"text": mask})
    with pytest.raises(ValueError, match=f"got {id} at sample {sample}, token 3"):
        hierarchy()({"text": {"input_ids": ids.int(), "attention_mask": mask}})


def test_token_ids_are_compared_with_the_table_that_reads_them() -> None:
    levels = text_levels()
    levels.model.set_input_embeddings(nn.Embedding(60, 16))  # type: ignore[operator]
    assert levels(torch.full((1, 2), 59))[0].isfinite().all()


def test_values_of_token_ids_are_not_asked_for_where_there_are_none_or_a_device_would_be_waited_for() -> None:
    levels, ids = text_levels(1), torch.full((2, 3), 49)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        assert levels(fake.from_tensor(ids))[0].shape == (2, 3, 16)
    expected = levels(ids)[0]
    compiled = torch.compile(levels, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(ids)[0], expected, atol=1e-6)
    assert levels.to("meta")(ids.to("meta"))[0].shape == (2, 3, 16)
