"""StiefelProjector: orthonormal and mutually orthogonal bases, whatever happens to the parameters, and codes."""

import copy
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multifuse import StiefelProjector
from multifuse.layers import stiefel
from multifuse.layers.frames import shared_and_private_frames
from multifuse.layers.stiefel import bases_of_levels, cached_bases, fix_bases
from tests.batches import Sizes, batch, sizes


def worst_defect(projector: StiefelProjector) -> float:
    """Returns the largest deviation of the bases from orthonormality and mutual orthogonality."""
    shared = projector.shared_basis
    defects = [(shared.mT @ shared - torch.eye(projector.shared_rank)).abs().max()]
    for name in projector.modalities:
        private = projector.private_basis(name)
        defects.append((private.mT @ private - torch.eye(projector.private_rank)).abs().max())
        defects.append((shared.mT @ private).abs().max())
    return float(torch.stack(defects).max().detach())


@given(sizes(), st.sampled_from([1e-4, 1e-2, 1.0, 100.0]), st.integers(0, 5))
def test_bases_stay_orthonormal_after_any_optimiser_step(drawn: Sizes, lr: float, seed: int) -> None:
    torch.manual_seed(seed)
    projector = StiefelProjector(
        drawn.dim, drawn.modalities, shared_rank=drawn.shared_rank, private_rank=drawn.private_rank
    )
    optimizer = torch.optim.SGD(projector.parameters(), lr=lr, momentum=0.9, weight_decay=0.1 if lr <= 1 else 0.0)
    tokens, _ = batch(drawn, seed)
    for _ in range(4):
        codes = projector(tokens)
        loss = sum(code.pow(3).mean() for code in (*codes.shared.values(), *codes.private.values()))
        optimizer.zero_grad()
        torch.as_tensor(loss).backward()
        optimizer.step()
    assert worst_defect(projector) < 1e-5


@pytest.mark.parametrize("dim", [64, 256, 512])
def test_bases_are_orthonormal_at_the_sizes_of_real_models(dim: int) -> None:
    assert worst_defect(StiefelProjector(dim, ("text", "audio"), shared_rank=dim // 2, private_rank=dim // 4)) < 1e-5


@given(st.floats(1e-12, 1e12), st.floats(1e-5, 1.0))
def test_bases_survive_badly_scaled_and_nearly_dependent_weights(scale: float, spread: float) -> None:
    torch.manual_seed(0)
    projector = StiefelProjector(12, ("text",), shared_rank=4, private_rank=4)
    with torch.no_grad():
        projector.shared_weight[:, 1] = projector.shared_weight[:, 0] + spread * projector.shared_weight[:, 1]
        projector.shared_weight.mul_(scale)
        projector.private_weight[0, :, 0] = projector.shared_weight[:, 2] + scale * spread * torch.randn(12)
    assert worst_defect(projector) < 1e-5


def test_geotorch_parametrisation_meets_the_same_contract() -> None:
    projector = StiefelProjector(12, ("text", "audio"), shared_rank=5, private_rank=4, parametrization="geotorch")
    tokens, _ = batch(Sizes(2, 12, 5, 4, 1, {"text": 3, "audio": 2}))
    optimizer = torch.optim.SGD(projector.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        torch.as_tensor(sum(code.pow(3).mean() for code in projector(tokens).shared.values())).backward()
        optimizer.step()
    assert worst_defect(projector) < 1e-5


def test_codes_are_the_tokens_coordinates() -> None:
    projector = StiefelProjector(10, ("text", "audio"), shared_rank=4, private_rank=3)
    tokens, _ = batch(Sizes(2, 10, 4, 3, 1, {"text": 5, "audio": 2}))
    codes = projector(tokens)
    for name, values in tokens.items():
        assert torch.allclose(codes.shared[name], values @ projector.shared_basis, atol=1e-5)
        assert torch.allclose(codes.private[name], values @ projector.private_basis(name), atol=1e-5)


def test_initial_subspaces_are_drawn_uniformly() -> None:
    """Under the Haar measure, the expectation of U U^T is (r / d) I."""
    torch.manual_seed(0)
    projector = StiefelProjector(6, ("text",), shared_rank=2, private_rank=2)
    mean = torch.zeros(6, 6)
    for _ in range(600):
        projector.reset_parameters()
        basis = projector.shared_basis.detach()
        mean += basis @ basis.mT / 600
    assert (mean - torch.eye(6) / 3).abs().max() < 0.05


def test_bases_are_float32_under_half_parameters_and_autocast() -> None:
    projector = StiefelProjector(16, ("text",), shared_rank=4, private_rank=4).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert projector.shared_basis.dtype == torch.float32
    assert worst_defect(projector) < 1e-5
    assert projector({"text": torch.randn(1, 2, 16, dtype=torch.bfloat16)}).shared["text"].dtype == torch.bfloat16


def test_batched_levels_equal_separate_ones() -> None:
    levels = [StiefelProjector(12, ("text", "audio"), shared_rank=4, private_rank=3) for _ in range(3)]
    bases = bases_of_levels(levels)
    for projector, shared, private in zip(levels, bases.shared, bases.private, strict=True):
        assert torch.allclose(shared, projector.shared_basis, atol=1e-6)
        assert torch.allclose(private[1], projector.private_basis("audio"), atol=1e-6)


@pytest.mark.parametrize("parametrization", ["cholesky", "geotorch"])
def test_state_dict_round_trip_keeps_the_bases(parametrization: Literal["cholesky", "geotorch"]) -> None:
    first, second = (
        StiefelProjector(8, ("keys", "type"), shared_rank=3, private_rank=2, parametrization=parametrization)
        for _ in range(2)
    )
    second.load_state_dict(first.state_dict())
    assert torch.allclose(first.shared_basis, second.shared_basis, atol=1e-6)
    assert torch.allclose(first.private_basis("type"), second.private_basis("type"), atol=1e-6)


def test_gradients_of_the_bases_are_correct() -> None:
    projector = StiefelProjector(6, ("text",), shared_rank=2, private_rank=2).double()
    weights = (projector.shared_weight, projector.private_weight)

    def bases(shared: torch.Tensor, private: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(
            torch.func.functional_call(projector, {"shared_weight": shared, "private_weight": private}, ({"text": x},))
            .shared["text"]
            .sum()
            for x in (torch.eye(6).double()[None],)
        )

    assert torch.autograd.gradcheck(bases, weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shared_rank": 5, "private_rank": 4}, r"must not exceed dim, got 5 \+ 4 > 8"),
        ({"shared_rank": 0}, "shared_rank must be an integer >= 1, got 0"),
        ({"modalities": ("not a name",)}, "identifiers, got 'not a name'"),
        ({"modalities": ("a", "a")}, "distinct"),
        ({"modalities": ()}, "at least one modality"),
        ({"modalities": "text"}, "single string 'text'"),
        ({"modalities": {"text"}}, r"modalities must be ordered, .* got \{'text'\}"),
        ({"modalities": frozenset({"text"})}, "modalities must be ordered"),
        ({"parametrization": "qr"}, "parametrization must be .* got 'qr'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StiefelProjector(**{"dim": 8, "modalities": ("text",), "shared_rank": 2, "private_rank": 2, **arguments})


def test_unknown_modalities_and_wrong_shapes_are_named() -> None:
    projector = StiefelProjector(8, ("text",), shared_rank=2, private_rank=2)
    with pytest.raises(ValueError, match="audio"):
        projector.private_basis("audio")
    with pytest.raises(ValueError, match=r"\(batch, tokens, 8\), got \(1, 2, 7\)"):
        projector({"text": torch.randn(1, 2, 7)})


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that gets one entry for every computation of frames."""
    calls: list[int] = []

    def counted(shared: torch.Tensor, private: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        return shared_and_private_frames(shared, private)

    monkeypatch.setattr(stiefel, "shared_and_private_frames", counted)
    return calls


def small(**options: Any) -> StiefelProjector:
    return StiefelProjector(8, ("text",), shared_rank=3, private_rank=2, **options)


def write_in_place(projector: StiefelProjector) -> None:
    with torch.no_grad():
        projector.private_weight[0, 1, 0] += 1.0


def take_a_step(projector: StiefelProjector) -> None:
    optimizer = torch.optim.AdamW(projector.parameters(), lr=0.1, fused=True)
    with torch.enable_grad():
        projector.shared_basis[0].sum().backward()
    optimizer.step()


CHANGES: dict[str, Callable[[StiefelProjector], object]] = {
    "in place": write_in_place,
    "a step": take_a_step,
    "a load": lambda projector: projector.load_state_dict(small().state_dict()),
    "through .data": lambda projector: projector.shared_weight.data.add_(torch.randn(8, 3)),
    "another tensor": lambda projector: setattr(projector.shared_weight, "data", torch.randn(8, 3)),
    "another parameter": lambda projector: setattr(projector, "shared_weight", torch.nn.Parameter(torch.randn(8, 3))),
    "to float64": lambda projector: projector.double(),
    "reinitialised": lambda projector: projector.reset_parameters(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("training", [True, False])
def test_bases_follow_their_weights_however_they_change(
    change: Callable[[StiefelProjector], object], training: bool
) -> None:
    """Includes writes through ``.data``, which copy moving averages in and do not raise the version counter."""
    projector = small().train(training)
    with torch.no_grad():
        before = projector.bases()
        change(projector)
        after = projector.bases()
        fresh = shared_and_private_frames(projector.shared_weight, projector.private_weight)
    torch.testing.assert_close(after.shared, fresh[0])
    torch.testing.assert_close(after.private, fresh[1])
    assert not all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_scope_computes_the_bases_once_and_forgets_them_at_its_end(computed: list[int]) -> None:
    levels = torch.nn.ModuleList([small() for _ in range(2)])
    projectors = [level for level in levels if isinstance(level, StiefelProjector)]
    with torch.no_grad():
        with cached_bases(levels):
            first = projectors[0].bases().shared
            assert torch.equal(bases_of_levels(projectors).shared[0], first)
            assert projectors[0].bases().shared is first
            with cached_bases(projectors[0]):
                assert projectors[0].bases().shared is not first
            assert projectors[0].bases().shared is first
            assert len(computed) == 2
        projectors[0].bases()
    assert len(computed) == 3


def prepared_step(projector: StiefelProjector) -> Callable[[], object]:
    """The gradient is computed now, before the scope; a fused optimiser raises no version counter."""
    projector.shared_basis[0].sum().backward()
    return torch.optim.AdamW(projector.parameters(), lr=0.1, fused=True).step


@pytest.mark.parametrize("name", [*CHANGES, "a prepared step"])
def test_bases_are_not_stale_within_a_scope_either(name: str) -> None:
    projector = small()
    step = prepared_step(projector)
    with cached_bases(projector), torch.no_grad():
        before = projector.bases()
        assert projector.bases().shared is before.shared
        if name == "a prepared step":
            step()
        else:
            CHANGES[name](projector)
        after = projector.bases()
        fresh = shared_and_private_frames(projector.shared_weight, projector.private_weight)
    torch.testing.assert_close(after.shared, fresh[0])
    torch.testing.assert_close(after.private, fresh[1])
    assert not all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_within_a_scope_other_weights_and_overwritten_bases_are_noticed() -> None:
    projector = small()
    tokens = {"text": torch.randn(2, 3, 8)}
    weights = {name: torch.randn_like(weight) for name, weight in projector.named_parameters()}
    with cached_bases(projector), torch.no_grad():
        called = torch.func.functional_call(projector, weights, (tokens,)).shared["text"]
        torch.testing.assert_close(called, tokens["text"] @ shared_and_private_frames(*weights.values())[0])
        projector.bases().shared.zero_()
        assert projector.bases().shared.any()


def test_a_scope_takes_projectors_of_different_sizes_devices_and_dtypes() -> None:
    model = torch.nn.ModuleList(
        [
            small(),
            StiefelProjector(16, ("text",), shared_rank=3, private_rank=2),
            StiefelProjector(8, ("text", "audio"), shared_rank=3, private_rank=2),
            small(dtype=torch.float64),
            small(device="meta"),
            small(parametrization="geotorch"),
        ]
    )
    projectors = [projector for projector in model if isinstance(projector, StiefelProjector)]
    with torch.no_grad():
        expected = [projector.bases() for projector in projectors]
        with cached_bases(model):
            for projector, bases in zip(projectors, expected, strict=True):
                assert projector.bases().shared.dtype == bases.shared.dtype
                if bases.shared.device.type != "meta":
                    torch.testing.assert_close(projector.bases().private, bases.private)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("parametrization", ["cholesky", "geotorch"])
def test_bases_of_half_weights_are_orthonormal_to_float32(
    parametrization: Literal["cholesky", "geotorch"], dtype: torch.dtype
) -> None:
    projector = small(parametrization=parametrization, dtype=dtype)
    for _ in range(2):
        assert projector.shared_basis.dtype == torch.float32
        assert worst_defect(projector) < 1e-5
        projector.reset_parameters()


def test_a_training_step_within_a_scope_has_gradients_and_ends_the_scope() -> None:
    """Fused optimisers do not raise the version counter of the weights; the step is recognised by the gradient."""
    projector = small()
    with cached_bases(projector):
        with cached_bases(projector):
            take_a_step(projector)
            with torch.no_grad():
                frame = shared_and_private_frames(*projector.parameters())[0]
                torch.testing.assert_close(projector.bases().shared, frame)
        take_a_step(projector)
        with torch.no_grad():
            frame = shared_and_private_frames(*projector.parameters())[0]
            torch.testing.assert_close(projector.bases().shared, frame)
    assert projector.shared_weight.grad is not None
    assert projector.shared_weight.grad.any()


def test_a_scope_also_ends_on_an_error_and_does_not_cover_copies() -> None:
    projector = small()

    def evaluation_that_fails() -> None:
        with cached_bases(projector), torch.no_grad():
            other = copy.deepcopy(projector)
            write_in_place(other)
            assert not torch.equal(other.bases().private, projector.bases().private)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        evaluation_that_fails()
    write_in_place(projector)
    with torch.no_grad():
        torch.testing.assert_close(projector.bases().shared, shared_and_private_frames(*projector.parameters())[0])


@pytest.mark.parametrize("parametrization", ["cholesky", "geotorch"])
def test_a_scope_works_with_both_parametrizations(parametrization: Literal["cholesky", "geotorch"]) -> None:
    projector = small(parametrization=parametrization)
    with torch.inference_mode():
        expected = projector.bases()
        with cached_bases(projector):
            for basis, cached in zip(expected, projector.bases(), strict=True):
                assert torch.equal(basis, cached)


def test_writing_to_a_returned_basis_changes_nothing() -> None:
    projector = StiefelProjector(8, ("text",), shared_rank=3, private_rank=2).eval()
    with torch.no_grad():
        before = projector.shared_basis
        projector.shared_basis.zero_()
        projector.private_basis("text").zero_()
        assert torch.equal(projector.shared_basis, before)
        assert projector.private_basis("text").any()


def test_bases_work_under_torch_func_transforms() -> None:
    projector = small()
    weights = {name: torch.randn(5, *weight.shape) for name, weight in projector.named_parameters()}
    tokens = {"text": torch.randn(2, 3, 8)}

    def shared_code(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        code: torch.Tensor = torch.func.functional_call(projector, weights, (tokens,)).shared["text"]
        return code

    with torch.no_grad():
        batched = torch.vmap(shared_code)(weights)
        single = shared_code({name: weight[4] for name, weight in weights.items()})
    torch.testing.assert_close(batched[4], single)


def test_no_batch_of_frames_hangs_with_two_threads() -> None:
    """Batched QR, LU and eigendecompositions of these sizes hang under oneMKL: hence a process with a timeout."""
    program = """
import torch
from multifuse.layers.frames import shared_and_private_frames
torch.set_num_threads(2)
for dim in (64, 128, 256, 512):
    shared = torch.randn(4, dim, dim // 2, requires_grad=True)
    private = torch.randn(4, 3, dim, dim // 4, requires_grad=True)
    for _ in range(3):
        frames = shared_and_private_frames(shared, private)
        (frames[0].square().sum() + frames[1].square().sum()).backward()
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "done", done.stderr


@pytest.mark.parametrize("parametrization", ["cholesky", "geotorch"])
def test_fixed_bases_are_those_of_the_weights_and_need_none(parametrization: Literal["cholesky", "geotorch"]) -> None:
    layer = StiefelProjector(8, ("a", "b"), shared_rank=3, private_rank=2, parametrization=parametrization)
    fixed = copy.deepcopy(layer)
    fix_bases(fixed)
    assert list(fixed.parameters()) == []
    torch.testing.assert_close(fixed.shared_basis, layer.shared_basis)
    torch.testing.assert_close(fixed.private_basis("b"), layer.private_basis("b"))
    with cached_bases(fixed):
        tokens = {"a": torch.randn(2, 3, 8)}
        torch.testing.assert_close(fixed(tokens).shared["a"], layer(tokens).shared["a"])


def test_sizes_may_be_integers_of_numpy() -> None:
    projector = StiefelProjector(np.int64(8), ("a",), shared_rank=np.int64(3), private_rank=np.int64(2))  # type: ignore[arg-type]
    assert projector({"a": torch.randn(2, 4, 8)}).shared["a"].shape == (2, 4, 3)
    assert type(projector.dim) is int
