"""Maps of the pooled streams in two dimensions, by t-SNE."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.explanation.gathered import Explanation

MOST_POINTS = 600
FEWEST_POINTS = 5


@dataclass(frozen=True)
class StreamMap:
    """P points, each the pooled stream of one modality of one sample or segment."""

    stream: str
    points: NDArray[np.float64]
    """(P, 2), in [0, 1], with one scale for both axes, and centred."""
    modality: NDArray[np.int64]
    """(P,): the index of the modality."""
    unit: NDArray[np.int64]
    """(P,): the index of the sample or segment."""


def stream_maps(explanation: Explanation) -> tuple[StreamMap, ...]:
    """Maps the shared and the private streams; none of a stream with fewer than five points.

    Samples without a label are left out, and of the others at most as many are kept, evenly spaced, as give 600 points.
    """
    labelled = np.flatnonzero(explanation.labelled)
    most = max(1, MOST_POINTS // len(explanation.modalities))
    units = labelled[np.unique(np.linspace(0, len(labelled) - 1, min(most, len(labelled))).round().astype(np.int64))]
    rows, modality = np.nonzero(explanation.aggregates.present[units])
    if len(rows) < FEWEST_POINTS:
        return ()
    streams = {"shared": explanation.aggregates.shared, "private": explanation.aggregates.private}
    return tuple(
        StreamMap(name, _embedded(stream[units[rows], modality]), modality, units[rows])
        for name, stream in streams.items()
    )


def _embedded(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    constant = float(vectors.std(axis=0).max()) < 1e-6  # nothing for PCA to start from
    with threadpool_limits(1):  # sums over several threads would differ from run to run
        points = TSNE(
            perplexity=min(30.0, (len(vectors) - 1) / 3), init="random" if constant else "pca", random_state=0
        ).fit_transform(vectors)
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    centred: NDArray[np.float64] = (points - (low + high) / 2) / max(float((high - low).max()), 1e-12)
    return centred + 0.5
