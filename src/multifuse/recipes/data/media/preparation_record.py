"""The record of a preparation: its options, list and sources, which must be the same when it resumes."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multifuse.media.flow import flow_files
from multifuse.recipes.data.media.media_index import MediaIndex
from multifuse.recipes.data.split_lists.clips import ClipList, PreparationError

if TYPE_CHECKING:
    from multifuse.recipes.data.media.preparation import Preparation

RECORD, REPORT = "preparation.json", "report.json"
_FORMAT, _FORMAT_OF_FLOW_FOLDER = 2, 3
"""Change when the same files would be stored otherwise. Until 2, sound and frames each began at their own start,
channels were added, packets before the start of a cut counted, and rotation was ignored. Until 3, precomputed flow was
taken from the whole clip, whatever part the frames were taken from."""
_MEDIA, _FLOW = "media_sha256", "flow_folder_sha256"
_SOURCES = {_MEDIA: "--media", _FLOW: "--flow-folder"}
"""The digests of the files that a set is prepared from, which are no options, and the arguments that name them."""


def prepared_record(folder: Path, benchmark: str | None = None) -> dict[str, Any]:
    """Reads the record of the options with which a finished set was prepared, without the digests of its sources.

    Raises:
        PreparationError: if there is no prepared set in the folder, it is unfinished, an earlier version of this
            program prepared it and read the media files otherwise, or it is of another benchmark than the given one.
    """
    try:
        record = _read_record(folder / RECORD)
        _read_record(folder / "dataset_dict.json")
    except PreparationError:
        raise PreparationError(
            f"{folder} contains no finished set; create one, or finish an interrupted one, with multifuse prepare"
        ) from None
    expected = _format(record.get("flow"))
    if record.get("format") != expected:
        raise PreparationError(
            f"{folder / RECORD} has format {record.get('format')!r}, but this version of multifuse reads media files "
            f"as for format {expected}; prepare the set again in a new folder"
        )
    if benchmark is not None and record.get("benchmark") != benchmark:
        raise PreparationError(
            f"{folder / RECORD}: the data set was prepared for {record.get('benchmark')}, not for {benchmark}"
        )
    return {name: value for name, value in record.items() if name not in _SOURCES}


def job_record(job: "Preparation", listed: ClipList) -> dict[str, Any]:
    """Returns the options and the list, which must be the same when an interrupted job resumes."""
    clips = json.dumps([asdict(clip) for clip in listed.clips], sort_keys=True)
    return {
        "format": _format(job.options.flow),
        "benchmark": job.data_set.name,
        **json.loads(json.dumps(asdict(job.options))),
        **{f"list_{name}": value for name, value in {**job.data_set.list_options, **job.list_options}.items()},
        "classes": list(listed.classes),
        "shard_size": job.shard_size,
        "clips": hashlib.sha256(clips.encode()).hexdigest(),
    }


def source_digests(job: "Preparation", index: MediaIndex, listed: ClipList) -> dict[str, str]:
    """Returns digests of the files that may be read for the listed clips, by their paths in their folder and sizes.

    Of the flow of a clip, only the sizes of the first and the last file are read: there may be millions of files.
    """
    found = [index.find(clip.stems) for clip in listed.clips]
    files = {path for clip in found for path in (clip.pictures if job.options.sound is None else clip.sounds)}
    digests = {_MEDIA: _digest([_entry(path, job.media, sized=True) for path in sorted(files)])}
    if job.flow_folder is not None:
        flows = [_flow_entries(job.flow_folder, stem) for stem in sorted({clip.id for clip in listed.clips})]
        digests[_FLOW] = _digest(flows)
    return digests


def _flow_entries(folder: Path, stem: str) -> list[Any]:
    files = flow_files(folder, stem)
    return [_entry(path, folder, sized=path in (files[0], files[-1])) for path in files]


def _entry(path: Path, folder: Path, sized: bool) -> list[str | int]:
    return [path.relative_to(folder).as_posix(), *([path.stat().st_size] if sized else [])]


def _digest(entries: list[Any]) -> str:
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _format(flow: str | None) -> int:
    return _FORMAT_OF_FLOW_FOLDER if flow == "folder" else _FORMAT


def check_record(job: "Preparation", record: dict[str, Any], sources: dict[str, str]) -> None:
    """Checks that the output is new, or was started with the same record and, if it says from which, the same files.

    Raises:
        PreparationError: if it was not, or holds what no preparation wrote.
    """
    output, path = job.output, job.output / RECORD
    if path.exists():
        before = _read_record(path)
        changed = [name for name in sorted({*before, *record} - {*_SOURCES}) if before.get(name) != record.get(name)]
        if changed:
            changes = "; ".join(f"{name} {before.get(name)!r}, now {record.get(name)!r}" for name in changed)
            raise PreparationError(f"--output {output} was started with {changes}")
        for name, source in sources.items():
            if before.get(name, source) != source:  # earlier versions did not record it
                given = f"{_SOURCES[name]} {job.flow_folder if name == _FLOW else job.media}"
                raise PreparationError(f"--output {output} was started with other files than those in {given}")
    elif output.exists():
        # A job that failed before writing its record may have left a report, and a killed one a hidden file.
        others = sorted(file.name for file in output.iterdir() if file.name != REPORT and not file.name.startswith("."))
        if others or ((output / REPORT).exists() and "skipped" not in _read_record(output / REPORT)):
            raise PreparationError(
                f"--output {output} contains a file that no preparation wrote: {[*others, REPORT][0]}"
            )


def _read_record(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise PreparationError(f"{path} cannot be read as the record of a preparation: {error}") from None
    return content
