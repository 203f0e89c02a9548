"""multifuse prepare BENCHMARK: decodes the media files in a benchmark's split lists into a set for training."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS, AudioVisualSet
from multifuse.recipes.data.media.preparation import Preparation, prepare
from multifuse.recipes.data.media.preparation_options import PreparationOptions
from multifuse.recipes.data.media.preparation_record import REPORT
from multifuse.recipes.data.split_lists.clips import PreparationError, SplitListError

_PICTURE_OPTIONS = ("frames", "frame_size", "frame_seconds", "image_format", "quality")
_SPECTROGRAM_OPTIONS = ("n_fft", "hop", "mels", "offset")
_SOUND_OPTIONS = ("rate", "seconds", "fill", *_SPECTROGRAM_OPTIONS)


def add_options(parser: argparse.ArgumentParser, data_set: AudioVisualSet) -> None:
    """Adds the options of a benchmark's preparation, whose defaults are the benchmark's conventions."""
    options, spectrogram = data_set.options, data_set.options.spectrogram
    group = parser.add_argument_group("preparation")
    group.add_argument("--workers", type=int, default=1, help="number of decoding processes (default: 1)")
    group.add_argument(
        "--max-bad",
        type=float,
        default=0.01,
        help="fraction of skipped clips above which the job fails (default: 0.01)",
    )
    group.add_argument(
        "--ignore-unlisted",
        action="store_true",
        help="do not count media files that are in no split list as skipped clips",
    )
    group.add_argument("--shard-size", type=int, default=256, help="clips per Arrow file (default: 256)")
    group.add_argument("--frames", type=int, help=f"maximum number of frames per clip (default: {options.frames})")
    group.add_argument(
        "--frame-size", type=int, help=f"height and width of frames in pixels (default: {options.frame_size})"
    )
    group.add_argument(
        "--frame-seconds",
        type=float,
        help=f"length of the part of a clip that frames are taken from, in seconds (default: {options.frame_seconds})",
    )
    group.add_argument(
        "--image-format", choices=("jpeg", "png"), help=f"format of frames (default: {options.image_format})"
    )
    group.add_argument("--quality", type=int, help=f"JPEG quality, 1 to 100 (default: {options.quality})")
    if options.sound is not None:
        group.add_argument(
            "--sound", choices=("spectrogram", "waveform"), help=f"format of sound (default: {options.sound})"
        )
        group.add_argument("--rate", type=int, help=f"sampling rate in Hz (default: {spectrogram.rate})")
        group.add_argument(
            "--seconds", type=float, help=f"length of every sound in seconds (default: {spectrogram.seconds})"
        )
        group.add_argument(
            "--fill",
            choices=("tile", "zeros"),
            help=f"how short sounds are lengthened (default: {spectrogram.fill})",
        )
        group.add_argument(
            "--n-fft", type=int, help=f"length of a spectrogram window in samples (default: {spectrogram.n_fft})"
        )
        group.add_argument(
            "--hop", type=int, help=f"distance between spectrogram windows in samples (default: {spectrogram.hop})"
        )
        group.add_argument(
            "--mels",
            type=int,
            help=f"number of mel bands, or 0 for the bins of the Fourier transform (default: {spectrogram.mels})",
        )
        group.add_argument("--offset", type=float, help=f"offset in log(|S| + offset) (default: {spectrogram.offset})")
    if options.flow is not None:
        group.add_argument("--no-flow", action="store_true", help="store frames only, without optical flow")
        group.add_argument(
            "--flow-folder",
            type=Path,
            help="folder of precomputed optical flow (default: flow is computed by OpenCV's DIS)",
        )
    if "split" in data_set.list_options:
        group.add_argument(
            "--split",
            choices=("published", "speakers"),
            default="published",
            help="published keeps the published test list, speakers divides the clips so that no two splits have a "
            "speaker in common (default: published)",
        )
    if "classes" in data_set.list_options:
        group.add_argument("--classes", nargs="+", help="classes to keep, in the order of their labels (default: all)")
    if "fold" in data_set.list_options:
        group.add_argument("--fold", type=int, choices=(1, 2, 3), default=1, help="official fold (default: 1)")


def option_defaults(data_set: AudioVisualSet) -> dict[str, Any]:
    """Returns the defaults of the options of `add_options`, by their names in the parsed arguments."""
    parser = argparse.ArgumentParser()
    add_options(parser, data_set)
    return vars(parser.parse_args([]))


def preparation(
    data_set: AudioVisualSet,
    args: argparse.Namespace,
    media: Path,
    splits: Path,
    output: Path,
    base: PreparationOptions | None = None,
) -> Preparation:
    """Makes the job from parsed arguments; options not given are those of ``base``, by default the benchmark's.

    Raises:
        PreparationError: if an option has an invalid value.
    """
    try:
        options = _options(base or data_set.options, args)
    except ValueError as error:
        raise PreparationError(str(error)) from None
    return Preparation(
        data_set,
        media,
        splits,
        output,
        options,
        {name: getattr(args, name) for name in data_set.list_options},
        flow_folder=getattr(args, "flow_folder", None),
        workers=args.workers,
        max_bad=args.max_bad,
        count_unlisted=not args.ignore_unlisted,
        shard_size=args.shard_size,
    )


def _options(base: PreparationOptions, args: argparse.Namespace) -> PreparationOptions:
    values = {name: value for name, value in vars(args).items() if value is not None}
    changes: dict[str, Any] = {name: values[name] for name in _PICTURE_OPTIONS if name in values}
    if base.sound is not None:
        changes["sound"] = values.get("sound", base.sound)
        sound_changes = {name: values[name] for name in _SOUND_OPTIONS if name in values}
        changes["spectrogram"] = replace(base.spectrogram, **sound_changes)
    _check_effect(values, "quality", changes.get("image_format", base.image_format), "jpeg")
    for name in _SPECTROGRAM_OPTIONS:
        _check_effect(values, name, changes.get("sound"), "spectrogram")
    if base.flow is not None:
        if args.no_flow and args.flow_folder is not None:
            raise ValueError(f"--no-flow and --flow-folder cannot be given together, got {args.flow_folder}")
        changes["flow"] = None if args.no_flow else "folder" if args.flow_folder else base.flow
    return replace(base, **changes)


def _check_effect(given: Mapping[str, Any], name: str, chosen: str | None, needed: str) -> None:
    """Checks that an option was not given without the format that it belongs to."""
    if name in given and chosen != needed:
        option = f"--{name.replace('_', '-')} {given[name]}"
        raise ValueError(f"{option} is only for the format {needed}, and the chosen one is {chosen}")


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="multifuse prepare", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="{" + ",".join(AUDIOVISUAL_SETS) + "}")
    for data_set in AUDIOVISUAL_SETS.values():
        description = f"Decodes the media files in the split lists of {data_set.title} into a set for training."
        command = commands.add_parser(data_set.name, help=data_set.title, description=description)
        command.add_argument(
            "--media",
            type=Path,
            required=True,
            help="folder of the media files, searched recursively; links are followed",
        )
        command.add_argument("--splits", type=Path, required=True, help="folder of the published split lists")
        command.add_argument(
            "--output", type=Path, required=True, help="folder of the prepared set; an interrupted job resumes in it"
        )
        add_options(command, data_set)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Prepares the benchmark that the first argument names, and returns the exit status."""
    args = _parsed(argv)
    try:
        job = preparation(AUDIOVISUAL_SETS[args.benchmark], args, args.media, args.splits, args.output)
        report = prepare(job)
    except (PreparationError, SplitListError, OSError) as error:
        print(f"multifuse prepare: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("multifuse prepare: interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    counts = ", ".join(f"{split} {count}" for split, count in report.clips.items())
    skipped = f"skipped {report.bad} of {report.total}"
    notes = f"; notes on files: {len(report.notes)}" if report.notes else ""
    repeated = f"; in several splits: {len(report.in_several_splits)}" if report.in_several_splits else ""
    print(f"Prepared {args.output}: {counts}; {skipped}{notes}{repeated}, see {args.output / REPORT}.")
    return 0
