"""Films and pictures are read as a player shows them: turned and mirrored as the file says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from multifuse.media.decoding import read_frames
from multifuse.media.flow import BOUND, dis_flow
from multifuse.recipes.data.media.planted_media import write_video
from tests import people_files

SIDE = 32
Turn = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
TURNS: dict[str, tuple[tuple[int, int, int, int], Turn]] = {
    "upright": ((1, 0, 0, 1), lambda image: image),
    "90 to the right": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "90 to the left": ((0, -1, 1, 0), np.rot90),
    "left to right": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "along the diagonal": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "along the other diagonal": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}
ORIENTATIONS = {
    1: "upright",
    2: "left to right",
    3: "180",
    4: "upside down",
    5: "along the diagonal",
    6: "90 to the right",
    7: "along the other diagonal",
    8: "90 to the left",
}


def quarters(width: int = SIDE, height: int = SIDE) -> NDArray[np.uint8]:
    """A picture whose quarters all differ in brightness."""
    image = np.zeros((height, width, 3), np.uint8)
    for row in range(2):
        for column in range(2):
            image[row * height // 2 :, column * width // 2 :] = 40 + 60 * (2 * row + column)
    return image


def levels(image: NDArray[np.uint8]) -> list[int]:
    """The brightness in the middle of each quarter."""
    half = len(image) // 2
    return [round(float(image[y : y + half, x : x + half].mean()) / 60) for y in (0, half) for x in (0, half)]


@pytest.mark.parametrize("name", TURNS)
def test_a_film_is_turned_as_its_display_matrix_says(tmp_path: Path, name: str) -> None:
    matrix, turned = TURNS[name]
    path = tmp_path / "a.mp4"
    write_video(path, np.stack([quarters(96, 64)] * 5), codec="mpeg4")
    people_files.with_matrix(path, *matrix)
    frames = read_frames(path, 2, SIDE, 10.0, successors=True)
    for image in [*frames.images, *frames.successors]:
        assert levels(image) == levels(turned(quarters()))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_picture_is_turned_as_its_exif_orientation_says(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(quarters(96, 64)).save(tmp_path / f"a.{suffix}", exif=exif)
    (image,) = read_frames(tmp_path / f"a.{suffix}", 1, SIDE, 10.0).images
    assert levels(image) == levels(TURNS[ORIENTATIONS[orientation]][1](quarters()))


def test_the_flow_of_a_turned_film_is_that_of_what_is_seen(tmp_path: Path) -> None:
    """In the file a square moves to the right; turned to the right it moves down."""
    pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    texture = random.integers(0, 255, (24, 24, 3)).astype(np.uint8)
    images = np.full((6, 64, 64, 3), 100, np.uint8)
    for number in range(6):
        images[number, 20:44, 8 + 3 * number : 32 + 3 * number] = texture
    path = tmp_path / "a.mp4"
    write_video(path, images, codec="mpeg4")
    people_files.with_matrix(path, 0, 1, -1, 0)
    frames = read_frames(path, 1, 64, 10.0, successors=True)
    flow = (dis_flow(frames.images[0], frames.successors[0]).astype(float) - 128) * BOUND / 127.5
    inside = flow[20:36, 26:38]
    assert inside[..., 1].mean() == pytest.approx(3, abs=0.7)
    assert inside[..., 0].mean() == pytest.approx(0, abs=0.7)


def test_a_damaged_orientation_leaves_the_picture_as_it_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    Image.fromarray(quarters()).save(tmp_path / "a.jpg", exif=exif)
    (image,) = read_frames(tmp_path / "a.jpg", 1, SIDE, 10.0).images
    assert levels(image) == levels(quarters())
