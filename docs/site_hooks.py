"""The site beside the repository: files that pages link to outside of docs/ go into the site, below repo/."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# A link from a page to a file of the repository: what follows the "../" that leave docs/.
_LINK = re.compile(r"(\]\()((?:\.\./)+)((?:[\w.-]+/)*[\w-]+\.\w+)")


def _outside(page: str, ups: str, path: str) -> str | None:
    """The path from the root of the repository, of a link on this page of docs/; None for a link within docs/."""
    found = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), ups, path))
    return None if found.startswith("docs/") else found


def on_files(files: Files, config: Any) -> Files:
    """Adds each file that is linked to, and the changelog, which is a page."""
    wanted = {"CHANGELOG.md"}
    for page in files.documentation_pages():
        links = _LINK.findall(Path(page.abs_src_path or "").read_text(encoding="utf-8"))
        wanted |= {found for _, ups, path in links if (found := _outside(page.src_uri, ups, path))}
    for path in sorted(wanted):
        if (ROOT / path).is_file():  # what is missing is for mkdocs to complain of
            files.append(File.generated(config, f"repo/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Points these links to where the files are in the site."""
    name = page.file.src_uri
    back = "../" * name.count("/")

    def moved(link: re.Match[str]) -> str:
        found = _outside(name, link[2], link[3])
        return f"{link[1]}{back}repo/{found}" if found else link[0]

    return markdown if name.startswith("repo/") else _LINK.sub(moved, markdown)
