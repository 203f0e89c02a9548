"""TokenBudget: which tokens take part in the exchange, under a learned budget."""

import math

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.precision import at_least_float32
from multifuse.ops.budget import activated, allot


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
    and ``participation_logit`` (b), each (1,): FSDP2 shards no scalars.

    Source: CLCR (arXiv 2602.19605), the token budget of IntraCED; the choices marked ours are this library's.
    """

    def __init__(self, gamma: float = 1.0, init_participation: float = 0.68) -> None:
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise ValueError(f"gamma must be finite and >= 0, got {gamma!r}")
        if not 0 < init_participation < 1:
            raise ValueError(f"init_participation must lie in (0, 1), got {init_participation!r}")
        self.gamma, self.init_participation = float(gamma), float(init_participation)
        self.log_sharpness = nn.Parameter(torch.empty(1))
        self.threshold = nn.Parameter(torch.empty(1))
        self.participation_logit = nn.Parameter(torch.empty(1))
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
        return activated(evidence, torch.stack(self._parameters_of(evidence.dtype)), mask)

    def of_codes(self, codes: Tensor, mask: Tensor | None = None) -> Tensor:
        """alpha (B, T) of shared codes (B, T, r_s), whose norms are the evidence; checked already."""
        return allot(codes, *self._parameters_of(torch.promote_types(codes.dtype, torch.float32)), mask)

    def _parameters_of(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """s, tau and gamma * rho."""
        share = self.gamma * torch.sigmoid(self.participation_logit)
        sharpness, threshold = self.log_sharpness.exp(), self.threshold
        return sharpness.to(dtype).squeeze(0), threshold.to(dtype).squeeze(0), share.to(dtype).squeeze(0)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, init_participation={self.init_participation}"
