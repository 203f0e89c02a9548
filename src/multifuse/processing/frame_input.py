"""FrameInput: how a video or image becomes the frames, or the optical flow, that a model was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multifuse._internal import checks
from multifuse._internal.plain import make_fields_plain


@dataclass(frozen=True)
class FrameInput:
    """Reads the frame at the centre of each of the equal parts of a video's start, or an image as one frame.

    Args:
        count: the most frames, F, that are taken from a video; the exact number with ``every_part``.
        size: H and W, to which the frames of a file are scaled, whatever their aspect ratio.
        seconds: the length of the part of the video, from its start, from which frames are taken.
        every_part: whether a video that ends early has a frame for every part of ``seconds``, for models of segments.
        flow: whether the input is optical flow instead of frames: computed by ``"dis"``, or always ``"given"``, for
            models that were trained on flow from elsewhere.

    Shape:
        A path, or uint8 (F, H, W, 3), (F, H, W, 2) of flow -> uint8 (F, 3, H, W), or (F, 2, H, W) of flow. An array
        keeps all its frames, whatever ``count`` and ``every_part`` are: they have been chosen already. For a model of
        segments they must be evenly spaced over ``seconds``, since a segment gets the frames of its part.

    Raises:
        ValueError: a file that cannot be decoded, or an array of another type or size.

    Example:
        >>> FrameInput(size=8)(torch.zeros(5, 8, 8, 3, dtype=torch.uint8)).shape
        torch.Size([5, 3, 8, 8])
    """

    kind: ClassVar[str] = "frames"

    count: int = 10
    size: int = 224
    seconds: float = 10.0
    every_part: bool = False
    flow: Literal["dis", "given"] | None = None

    def __post_init__(self) -> None:
        make_fields_plain(self)
        checks.positive_integer("count", self.count)
        checks.positive_integer("size", self.size)
        checks.positive_number("seconds", self.seconds)
        checks.choice("flow", self.flow, (None, "dis", "given"))

    def __call__(self, value: Any) -> Tensor:
        if isinstance(value, str | Path) and self.flow != "given":
            images = self._read(Path(value))
        else:
            images = self._checked(np.asarray(value))
        if not len(images):
            return torch.zeros(0, 2, 1, 1, dtype=torch.uint8)
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()

    def _read(self, path: Path) -> list[NDArray[np.uint8]]:
        from multifuse.media.decoding import read_frames
        from multifuse.media.flow import dis_flow

        frames = read_frames(
            path, self.count, self.size, self.seconds, successors=self.flow == "dis", absolute=self.every_part
        )
        if self.flow is None:
            return frames.images
        return [dis_flow(*pair) for pair in zip(frames.images, frames.successors, strict=True)]

    def _checked(self, values: NDArray[Any]) -> list[NDArray[np.uint8]]:
        channels = 3 if self.flow is None else 2
        if values.dtype != np.uint8 or values.ndim != 4 or values.shape[1:] != (self.size, self.size, channels):
            what = {None: "a path, or frames", "dis": "a path, or flow", "given": "flow"}[self.flow]
            raise ValueError(
                f"must be {what} (F, {self.size}, {self.size}, {channels}) in uint8, got {values.dtype} {values.shape}"
            )
        return list(values)
