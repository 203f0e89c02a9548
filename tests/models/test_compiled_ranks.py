"""Compiled models on two processes: losses and gradients of several steps are those of one process in eager mode."""

import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as distributed
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from multifuse import CLCRForPrediction
from tests.losses.test_distributed import gathered, gradient
from tests.models.test_compile import SHAPES, batch, model

FIRST_RANK = (2, 4, 3)
"""How many samples of each batch the first of two ranks has."""


def replicated(network: CLCRForPrediction) -> torch.nn.Module:
    """Compiles as `multifuse train --compile` does, and checks that the graph is whole."""
    network.compile(
        backend="eager", fullgraph=True, dynamic=True
    )  # inductor takes minutes, and is tested on one process
    return DistributedDataParallel(network)


def trained(network: torch.nn.Module, rank: int | None) -> list[np.ndarray[Any, Any]]:
    """Takes a step with each batch; returns the losses and all gradients."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    results = []
    for number, (shape, first) in enumerate(zip(SHAPES, FIRST_RANK, strict=True)):
        torch.manual_seed(number)
        given = batch(*shape)
        ours = {None: slice(None), 0: slice(first), 1: slice(first, None)}[rank]
        inputs, mask = ({name: values[ours] for name, values in given[part].items()} for part in ("inputs", "mask"))
        loss = network(inputs, mask, labels=given["labels"][ours]).loss
        optimiser.zero_grad()
        loss.backward()
        results += [gathered(loss).numpy(), *(gradient(weight).numpy().copy() for weight in network.parameters())]
        optimiser.step()
    return results


def rank_main(rank: int, port: int, output: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    with torch._dynamo.config.patch(specialize_float=True):  # otherwise the compilation begins twice
        results = trained(replicated(model()), rank)
    if rank == 0:
        np.savez(output / "results.npz", *results)
    distributed.barrier()
    distributed.destroy_process_group()


def test_compiled_ranks_follow_one_process_in_eager_mode(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(rank_main, (port, tmp_path), nprocs=2)
    expected = trained(model(), None)
    with np.load(tmp_path / "results.npz") as saved:
        ours = [saved[key] for key in saved.files]
    scale = max(float(np.abs(values).max()) for values in expected)
    for index, (values, others) in enumerate(zip(ours, expected, strict=True)):
        np.testing.assert_allclose(values, others, atol=1e-4 * scale, err_msg=str(index))
