"""The pages that users read, README and docs/, and what is shown in them."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
_FILES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in _FILES}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str


class Shown(NamedTuple):
    """A command after a "$", and the output that stands below it."""

    command: str
    output: str


BLOCKS = [Block(page, *found) for page, text in PAGES.items() for found in FENCE.findall(text)]


def python_blocks() -> list[Any]:
    """Each with a name by its page and place."""
    found = [block for block in BLOCKS if block.language == "python"]
    count = {page: iter(range(len(found))) for page in PAGES}
    return [pytest.param(block.text, id=f"{block.page}-{next(count[block.page])}") for block in found]


def commands() -> list[list[str]]:
    """Every command of the blocks of commands, as words, without its comment."""
    texts = [block.text for block in BLOCKS if block.language in ("sh", "console")]
    lines = [line for text in texts for line in text.replace("\\\n", " ").splitlines()]
    told = [line for line in lines if not any(line == out for one in shown() for out in one.output.splitlines())]
    return [words for line in told if (words := shlex.split(line.removeprefix("$ "), comments=True))]


def shown() -> list[Shown]:
    texts = [block.text for block in BLOCKS if block.language == "console"]
    parts = [part for text in texts for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]
    return list(dict.fromkeys(Shown(*part.partition("\n")[::2]) for part in parts))


def imported(name: str) -> Any:
    """What a dotted name of the package stands for. Raises AttributeError or ModuleNotFoundError for nothing."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        try:
            found = getattr(found, part)
        except AttributeError:
            if not inspect.ismodule(found):
                raise
            found = importlib.import_module(".".join(parts[:i]))
    return found
