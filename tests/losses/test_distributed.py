"""Several processes: N ranks give one process's loss and gradients, also when a rank's batch lacks a modality."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as distributed
from torch.multiprocessing.spawn import spawn

from multifuse import CLCRConfig, CLCRForPrediction, WhiteningXCorrLoss

Result = tuple[float, list[np.ndarray[Any, Any]]]
SAMPLES = 24


def whitening(samples: slice) -> Result:
    torch.manual_seed(0)
    x, y = torch.randn(SAMPLES, 5), torch.randn(SAMPLES, 4)
    y = y + x[:, :4]
    network = parallel(torch.nn.Linear(5, 3))
    return stepped(network, WhiteningXCorrLoss()(network(x[samples]), y[samples]))


def clcr(samples: slice) -> Result:
    """The whole model in training, its dropout off; vision is absent from the last samples, so from the last rank."""
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": 4} for name in ("text", "vision")}
    sizes = {"hidden_size": 12, "shared_rank": 4, "private_rank": 3, "num_heads": 2, "num_levels": 2}
    network = parallel(CLCRForPrediction(CLCRConfig(modalities=modalities, dropout=0.0, debias=False, **sizes)).train())
    text, vision, labels = torch.randn(SAMPLES, 3, 4), torch.randn(SAMPLES, 5, 4), torch.randn(SAMPLES)
    has_vision = (torch.arange(SAMPLES) < 8)[samples]
    inputs = {"text": text[samples], "vision": vision[samples] if has_vision.any() else None}
    mask = {"vision": has_vision[:, None].expand(-1, 5)} if has_vision.any() else None
    return stepped(network, network(inputs, mask, labels=labels[samples]).loss)


def parallel(network: torch.nn.Module) -> torch.nn.Module:
    if not distributed.is_initialized():
        return network
    return torch.nn.parallel.DistributedDataParallel(network, find_unused_parameters=True)


def stepped(network: torch.nn.Module, loss: torch.Tensor) -> Result:
    loss.backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    return float(loss.detach()), [grad.numpy().copy() for grad in grads]


def rank_main(rank: int, world: int, port: int, name: str, output: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    bounds = [0, 10, SAMPLES] if world == 2 else [0, 5, 9, 16, SAMPLES]
    result = CASES[name](slice(bounds[rank], bounds[rank + 1]))
    if rank == 0:
        np.savez(output, result[0], *result[1])
    distributed.barrier()
    distributed.destroy_process_group()


CASES: dict[str, Callable[[slice], Result]] = {"whitening": whitening, "clcr": clcr}


@pytest.mark.parametrize(("name", "world"), [("whitening", 2), ("clcr", 2), ("clcr", 4)])
def test_ranks_with_uneven_batches_give_one_processs_loss_and_gradients(tmp_path: Path, name: str, world: int) -> None:
    loss, grads = CASES[name](slice(0, SAMPLES))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(rank_main, (world, port, name, tmp_path / "result.npz"), nprocs=world)
    with np.load(tmp_path / "result.npz") as saved:
        ours, *our_grads = (saved[key] for key in saved.files)
    assert abs(ours - loss) < 1e-5
    scale = max(float(np.abs(grad).max()) for grad in grads)
    for grad, expected in zip(our_grads, grads, strict=True):
        np.testing.assert_allclose(grad, expected, atol=1e-4 * scale)
