"""Maps of the streams: which points they have, few samples, and equal streams."""

from dataclasses import replace

import numpy as np
import pytest

from multifuse.recipes.explanation.maps import stream_maps
from tests.recipes.explanation.explanations import explanation


def test_every_present_modality_of_a_labelled_unit_is_a_point() -> None:
    whole = explanation(lacking=True, segments=4, classes=3)
    for streams in stream_maps(whole):
        found = set(zip(streams.unit.tolist(), streams.modality.tolist()))
        present = whole.aggregates.present & (whole.labels != -100)[:, None]
        assert found == set(zip(*(indices.tolist() for indices in np.nonzero(present))))
        assert len(streams.points) == len(found)
        assert np.isfinite(streams.points).all()
        low, high = streams.points.min(axis=0), streams.points.max(axis=0)
        np.testing.assert_allclose((low + high) / 2, 0.5, err_msg="the points are not centred")
        assert (high - low).max() == pytest.approx(1)


def test_fewer_than_five_points_give_no_map_and_five_do() -> None:
    assert stream_maps(explanation(samples=4, modalities=1)) == ()
    assert [len(streams.points) for streams in stream_maps(explanation(samples=5, modalities=1))] == [5, 5]
    assert [len(streams.points) for streams in stream_maps(explanation(samples=3, modalities=2))] == [6, 6]


def test_large_splits_are_thinned_evenly_to_600_points() -> None:
    small = explanation(samples=12, modalities=2, hidden_size=16)
    aggregates = small.aggregates._replace(
        present=np.ones((5000, 2), bool),
        shared=np.random.default_rng(0).normal(size=(5000, 2, 3)).astype(np.float32),
        private=np.zeros((5000, 2, 3), np.float32),  # equal streams have no directions for PCA
    )
    shared, private = stream_maps(replace(small, labels=np.zeros(5000), aggregates=aggregates))
    for streams in (shared, private):
        assert len(streams.points) == 600
        assert np.isfinite(streams.points).all()
        gaps = np.diff(np.unique(streams.unit))
        assert (streams.unit.min(), streams.unit.max()) == (0, 4999)
        assert gaps.max() - gaps.min() <= 1
