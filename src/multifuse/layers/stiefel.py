"""StiefelProjector: one shared subspace for all modalities and a private one for each, orthogonal by construction."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self

from multifuse._internal import checks
from multifuse._internal.precision import at_least_float32, without_autocast
from multifuse.layers.frames import shared_and_private_frames


class Bases(NamedTuple):
    """Orthonormal bases of one level: ``shared`` (d, r_s), ``private`` (M, d, r_p) in the constructor's order."""

    shared: Tensor
    private: Tensor


class _Kept(NamedTuple):
    """Bases of earlier, what they depended on, and the weights that they were computed from."""

    state: Hashable
    weights: list[Tensor]
    bases: Bases


class SharedPrivate(NamedTuple):
    """Codes by modality: ``shared`` (B, T, r_s) and ``private`` (B, T, r_p)."""

    shared: dict[str, Tensor]
    private: dict[str, Tensor]


class StiefelProjector(nn.Module):
    """Computes the codes ``h U_sh`` and ``h U_pr^m`` of tokens h in two mutually orthogonal subspaces.

    ``U_sh`` in St(d, r_s) is shared by all modalities of a level, ``U_pr^m`` in St(d, r_p) is modality m's own, and
    ``U_sh^T U_pr^m = 0`` holds by construction (ours: the paper asks for orthogonal bases). The bases are float32
    whatever the dtype of the parameters or of autocast, orthonormal after any optimiser step.

    Args:
        dim: d, the width of the tokens.
        shared_rank: r_s; ``shared_rank + private_rank <= dim``.
        private_rank: r_p.
        modalities: names, any Python identifiers.
        parametrization: ``"cholesky"`` (default: a Cholesky QR of free matrices, which cannot hang) or
            ``"geotorch"`` (geotorch's matrix exponential on SO(d) and on St(d - r_s, r_p)).

    Raises:
        ValueError: ranks that do not fit, names that are no identifiers, an unknown parametrisation.

    Source: CLCR (arXiv 2602.19605), the shared and private subspaces of IntraCED.
    """

    def __init__(
        self,
        dim: int,
        shared_rank: int,
        private_rank: int,
        modalities: Iterable[str],
        parametrization: Literal["cholesky", "geotorch"] = "cholesky",
    ) -> None:
        super().__init__()
        checks.subspace_ranks(dim, shared_rank, private_rank)
        if parametrization not in ("cholesky", "geotorch"):
            raise ValueError(f"parametrization must be 'cholesky' or 'geotorch', got {parametrization!r}")
        self.dim, self.shared_rank, self.private_rank = dim, shared_rank, private_rank
        self.modalities = checks.modality_names(modalities)
        self.parametrization = parametrization
        self._kept: _Kept | None = None
        count = len(self.modalities)
        if parametrization == "cholesky":
            self.shared_weight = nn.Parameter(torch.empty(dim, shared_rank))
            self.private_weight = nn.Parameter(torch.empty(count, dim, private_rank))
            self.reset_parameters()
        else:
            import geotorch

            # geotorch draws its frames here and now, which a meta tensor, as from_pretrained builds it, does not allow.
            with torch.device("cpu" if torch.get_default_device().type == "meta" else torch.get_default_device()):
                # The first r_s columns of the rotation are U_sh, the others C, an orthonormal basis of its complement.
                self.rotation = nn.Parameter(torch.empty(dim, dim))
                self.private_in_complement = nn.Parameter(torch.empty(count, dim - shared_rank, private_rank))
                geotorch.orthogonal(self, "rotation")
                geotorch.orthogonal(self, "private_in_complement")
            for weight in self.parameters():  # geotorch leaves some strided, which FSDP2 does not shard
                weight.data = weight.data.contiguous()

    def reset_parameters(self) -> None:
        """Draws the subspaces uniformly (geotorch draws its own when it is registered)."""
        if self.parametrization == "cholesky":
            nn.init.normal_(self.shared_weight)
            nn.init.normal_(self.private_weight)

    def bases(self) -> Bases:
        """Computes the bases of this level, to be read only: see `bases_of_levels`."""
        return bases_of_levels([self])[0]

    def _rotated(self) -> Bases:
        rotation = at_least_float32(self.rotation)
        shared, complement = rotation[:, : self.shared_rank], rotation[:, self.shared_rank :]
        with without_autocast(rotation.device):
            return Bases(shared, complement @ self.private_in_complement.to(rotation.dtype))

    def _weights(self) -> list[Tensor]:
        return [*self.parameters(), *self.buffers()]

    def _state(self) -> Hashable | None:
        """What the bases depend on, to tell whether kept ones still hold; ``None`` where none may be kept.

        A write to a weight raises its version; only a write through ``.data``, within eval mode, goes unseen.
        """
        weights = self._weights()
        _check_whole(weights)
        asked = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if self.training or asked or not weights or torch.compiler.is_compiling() or _are_captured(weights):
            return None
        addresses = _addresses(weights)
        if addresses is None:
            return None
        versions = tuple((weight._version, weight.dtype, weight.device) for weight in weights)
        return addresses, versions, torch.is_inference_mode_enabled()

    def _keep(self, state: Hashable | None, bases: Bases) -> None:
        if state is None or _addresses(bases) is None:
            self._kept = None
        else:  # the weights are held, so that no other ones can come to lie where they did
            self._kept = _Kept(state, [weight.detach() for weight in self._weights()], bases)

    def train(self, mode: bool = True) -> Self:
        self._kept = None
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._kept = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    @property
    def shared_basis(self) -> Tensor:
        """U_sh (d, r_s)."""
        return self.bases().shared.clone()

    def private_basis(self, modality: str) -> Tensor:
        """U_pr^m (d, r_p) of a modality."""
        checks.known_modalities("private_basis", [modality], self.modalities)
        return self.bases().private[self.modalities.index(modality)].clone()

    def forward(self, tokens: Mapping[str, Tensor], bases: Bases | None = None) -> SharedPrivate:
        """Computes the codes of tokens (B, T, d) a modality; ``bases`` are computed here unless they are given."""
        present = checks.token_mapping(tokens, None, self.modalities, self.dim)
        return self.codes({name: given.values for name, given in present.items()}, bases or self.bases())

    def codes(self, tokens: Mapping[str, Tensor], bases: Bases) -> SharedPrivate:
        """`forward` on tokens that are checked already."""
        shared: dict[str, Tensor] = {}
        private: dict[str, Tensor] = {}
        for name, values in tokens.items():
            own = bases.private[self.modalities.index(name)]
            both = values @ torch.cat([bases.shared, own], dim=-1).to(values.dtype)
            shared[name], private[name] = both.split([self.shared_rank, self.private_rank], dim=-1)
        return SharedPrivate(shared, private)

    def extra_repr(self) -> str:
        return (
            f"dim={self.dim}, shared_rank={self.shared_rank}, private_rank={self.private_rank}, "
            f"modalities={self.modalities}, parametrization={self.parametrization!r}"
        )


def bases_of_levels(projectors: Sequence[StiefelProjector]) -> list[Bases]:
    """Computes the bases of several levels, in one batched computation where the parametrisation allows it.

    In eval mode, where no gradient is asked for, bases are kept, and computed again once a weight has been changed.

    Raises:
        ValueError: weights that FSDP2 has not gathered.
    """
    states = [projector._state() for projector in projectors]
    kept = [
        projector._kept.bases
        for projector, state in zip(projectors, states, strict=True)
        if projector._kept is not None and projector._kept.state == state
    ]
    if len(kept) == len(projectors):
        return kept
    bases = _computed(projectors)
    for projector, state, own in zip(projectors, states, bases, strict=True):
        projector._keep(state, own)
    return bases


def _addresses(tensors: Sequence[Tensor]) -> tuple[int, ...] | None:
    """Where plain tensors lie; ``None`` if one is of another kind, or has no numbers: fake, or under a transform."""
    plain = [tensor for tensor in tensors if type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta]
    try:
        found = tuple(tensor.data_ptr() for tensor in plain)
    except RuntimeError:
        return None
    return found if len(found) == len(tensors) else None


def _check_whole(weights: Sequence[Tensor]) -> None:
    for weight in weights:
        if hasattr(weight, "full_tensor"):
            raise ValueError(
                f"the bases of all levels are computed together, from whole weights, got one {tuple(weight.shape)} in "
                "shards: fully_shard the model that holds all levels, not each IntraCED in it"
            )


def _are_captured(weights: Sequence[Tensor]) -> bool:
    """Whether a CUDA graph is being captured, which has to compute the bases each time that it is replayed."""
    return any(weight.is_cuda for weight in weights) and torch.cuda.is_current_stream_capturing()


def _computed(projectors: Sequence[StiefelProjector]) -> list[Bases]:
    if any(projector.parametrization == "geotorch" for projector in projectors):
        return [own._rotated() if own.parametrization == "geotorch" else _computed([own])[0] for own in projectors]
    shared, private = shared_and_private_frames(
        torch.stack([projector.shared_weight for projector in projectors]),
        torch.stack([projector.private_weight for projector in projectors]),
    )
    return [Bases(*level) for level in zip(shared.unbind(), private.unbind(), strict=True)]
