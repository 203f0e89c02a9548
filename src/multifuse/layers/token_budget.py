"""TokenBudget: which tokens take part in the exchange, under a learned budget."""

import math

import torch
from torch import Tensor, nn

from multifuse import checks
from multifuse.masks import token_count
from multifuse.ops import project_capped_simplex
from multifuse.precision import at_least_float32


class TokenBudget(nn.Module):
    r"""Projects token evidence onto the truncated simplex ``{0 <= alpha <= 1, sum alpha <= B}``.

    The evidence e (in CLCR ``||h_t U_sh||_2``) is standardised over the sample's real tokens to mean 0 and deviation 1
    (ours: after LayerNorm the raw norm is nearly constant, and no token would ever be dropped); the activation is
    ``sigmoid(s (e - tau))``; the budget is ``B = gamma * rho * n_valid`` (ours), rho = sigmoid(b).

    Args:
        gamma: the budget's fixed scale; 0 closes the exchange.
        init_participation: rho before training, in (0, 1).

    ``forward(evidence, mask=None)``: (B, T), (B, T) bool -> alpha (B, T), float32 or better, 0 at padding.

    Parameters: ``log_sharpness`` (log s, starts at s = 4), ``threshold`` (tau, starts at -1, where the budget binds)
    and ``participation_logit`` (b).

    Source: CLCR (arXiv 2602.19605), the token budget of IntraCED; the choices marked ours are this library's.
    """

    def __init__(self, gamma: float = 1.0, init_participation: float = 0.68) -> None:
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma must be finite and >= 0, got {gamma!r}")
        if not 0 < init_participation < 1:
            raise ValueError(f"init_participation must lie in (0, 1), got {init_participation!r}")
        self.gamma, self.init_participation = float(gamma), float(init_participation)
        self.log_sharpness = nn.Parameter(torch.empty(()))
        self.threshold = nn.Parameter(torch.empty(()))
        self.participation_logit = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.log_sharpness, math.log(4.0))
        nn.init.constant_(self.threshold, -1.0)
        nn.init.constant_(self.participation_logit, math.log(self.init_participation / (1 - self.init_participation)))

    def forward(self, evidence: Tensor, mask: Tensor | None = None) -> Tensor:
        if evidence.ndim != 2 or not evidence.is_floating_point():
            raise ValueError(
                "evidence must be floating point of shape (batch, tokens), got "
                f"{evidence.dtype} {tuple(evidence.shape)}"
            )
        if mask is not None:
            mask = checks.token_mask("mask", mask, *evidence.shape)
        evidence = at_least_float32(evidence)
        count = token_count(evidence, mask)
        score = self.log_sharpness.exp() * (standardised(evidence, mask, count) - self.threshold)
        budget = self.gamma * torch.sigmoid(self.participation_logit) * count
        return project_capped_simplex(torch.sigmoid(score), budget, mask)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, init_participation={self.init_participation}"


def standardised(evidence: Tensor, mask: Tensor | None, count: Tensor) -> Tensor:
    """Shifts and scales (B, T) to mean 0, deviation 1 over the real tokens; equal tokens, or a single one, give 0."""
    if mask is not None:
        evidence = evidence.masked_fill(~mask, 0.0)
    count = count.clamp(min=1.0).unsqueeze(-1)
    mean = evidence.sum(-1, keepdim=True) / count
    centred = evidence - mean
    if mask is not None:
        centred = centred.masked_fill(~mask, 0.0)
    variance = centred.square().sum(-1, keepdim=True) / count
    # The floor, far below any real spread, keeps the rounding of equal tokens from being blown up to deviation 1.
    floor = (1e-4 * mean).square() + torch.finfo(evidence.dtype).tiny
    return centred / (variance + floor).sqrt()
