"""Activation checkpointing: the same gradients from less that is kept for the backward pass."""

import torch
from torch import Tensor

from multifuse import CLCRConfig, CLCRForPrediction


def step(network: CLCRForPrediction) -> tuple[list[Tensor], int]:
    """Returns the loss and its gradients, and the bytes that are kept for the backward pass."""
    generator = torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(4, 40, 5, generator=generator) for name in ("vision", "audio")}
    mask = {"vision": torch.arange(40) < torch.tensor([[40], [7], [23], [1]])}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(2)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(inputs, mask, labels=torch.ones(4)).loss
    return [loss, *torch.autograd.grad(loss, list(network.parameters()))], sum(sizes.values())


def test_checkpointing_keeps_less_and_changes_neither_loss_nor_gradients() -> None:
    modalities = {name: {"encoder": "temporal_conv", "input_size": 5, "dropout": 0.3} for name in ("vision", "audio")}
    config = CLCRConfig(modalities=modalities, hidden_size=32, shared_rank=16, private_rank=8, init_exchange="xavier")
    network: CLCRForPrediction = CLCRForPrediction(config).train()
    expected, kept = step(network)
    # The name of transformers 5.23 and later, and the one that it replaces.
    newer, older = "activation_checkpointing_enable", "gradient_checkpointing_enable"
    getattr(network, newer if hasattr(network, newer) else older)()
    ours, kept_with_checkpoints = step(network)
    assert kept_with_checkpoints < 0.7 * kept
    for gradient, of_plain in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, of_plain)
