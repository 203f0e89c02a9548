"""The page: an Explanation as one self-contained HTML file, from a template that escapes every text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.explanation.gathered import Explanation
from multifuse.recipes.explanation.maps import FEWEST_POINTS, StreamMap, stream_maps
from multifuse.recipes.explanation.sweeps import Sweep
from multifuse.recipes.explanation.weights import weight_tables
from multifuse.version import __version__

if TYPE_CHECKING:
    from jinja2 import Template

# Of middle lightness, so that they can be told from a light and from a dark background.
_COLOURS = (
    "#3f7fd9",
    "#d9772b",
    "#2b9c6e",
    "#b455b0",
    "#a98f1f",
    "#d1495b",
    "#2a9db3",
    "#8a6bd1",
    "#7d8f2e",
    "#b0765a",
)
_OTHER = "#8c8c8c"
_LOW, _MIDDLE, _HIGH = np.array([47, 111, 214]), np.array([140, 140, 140]), np.array([214, 83, 43])


@dataclass(frozen=True)
class _Scatter:
    """A map with a colour for every point."""

    title: str
    points: tuple[tuple[float, float, str], ...]
    legend: tuple[tuple[str, str], ...]
    """Names and colours."""


def page(explanation: Explanation, sweeps: Sequence[Sweep] = ()) -> str:
    """Returns the HTML page, which loads nothing, runs nothing, and is the same for the same arguments."""
    return _template().render(
        explanation=explanation,
        scatters=[scatter for streams in stream_maps(explanation) for scatter in _scatters(explanation, streams)],
        fewest_points=FEWEST_POINTS,
        tables=weight_tables(explanation),
        sweeps=sweeps,
        version=__version__,
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("multifuse.recipes.explanation", package_path="")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": _share, "percent": _percent}
    return environment.get_template("page.html")


def _share(value: float) -> str:
    if np.isnan(value):
        return "none"
    return f"{value:.2f}" if value == 0 or value >= 0.005 else f"{value:.0e}"


def _percent(value: float) -> str:
    return "none" if np.isnan(value) else f"{100 * value:.0f} %"


def _scatters(explanation: Explanation, streams: StreamMap) -> tuple[_Scatter, _Scatter]:
    labels = explanation.labels[streams.unit]
    if explanation.classes is None:
        colours, legend = _score_colours(labels)
        by = "score"
    else:
        colours, legend = _class_colours(labels, explanation.classes)
        by = "class"
    palette = _colours(len(explanation.modalities))
    modalities = [palette[index] for index in streams.modality]
    return (
        _scatter(f"{streams.stream} streams by modality", streams, modalities, zip(explanation.modalities, palette)),
        _scatter(f"{streams.stream} streams by {by}", streams, colours, legend),
    )


def _scatter(title: str, streams: StreamMap, colours: Sequence[str], legend: Any) -> _Scatter:
    places = (400 * streams.points).round(1).tolist()
    points = tuple((x, 400 - y, colour) for (x, y), colour in zip(places, colours, strict=True))
    return _Scatter(title, points, tuple(legend))


def _colours(count: int) -> list[str]:
    """Returns a colour for each of the first ten, and one for all others."""
    return [*_COLOURS[:count], *[_OTHER] * (count - len(_COLOURS))]


def _class_colours(labels: NDArray[Any], classes: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Colours the classes that occur most; those of all others are alike."""
    occurring, counts = np.unique(labels, return_counts=True)
    by_count = [int(occurring[place]) for place in np.argsort(-counts, kind="stable")]
    named = sorted(by_count[: len(_COLOURS)])
    colours = dict(zip(named, _COLOURS))
    legend = [(classes[index], colour) for index, colour in colours.items()]
    if len(by_count) > len(named):
        legend.append((f"{len(by_count) - len(named)} other classes", _OTHER))
    return [colours.get(int(label), _OTHER) for label in labels], legend


def _score_colours(labels: NDArray[Any]) -> tuple[list[str], list[tuple[str, str]]]:
    """Colours scores from blue, the lowest, over grey, 0, to red, the highest."""
    most = float(np.abs(labels).max()) or 1.0

    def colour(share: float) -> str:
        end = _HIGH if share > 0 else _LOW
        red, green, blue = (_MIDDLE + abs(share) * (end - _MIDDLE)).round().astype(int)
        return f"#{red:02x}{green:02x}{blue:02x}"

    legend = [(f"{share * most:+.1f}" if share else "0", colour(share)) for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    return [colour(float(label) / most) for label in labels], legend
