"""Optical flow in bytes, two channels a frame: read from a folder computed before, or computed by OpenCV's DIS."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifuse.recipes.data.media.decoding import Bytes, MediaError

BOUND = 20.0
"""A displacement of -BOUND to BOUND pixels becomes a byte of 0 to 255, as two-stream networks store it."""

_NUMBER = re.compile(r"(\d+)\D*$")


def displacement_bytes(displacement: NDArray[np.float32]) -> Bytes:
    """Displacements in pixels as bytes; none is 128."""
    return np.asarray(np.clip(np.floor(displacement * (127.5 / BOUND) + 128), 0, 255), np.uint8)


def dis_flow(image: Bytes, successor: Bytes) -> Bytes:
    """The flow (H, W, 2) from one frame (H, W, 3) to the next: x, then y, in bytes.

    By dense inverse search (Kroeger et al., ECCV 2016), OpenCV's medium preset.
    """
    cv2: Any = importlib.import_module("cv2")
    before, after = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (image, successor))
    found = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, None)
    return displacement_bytes(np.asarray(found, np.float32))


def flow_from_folder(root: Path, stem: str, count: int, size: int) -> list[Bytes]:
    """At most ``count`` flows (size, size, 2) of a clip, in the middle of as many equal parts.

    Two layouts are known: ``u/STEM/frame000001.jpg`` with ``v/STEM/...`` (the TV-L1 release of Feichtenhofer), also as
    ``tvl1_flow/u/...``, and ``STEM/flow_x_00001.jpg`` with ``STEM/flow_y_00001.jpg`` (TSN).

    Raises:
        MediaError: no such folder, or one whose two channels do not pair.
    """
    pairs = _pairs(root, stem)
    chosen = sorted({int((part + 0.5) * len(pairs) / count) for part in range(count)})
    return [np.stack([_gray(path, size) for path in pairs[index]], axis=-1) for index in chosen]


def _pairs(root: Path, stem: str) -> list[tuple[Path, Path]]:
    for parent in (root, root / "tvl1_flow"):
        if (parent / "u" / stem).is_dir():
            across, down = _numbered(parent / "u" / stem, ""), _numbered(parent / "v" / stem, "")
            break
    else:
        across, down = _numbered(root / stem, "flow_x"), _numbered(root / stem, "flow_y")
    if not across or across.keys() != down.keys():
        raise MediaError(f"has flow files of {len(across)} frames across and {len(down)} down, which must pair")
    return [(across[number], down[number]) for number in sorted(across)]


def _numbered(folder: Path, prefix: str) -> dict[int, Path]:
    """The pictures of a folder by the number that ends their name."""
    found = {}
    for path in folder.glob(f"{prefix}*"):
        number = _NUMBER.search(path.stem)
        if number and path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            found[int(number[1])] = path
    return found


def _gray(path: Path, size: int) -> Bytes:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L").resize((size, size), Image.Resampling.BILINEAR), np.uint8)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise MediaError(f"flow file {path.name} cannot be read: {' '.join(str(error).split())}") from None
