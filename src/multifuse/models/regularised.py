"""Regularised: the regularisers of a CLCR model's loss, whatever its task."""

import warnings
from typing import Any

import torch
from torch import Tensor

from multifuse.losses.inter_level import InterLevelLoss
from multifuse.losses.intra_level import IntraLevelLoss
from multifuse.models.outputs import CLCRModelOutput


class Regularised:
    """Adds ``lambda_intra L_intra + lambda_inter L_inter`` to the loss of a model, in training only."""

    config: Any
    training: bool
    intra_loss: IntraLevelLoss
    inter_loss: InterLevelLoss

    def _add_regularisers(self, modalities: tuple[str, ...]) -> None:
        self.intra_loss = IntraLevelLoss(self.config.eps, self.config.debias, modalities=modalities)
        self.inter_loss = InterLevelLoss(self.config.eps, self.config.debias, modalities=modalities)
        self._has_warned = False

    def _regularisers(self, encoded: CLCRModelOutput) -> dict[str, Tensor]:
        """Returns the terms of the regularisers that have a weight, in training."""
        terms: dict[str, Tensor] = {}
        weights = (self.config.lambda_intra, self.config.lambda_inter)
        if not self.training or not any(weights):
            return terms
        assert encoded.levels is not None
        assert encoded.aggregate is not None
        correlations = self.intra_loss.correlations(encoded.levels, encoded.mask)
        if self.config.lambda_intra:
            intra = self.intra_loss.terms(correlations)
            terms.update({f"intra_{name}": value for name, value in intra._asdict().items()})
        if self.config.lambda_inter:
            inter = self.inter_loss.terms(correlations, encoded.aggregate, True)
            terms.update({f"inter_{name}": value for name, value in inter._asdict().items()})
        return terms

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        total = terms["task"]
        for weight, name in ((self.config.lambda_intra, "intra_total"), (self.config.lambda_inter, "inter_total")):
            if name in terms:
                total = total + weight * terms[name]
        return total

    def _warn_of_missing_labels(self) -> None:
        """Warns once in training: whoever computes the loss elsewhere leaves the regularisers out."""
        weights = {name: getattr(self.config, name) for name in ("lambda_intra", "lambda_inter")}
        if self._has_warned or not self.training or not any(weights.values()) or torch.compiler.is_compiling():
            return
        self._has_warned = True
        named = ", ".join(f"{name}={weight}" for name, weight in weights.items() if weight)
        warnings.warn(
            f"{type(self).__name__} was called in training without labels: it computes no loss, and the regularisers "
            f"({named}) are left out of any loss that is computed from its logits, as Trainer does with "
            "label_smoothing_factor or compute_loss_func. Pass the labels, or set the lambdas to 0",
            RuntimeWarning,
            stacklevel=3,
        )
