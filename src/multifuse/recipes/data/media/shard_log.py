"""What a preparation reports about the clips of a shard: skipped ones, unusual files, and the files that were read."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from multifuse.recipes.data.media.clip_rows import ClipRow
from multifuse.recipes.data.split_lists.clips import Clip


@dataclass(frozen=True)
class ShardLog:
    """What is reported about the clips of a shard."""

    skipped: list[dict[str, str]] = field(default_factory=list)
    """The clips that could not be prepared, with the reasons."""
    notes: list[dict[str, str]] = field(default_factory=list)
    """What is unusual about the files of prepared clips."""
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    """By ``"pictures"`` and ``"sound"``: the number of files read, by their folder and suffix."""

    def add(self, result: ClipRow, media: Path) -> None:
        """Adds what is reported about a clip, whose files are below the folder ``media``."""
        if result.row is None:
            self.skipped.append(entry(result.clip, result.reason))
        self.notes.extend(entry(result.clip, note, "note") for note in result.notes)
        for kind, path in result.sources.items():
            counts, group = self.sources.setdefault(kind, {}), _group(path, media)
            counts[group] = counts.get(group, 0) + 1


def entry(clip: Clip, text: str, key: str = "reason") -> dict[str, str]:
    """Returns the entry of a report about a clip."""
    return {"id": clip.id, "split": clip.split, key: text}


def joined(logs: Sequence[ShardLog]) -> ShardLog:
    """Joins the logs of shards, in their order."""
    result = ShardLog()
    for log in logs:
        result.skipped.extend(log.skipped)
        result.notes.extend(log.notes)
        for kind, counts in log.sources.items():
            sums = result.sources.setdefault(kind, {})
            for group, count in counts.items():
                sums[group] = sums.get(group, 0) + count
    return replace(result, sources={kind: dict(sorted(sums.items())) for kind, sums in sorted(result.sources.items())})


def _group(path: Path, media: Path) -> str:
    """Returns the folder directly below the media folder that contains a file, and the file's suffix."""
    folders = path.relative_to(media).parts[:-1]
    return "/".join([*folders[:1], f"*{path.suffix}"])
