"""What mkdocs does beside its own work: equations as MathML, links to the repository, links from names to the API."""

import html
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert, convert_to_element
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/multifuse/multifuse/blob/main/"
_LINK = re.compile(r"(!?)(\[[^\]]*\]\()([^)\s]+)(\))")
_NAMES = re.compile(r"<(a|pre|h\d)\b.*?</\1>|<code>(\w+)</code>", re.DOTALL)
_FENCES = re.compile(r"(^ *```.*?^ *```\n)", re.DOTALL | re.MULTILINE)


class _InlineMath(InlineProcessor):
    def handleMatch(self, match: re.Match[str], data: str) -> tuple[Element, int, int]:  # noqa: N802
        return convert_to_element(match[1]), match.start(0), match.end(0)


class InlineMath(Extension):
    """Makes MathML of ``$`LaTeX`$``, the notation that code hosts read, too."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        md.inlinePatterns.register(_InlineMath(r"\$`([^`]+)`\$"), "inline-math", 195)  # before code, 190


def _display_math(source: str, *_: Any, **__: Any) -> str:
    equations = (convert(html.unescape(part), display="block") for part in source.strip().split("\n\n"))
    return f'<div class="equation">{"".join(equations)}</div>'


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the two notations of equations, inline and as a fence ``math``."""
    config.markdown_extensions.append(InlineMath())  # type: ignore[arg-type]
    fence = {"name": "math", "class": "equation", "format": _display_math}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pictures that pages show from other folders of the repository."""
    for page in list(files.documentation_pages()):
        for is_image, _, target, _ in _LINK.findall(page.content_string):
            path = _outside(page, target)
            if is_image and path is not None and files.get_file_from_path(_copy_of(path)) is None:
                files.append(File.generated(config, _copy_of(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links out of ``docs`` to the repository, and pictures to their copies."""

    def moved(match: re.Match[str]) -> str:
        is_image, label, target, end = match.groups()
        path = _outside(page.file, target)
        if path is None:
            return match[0]
        if is_image:
            target = "../" * page.file.src_uri.count("/") + _copy_of(path)
        else:
            anchor = "#" + target.partition("#")[2] if "#" in target else ""
            target = REPOSITORY + path.relative_to(ROOT).as_posix() + anchor
        return is_image + label + target + end

    parts = _FENCES.split(markdown)
    parts[::2] = (_LINK.sub(moved, part) for part in parts[::2])
    return "".join(parts)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes every public name, where it stands as code, a link to its place in the API."""
    places = _places()

    def linked(match: re.Match[str]) -> str:
        if match[2] not in places or page.file.src_uri.startswith("api/"):
            return match[0]
        return f'<a href="{places[match[2]]}">{match[0]}</a>'

    return _NAMES.sub(linked, content)


def _places() -> dict[str, str]:
    """Returns the address of every public name, from the folder of the documentation."""
    return {
        path.rpartition(".")[2]: f"api/{page.stem}.html#{path}"
        for page in (ROOT / "docs/api").glob("*.md")
        for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    }


def _outside(page: File, target: str) -> Path | None:
    """Returns the file or folder of the repository that a page's link leads to, if the site does not have it."""
    if re.match(r"[a-z]+:|#|/", target):
        return None
    docs = ROOT / "docs"
    path = (docs / page.src_uri).parent.joinpath(target.partition("#")[0]).resolve()
    on_the_site = path.is_relative_to(docs) and not path.is_dir()
    return None if on_the_site or not path.exists() else path


def _copy_of(path: Path) -> str:
    return "pictures/" + "-".join(path.relative_to(ROOT).parts)
