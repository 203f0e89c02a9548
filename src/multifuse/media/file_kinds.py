"""Tells files that are not media from their first bytes: placeholders, web pages, archives and empty files."""

from pathlib import Path

from multifuse._internal.file_kinds import head_of, kind_of

_AGAIN = "download it again"


def wrong_kind(path: Path) -> str | None:
    """Returns what a file is and what to do about it, if its first bytes show that it is not a media file.

    Raises:
        OSError: if the file cannot be read.
    """
    head = head_of(path)
    if not head:
        return f"an empty file; {_AGAIN}"
    kind = kind_of(head)
    if kind is None or kind.role == "picture":
        return None
    return f"{kind.name}, not a media file; {kind.advice if kind.role == 'wrapping' else _AGAIN}"
