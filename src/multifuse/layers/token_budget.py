"""TokenBudget: how much each token takes part in the exchange, under a learned budget."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.initialisation import DrawsOwnParameters
from multifuse._internal.masks import token_count, token_divisor
from multifuse._internal.precision import at_least_float32
from multifuse.ops import project_capped_simplex


class TokenBudget(DrawsOwnParameters):
    r"""Projects token evidence onto the truncated simplex ``{0 <= alpha <= 1, sum alpha <= B}``.

    .. math:: \alpha = \arg\min_{0 \le a \le 1,\ \sum a \le B} \|a - \mathrm{sigmoid}(s (e - \tau))\|_2^2,
        \quad B = \gamma \rho n

    The evidence e (in CLCR ``||h_t U_sh||_2``) is standardised over the n real tokens of a sample to mean 0 and
    deviation 1 (ours: after LayerNorm the raw norm is nearly constant, and no token would ever be dropped). The
    sharpness s > 0, the threshold tau and the participation rho = sigmoid(b) are learned (the form of B is ours).

    Args:
        gamma: the fixed scale of the budget; 0 closes the exchange.
        init_participation: rho before training, in (0, 1).

    Shape:
        ``forward(evidence, mask=None)``: evidence (B, T), mask (B, T) -> alpha (B, T), float32 or better, 0 at padding.

    Parameters: ``log_sharpness`` (log s, starts at s = 4), ``threshold`` (tau, starts at -1, where the budget binds)
    and ``participation_logit`` (b), each of shape (1,), because FSDP2 shards no scalars.

    Raises:
        ValueError: a negative ``gamma``, ``init_participation`` outside (0, 1), evidence or a mask of another shape.

    Source: CLCR (arXiv 2602.19605), the token budget of IntraCED; the choices marked ours are this library's.

    Example:
        >>> alpha = TokenBudget(gamma=0.5)(torch.randn(2, 10))
        >>> bool((alpha >= 0).all() and (alpha <= 1).all() and (alpha.sum(-1) <= 0.5 * 0.68 * 10 + 1e-5).all())
        True
    """

    def __init__(
        self,
        gamma: float = 1.0,
        init_participation: float = 0.68,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not (checks.is_number(gamma) and math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma must be finite and >= 0, got {gamma!r}")
        if not (checks.is_number(init_participation) and 0 < init_participation < 1):
            raise ValueError(f"init_participation must be in (0, 1), got {init_participation!r}")
        self.gamma, self.init_participation = float(gamma), float(init_participation)
        self.log_sharpness = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.threshold = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.participation_logit = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.log_sharpness, math.log(4.0))
        nn.init.constant_(self.threshold, -1.0)
        nn.init.constant_(self.participation_logit, math.log(self.init_participation / (1 - self.init_participation)))

    def forward(self, evidence: Tensor, mask: Tensor | None = None) -> Tensor:
        checks.tensor("evidence", evidence)
        if evidence.ndim != 2 or not evidence.is_floating_point():
            raise ValueError(
                "evidence must be floating point of shape (batch, tokens), got "
                f"{evidence.dtype} {tuple(evidence.shape)}"
            )
        if mask is not None:
            mask = checks.token_mask("mask", mask, *evidence.shape)
        evidence = at_least_float32(evidence)
        if mask is not None:
            evidence = evidence.masked_fill(~mask, 0.0)
        return activation_of_levels([self], evidence.unsqueeze(0), mask).squeeze(0)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, init_participation={self.init_participation}"


def activation_of_levels(budgets: Sequence[TokenBudget], evidence: Tensor, mask: Tensor | None) -> Tensor:
    """Computes alpha for the evidence (L, ..., T) of L budgets with the same gamma.

    The evidence is float32 or better, and 0 at padding; the mask (..., T) is that of every level.
    """

    def by_level(name: str) -> Tensor:
        parameters = [getattr(budget, name) for budget in budgets]
        stacked = parameters[0] if len(parameters) == 1 else torch.cat(parameters)
        return stacked.to(evidence.dtype).view(-1, *[1] * (evidence.ndim - 1))

    standard = standardised(evidence, mask)
    sharpness, participation = by_level("log_sharpness").exp(), torch.sigmoid(by_level("participation_logit"))
    activation = torch.sigmoid(sharpness * (standard - by_level("threshold")))
    budget = budgets[0].gamma * participation.squeeze(-1) * token_count(mask, evidence.shape[-1])
    return project_capped_simplex(activation, budget, mask)


def standardised(evidence: Tensor, mask: Tensor | None) -> Tensor:
    """Shifts and scales (..., T), 0 at padding, to mean 0 and deviation 1 over the real tokens of each row.

    Equal tokens, or a single one, give 0.
    """
    count = token_divisor(mask, evidence.shape[-1])
    mean = evidence.sum(-1, keepdim=True) / count
    centred = evidence - mean
    if mask is not None:
        centred = centred.masked_fill(~mask, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / count
    # The floor, far below any real deviation, keeps the rounding of equal tokens from being scaled up to deviation 1.
    floor = (1e-4 * mean).square() + torch.finfo(evidence.dtype).tiny
    return centred / (variance + floor).sqrt()
