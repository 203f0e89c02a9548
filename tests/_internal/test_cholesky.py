"""The inverse Cholesky factor: its definition, and its derivatives against those of torch's factorisation."""

import torch
from torch import Tensor

from multifuse._internal.cholesky import inverse_factor


def positive(count: int, rank: int) -> Tensor:
    torch.manual_seed(0)
    rows = torch.randn(count, rank, rank + 3, dtype=torch.float64)
    return rows @ rows.mT


def plain(matrix: Tensor) -> Tensor:
    symmetric = (matrix + matrix.mT) / 2
    inverse: Tensor = torch.linalg.inv(torch.linalg.cholesky(symmetric))
    return inverse


def test_inverse_factor_whitens_and_is_lower_triangular() -> None:
    matrix = positive(3, 5)
    inverse = inverse_factor(matrix)
    torch.testing.assert_close(inverse @ matrix @ inverse.mT, torch.eye(5, dtype=torch.float64).expand(3, 5, 5))
    assert torch.equal(inverse, inverse.tril())


def test_derivatives_match_torchs_factorisation() -> None:
    matrix = positive(2, 4)
    direction = torch.randn(2, 4, 4, dtype=torch.float64)
    direction = direction + direction.mT

    def symmetric(values: Tensor) -> Tensor:
        return inverse_factor((values + values.mT) / 2)

    assert torch.autograd.gradcheck(symmetric, matrix.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(symmetric, matrix.clone().requires_grad_())
    ours = torch.func.jvp(symmetric, (matrix,), (direction,))[1]
    torch.testing.assert_close(ours, torch.func.jvp(plain, (matrix,), (direction,))[1])
    torch.testing.assert_close(torch.vmap(inverse_factor)(matrix), inverse_factor(matrix))
