"""The command-line arguments of multifuse train for the audio-visual benchmarks."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multifuse.recipes.commands.training_options import add_model_option, add_training_options, training_options
from multifuse.recipes.jobs.models import CLIP_MODELS

if TYPE_CHECKING:
    from multifuse.recipes.data.media.audiovisual_sets import AudioVisualSet
    from multifuse.recipes.jobs.audiovisual import AudioVisualJob

_NOT_GIVEN = object()
"""The value of an option of preparation that is not on the command line, by which a default is told from it."""


def job(data_set: "AudioVisualSet", argv: Sequence[str]) -> "Callable[[], AudioVisualJob]":
    """Parses the arguments, and returns a function that makes the job."""
    from multifuse.recipes.commands.prepare import option_defaults

    defaults = {"prepared": None, **option_defaults(data_set)}
    args = _parser(data_set).parse_args(argv, argparse.Namespace(**dict.fromkeys(defaults, _NOT_GIVEN)))
    given = [name for name in defaults if getattr(args, name) is not _NOT_GIVEN]
    for name in defaults.keys() - set(given):
        setattr(args, name, defaults[name])
    return lambda: _job(data_set, args, given)


def _parser(data_set: "AudioVisualSet") -> argparse.ArgumentParser:
    from multifuse.recipes.commands.prepare import add_options

    parser = argparse.ArgumentParser(
        prog=f"multifuse train {data_set.name}",
        description=_description(data_set),
        allow_abbrev=False,  # the model card leaves out options by their names
    )
    if data_set.one_folder:
        parser.add_argument("--data", type=Path, required=True, help="folder of the data set as distributed")
    else:
        parser.add_argument("--data", type=Path, help="folder written by multifuse prepare")
        parser.add_argument("--media", type=Path, help="folder of the media files, which are prepared before training")
        parser.add_argument("--splits", type=Path, help="folder of the published split lists (with --media)")
    parser.add_argument(
        "--prepared",
        type=Path,
        help="folder of the prepared set, new or from an earlier run (default: prepared, in --output)",
    )
    add_model_option(parser, CLIP_MODELS)
    parser.add_argument(
        "--modalities", nargs="+", choices=("audio", "vision", "flow"), help="modalities to use (default: all)"
    )
    default = data_set.network if data_set.one_folder else f"{data_set.network}, or resnet-small for synthetic clips"
    for name in ("audio", "vision"):
        parser.add_argument(
            f"--{name}-backbone",
            help="Hugging Face name or folder of a pretrained network, or resnet-18 or resnet-small, trained from "
            f"scratch (default: {default})",
        )
    if data_set.name == "ave":
        parser.add_argument(
            "--localise", action="store_true", help="classify every second, background included, instead of the clip"
        )
    add_training_options(parser, data_set.name)
    add_options(parser, data_set)
    return parser


def _description(data_set: "AudioVisualSet") -> str:
    if data_set.one_folder:
        return f"Trains a model on {data_set.title} and tests it."
    return (
        f"Trains a model on {data_set.title}, from media files and split lists or from a prepared set, and tests it; "
        "without either, demonstrates the whole job on a few synthetic clips."
    )


def _job(data_set: "AudioVisualSet", args: argparse.Namespace, given: Sequence[str]) -> "AudioVisualJob":
    """Makes the job; ``given`` are the options of preparation on the command line."""
    from multifuse.models.configuration_clcr import SCRATCH
    from multifuse.recipes.jobs.audiovisual import AudioVisualJob
    from multifuse.recipes.jobs.job import JobError
    from multifuse.recipes.jobs.recipe import clip_recipe

    media = args.data if data_set.one_folder else args.media
    splits = args.data if data_set.one_folder else args.splits
    data = None if data_set.one_folder else args.data
    synthetic = media is None and data is None
    if data_set.one_folder and args.data is not None and not args.data.is_dir():
        raise JobError(f"--data {args.data} is not a folder")
    _check_sources(data, media, splits)
    if data is not None:
        _check_nothing_to_prepare(data, {name: getattr(args, name) for name in given})
    _check_backbones(data_set, args)
    network = "resnet-small" if synthetic else data_set.network
    audio, vision = args.audio_backbone or network, args.vision_backbone or network
    return AudioVisualJob(
        **training_options(args, data_set.name),
        data_set=data_set,
        data=data,
        prepare=None if data is not None else _prepare(data_set, args, media, splits),
        synthetic=synthetic,
        target="segments" if getattr(args, "localise", False) else "label",
        model=args.model,
        modalities=None if args.modalities is None else tuple(args.modalities),
        audio_backbone=audio,
        vision_backbone=vision,
        default_recipe=clip_recipe(data_set.name, synthetic, not {audio, vision} <= set(SCRATCH)),
    )


def _check_sources(data: Path | None, media: Path | None, splits: Path | None) -> None:
    from multifuse.recipes.jobs.job import JobError

    if (media is None) != (splits is None):
        raise JobError(f"--media and --splits must be given together, got {media} and {splits}")
    if data is not None and media is not None:
        raise JobError(f"--data and --media cannot be given together, got {data} and {media}")


def _check_backbones(data_set: "AudioVisualSet", args: argparse.Namespace) -> None:
    """Checks that no backbone is given for a modality that is not read; frames and optical flow have the same."""
    from multifuse.recipes.data.media.clip_dataset import MODALITIES
    from multifuse.recipes.jobs.job import JobError

    held = set(MODALITIES) - ({"audio"} if data_set.options.sound is None else set())
    read = set(args.modalities or held)
    for name, readers in (("audio", {"audio"}), ("vision", {"vision", "flow"})):
        backbone = getattr(args, f"{name}_backbone")
        if backbone is not None and not read & readers:
            raise JobError(f"--{name}-backbone {backbone} would have no effect: the modalities are {sorted(read)}")


def _check_nothing_to_prepare(data: Path, given: Mapping[str, Any]) -> None:
    """Checks that no option of preparation is given beside a prepared set, where it would have no effect."""
    from multifuse.recipes.jobs.job import JobError

    for name, value in given.items():
        shown = () if value is True else value if isinstance(value, list) else (value,)
        option = " ".join((f"--{name.replace('_', '-')}", *map(str, shown)))
        raise JobError(f"{option} is for preparing media, but --data {data} is a set that is prepared already")


def _prepare(
    data_set: "AudioVisualSet", args: argparse.Namespace, media: Path | None, splits: Path | None
) -> Callable[[Path, bool], Path]:
    """Returns the function that prepares the media or the synthetic clips, after checking the options."""
    from multifuse.recipes.commands.prepare import preparation
    from multifuse.recipes.data.media.planted_media import planted_options, write_planted_media
    from multifuse.recipes.data.media.preparation import prepare

    base = planted_options(data_set.name) if media is None else data_set.options
    job = preparation(data_set, args, media or Path(), splits or Path(), Path(), base)

    def prepare_below(output: Path, writes: bool) -> Path:
        target: Path = args.prepared or output / "prepared"
        if writes and media is None:
            planted = write_planted_media(data_set.name, output)
            prepare(replace(job, media=planted.media, splits=planted.splits, output=target))
        elif writes:
            prepare(replace(job, output=target))
        return target

    return prepare_below
