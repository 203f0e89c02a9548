"""The regularisers of shared-private fusion: small cases by hand, absent modalities, and samples on several ranks."""

from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from multifuse.baselines.shared_private_terms import difference, reconstruction, similarity


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def everywhere(vectors: Tensor) -> Tensor:
    return torch.ones(vectors.shape[:2], dtype=torch.bool)


def test_similarity_is_the_sum_of_the_distances_of_five_moments() -> None:
    """The values 0 and 1 have mean 1/2 and central moments 1/4, 0, 1/16, 0; the constant 1/4 has only a mean."""
    shared = torch.stack([column(0, 1), column(0.25, 0.25)], dim=1).unsqueeze(-1)
    expected = 1 / 4 + 1 / 4 + 0 + 1 / 16 + 0
    assert float(similarity(shared, everywhere(shared))) == pytest.approx(expected)


def test_similarity_takes_distances_over_features_and_means_over_pairs() -> None:
    """Constants have only means: at (0, 0), (3, 4) / 10 and (0, 0), the distances are 0.5, 0 and 0.5."""
    shared = torch.stack([column(0, 0), column(0.3, 0.4), column(0, 0)]).expand(6, 3, 2)
    assert float(similarity(shared, everywhere(shared))) == pytest.approx(1 / 3)
    present = everywhere(shared)
    present[:, 1] = False
    assert float(similarity(shared, present)) == 0.0
    present = everywhere(shared)
    present[:, 2] = False
    assert float(similarity(shared, present)) == pytest.approx(0.5), "an absent modality is in no pair"


def test_difference_is_the_mean_square_of_the_product_of_unit_rows() -> None:
    """With one modality, private rows (2, 0) and (-2, 0) are centred, and scaled to (1, 0) and (-1, 0)."""
    private = torch.stack([column(2, 0), column(-2, 0)]).unsqueeze(1)
    assert float(difference(private, private, everywhere(private))) == pytest.approx(2**2 / 4, rel=1e-5)
    turned = torch.stack([column(1, 5), column(1, 5)]).unsqueeze(1)
    assert float(difference(turned, private, everywhere(private))) == 0.0, "constant rows are centred away"
    half = torch.stack([column(1, 1), column(-1, -1)]).unsqueeze(1)
    assert float(difference(half, private, everywhere(private))) == pytest.approx(2 * (2 / 2**0.5) ** 2 / 4, rel=1e-5)


def test_difference_sums_shared_private_pairs_and_pairs_of_private_vectors() -> None:
    rows = torch.stack([column(2, 0), column(-2, 0)])
    private = torch.stack([rows, rows, rows], dim=1)
    assert float(difference(private, private, everywhere(private))) == pytest.approx(6.0, rel=1e-5)
    present = everywhere(private)
    present[:, 2] = False
    assert float(difference(private, private, present)) == pytest.approx(3.0, rel=1e-5)


def test_reconstruction_averages_over_present_modalities() -> None:
    vectors = torch.zeros(2, 2, 3)
    decoded = torch.tensor([[1.0, 2.0], [3.0, 100.0]]).unsqueeze(-1).expand(2, 2, 3)
    present = torch.tensor([[True, True], [True, False]])
    assert float(reconstruction(decoded, vectors, present)) == pytest.approx((1 + 4 + 9) / 3)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shared, private = (torch.rand(6, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    present = torch.rand(6, 3, generator=generator) < 0.8
    return shared.requires_grad_(), private.requires_grad_(), present


def losses(shared: Tensor, private: Tensor, present: Tensor) -> dict[str, Tensor]:
    return {
        "similarity": similarity(shared, present, synchronise=True),
        "difference": difference(shared, private, present, synchronise=True),
        "reconstruction": reconstruction(shared, private, present, synchronise=True),
    }


def losses_of_rank(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    rows = slice(0, 2) if rank == 0 else slice(2, 6)
    shared, private, present = inputs()
    values = losses(shared[rows], private[rows], present[rows])
    sum(values.values()).backward()  # type: ignore[union-attr]
    torch.save(
        ({name: value.detach() for name, value in values.items()}, shared.grad, private.grad), folder / f"{rank}"
    )
    distributed.destroy_process_group()


def test_two_ranks_compute_the_losses_of_all_their_samples(tmp_path: Path) -> None:
    shared, private, present = inputs()
    expected = losses(shared, private, present)
    sum(expected.values()).backward()  # type: ignore[union-attr]
    spawn(losses_of_rank, (tmp_path,), nprocs=2)
    ranks = [torch.load(tmp_path / str(rank)) for rank in range(2)]
    for values, _, _ in ranks:
        torch.testing.assert_close(values, {name: value.detach() for name, value in expected.items()})
    # DistributedDataParallel averages over the ranks, each of which holds the gradient of both.
    torch.testing.assert_close((ranks[0][1] + ranks[1][1]) / 2, shared.grad)
    torch.testing.assert_close((ranks[0][2] + ranks[1][2]) / 2, private.grad)
