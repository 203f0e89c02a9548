"""Optical flow as bytes, two channels per frame: computed by OpenCV's DIS, or read from precomputed files."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifuse.media.decoding import MediaError
from multifuse.media.frame_selection import Bytes

BOUND = 20.0
"""Displacements from -BOUND to BOUND pixels are mapped to bytes from 0 to 255, as two-stream networks store them."""

_NUMBER = re.compile(r"(\d+)\D*$")


def displacement_bytes(displacement: NDArray[np.float32]) -> Bytes:
    """Converts displacements in pixels to bytes; no displacement is 128."""
    return np.asarray(np.clip(np.floor(displacement * (127.5 / BOUND) + 128), 0, 255), np.uint8)


def dis_flow(image: Bytes, successor: Bytes) -> Bytes:
    """Computes the flow (H, W, 2), x then y, in bytes, from one frame (H, W, 3) to the next.

    Uses dense inverse search (Kroeger et al., ECCV 2016) with OpenCV's medium preset.
    """
    cv2: Any = importlib.import_module("cv2")
    before, after = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (image, successor))
    displacement = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, None)
    return displacement_bytes(np.asarray(displacement, np.float32))


def flow_from_folder(root: Path, stem: str, count: int, size: int, share: float = 1.0) -> list[Bytes]:
    """Reads a clip's flow (size, size, 2) at the centres of ``count`` equal parts, ``count`` images at most.

    The images of the folder cover the whole clip evenly; the parts are those of its first ``share``, at most 1.

    Two layouts are supported: ``u/STEM/frame000001.jpg`` with ``v/STEM/...``, optionally below ``tvl1_flow/``
    (Feichtenhofer's TV-L1 release), and ``STEM/flow_x_00001.jpg`` with ``STEM/flow_y_00001.jpg`` (TSN).

    Raises:
        MediaError: if the clip has no flow, its two channels do not cover the same frames, or a file is unreadable.
    """
    pairs = _pairs(root, stem)
    chosen = sorted({int((part + 0.5) * share * len(pairs) / count) for part in range(count)})
    return [np.stack([_grey(path, size) for path in pairs[index]], axis=-1) for index in chosen]


def flow_files(root: Path, stem: str) -> list[Path]:
    """Returns the files of a clip's flow, those of the horizontal channel first, each in the order of their numbers."""
    return [channel[number] for channel in _channels(root, stem) for number in sorted(channel)]


def _pairs(root: Path, stem: str) -> list[tuple[Path, Path]]:
    horizontal, vertical = _channels(root, stem)
    if not horizontal or horizontal.keys() != vertical.keys():
        raise MediaError(
            f"must have horizontal and vertical flow files for the same frames, has {len(horizontal)} and "
            f"{len(vertical)}"
        )
    return [(horizontal[number], vertical[number]) for number in sorted(horizontal)]


def _channels(root: Path, stem: str) -> tuple[dict[int, Path], dict[int, Path]]:
    """Returns the horizontal and the vertical images of a clip, by their numbers; it may have none."""
    for parent in (root, root / "tvl1_flow"):
        if (parent / "u" / stem).is_dir():
            return _numbered(parent / "u" / stem, ""), _numbered(parent / "v" / stem, "")
    return _numbered(root / stem, "flow_x"), _numbered(root / stem, "flow_y")


def _numbered(folder: Path, prefix: str) -> dict[int, Path]:
    """Returns the images of a folder by the last number in their names."""
    images = {}
    for path in folder.glob(f"{prefix}*"):
        number = _NUMBER.search(path.stem)
        if number and path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            images[int(number[1])] = path
    return images


def _grey(path: Path, size: int) -> Bytes:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L").resize((size, size), Image.Resampling.BILINEAR), np.uint8)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"has an unreadable flow file {path.name}: {' '.join(str(error).split())}") from None
