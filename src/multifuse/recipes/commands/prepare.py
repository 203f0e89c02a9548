"""``multifuse prepare BENCHMARK``: from media files and split lists to what training reads."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multifuse.recipes.data.media.audiovisual_sets import AUDIOVISUAL_SETS, AudioVisualSet
from multifuse.recipes.data.media.clip_rows import PreparationOptions
from multifuse.recipes.data.media.preparation import REPORT, Preparation, prepare
from multifuse.recipes.data.split_lists.clips import PreparationError, SplitListError

_PICTURE_OPTIONS = ("frames", "frame_size", "frame_seconds", "image_format", "quality")
_SOUND_OPTIONS = ("rate", "seconds", "fill", "n_fft", "hop", "mels", "offset")


def add_options(parser: argparse.ArgumentParser, data_set: AudioVisualSet) -> None:
    """The options of a benchmark's preparation, with its conventions as the defaults."""
    own, sound = data_set.options, data_set.options.spectrogram
    group = parser.add_argument_group("preparation")
    group.add_argument("--workers", type=int, default=1, help="processes that decode")
    group.add_argument(
        "--max-bad", type=float, default=0.01, help="share of skipped clips above which the job fails (default 0.01)"
    )
    group.add_argument(
        "--ignore-unlisted", action="store_true", help="media files in no split list do not count as skipped"
    )
    group.add_argument("--shard-size", type=int, default=256, help="clips a file (default 256)")
    group.add_argument("--frames", type=int, help=f"a clip, at most (default {own.frames})")
    group.add_argument("--frame-size", type=int, help=f"pixels (default {own.frame_size})")
    group.add_argument("--frame-seconds", type=float, help=f"frames are taken up to here (default {own.frame_seconds})")
    group.add_argument("--image-format", choices=("jpeg", "png"), help=f"(default {own.image_format})")
    group.add_argument("--quality", type=int, help=f"of JPEG (default {own.quality})")
    if own.sound is not None:
        group.add_argument("--sound", choices=("spectrogram", "waveform"), help=f"(default {own.sound})")
        group.add_argument("--rate", type=int, help=f"samples a second (default {sound.rate})")
        group.add_argument("--seconds", type=float, help=f"of sound (default {sound.seconds})")
        group.add_argument(
            "--fill", choices=("tile", "zeros"), help=f"how short sounds are filled (default {sound.fill})"
        )
        group.add_argument("--n-fft", type=int, help=f"samples (default {sound.n_fft})")
        group.add_argument("--hop", type=int, help=f"samples (default {sound.hop})")
        group.add_argument("--mels", type=int, help=f"bands, 0: none (default {sound.mels})")
        group.add_argument("--offset", type=float, help=f"log(|S| + offset) (default {sound.offset})")
    if own.flow is not None:
        group.add_argument("--no-flow", action="store_true", help="frames alone")
        group.add_argument("--flow-folder", type=Path, help="flow computed before; default: computed by OpenCV's DIS")
    if "split" in data_set.list_options:
        group.add_argument(
            "--split",
            choices=("published", "speakers"),
            default="published",
            help="speakers: speakers of test and valid are in no other split",
        )
    if "classes" in data_set.list_options:
        group.add_argument("--classes", nargs="+", help="those of the lists that are kept, in this order")
    if "fold" in data_set.list_options:
        group.add_argument("--fold", type=int, choices=(1, 2, 3), default=1, help="which official split")


def preparation(
    data_set: AudioVisualSet,
    given: argparse.Namespace,
    media: Path,
    splits: Path,
    output: Path,
    base: PreparationOptions | None = None,
) -> Preparation:
    """The job of parsed options; what they leave open is ``base``'s, the benchmark's own by default.

    Raises:
        PreparationError: a value that does not fit.
    """
    try:
        options = _options(base or data_set.options, given)
    except ValueError as error:
        raise PreparationError(str(error)) from None
    return Preparation(
        data_set,
        media,
        splits,
        output,
        options,
        {name: getattr(given, name) for name in data_set.list_options},
        flow_folder=getattr(given, "flow_folder", None),
        workers=given.workers,
        max_bad=given.max_bad,
        count_unlisted=not given.ignore_unlisted,
        shard_size=given.shard_size,
    )


def _options(base: PreparationOptions, given: argparse.Namespace) -> PreparationOptions:
    chosen = {name: value for name, value in vars(given).items() if value is not None}
    changes: dict[str, Any] = {name: chosen[name] for name in _PICTURE_OPTIONS if name in chosen}
    if base.sound is not None:
        changes["sound"] = chosen.get("sound", base.sound)
        changed = {name: chosen[name] for name in _SOUND_OPTIONS if name in chosen}
        changes["spectrogram"] = replace(base.spectrogram, **changed)
    if base.flow is not None:
        if given.no_flow and given.flow_folder is not None:
            raise ValueError("--no-flow and --flow-folder exclude each other")
        changes["flow"] = None if given.no_flow else "folder" if given.flow_folder else base.flow
    return replace(base, **changes)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="multifuse prepare", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="{" + ",".join(AUDIOVISUAL_SETS) + "}")
    for data_set in AUDIOVISUAL_SETS.values():
        own = commands.add_parser(data_set.name, help=data_set.title)
        own.add_argument("--media", type=Path, required=True, help="folder of the media files, at any depth")
        own.add_argument("--splits", type=Path, required=True, help="folder of the published split lists")
        own.add_argument("--output", type=Path, required=True, help="folder of the prepared set; a job goes on in it")
        add_options(own, data_set)
    return parser.parse_args(given)


def main(argv: Sequence[str] | None = None) -> int:
    given = _arguments(argv)
    try:
        job = preparation(AUDIOVISUAL_SETS[given.benchmark], given, given.media, given.splits, given.output)
        report = prepare(job)
    except (PreparationError, SplitListError, OSError) as error:
        print(f"multifuse prepare: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("multifuse prepare: interrupted; the same command resumes from here", file=sys.stderr)
        return 130
    counts = ", ".join(f"{split} {count}" for split, count in report.clips.items())
    print(f"Prepared {given.output}: {counts}; skipped {report.bad} of {report.total}, see {given.output / REPORT}.")
    return 0
