"""Several processes: N ranks give the loss and gradients of one, even if the batch of a rank lacks a modality."""

import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from multifuse import CLCRConfig, CLCRForPrediction, IntraCED, WhiteningXCorrLoss
from tests.sizes import SMALL_SIZES

Result = tuple[float, list[np.ndarray[Any, Any]]]
Parallel = Callable[[torch.nn.Module], torch.nn.Module]
SAMPLES = 24
BOUNDS = {2: [0, 10, SAMPLES], 4: [0, 5, 9, 16, SAMPLES]}


def replicated(network: torch.nn.Module) -> torch.nn.Module:
    return DistributedDataParallel(network, find_unused_parameters=True)


def sharded(network: torch.nn.Module) -> torch.nn.Module:
    """Shards every parameter, including those that the bases are computed from; encoders are separate groups."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    if isinstance(network, CLCRForPrediction):
        for layer in (module for module in network.modules() if isinstance(module, BertLayer)):
            fully_shard(layer, mesh=mesh)
        fully_shard(network.clcr.hierarchy, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def sharded_by_exchange(network: torch.nn.Module) -> torch.nn.Module:
    """Every exchange gathers its own weights, so that they are not computed together."""
    assert isinstance(network, CLCRForPrediction)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for level in network.clcr.exchanges:
        fully_shard(level, mesh=mesh)
    return sharded(network)


def sharded_by_accelerate(network: torch.nn.Module) -> torch.nn.Module:
    """Shards as `Accelerator.prepare` does; it uses FSDP2 only on accelerators, so this calls what it would call."""
    from accelerate import FullyShardedDataParallelPlugin, PartialState
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    PartialState(cpu=True)
    wrap = "transformer_based_wrap"
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy=wrap, cpu_ram_efficient_loading=False)
    accelerator: Any = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        device=torch.device("cpu"),
        is_main_process=distributed.get_rank() == 0,
        mixed_precision="no",
        parallelism_config=None,
    )
    prepared: torch.nn.Module = fsdp2_prepare_model(accelerator, network)
    return prepared


def single_process(network: torch.nn.Module) -> torch.nn.Module:
    return network


def whitening(samples: slice, parallel: Parallel) -> Result:
    torch.manual_seed(0)
    x, y = torch.randn(SAMPLES, 5), torch.randn(SAMPLES, 4)
    y = y + x[:, :4]
    network = parallel(torch.nn.Linear(5, 3))
    return differentiated(network, WhiteningXCorrLoss()(network(x[samples]), y[samples]))


def model(**options: Any) -> CLCRForPrediction:
    torch.manual_seed(0)
    modalities = {name: {"encoder": "temporal_conv", "input_size": 4} for name in ("text", "vision")}
    sizes = {**SMALL_SIZES, "hidden_size": 12, "shared_rank": 4, "private_rank": 3}
    fields = {"modalities": modalities, "dropout": 0.0, "debias": False, **sizes, **options}
    return CLCRForPrediction(CLCRConfig(**fields))


def clcr(samples: slice, parallel: Parallel, **options: Any) -> Result:
    """Trains the complete model without dropout; vision is absent from the last samples, and so from the last rank.

    That rank's batch leaves it out or, because FSDP2 needs every parameter on every rank, masks it.
    """
    network = parallel(model(**options).train())
    text, vision, labels = torch.randn(SAMPLES, 3, 4), torch.randn(SAMPLES, 5, 4), torch.randn(SAMPLES)
    has_vision = (torch.arange(SAMPLES) < 8)[samples]
    left_out = parallel in (single_process, replicated) and not has_vision.any()
    inputs = {"text": text[samples], "vision": None if left_out else vision[samples]}
    mask = None if left_out else {"vision": has_vision[:, None].expand(-1, 5)}
    return differentiated(network, network(inputs, mask, labels=labels[samples]).loss)


def clcr_of_ids(samples: slice, parallel: Parallel) -> Result:
    """Trains a model whose text encoder layers are sharded too."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 9, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2}
    bert = BertConfig(**sizes, intermediate_size=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    audio = {"encoder": "temporal_conv", "input_size": 4}
    modalities = {"text": {"encoder": "text", "config": bert.to_dict()}, "audio": audio}
    network = parallel(model(modalities=modalities).train())
    inputs = {"text": torch.randint(0, 9, (SAMPLES, 5))[samples], "audio": torch.randn(SAMPLES, 6, 4)[samples]}
    return differentiated(network, network(inputs, labels=torch.randn(SAMPLES)[samples]).loss)


def exchange(samples: slice, parallel: Parallel) -> Result:
    """Trains only an IntraCED; each rank's loss is its part of the batch mean, summed when gradients are averaged."""
    torch.manual_seed(0)
    network = parallel(IntraCED(8, ("text", "audio"), shared_rank=4, private_rank=3, num_heads=2))
    tokens = {name: torch.randn(SAMPLES, 5, 8)[samples] for name in ("text", "audio")}
    ranks = 1 if parallel is single_process else distributed.get_world_size()
    total = sum(values.square().sum() for values in network(tokens).tokens.values())
    return 0.0, differentiated(network, ranks * total / SAMPLES)[1]


def differentiated(network: torch.nn.Module, loss: torch.Tensor) -> Result:
    loss.backward()
    return float(loss.detach()), [gradient(parameter).numpy().copy() for parameter in network.parameters()]


def gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    grad = torch.zeros_like(parameter.detach()) if parameter.grad is None else parameter.grad
    return gathered(grad)


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.detach()


CASES: dict[str, tuple[Callable[[slice, Parallel], Result], Parallel]] = {
    "whitening, replicated": (whitening, replicated),
    "CLCR, replicated": (clcr, replicated),
    "CLCR, sharded": (clcr, sharded),
    "CLCR of geotorch's frames, sharded": (partial(clcr, parametrization="geotorch"), sharded),
    "CLCR, each exchange a unit": (clcr, sharded_by_exchange),
    "CLCR, sharded by accelerate": (clcr, sharded_by_accelerate),
    "CLCR with a text encoder, sharded": (clcr_of_ids, sharded),
    "CLCR with a text encoder, sharded by accelerate": (clcr_of_ids, sharded_by_accelerate),
    "IntraCED, sharded": (exchange, sharded),
}


def sharded_bases_follow_the_weights() -> None:
    """The bases must follow a sharded weight that changes, in eval mode too."""
    network = sharded(model().eval())
    inputs = {name: torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1)) for name in ("text", "vision")}
    with torch.no_grad():
        before = network(inputs).logits
    network(inputs, labels=torch.ones(3)).loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.5).step()
    fresh = model().eval()
    fresh.load_state_dict({name: gathered(weight) for name, weight in network.state_dict().items()})
    with torch.no_grad():
        assert torch.equal(network(inputs).logits, fresh(inputs).logits)
        assert not torch.allclose(before, fresh(inputs).logits)


def rank_main(rank: int, world: int, port: int, output: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    for number, (case, parallel) in enumerate(CASES.values()):
        loss, grads = case(slice(*BOUNDS[world][rank : rank + 2]), parallel)
        if rank == 0:
            np.savez(output / f"{number}.npz", loss, *grads)
    if world == 2:
        sharded_bases_follow_the_weights()
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_with_uneven_batches_match_the_loss_and_gradients_of_one_process(tmp_path: Path, world: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(rank_main, (world, port, tmp_path), nprocs=world)
    for number, (name, (case, _)) in enumerate(CASES.items()):
        loss, grads = case(slice(0, SAMPLES), single_process)
        with np.load(tmp_path / f"{number}.npz") as saved:
            ours, *our_grads = (saved[key] for key in saved.files)
        assert abs(ours - loss) < 1e-5, name
        scale = max(float(np.abs(grad).max()) for grad in grads)
        for grad, expected in zip(our_grads, grads, strict=True):
            np.testing.assert_allclose(grad, expected, atol=1e-4 * scale, err_msg=name)
