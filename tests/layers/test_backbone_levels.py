"""BackboneLevels: shapes, token order, invariance to padding and to other samples, and other backbones."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ASTModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from multifuse import BackboneLevels

TRANSFORMER: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def resnet(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}
    model: nn.Module = ResNetModel(ResNetConfig(num_channels=channels, **sizes))
    for module in model.modules():  # batch statistics as after training, not at initialisation
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.bias)
    return model.eval()


def frames(batch: int, count: int, channels: int = 3) -> Tensor:
    return torch.rand(batch, count, channels, 32, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_position_of_every_frame_is_a_token(channels: int) -> None:
    levels = BackboneLevels(resnet(channels), 10, num_levels=2).eval()
    out = levels(frames(2, 3, channels))
    assert [tuple(level.shape) for level in out] == [(2, 3 * 4 * 3, 10)] * 2
    pooled = BackboneLevels(resnet(channels), 10, num_levels=2, grid=(1, None)).eval()
    assert pooled(frames(2, 3, channels))[0].shape == (2, 3 * 3, 10)


def test_tokens_are_ordered_by_frame_and_in_spectrograms_by_column() -> None:
    class Positions(nn.Module):
        """Returns a map whose values are 10 * row + column."""

        config = ResNetConfig(hidden_sizes=[1], depths=[1])
        main_input_name = "pixel_values"

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, pixels: Tensor) -> Any:
            positions = 10 * torch.arange(2).view(2, 1) + torch.arange(3) + self.weight + 100 * pixels[:, :, :1, :1]

            class Output:
                last_hidden_state = positions

            return Output

    image = BackboneLevels(Positions(), 4)._tokens(torch.stack([torch.zeros(1, 2, 3), torch.ones(1, 2, 3)]))
    assert image[..., 0].tolist() == [[0, 1, 2, 10, 11, 12], [100, 101, 102, 110, 111, 112]]
    sound = BackboneLevels(Positions(), 4, kind="audio")._tokens(torch.zeros(1, 1, 2, 3))
    assert sound[..., 0].tolist() == [[0, 10, 1, 11, 2, 12]]


def test_nan_in_padding_frames_reaches_neither_outputs_nor_batch_statistics() -> None:
    levels = BackboneLevels(resnet(), 10)
    inputs = frames(2, 3)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    spoiled = inputs.masked_fill(~mask[:, :, None, None, None], float("nan"))
    levels.eval()
    expected = levels(inputs[:, :2], mask[:, :2])
    for ours, other in zip(levels(spoiled, mask), expected, strict=True):
        real = mask.repeat_interleave(12, 1)[:, :24]
        torch.testing.assert_close(ours[:, :24][real], other[real])
    levels.train()
    before = [buffer.clone() for buffer in levels.buffers()]
    levels(spoiled, mask)
    assert all(buffer.isfinite().all() for buffer in levels.buffers())
    assert any(not torch.equal(now, then) for now, then in zip(levels.buffers(), before, strict=True))


def test_samples_do_not_affect_each_other_and_an_absent_one_is_finite() -> None:
    levels = BackboneLevels(resnet(), 10).eval()
    inputs, mask = frames(3, 2), torch.tensor([[True, True], [True, False], [False, False]])
    together = levels(inputs, mask)[-1]
    single = levels(inputs[1:2], mask[1:2])[-1]
    torch.testing.assert_close(together[1:2, :12], single[:, :12])
    assert together.isfinite().all()
    levels.train()
    before = [buffer.clone() for buffer in levels.buffers()]
    all_absent = levels(inputs, torch.zeros(3, 2, dtype=torch.bool))
    assert all_absent[0].shape == together.shape
    assert all_absent[0].isfinite().all()
    assert all(torch.equal(now, then) for now, then in zip(levels.buffers(), before, strict=True))
    assert all(module.training for module in levels.modules())


def test_bytes_are_scaled_and_inputs_normalised_per_channel() -> None:
    plain = BackboneLevels(resnet(), 10)
    scaled = BackboneLevels(resnet(), 10, mean=(0.5, 0.4, 0.3), std=(0.2,))
    inputs = (frames(1, 1) * 255).round()
    scaled.load_state_dict(plain.state_dict())
    centred = (inputs / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2
    torch.testing.assert_close(scaled.eval()(inputs.byte())[0], plain.eval()(centred)[0])


def test_other_backbones_are_supported() -> None:
    vit = BackboneLevels(ViTModel(ViTConfig(image_size=32, patch_size=16, **TRANSFORMER)), 10).eval()
    assert vit(torch.rand(2, 3, 3, 32, 32))[0].shape == (2, 3 * 5, 10)
    spectrogram = torch.randn(2, 1, 20, 40)
    config = ASTConfig(
        num_mel_bins=20, max_length=40, patch_size=10, frequency_stride=10, time_stride=10, **TRANSFORMER
    )
    ast = BackboneLevels(ASTModel(config), 10, kind="audio").eval()
    assert ast(spectrogram, torch.tensor([[True], [False]]))[0].shape == (2, 8 + 2, 10)
    wave = Wav2Vec2Config(
        conv_dim=(8, 8), conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2, **TRANSFORMER
    )
    listening = BackboneLevels(Wav2Vec2Model(wave), 10, kind="audio").eval()
    assert listening(torch.randn(2, 400))[0].shape[::2] == (2, 10)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kind must be one of 'image', 'audio', got 'video'"):
        BackboneLevels(resnet(), 10, kind="video")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"grid must be \(rows, columns\), each an integer >= 1 or None, got \(0, 1\)"):
        BackboneLevels(resnet(), 10, grid=(0, 1))
    with pytest.raises(
        ValueError, match=r"inputs must have shape \(batch, frames, channels, height, width\), got \(2, 3\)"
    ):
        BackboneLevels(resnet(), 10)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"mask must have shape \(2, 3\), got \(2, 1\)"):
        BackboneLevels(resnet(), 10)(frames(2, 3), torch.ones(2, 1, dtype=torch.bool))


def test_an_exported_backbone_sees_all_frames_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = BackboneLevels(resnet(), 10, num_levels=2).eval()
    mask = torch.tensor([[True, False, True], [False, False, False]])
    images = frames(2, 3)
    images[~mask] = float("nan")
    expected = levels(images, mask)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    seen: list[int] = []
    levels.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for ours, level in zip(levels(images, mask), expected, strict=True):
        torch.testing.assert_close(ours, level)
    assert seen == [6]


def test_a_mean_of_other_channels_is_named() -> None:
    levels = BackboneLevels(resnet(), 8, num_levels=1, mean=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"a number for all channels or for each of 3, got \(2, 1\)"):
        levels(frames(1, 2))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.bool, torch.complex64])
def test_frames_are_bytes_or_floating_point_because_other_integers_would_not_be_scaled(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"inputs must be floating point or bytes .torch.uint8., got {dtype}"):
        BackboneLevels(resnet(), 8, num_levels=1)(torch.zeros(1, 2, 3, 32, 24, dtype=dtype))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 3}, r"grid must be \(rows, columns\), each an integer >= 1 or None, got 3"),
        ({"mean": 0.5}, "mean must be a sequence of finite numbers, got 0.5"),
        ({"std": [None]}, r"std must be a sequence of finite numbers, got \[None\]"),
        ({"std": []}, r"std must be a sequence of finite numbers, got \[\]"),
        ({"std": (0.5, 0.0)}, r"std must be > 0, got \(0.5, 0.0\)"),
        ({"dim": "8"}, "dim must be an integer >= 1, got '8'"),
    ],
)
def test_options_that_are_no_numbers_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneLevels(resnet(), **{"dim": 8, **options})
