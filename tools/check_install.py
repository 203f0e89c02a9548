"""Checks an installed multifuse: with its kernels it computes what plain torch computes.

    python tools/check_install.py                    # the kernels must be there
    python tools/check_install.py --without-kernels  # a build without torch or g++: plain torch must run

The results of plain torch come from a second process, in which MULTIFUSE_FORCE_FALLBACK=1 is set. Where torch sees a
GPU, both devices are checked. It needs nothing but multifuse and its dependencies.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

import multifuse
from multifuse import IntraCED
from multifuse.ops import backend, project_capped_simplex, soft_topk

TOLERANCES = {  # relative and absolute
    torch.float64: (1e-9, 1e-11),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (2e-3, 1e-3),
    torch.bfloat16: (2e-2, 1e-2),
}


def kernels(device: str) -> str:
    """The name by which `multifuse.ops.backend` calls the kernels of a device."""
    return {"cpu": "cpp", "cuda": "cuda"}[device]


def devices() -> list[str]:
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def computed(device: str) -> dict[str, Tensor]:
    """The ops in every type and one training step of a layer, on a device, with the same numbers in every process."""
    generator = torch.Generator().manual_seed(0)
    results = {}
    for dtype in TOLERANCES:
        z = torch.randn(16, 300, generator=generator).to(device, dtype).requires_grad_()
        mask = (torch.rand(16, 300, generator=generator) < 0.8).to(device)
        name = str(dtype).removeprefix("torch.")
        results[f"projection, {name}"] = alpha = project_capped_simplex(z, 7.5, mask)
        (results[f"its gradient, {name}"],) = torch.autograd.grad(alpha.square().sum(), z)
        results[f"soft top-k, {name}"] = soft_topk(z, 5.0)
    torch.manual_seed(0)
    layer = IntraCED(64, ("text", "audio", "vision"), shared_rank=24, private_rank=16).to(device)
    tokens = {name: torch.randn(4, 20, 64, generator=generator).to(device) for name in ("text", "audio", "vision")}
    real = {name: (torch.rand(4, 20, generator=generator) < 0.8).to(device) for name in tokens}
    output = layer(tokens, real)
    torch.stack([output.tokens[name].square().mean() for name in tokens]).sum().backward()
    results |= {f"IntraCED, {name}": output.tokens[name] for name in tokens}
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    return results | {f"gradient of {name}": value for name, value in gradients.items() if value is not None}


def by_plain_torch(device: str) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.pt"
        command = [sys.executable, str(Path(__file__).resolve()), "--save", device, str(path)]
        subprocess.run(command, env={**os.environ, "MULTIFUSE_FORCE_FALLBACK": "1"}, check=True)
        loaded: dict[str, Tensor] = torch.load(path)
        return loaded


def check(device: str, expected_backend: str) -> None:
    if backend(device) != expected_backend:
        sys.exit(f"multifuse on {device} runs {backend(device)!r}, expected {expected_backend!r}")
    plain, results = by_plain_torch(device), computed(device)
    if plain.keys() != results.keys():
        sys.exit(f"multifuse on {device} has other gradients than plain torch: {plain.keys() ^ results.keys()}")
    for name, result in results.items():
        relative, absolute = TOLERANCES[result.dtype]
        try:
            torch.testing.assert_close(result.detach().cpu(), plain[name], rtol=relative, atol=absolute)
        except AssertionError as error:
            sys.exit(f"multifuse on {device}, {name}: {error}")
    print(f"{device}: {len(results)} results of {expected_backend!r} are those of plain torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without-kernels", action="store_true", help="plain torch must run, after one warning")
    parser.add_argument("--save", nargs=2, metavar=("DEVICE", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.save:
        device, path = arguments.save
        torch.save({name: result.detach().cpu() for name, result in computed(device).items()}, path)
        return
    print(f"multifuse {multifuse.__version__} in {Path(multifuse.__file__).parent}, torch {torch.__version__}")
    for device in devices():
        check(device, "torch" if arguments.without_kernels else kernels(device))
    subprocess.run([sys.executable, "-m", "multifuse", "info"], check=True)


if __name__ == "__main__":
    if "--without-kernels" not in sys.argv:
        warnings.filterwarnings("error", message=".*multifuse's compiled")
    main()
