"""A glossary: terms of the source and what they are to be called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from kdtw_jax.errors import UserError
from kdtw_jax.helpers.function import FunctionHelper
from kdtw_jax.runs.atomic import explained


def make_glossary(terms: Mapping[str, str] | str | Path, price: float = 0.0) -> FunctionHelper:
    """A helper that knows what terms are called, and not where they belong.

    So it is asked only where the student's gate would ask, and says the first term of the source, whole words and
    letters as they are, whose translation is not yet written. Of several terms at one place the longest counts.

    Args:
      terms: from each term to its translation; or a UTF-8 file with a term, a tab and its translation on each line.
      price: cost units per word.

    Raises:
      UserError: the file cannot be read, or a line of it is no such pair.
    """
    known = dict(terms) if isinstance(terms, Mapping) else _read(Path(terms))
    if not known or not all(term.strip() and said.strip() for term, said in known.items()):
        raise UserError("a glossary needs terms and translations that are not empty")
    longest_first = sorted(known, key=len, reverse=True)
    any_term = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")

    def suggest(source: str, written: str) -> str | None:
        for found in any_term.finditer(source):
            said = known[found.group()]
            if not re.search(rf"(?<!\w){re.escape(said)}(?!\w)", written):
                return said
        return None

    return FunctionHelper("glossary", suggest, price, exact=False)


def _read(path: Path) -> dict[str, str]:
    with explained(path, "read"):
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    terms = dict[str, str]()
    for number, line in enumerate(lines, 1):
        term, tab, said = line.partition("\t")
        if not line.strip():
            continue
        if not tab or not term.strip() or not said.strip():
            raise UserError(f"{path}, line {number}: a term, a tab and its translation are wanted, not {line!r:.60}")
        terms[term.strip()] = said.strip()
    return terms
