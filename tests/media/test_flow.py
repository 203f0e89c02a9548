"""Optical flow: a known motion, the stored bytes, and the layouts and seconds of flow folders."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multifuse.media.decoding import MediaError
from multifuse.media.flow import dis_flow, displacement_bytes, flow_from_folder
from multifuse.recipes.data.media.clip_rows import ClipTask, clip_row
from multifuse.recipes.data.media.media_index import ClipFiles
from multifuse.recipes.data.media.preparation_options import PreparationOptions
from multifuse.recipes.data.split_lists.clips import Clip
from tests import media_files


def test_displacements_become_the_bytes_of_two_stream_networks() -> None:
    displacements = np.array([-30, -20, 0, 10, 20, 30], np.float32)
    assert displacement_bytes(displacements).tolist() == [0, 0, 128, 191, 255, 255]


def test_a_square_that_moves_right_flows_right() -> None:
    random = np.random.default_rng(0)
    pattern = np.repeat(np.repeat(random.integers(0, 255, (16, 16)), 4, 0), 4, 1).astype(np.uint8)
    before = np.stack([pattern] * 3, -1)
    after = np.roll(before, 3, axis=1)
    flow = dis_flow(before, after)
    assert flow.shape == (64, 64, 2)
    inner = flow[16:-16, 16:-16]
    assert np.median(inner[..., 0]) == pytest.approx(displacement_bytes(np.array([3], np.float32))[0], abs=2)
    assert np.median(inner[..., 1]) == pytest.approx(128, abs=2)


def test_frames_too_small_for_dis_are_refused_before_a_clip_is_read() -> None:
    with pytest.raises(ValueError, match="frame_size must be an integer >= 12 for optical flow by DIS, got 11"):
        PreparationOptions(frame_size=11, flow="dis")
    smallest = PreparationOptions(frame_size=12, flow="dis").frame_size
    frame = np.zeros((smallest, smallest, 3), np.uint8)
    assert dis_flow(frame, frame).shape == (12, 12, 2)
    assert PreparationOptions(frame_size=11, flow="folder").flow == "folder"


@pytest.mark.parametrize(
    "layout", ["u/{stem}/frame{n:06d}.jpg", "tvl1_flow/u/{stem}/{n}.png", "{stem}/flow_x_{n:05d}.jpg"]
)
def test_folders_of_every_layout_are_read(tmp_path: Path, layout: str) -> None:
    stem = "v_Archery_g01_c01"
    for number in range(1, 11):
        for axis, value in (("u", 10 * number), ("v", 200 - 10 * number)):
            named = layout.replace("u/", f"{axis}/").replace("flow_x", "flow_x" if axis == "u" else "flow_y")
            path = tmp_path / named.format(stem=stem, n=number)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (20, 10), value).save(path)
    flows = flow_from_folder(tmp_path, stem, 2, 8)
    assert [flow.shape for flow in flows] == [(8, 8, 2)] * 2
    # The middles of the two halves: files 3 and 8.
    for flow, number in zip(flows, (3, 8), strict=True):
        np.testing.assert_allclose(flow.mean((0, 1)), [10 * number, 200 - 10 * number], atol=2)
    assert len(flow_from_folder(tmp_path, stem, 99, 8)) == 10


@pytest.mark.parametrize(("seconds", "skipped"), [(4.0, 0), (4.0, 1), (1.3, 0), (10.0, 0), (99.0, 1)])
def test_flow_is_of_the_same_seconds_as_the_frames(tmp_path: Path, seconds: float, skipped: int) -> None:
    film = media_files.video(tmp_path / "clip.avi", count=31, codec="ffv1", rate=5)
    for axis in "uv":
        (tmp_path / axis / "clip").mkdir(parents=True)
        for number in range(31 - skipped):
            Image.new("L", (16, 16), 8 * number).save(tmp_path / axis / "clip" / f"frame{number + 1:06d}.png")
    options = PreparationOptions(
        None, frames=4, frame_size=16, frame_seconds=seconds, flow="folder", image_format="png"
    )
    result = clip_row(ClipTask(Clip("clip", 0, "train"), ClipFiles((film,), ()), options, tmp_path))
    assert result.row is not None, result.reason
    frames, flow = ([_brightness(image) / 8 for image in result.row[name]] for name in ("frames", "flow"))
    assert flow == pytest.approx(frames, abs=1.2), "the numbers of the frames that are shown"


def _brightness(image: dict[str, bytes]) -> float:
    """Returns the mean of the first channel."""
    return float(np.asarray(Image.open(io.BytesIO(image["bytes"])))[..., 0].mean())


def test_folders_with_unpaired_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="flow files for the same frames, has 0 and 0"):
        flow_from_folder(tmp_path, "clip", 2, 8)
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip/flow_x_1.jpg").write_bytes(b"no picture")
    with pytest.raises(MediaError, match="flow files for the same frames, has 1 and 0"):
        flow_from_folder(tmp_path, "clip", 2, 8)
    (tmp_path / "clip/flow_y_1.jpg").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"unreadable flow file flow_x_1\.jpg"):
        flow_from_folder(tmp_path, "clip", 2, 8)
