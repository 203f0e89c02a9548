"""WhiteningXCorrLoss: the mean squared canonical correlation of two sets of features."""

import warnings

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.cholesky import inverse_factor
from multifuse._internal.precision import precise, without_autocast
from multifuse.losses.moments import Family, moments_of, ranks, real_rows


class WhiteningXCorrLoss(nn.Module):
    r"""Computes the mean squared canonical correlation of x and y, in [0, 1].

    Both are centred and whitened; the loss is the squared Frobenius norm of their cross-correlation over
    ``min(d_x, d_y)``:

    .. math:: \|L_x^{-1} C_{xy} L_y^{-T}\|_F^2 / \min(d_x, d_y), \quad
        C_{xx} + \epsilon \tfrac{tr C_{xx}}{d_x} I = L_x L_x^T

    It does not depend on which whitening is used, so Cholesky factors and triangular solves are (ours: the gradient of
    an eigendecomposition is NaN where eigenvalues meet). Statistics are float64 (float32 where a device has no float64)
    whatever autocast says. In training under data parallelism, the moments are summed over the ranks: N ranks give the
    loss and, with DistributedDataParallel, the gradients of one process.

    Minimised, it decorrelates x and y. Barlow Twins and VICReg align them instead: this loss does not see an invertible
    linear map of either branch. Independent noise scores about ``max(d_x, d_y) / (N - 1)``, not 0, and with no more
    rows than features everything scores the same: a warning says so once. NaN in a real row makes the loss NaN.

    Args:
        eps: the ridge, relative to the mean variance, > 0. It is at least a few roundings of the covariance, so that
            fewer rows than features stay finite.
        debias: subtract what independent noise scores, and rescale: ``max(0, (c - null) / (1 - null))`` with
            ``null = max(d_x, d_y) / (N - 1)``, and 0 where ``null >= 1`` (ours; off by default).

    Shape:
        ``forward(x, y, mask=None)``: x (N, d_x) or (B, T, d_x), y the same with d_y; mask (N,) or (B, T), True or 1 =
        real row -> a scalar. Where either has no variance, or fewer than two rows are real, the loss is 0.

    Raises:
        ValueError: ``eps <= 0``, shapes that do not match, no features, a dtype that is not floating point.

    Source: CLCR (arXiv 2602.19605), the regularisers' whitened cross-correlation.

    Example:
        >>> x = torch.randn(500, 6)
        >>> loss = WhiteningXCorrLoss()(x, x @ torch.randn(6, 6))  # an invertible map: fully correlated
        >>> bool(loss > 0.9)
        True
    """

    def __init__(self, eps: float = 1e-3, debias: bool = False) -> None:
        super().__init__()
        self.eps, self.debias = checks.positive_number("eps", eps), debias
        self._has_warned = False

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        for name, values in (("x", x), ("y", y)):
            checks.floating(name, checks.tensor(name, values))
        if x.ndim not in (2, 3) or x.shape[:-1] != y.shape[:-1]:
            raise ValueError(
                f"x and y must be (N, d) or (B, T, d) with equal leading shapes, got {tuple(x.shape)}, {tuple(y.shape)}"
            )
        if x.shape[-1] == 0 or y.shape[-1] == 0:
            raise ValueError(f"x and y must have at least one feature, got {tuple(x.shape)}, {tuple(y.shape)}")
        if mask is not None:
            mask = checks.token_mask("mask", mask, *x.shape[:-1])
        self._warn_of_few_rows(x, y)
        with without_autocast(x.device):
            dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
            # Precise, because the gradient of the loss is a small difference of large terms.
            values = torch.cat([precise(part.to(dtype)).flatten(0, -2) for part in (x, y)], dim=-1).unsqueeze(0)
            rows = real_rows(values, None if mask is None else mask.flatten().unsqueeze(0))
            count, sums = rows.real.sum((-2, -1)), rows.values.sum(-2)
            (moments,) = moments_of([Family([rows], count, sums, values.shape[-1])], self.training)
            d = x.shape[-1]
            covariance = moments.cross[0]  # times the number of rows
            correlation = squared_correlation(
                whitening(covariance[:d, :d], self.eps),
                covariance[:d, d:],
                whitening(covariance[d:, d:], self.eps),
            )
            if self.debias:
                correlation = debiased(correlation, moments.num_rows[0], max(d, y.shape[-1]))
            return correlation.to(dtype)

    def _warn_of_few_rows(self, x: Tensor, y: Tensor) -> None:
        """Warns once if there are no more rows, masked ones included, than features."""
        if self._has_warned or torch.compiler.is_compiling():
            return
        rows, widest = x.shape[:-1].numel() * ranks(self.training), max(x.shape[-1], y.shape[-1])
        if 0 < rows <= widest:
            self._has_warned = True
            warnings.warn(
                f"WhiteningXCorrLoss compares {rows} rows of up to {widest} features: with no more rows than features, "
                "independent noise and identical inputs score the same; use larger batches or fewer features",
                RuntimeWarning,
                stacklevel=3,
            )

    def extra_repr(self) -> str:
        return f"eps={self.eps}, debias={self.debias}"


def whitening(covariance: Tensor, eps: float) -> Tensor:
    """Computes W = L^{-1}, where covariance (..., d, d) + ridge = L L^T; without variance the ridge is that of 1.

    A factor of all covariances changes no correlation that is whitened by such W.
    """
    d = covariance.shape[-1]
    variance = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    scale = variance.masked_fill(variance <= torch.finfo(covariance.dtype).tiny, 1.0)
    identity = torch.eye(d, dtype=covariance.dtype, device=covariance.device)
    rounding = 8 * d * torch.finfo(covariance.dtype).eps
    ridge = eps if eps > rounding else rounding  # compiled by torch 2.12, max() of a varying d is rounded to an integer
    return inverse_factor(torch.addcmul(covariance, scale, identity, value=ridge))


def squared_correlation(whiten_x: Tensor, cross: Tensor, whiten_y: Tensor) -> Tensor:
    """Mean squared canonical correlations (...,) of cross-covariances (..., d_x, d_y), given both whitenings."""
    correlation = whiten_x @ cross @ whiten_y.mT
    return correlation.square().sum(dim=(-2, -1)) / min(cross.shape[-2:])


def debiased(correlation: Tensor, count: Tensor, widest: Tensor | int) -> Tensor:
    """Subtracts what independent noise scores: ``max(0, (c - null) / (1 - null))``, ``null = widest / (count - 1)``.

    Where the null value reaches 1, there are too few rows to tell correlation from noise, and the loss is 0.
    """
    freedom = (count - 1.0).clamp(min=1.0)
    # Both times count - 1, a whole number. The numerator is not above 0 where null >= 1, because c <= 1.
    return (correlation * freedom - widest).relu() / (freedom - widest).clamp(min=1.0)
