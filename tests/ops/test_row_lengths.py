"""The kernels of the projection against plain torch, at the lengths where another kernel takes over."""

import pytest
import torch

from tests.ops.row_cases import TOLERANCES, row_case

# On a GPU, a row of up to 64, 128, 256 or 512 tokens is in the registers of a warp, one of up to 4,096 or 16,384 in
# those of a block (its gradient is read again from memory); on a CPU, 1,024 are summed at a time.
LENGTHS = (64, 65, 128, 129, 256, 257, 512, 513, 1024, 1025, 4096, 4097, 16384, 16385)


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("length", LENGTHS)
def test_every_kernel_gives_what_plain_torch_gives_and_always_the_same(
    device: torch.device, length: int, dtype: torch.dtype, is_masked: bool
) -> None:
    case = row_case(length, dtype, is_masked)
    z, budget, grad, threshold = (given.to(device) for given in case[:4])
    mask = None if case.mask is None else case.mask.to(device)

    def computed() -> tuple[torch.Tensor, ...]:
        projected = torch.ops.multifuse.project(z, budget, mask)
        pulled = torch.ops.multifuse.project_vjp(grad, z, threshold, mask)
        return tuple(values.cpu() for values in (*projected, *pulled))

    results = computed()
    case.check(results)
    torch.testing.assert_close(computed(), results, atol=0.0, rtol=0.0, equal_nan=True)
