"""``multifuse train {cremad,ks,ave,ucf101,av_digits}``: the arguments of the audio-visual benchmarks."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from multifuse.recipes.commands.training_options import add_training_options, training_options

if TYPE_CHECKING:
    from multifuse.recipes.data.media.audiovisual_sets import AudioVisualSet
    from multifuse.recipes.jobs.audiovisual import AudioVisualJob


def job(data_set: "AudioVisualSet", given: Sequence[str]) -> "Callable[[], AudioVisualJob]":
    """Parses the arguments; the job itself is made when it is called."""
    parsed = _parser(data_set).parse_args(given)
    return lambda: _job(data_set, parsed)


def _parser(data_set: "AudioVisualSet") -> argparse.ArgumentParser:
    from multifuse.recipes.commands.prepare import add_options

    parser = argparse.ArgumentParser(
        prog=f"multifuse train {data_set.name}",
        description=f"Trains on {data_set.title}, from the media files and split lists or from a prepared set; without "
        "either, on a few synthetic clips, to show the job from end to end.",
    )
    if data_set.one_folder:
        parser.add_argument("--data", type=Path, required=True, help="folder of the data set as distributed")
    else:
        parser.add_argument("--data", type=Path, help="folder that multifuse prepare wrote")
        parser.add_argument("--media", type=Path, help="folder of the media files, which are prepared first")
        parser.add_argument("--splits", type=Path, help="folder of the published split lists, with --media")
    parser.add_argument(
        "--prepared", type=Path, help="where the media are prepared, or were (default: prepared in --output)"
    )
    parser.add_argument("--modalities", nargs="+", choices=("audio", "vision", "flow"), help="default: all of the set")
    for name in ("audio", "vision"):
        parser.add_argument(
            f"--{name}-backbone",
            help="Hugging Face name or folder, loaded with its weights; or resnet-18 (default) or resnet-small, from "
            "scratch",
        )
    if data_set.name == "ave":
        parser.add_argument(
            "--localise", action="store_true", help="a class for each second, background among them, not for the clip"
        )
    add_training_options(parser, data_set.name)
    add_options(parser, data_set)
    return parser


def _job(data_set: "AudioVisualSet", given: argparse.Namespace) -> "AudioVisualJob":
    from multifuse.models.configuration_clcr import SCRATCH
    from multifuse.recipes.jobs.audiovisual import AudioVisualJob
    from multifuse.recipes.jobs.recipe import clip_recipe

    media = given.data if data_set.one_folder else given.media
    splits = given.data if data_set.one_folder else given.splits
    data = None if data_set.one_folder else given.data
    synthetic = media is None and data is None
    _check_sources(data, media, splits)
    network = "resnet-small" if synthetic else data_set.network
    audio, vision = given.audio_backbone or network, given.vision_backbone or network
    return AudioVisualJob(
        **training_options(given, data_set.name),
        data_set=data_set,
        data=data,
        prepare=None if data is not None else _prepare(data_set, given, media, splits),
        synthetic=synthetic,
        target="segments" if getattr(given, "localise", False) else "label",
        modalities=None if given.modalities is None else tuple(given.modalities),
        audio_backbone=audio,
        vision_backbone=vision,
        default_recipe=clip_recipe(data_set.name, synthetic, not {audio, vision} <= set(SCRATCH)),
    )


def _check_sources(data: Path | None, media: Path | None, splits: Path | None) -> None:
    from multifuse.recipes.jobs.job import JobError

    if (media is None) != (splits is None):
        raise JobError(f"--media and --splits go together, got {media} and {splits}")
    if data is not None and media is not None:
        raise JobError(f"--data and --media exclude each other, got {data} and {media}")


def _prepare(
    data_set: "AudioVisualSet", given: argparse.Namespace, media: Path | None, splits: Path | None
) -> Callable[[Path, bool], Path]:
    """Prepares the media, or the embedded default's; the options are checked before anything is written."""
    from multifuse.recipes.commands.prepare import preparation
    from multifuse.recipes.data.media.planted_media import planted_options, write_planted_media
    from multifuse.recipes.data.media.preparation import prepare

    base = planted_options(data_set.name) if media is None else data_set.options
    job = preparation(data_set, given, media or Path(), splits or Path(), Path(), base)

    def prepare_below(output: Path, writes: bool) -> Path:
        target: Path = given.prepared or output / "prepared"
        if writes and media is None:
            planted = write_planted_media(data_set.name, output)
            prepare(replace(job, media=planted.media, splits=planted.splits, output=target))
        elif writes:
            prepare(replace(job, output=target))
        return target

    return prepare_below
