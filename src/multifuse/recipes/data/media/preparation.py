"""Prepares a benchmark: decodes its media files into Arrow shards, clip by clip, and resumes interrupted jobs."""

import hashlib
import json
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from tqdm.auto import tqdm

from multifuse.recipes.data.media import shards
from multifuse.recipes.data.media.audiovisual_sets import AudioVisualSet
from multifuse.recipes.data.media.clip_rows import ClipRow, ClipTask, clip_row, lack_of_pictures
from multifuse.recipes.data.media.media_index import MediaIndex
from multifuse.recipes.data.media.preparation_options import PreparationOptions
from multifuse.recipes.data.media.preparation_record import RECORD, REPORT, check_record, job_record, source_digests
from multifuse.recipes.data.media.shard_log import ShardLog, entry, joined
from multifuse.recipes.data.split_lists.clips import SPLITS, Clip, ClipList, PreparationError
from multifuse.recipes.files import check_writable, write_json

NOT_LISTED = "is in no split list"


@dataclass(frozen=True)
class Preparation:
    """A preparation job: its benchmark, input and output folders, and options."""

    data_set: AudioVisualSet
    media: Path
    splits: Path
    output: Path
    options: PreparationOptions
    list_options: dict[str, Any] = field(default_factory=dict)
    flow_folder: Path | None = None
    workers: int = 1
    max_bad: float = 0.01
    """The fraction of skipped clips above which the job fails."""
    count_unlisted: bool = True
    """Whether media files that are in no split list count as skipped clips."""
    shard_size: int = 256
    """The number of clips per shard."""
    quiet: bool = False


@dataclass(frozen=True)
class Report:
    """The result of a preparation."""

    clips: dict[str, int]
    """The number of prepared clips per split."""
    skipped: list[dict[str, str]]
    """The listed clips that could not be prepared, with the reasons."""
    notes: list[dict[str, str]]
    """What is unusual about the files of prepared clips: copies that were passed over, silence, and early ends."""
    sources: dict[str, dict[str, int]]
    """By ``"pictures"`` and ``"sound"``: the number of files read, by their folder and suffix."""
    unlisted: list[str]
    """The stems of media files that are in no split list."""
    broken_links: list[str]
    """The links below the media folder that lead nowhere."""
    in_several_splits: list[str]
    """The ids of clips that are listed in more than one split."""
    total: int
    """The number of listed clips, plus the unlisted files if they count."""
    bad: int
    """The number of skipped clips, plus the unlisted files if they count."""

    @property
    def share(self) -> float:
        """The fraction of ``total`` that is ``bad``."""
        return self.bad / max(self.total, 1)


@dataclass(frozen=True)
class _Shard:
    path: Path
    clips: tuple[Clip, ...]


def prepare(job: Preparation) -> Report:
    """Prepares a benchmark, reusing the shards that are already finished, and writes the report.

    An interrupted job that is run again with the same options produces exactly the files of an uninterrupted one.

    Raises:
        PreparationError: if an argument is invalid, the output was started with other options or holds other files, a
            worker process died, or too many clips are skipped.
        SplitListError: if a split list is missing or malformed.
        OutputError: if the output cannot be written; the shards written so far are complete, and the job resumes from
            them.
    """
    _check(job)
    listed = job.data_set.clips(job.splits, **job.list_options)
    _check_segments(job, listed)
    index = MediaIndex(job.media, job.data_set.stills, job.data_set.preferred)
    if len(index) == 0:
        links = f"; its links lead nowhere, such as {index.broken_links[0]}" if index.broken_links else ""
        raise PreparationError(f"--media {job.media} contains no media files{links}")
    record, sources = job_record(job, listed), source_digests(job, index, listed)
    check_record(job, record, sources)
    planned = [shard for split in SPLITS for shard in _shards(job, listed, split)]
    tally = _Tally(job, listed, _unlisted(index, listed), index.broken_links)
    found = ((clip, index.find(clip.stems)) for clip in listed.clips)
    missing = [entry(clip, lack_of_pictures(files)) for clip, files in found if not files.pictures]
    if tally.too_many(len(missing)):
        raise _too_many(job, tally.report({}, ShardLog(missing)))
    job.output.mkdir(parents=True, exist_ok=True)
    if not (job.output / RECORD).exists():
        write_json(job.output / RECORD, {**record, **sources})
    schema = shards.features(
        listed.classes, listed.segment_classes, _columns(listed, job.options), job.options.spectrogram.shape[0]
    )
    _write_shards(job, index, planned, schema, tally)
    shards.describe(job.output, SPLITS, schema, _digest(record))
    log = joined([shards.read_log(shard.path) for shard in planned])
    counts = {split: len(shards.read_split(job.output, split)) for split in SPLITS}
    report = tally.report(counts, log)
    if tally.too_many(len(log.skipped)):
        raise _too_many(job, report)
    _write_report(job.output, report)
    return report


def _write_shards(job: Preparation, index: MediaIndex, planned: list[_Shard], schema: Any, tally: "_Tally") -> None:
    """Decodes the clips of the unfinished shards, in the order of the lists, and writes each shard once it is full."""
    finished = [shard for shard in planned if shard.path.exists()]
    before = joined([shards.read_log(shard.path) for shard in finished])
    pending = [shard for shard in planned if not shard.path.exists()]
    done = sum(len(shard.clips) for shard in finished)
    tasks = (
        ClipTask(clip, index.find(clip.stems), job.options, job.flow_folder)
        for shard in pending
        for clip in shard.clips
    )
    total = done + sum(len(shard.clips) for shard in pending)
    results = _in_order(clip_row, tasks, job.workers)
    with tqdm(total=total, initial=done, unit="clip", desc=job.data_set.title, disable=job.quiet) as bar:
        for shard in pending:
            rows: list[dict[str, Any]] = []
            log = ShardLog()
            for _ in shard.clips:
                result = next(results)
                bar.update()
                log.add(result, job.media)
                if result.row is not None:
                    rows.append(result.row)
                elif tally.too_many(len(before.skipped) + len(log.skipped)):
                    results.close()
                    raise _too_many(job, tally.report({}, joined([before, log])))
            shards.write_shard(shard.path, rows, log, schema)
            before = joined([before, log])


def _in_order(
    function: Callable[[ClipTask], ClipRow], tasks: Iterable[ClipTask], workers: int
) -> Generator[ClipRow, None, None]:
    """Yields the results in the order of the tasks, with few in memory at a time, from this process or from workers."""
    if workers == 1:
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_in_worker)
    futures: deque[Future[ClipRow]] = deque()
    try:
        for task in tasks:
            futures.append(pool.submit(function, task))
            if len(futures) >= 4 * workers:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    except BrokenProcessPool:
        raise PreparationError("a worker process died while decoding; run with --workers 1 to find the clip") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_worker() -> None:
    """Sets up a worker: one thread, since the user chose the number of processes, and interrupts left to the parent."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Ends this worker when its parent dies: a killed parent cannot tell its workers, which would wait for ever."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@dataclass(frozen=True)
class _Tally:
    """Compares the number of skipped clips with the number allowed."""

    job: Preparation
    listed: ClipList
    unlisted: list[str]
    broken_links: list[str]

    @property
    def _counted_unlisted(self) -> int:
        return len(self.unlisted) if self.job.count_unlisted else 0

    def too_many(self, skipped: int) -> bool:
        return skipped + self._counted_unlisted > self.job.max_bad * (len(self.listed.clips) + self._counted_unlisted)

    def report(self, clips: dict[str, int], log: ShardLog) -> Report:
        total, bad = len(self.listed.clips) + self._counted_unlisted, len(log.skipped) + self._counted_unlisted
        several = self.listed.in_several_splits
        return Report(clips, log.skipped, log.notes, log.sources, self.unlisted, self.broken_links, several, total, bad)


def _too_many(job: Preparation, report: Report) -> PreparationError:
    job.output.mkdir(parents=True, exist_ok=True)
    _write_report(job.output, report)
    example = report.skipped[0] if report.skipped else {"id": report.unlisted[0], "reason": NOT_LISTED}
    return PreparationError(
        f"{report.bad} of {report.total} clips ({100 * report.share:.1f} %) are skipped, more than --max-bad "
        f"{job.max_bad} allows; the first is {example['id']}: {example['reason']}; {job.output / REPORT} lists them all"
    )


def _check(job: Preparation) -> None:
    for name, folder in (("media", job.media), ("splits", job.splits), ("flow-folder", job.flow_folder)):
        if folder is not None and not folder.is_dir():
            raise PreparationError(f"--{name} {folder} is not a folder")
    for name in ("workers", "shard_size"):
        if getattr(job, name) < 1:
            raise PreparationError(f"--{name.replace('_', '-')} must be >= 1, got {getattr(job, name)}")
    if not 0 <= job.max_bad <= 1:
        raise PreparationError(f"--max-bad must be in [0, 1], got {job.max_bad}")
    if (job.options.flow == "folder") != (job.flow_folder is not None):
        raise PreparationError(
            f"--flow-folder must be given exactly when flow is 'folder', got flow {job.options.flow!r} and "
            f"--flow-folder {job.flow_folder}"
        )
    check_writable(job.output)


def _check_segments(job: Preparation, listed: ClipList) -> None:
    """Checks that sound and frames cover the time that segment labels are for, so that they stay beside their labels.

    Raises:
        PreparationError: if they do not.
    """
    seconds, spectrogram = listed.segment_seconds, job.options.spectrogram
    if seconds is None:
        return
    lengths = {"frame-seconds": job.options.frame_seconds}
    if job.options.sound is not None:
        lengths["seconds"] = spectrogram.seconds
        if spectrogram.fill != "zeros":
            raise PreparationError(
                f"--fill must be zeros for {job.data_set.title}, whose labels are for parts of {seconds:g} s, got "
                f"{spectrogram.fill!r}"
            )
    for name, value in lengths.items():
        if value != seconds:
            raise PreparationError(
                f"--{name} must be {seconds:g} for {job.data_set.title}, whose labels are for parts of {seconds:g} s, "
                f"got {value:g}"
            )


def _shards(job: Preparation, listed: ClipList, split: str) -> list[_Shard]:
    clips = [clip for clip in listed.clips if clip.split == split]
    count = max(1, -(-len(clips) // job.shard_size))
    return [
        _Shard(
            shards.shard_path(job.output, split, number, count),
            tuple(clips[number * job.shard_size : (number + 1) * job.shard_size]),
        )
        for number in range(count)
    ]


def _columns(listed: ClipList, options: PreparationOptions) -> tuple[str, ...]:
    return (*(("segments",) if listed.segment_classes else ()), *options.columns)


def _unlisted(index: MediaIndex, listed: ClipList) -> list[str]:
    listed_stems = {stem for clip in listed.clips for stem in clip.stems}
    return sorted(index.stems - listed_stems - listed.left_out)


def _write_report(output: Path, report: Report) -> None:
    content = {**asdict(report), "unlisted": [{"id": stem, "reason": NOT_LISTED} for stem in report.unlisted]}
    write_json(output / REPORT, {**content, "share": report.share})


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
