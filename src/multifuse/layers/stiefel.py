"""StiefelProjector: one subspace shared by all modalities and a private one for each, orthogonal by construction."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from multifuse._internal import checks
from multifuse._internal.exportable import exportable
from multifuse._internal.initialisation import DrawsOwnParameters, is_loaded
from multifuse._internal.precision import at_least_float32, without_autocast
from multifuse.layers.frames import orthonormal_columns, shared_and_private_frames
from multifuse.ops.transforms import is_transformed


@exportable
class Bases(NamedTuple):
    """Orthonormal bases: ``shared`` (d, r_s), ``private`` (M, d, r_p) in the constructor's order.

    With several levels, both have a leading dimension L.
    """

    shared: Tensor
    private: Tensor


@exportable
class SharedPrivate(NamedTuple):
    """Codes by modality: ``shared`` (B, T, r_s) and ``private`` (B, T, r_p)."""

    shared: dict[str, Tensor]
    private: dict[str, Tensor]


class StiefelProjector(DrawsOwnParameters):
    """Computes the codes ``h U_sh`` and ``h U_pr^m`` of tokens h in two mutually orthogonal subspaces.

    ``U_sh`` in St(d, r_s) is shared by all modalities of a level, ``U_pr^m`` in St(d, r_p) belongs to modality m, and
    ``U_sh^T U_pr^m = 0`` holds by construction (ours: the paper asks for orthogonal bases). The bases are orthonormal
    after any optimiser step, and float32 whatever the dtype of the parameters or of autocast; the one exception is
    weights without full column rank (such as all zeros), which define no bases.

    Args:
        dim: d, the width of the tokens.
        modalities: names, any Python identifiers, in a fixed order (a set is refused).
        shared_rank: r_s; ``shared_rank + private_rank <= dim``.
        private_rank: r_p.
        parametrization: ``"cholesky"`` (default: a Cholesky QR of free matrices, which cannot hang) or
            ``"geotorch"`` (geotorch's matrix exponential on SO(d) and on St(d - r_s, r_p)).

    Shape:
        ``forward(tokens)``: tokens by modality (B, T_m, d) -> `SharedPrivate`, codes (B, T_m, r_s) and (B, T_m, r_p).

    Raises:
        ValueError: ranks that do not fit, names that are not identifiers, an unknown parametrization.

    Source: CLCR (arXiv 2602.19605), the shared and private subspaces of IntraCED.

    Example:
        >>> projector = StiefelProjector(8, ("text", "audio"), shared_rank=3, private_rank=2)
        >>> codes = projector({"text": torch.randn(4, 5, 8), "audio": torch.randn(4, 9, 8)})
        >>> codes.shared["audio"].shape, codes.private["audio"].shape
        (torch.Size([4, 9, 3]), torch.Size([4, 9, 2]))
        >>> bool((projector.shared_basis.T @ projector.private_basis("text")).abs().max() < 1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        modalities: Iterable[str],
        *,
        shared_rank: int,
        private_rank: int,
        parametrization: Literal["cholesky", "geotorch"] = "cholesky",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checks.subspace_ranks(dim, shared_rank, private_rank)
        checks.choice("parametrization", parametrization, ("cholesky", "geotorch"))
        self.dim, self.shared_rank, self.private_rank = int(dim), int(shared_rank), int(private_rank)  # may be numpy's
        self.modalities = checks.modality_names(modalities)
        self.parametrization = parametrization
        self._cached_bases: _CachedBases | None = None
        self._is_fixed = False
        if parametrization == "cholesky":
            count = len(self.modalities)
            self.shared_weight = nn.Parameter(torch.empty(dim, shared_rank, device=device, dtype=dtype))
            self.private_weight = nn.Parameter(torch.empty(count, dim, private_rank, device=device, dtype=dtype))
            self.reset_parameters()
        else:
            self._register_geotorch(device, dtype)

    def _register_geotorch(self, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        import geotorch

        default, default_dtype = torch.get_default_device(), torch.get_default_dtype()
        # geotorch draws when it is registered, in float32 or better, and on a real device: from_pretrained asks for a
        # meta tensor, and maybe for a half type.
        with torch.device("cpu" if default.type == "meta" else default), _default_dtype(torch.float32):
            # The first r_s columns of the rotation are U_sh, the others an orthonormal basis of its complement.
            self.rotation = nn.Parameter(torch.empty(self.dim, self.dim))
            self.private_in_complement = nn.Parameter(
                torch.empty(len(self.modalities), self.dim - self.shared_rank, self.private_rank)
            )
            geotorch.orthogonal(self, "rotation")
            geotorch.orthogonal(self, "private_in_complement")
        self._make_contiguous()
        self.to(device=device, dtype=default_dtype if dtype is None else dtype)

    def _make_contiguous(self) -> None:
        """geotorch leaves some weights strided, which FSDP2 does not shard."""
        for weight in self.parameters():
            weight.data = weight.data.contiguous()

    def reset_parameters(self) -> None:
        """Draws the subspaces uniformly."""
        if self.parametrization == "cholesky":
            nn.init.normal_(self.shared_weight)
            nn.init.normal_(self.private_weight)
            return
        for name, maps in self.parametrizations.items():  # type: ignore[union-attr, operator]
            weight = maps.original
            # Of a weight that stays on the disk, only the base is loaded.
            if not is_loaded(weight) and not is_loaded(maps[0].base):
                dtype = weight.dtype
                maps.to(torch.promote_types(dtype, torch.float32))  # geotorch draws by a QR, which half types lack
                setattr(self, name, maps[0].sample())
                maps.to(dtype)
        self._make_contiguous()

    def bases(self) -> Bases:
        """Computes the bases of this level; within `cached_bases`, returns those that are kept.

        Raises:
            ValueError: weights that FSDP2 has not gathered.
        """
        _check_whole([self])
        return _kept(self) or _computed([self])[0]

    @property
    def shared_basis(self) -> Tensor:
        """U_sh (d, r_s)."""
        return self.bases().shared.clone()

    def private_basis(self, modality: str) -> Tensor:
        """Returns U_pr^m (d, r_p) of a modality."""
        checks.known_modalities("private_basis", [modality], self.modalities)
        return self.bases().private[self.modalities.index(modality)].clone()

    def forward(self, tokens: Mapping[str, Tensor]) -> SharedPrivate:
        present = checks.token_mapping(tokens, None, self.modalities, self.dim)
        bases = self.bases()
        shared: dict[str, Tensor] = {}
        private: dict[str, Tensor] = {}
        for name, checked in present.items():
            columns = [bases.shared, bases.private[self.modalities.index(name)]]
            codes = checked.values @ torch.cat(columns, dim=-1).to(checked.values.dtype)
            shared[name], private[name] = codes.split([self.shared_rank, self.private_rank], dim=-1)
        return SharedPrivate(shared, private)

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, {self.modalities}, shared_rank={self.shared_rank}, private_rank={self.private_rank}, "
            f"parametrization={self.parametrization!r}"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out bases that `cached_bases` keeps: its scope does not extend to copies."""
        return {**self.__dict__, "_cached_bases": None}


class _CachedBases(NamedTuple):
    bases: Bases
    weights: list[Tensor]
    """Copies of what the bases were computed from; on a GPU, which comparing would wait for, the weights themselves."""
    versions: list[int]
    """How often the weights, and the bases, had been written to."""


def bases_of_levels(projectors: Sequence[StiefelProjector]) -> Bases:
    """Computes the bases of several projectors together: (L, d, r_s) and (L, M, d, r_p).

    All have equal sizes and the parametrization ``"cholesky"``.

    Within `cached_bases` the kept ones are returned, unless a gradient is asked for.

    Raises:
        ValueError: weights that FSDP2 has not gathered.
    """
    _check_whole(projectors)
    kept = [bases for bases in map(_kept, projectors) if bases is not None]
    if len(kept) == len(projectors):
        return Bases(*(torch.stack(levels) for levels in zip(*kept, strict=True)))
    return _frames(projectors)


@contextmanager
def cached_bases(model: nn.Module) -> Iterator[None]:
    """Computes the bases of every `StiefelProjector` in a model once, for all forward passes within the scope.

    For evaluation, where the weights do not change. If they do change, the bases are computed from the new ones: on a
    CPU their values are compared in every forward pass; on a GPU only changes that torch counts are seen, and a write
    through ``.data`` or by a fused optimiser needs a new scope. A forward pass that needs gradients for the weights
    ends the scope for them, since a training step may follow. Under ``torch.compile`` and `torch.func`, and for weights
    that FSDP2 shards, the bases are computed as if there were no scope. Scopes can be nested.

    Example:
        >>> layer = StiefelProjector(8, ("text", "audio"), shared_rank=3, private_rank=2)
        >>> with cached_bases(layer), torch.no_grad():
        ...     layer.bases() is layer.bases()
        True
    """
    projectors = [
        module
        for module in model.modules()
        if isinstance(module, StiefelProjector) and not _is_sharded(module) and not module._is_fixed
    ]
    outer = [projector._cached_bases for projector in projectors]
    with torch.no_grad():
        bases = _computed(projectors)
    try:
        for projector, level in zip(projectors, bases, strict=True):
            weights = _weights(projector)
            copies = [weight.detach().clone() if weight.device.type == "cpu" else weight for weight in weights]
            projector._cached_bases = _CachedBases(level, copies, _versions([*weights, *level]))
        yield
    finally:
        for projector, cached in zip(projectors, outer, strict=True):
            projector._cached_bases = cached if projector._cached_bases is not None else None


@torch.no_grad()
def fix_bases(model: nn.Module) -> None:
    """Replaces the weights of every `StiefelProjector` in a model by its bases, which then are constants.

    For a copy that is deployed: it cannot be trained, and its state is another one than that of the model.
    """
    for projector in [module for module in model.modules() if isinstance(module, StiefelProjector)]:
        bases = projector.bases()
        projector._is_fixed = True
        if projector.parametrization == "geotorch":
            del projector.parametrizations
        projector._parameters.clear()
        projector.register_buffer("fixed_shared", bases.shared.clone())
        projector.register_buffer("fixed_private", bases.private.clone())


def _kept(projector: StiefelProjector) -> Bases | None:
    """Returns bases that need not be computed."""
    if projector._is_fixed:
        return Bases(projector.fixed_shared, projector.fixed_private)  # type: ignore[arg-type]
    return _cached(projector)


def _cached(projector: StiefelProjector) -> Bases | None:
    cached = projector._cached_bases
    if cached is None or torch.compiler.is_compiling() or is_transformed():
        return None
    weights = _weights(projector)
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        projector._cached_bases = None
        return None
    same = len(weights) == len(cached.weights) and all(map(_is_same, weights, cached.weights))
    # A basis that somebody wrote to is no basis any more.
    return cached.bases if same and _versions([*weights, *cached.bases]) == cached.versions else None


def _is_same(weight: Tensor, kept: Tensor) -> bool:
    if weight is kept:
        return True
    return weight.device == kept.device and weight.dtype == kept.dtype and torch.equal(weight, kept)


def _weights(projector: StiefelProjector) -> list[Tensor]:
    return [*projector.parameters(), *projector.buffers()]


def _versions(tensors: Sequence[Tensor]) -> list[int]:
    return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


def _check_whole(projectors: Sequence[StiefelProjector]) -> None:
    if any(map(_is_sharded, projectors)):
        raise ValueError("the bases are computed from whole weights, got weights that FSDP2 has not gathered")


def _is_sharded(projector: StiefelProjector) -> bool:
    return any(hasattr(weight, "full_tensor") for weight in projector.parameters())


def _computed(projectors: Sequence[StiefelProjector]) -> list[Bases]:
    groups: dict[object, list[int]] = {}
    for index, projector in enumerate(projectors):
        groups.setdefault(_batch_key(projector, index), []).append(index)
    bases: dict[int, Bases] = {}
    for indices in groups.values():
        bases.update(zip(indices, _batched([projectors[index] for index in indices]), strict=True))
    return [bases[index] for index in range(len(projectors))]


def _batch_key(projector: StiefelProjector, index: int) -> object:
    """Returns what projectors must have in common to be computed in one batch; geotorch's are computed one by one."""
    if projector.parametrization == "geotorch":
        return index
    return tuple((weight.shape, weight.dtype, weight.device) for weight in projector.parameters())


def _batched(projectors: Sequence[StiefelProjector]) -> list[Bases]:
    if projectors[0].parametrization == "geotorch":
        return [_rotated(projector) for projector in projectors]
    return [Bases(*level) for level in zip(*(bases.unbind() for bases in _frames(projectors)), strict=True)]


def _frames(projectors: Sequence[StiefelProjector]) -> Bases:
    return Bases(
        *shared_and_private_frames(
            torch.stack([projector.shared_weight for projector in projectors]),
            torch.stack([projector.private_weight for projector in projectors]),
        )
    )


def _rotated(projector: StiefelProjector) -> Bases:
    rotation, private = at_least_float32(projector.rotation), at_least_float32(projector.private_in_complement)
    if projector.rotation.dtype != rotation.dtype:  # geotorch's maps have rounded to a half type
        rotation, private = orthonormal_columns(rotation), orthonormal_columns(private)
    shared, complement = rotation[:, : projector.shared_rank], rotation[:, projector.shared_rank :]
    with without_autocast(rotation.device):
        return Bases(shared, complement @ private.to(rotation.dtype))


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
