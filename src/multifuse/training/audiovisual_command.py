"""The command line of the audio-visual examples: from the data set as distributed, or prepared, to the measures."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from multifuse.training import command_line

if TYPE_CHECKING:
    from multifuse.data.benchmarks import Benchmark
    from multifuse.training.audiovisual_job import AudioVisualJob


def main(benchmark: str, description: str | None) -> int:
    """Runs ``examples/train_<benchmark>.py``."""
    from multifuse.data.benchmarks import BENCHMARKS

    own = BENCHMARKS[benchmark]
    given = _arguments(own, description)
    return command_line.main(f"train_{benchmark}", given, lambda given: _job(own, given))


def _arguments(benchmark: "Benchmark", description: str | None) -> argparse.Namespace:
    from multifuse.data.prepare import add_options

    parser = command_line.parser(description)
    if benchmark.one_folder:
        parser.add_argument("--data", type=Path, required=True, help="folder of the data set as distributed")
    else:
        parser.add_argument("--data", type=Path, help="folder that multifuse.data.prepare wrote")
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
    if benchmark.name == "ave":
        parser.add_argument(
            "--localise", action="store_true", help="a class for each second, background among them, not for the clip"
        )
    command_line.add_training_options(parser, benchmark.name)
    add_options(parser, benchmark)
    return parser.parse_args()


def _job(benchmark: "Benchmark", given: argparse.Namespace) -> "AudioVisualJob":
    from multifuse.models.configuration_clcr import SCRATCH
    from multifuse.training.audiovisual_job import AudioVisualJob
    from multifuse.training.recipes import clip_recipe

    media = given.data if benchmark.one_folder else given.media
    splits = given.data if benchmark.one_folder else given.splits
    data = None if benchmark.one_folder else given.data
    synthetic = media is None and data is None
    _check_sources(data, media, splits)
    network = "resnet-small" if synthetic else benchmark.network
    audio, vision = given.audio_backbone or network, given.vision_backbone or network
    return AudioVisualJob(
        **command_line.training_options(given, benchmark.name),
        benchmark=benchmark,
        data=data,
        prepare=None if data is not None else _prepare(benchmark, given, media, splits),
        synthetic=synthetic,
        target="segments" if getattr(given, "localise", False) else "label",
        modalities=None if given.modalities is None else tuple(given.modalities),
        audio_backbone=audio,
        vision_backbone=vision,
        default_recipe=clip_recipe(benchmark.name, synthetic, not {audio, vision} <= set(SCRATCH)),
    )


def _check_sources(data: Path | None, media: Path | None, splits: Path | None) -> None:
    from multifuse.training.job import JobError

    if (media is None) != (splits is None):
        raise JobError(f"--media and --splits go together, got {media} and {splits}")
    if data is not None and media is not None:
        raise JobError(f"--data and --media exclude each other, got {data} and {media}")


def _prepare(
    benchmark: "Benchmark", given: argparse.Namespace, media: Path | None, splits: Path | None
) -> Callable[[Path, bool], Path]:
    """Prepares the media, or the embedded default's; the options are checked before anything is written."""
    from multifuse.data.planted_media import planted_options, write_planted_media
    from multifuse.data.preparation import prepare
    from multifuse.data.prepare import preparation

    base = planted_options(benchmark.name) if media is None else benchmark.options
    job = preparation(benchmark, given, media or Path(), splits or Path(), Path(), base)

    def prepare_below(output: Path, writes: bool) -> Path:
        target: Path = given.prepared or output / "prepared"
        if writes and media is None:
            planted = write_planted_media(benchmark.name, output)
            prepare(replace(job, media=planted.media, splits=planted.splits, output=target))
        elif writes:
            prepare(replace(job, output=target))
        return target

    return prepare_below
