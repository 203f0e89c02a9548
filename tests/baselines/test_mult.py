"""MulT: which modality reads which, in what order, and names that contain each other."""

import torch

from multifuse.baselines.mult import CROSS_LAYERS, MulT

NAMES = ("text", "keys", "audio")


def test_every_modality_reads_each_other_one_in_layers_of_their_own() -> None:
    torch.manual_seed(0)
    fusion = MulT(8, NAMES, num_heads=2).eval()
    assert len(fusion.crossings) == 6
    assert all(len(layers) == CROSS_LAYERS for layers in fusion.crossings.values())  # type: ignore[arg-type]
    tokens = {name: torch.randn(2, length, 8) for name, length in zip(NAMES, (3, 4, 5), strict=True)}
    streams = fusion._streams("keys", tokens, {})
    assert streams.shape == (2, 4, 16)
    changed = fusion._streams("keys", {**tokens, "audio": torch.randn(2, 5, 8)}, {})
    assert torch.equal(changed[..., :8], streams[..., :8]), "the stream from text"
    assert not torch.allclose(changed[..., 8:], streams[..., 8:], atol=1e-3), "the stream from audio"


def test_names_that_contain_each_other_have_separate_layers() -> None:
    assert len(MulT(8, ("a", "b_to_c", "a_to_b", "c"), num_heads=2).crossings) == 12
