"""``python -m multifuse.data.prepare BENCHMARK``: from media files and split lists to what training reads."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multifuse.data.benchmarks import BENCHMARKS, Benchmark
from multifuse.data.clip_rows import PreparationOptions
from multifuse.data.clips import PreparationError, SplitListError
from multifuse.data.preparation import REPORT, Preparation, prepare

_PICTURE_OPTIONS = ("frames", "frame_size", "frame_seconds", "image_format", "quality")
_SOUND_OPTIONS = ("rate", "seconds", "fill", "n_fft", "hop", "mels", "offset")


def add_options(parser: argparse.ArgumentParser, benchmark: Benchmark) -> None:
    """The options of a benchmark's preparation, with its conventions as the defaults."""
    own, sound = benchmark.options, benchmark.options.spectrogram
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
    if "split" in benchmark.list_options:
        group.add_argument(
            "--split",
            choices=("published", "speakers"),
            default="published",
            help="speakers: speakers of test and valid are in no other split",
        )
    if "classes" in benchmark.list_options:
        group.add_argument("--classes", nargs="+", help="those of the lists that are kept, in this order")
    if "fold" in benchmark.list_options:
        group.add_argument("--fold", type=int, choices=(1, 2, 3), default=1, help="which official split")


def preparation(
    benchmark: Benchmark,
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
        options = _options(base or benchmark.options, given)
    except ValueError as error:
        raise PreparationError(str(error)) from None
    return Preparation(
        benchmark,
        media,
        splits,
        output,
        options,
        {name: getattr(given, name) for name in benchmark.list_options},
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


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m multifuse.data.prepare", description=__doc__)
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="{" + ",".join(BENCHMARKS) + "}")
    for benchmark in BENCHMARKS.values():
        own = commands.add_parser(benchmark.name, help=benchmark.title)
        own.add_argument("--media", type=Path, required=True, help="folder of the media files, at any depth")
        own.add_argument("--splits", type=Path, required=True, help="folder of the published split lists")
        own.add_argument("--output", type=Path, required=True, help="folder of the prepared set; a job goes on in it")
        add_options(own, benchmark)
    return parser.parse_args(given)


def main() -> int:
    given = arguments()
    try:
        job = preparation(BENCHMARKS[given.benchmark], given, given.media, given.splits, given.output)
        report = prepare(job)
    except (PreparationError, SplitListError, OSError) as error:
        print(f"prepare: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("prepare: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    counts = ", ".join(f"{split} {count}" for split, count in report.clips.items())
    print(f"Prepared {given.output}: {counts}; skipped {report.bad} of {report.total}, see {given.output / REPORT}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
