"""Turns decoded frames upright: applies the rotation and mirroring that a file asks its player for."""

import struct
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

_MATRIX = struct.Struct("=9i")
_ORIENTATION = 0x0112
_Linear = tuple[int, int, int, int]
"""a, b, c and d, where (x, y) is shown at (a x + c y, b x + d y)."""
_AS_STORED = (1, 0, 0, 1)
_BY_ORIENTATION: dict[int, _Linear] = {
    1: _AS_STORED,
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
_BY_ROTATION: dict[int, _Linear] = {0: _AS_STORED, 1: (0, -1, 1, 0), 2: (-1, 0, 0, -1), 3: (0, 1, -1, 0)}


def upright(image: NDArray[np.uint8], frame: VideoFrame, path: Path) -> NDArray[np.uint8]:
    """Returns an image (height, width, channels) of a frame of the file ``path`` as a player shows it.

    FFmpeg attaches a display matrix to every frame, made from the track header of a film or from the EXIF orientation
    of a picture. Angles are rounded to right angles.
    """
    a, b, c, d = _linear_part(frame, path)
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, horizontal, vertical = image.swapaxes(0, 1), c, b
    else:
        horizontal, vertical = a, d
    if horizontal < 0:
        image = image[:, ::-1]
    if vertical < 0:
        image = image[::-1]
    return np.ascontiguousarray(image)


def _linear_part(frame: VideoFrame, path: Path) -> _Linear:
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know the type of another piece of side data, such as EXIF
        orientation = _exif_orientation(path)
        return _BY_ORIENTATION.get(orientation, _BY_ROTATION[round(frame.rotation / 90) % 4])
    content = b"" if matrix is None else bytes(matrix)  # type: ignore[call-overload]
    if len(content) < _MATRIX.size:
        return _AS_STORED
    a, b, _, c, d, *_ = _MATRIX.unpack_from(content)
    return a, b, c, d


def _exif_orientation(path: Path) -> int:
    """Returns a picture's EXIF orientation, 1 to 8, or 0 if it has none that can be read."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return int(picture.getexif().get(_ORIENTATION, 0))
    except Exception:  # Pillow's readers raise many kinds of errors on damaged files; the frame itself was decoded
        return 0
