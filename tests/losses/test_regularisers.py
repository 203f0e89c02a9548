"""IntraLevelLoss and InterLevelLoss: each term against its definition, pair by pair."""

from itertools import combinations, permutations
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.nn.functional import cosine_similarity

from multifuse import InterCAD, InterLevelLoss, IntraLevelLoss, WhiteningXCorrLoss
from multifuse._internal import devices
from multifuse._internal.masks import masked_mean
from multifuse.layers import InterCADOutput, IntraCEDOutput
from multifuse.losses.whitening import debiased
from tests.batches import Sizes, Tokens, batch, exchange, padded, sizes

SIZES = Sizes(40, 12, 4, 3, 2, {"text": 5, "vision": 7, "audio": 1})


def sample(drawn: Sizes = SIZES, count: int = 3) -> tuple[list[IntraCEDOutput], InterCADOutput, Tokens]:
    tokens, mask = batch(drawn)
    layer = exchange(drawn)
    levels = [layer({n: torch.roll(v, level, -1) for n, v in tokens.items()}, mask) for level in range(count)]
    torch.manual_seed(3)
    return levels, InterCAD(drawn.dim, drawn.modalities, num_levels=count).eval()(levels, mask), mask


def correlation(x: Tensor, y: Tensor, debias: bool) -> Tensor:
    value = WhiteningXCorrLoss()(x, y)
    rows = torch.tensor(float(len(x)))
    return debiased(value, rows, max(x.shape[1], y.shape[1])) if debias else value


@pytest.mark.parametrize("debias", [True, False])
def test_intra_level_terms_are_the_means_over_levels_and_pairs(debias: bool) -> None:
    levels, _, mask = sample()
    terms = IntraLevelLoss(debias=debias)(levels, mask=mask)
    across, within = [], []
    for level in levels:
        means = {n: masked_mean(code, mask[n]) for n, code in level.private_code.items()}
        across += [correlation(means[a], means[b], debias) for a, b in combinations(means, 2)]
        for name, real in mask.items():
            within.append(correlation(level.shared_code[name][real], level.private_code[name][real], debias))
    assert torch.allclose(terms.private_private, torch.stack(across).mean(), atol=1e-4)
    assert torch.allclose(terms.private_shared, torch.stack(within).mean(), atol=1e-4)
    assert torch.allclose(terms.total, terms.private_private + terms.private_shared)


@pytest.mark.parametrize("debias", [True, False])
def test_inter_level_terms_are_the_means_over_pairs_of_levels(debias: bool) -> None:
    levels, aggregate, mask = sample()
    terms = InterLevelLoss(debias=debias)(levels, aggregate, mask)
    private, shared = [], []
    for name, real in mask.items():
        codes = [(level.shared_code[name][real], level.private_code[name][real]) for level in levels]
        private += [correlation(a[1], b[1], debias) for a, b in combinations(codes, 2)]
        shared += [correlation(a[0], b[1], debias) for a, b in permutations(codes, 2)]
    omega, g = aggregate.level_weights, aggregate.level_descriptors
    mixing = [
        omega[:, a] * omega[:, b] * (1 - cosine_similarity(g[:, a], g[:, b])) / 2 for a, b in combinations(range(3), 2)
    ]
    assert torch.allclose(terms.private_private, torch.stack(private).mean(), atol=1e-4)
    assert torch.allclose(terms.shared_private, torch.stack(shared).mean(), atol=1e-4)
    assert torch.allclose(terms.mixing, torch.stack(mixing).sum(0).mean(), atol=1e-5)
    assert torch.allclose(terms.total, terms.private_private + terms.shared_private + terms.mixing)


def test_one_modality_has_no_pairs_and_one_level_no_inter_loss() -> None:
    one = Sizes(30, 9, 4, 3, 2, {"text": 4})
    levels, aggregate, mask = sample(one, 1)
    intra = IntraLevelLoss()(levels, mask)
    assert float(intra.private_private.detach()) == 0
    assert torch.equal(intra.total, intra.private_shared)
    assert not any(InterLevelLoss()(levels, aggregate, mask))


@given(sizes())
def test_terms_are_finite_with_their_gradients_and_ignore_padding(drawn: Sizes) -> None:
    tokens, mask = batch(drawn)
    layer, aggregation = exchange(drawn), InterCAD(drawn.dim, drawn.modalities, num_levels=2).eval()
    totals = []
    for inputs, input_mask in ((tokens, mask), padded(tokens, mask, 3, 1e3)):
        levels = [layer(inputs, input_mask)] * 2
        aggregate = aggregation(levels, input_mask)
        totals.append(
            IntraLevelLoss(debias=False)(levels, input_mask).total
            + InterLevelLoss(debias=False)(levels, aggregate, input_mask).total
        )
    totals[0].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
    assert torch.allclose(totals[0], totals[1], atol=2e-3)


def test_an_absent_modality_equals_one_left_out() -> None:
    levels, _, mask = sample()
    mask["audio"] = torch.zeros_like(mask["audio"])
    without = [IntraCEDOutput(*({n: v for n, v in f.items() if n != "audio"} for f in level)) for level in levels]
    named = IntraLevelLoss(modalities=("text", "vision", "audio"))
    expected = IntraLevelLoss()(without, mask=mask)
    for ours in (IntraLevelLoss()(levels, mask=mask), named(without, mask=mask)):
        assert torch.allclose(torch.stack(ours), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize("masked", [(), ("text",), ("text", "vision", "audio")])
def test_modalities_of_equal_length_in_one_batch_have_the_terms_and_gradients_of_one_by_one(
    masked: tuple[str, ...],
) -> None:
    levels, aggregate, _ = sample(Sizes(8, 12, 4, 3, 2, {"text": 6, "vision": 6, "audio": 6}))
    mask = {name: torch.rand(8, 6) < 0.7 for name in masked}
    streams = [code for level in levels for codes in level[3:5] for code in codes.values()]

    def results(on_gpu: bool) -> list[Tensor]:
        with patch.object(devices, "is_gpu", lambda device: on_gpu):
            correlations = IntraLevelLoss().correlations(levels, mask)
        terms = IntraLevelLoss.terms(correlations), InterLevelLoss.terms(correlations, aggregate, False)
        total = terms[0].total + terms[1].total
        return [*terms[0], *terms[1], *torch.autograd.grad(total, streams, retain_graph=True)]

    torch.testing.assert_close(results(True), results(False))


def test_bad_arguments_are_named() -> None:
    levels, aggregate, mask = sample()
    with pytest.raises(ValueError, match="levels must hold at least one level"):
        IntraLevelLoss()([])
    with pytest.raises(ValueError, match="aggregate has 3 levels, levels has 2"):
        InterLevelLoss()(levels[:2], aggregate, mask)
    with pytest.raises(ValueError, match="aggregate has batch size 39, levels has 40"):
        InterLevelLoss()(levels, InterCADOutput(*(field[:39] for field in aggregate)), mask)
    with pytest.raises(ValueError, match=r"mask\['text'\] must have shape \(40, 5\), got \(40, 2\)"):
        IntraLevelLoss()(levels, mask={"text": mask["text"][:, :2]})
