"""Lines for the outside: whatever a model writes, JSON stays JSON on any terminal."""

from __future__ import annotations

import json

import pytest

from kdtw_jax.lines import json_line, one_line

STRANGE = "a\x7f\x85\u2028\x00\n\t\\x é 漢 \U0001f600"


@pytest.mark.parametrize("encoding", ["utf8", "ascii", "latin-1", None])
def test_an_object_is_one_line_of_json_and_says_the_same_in_every_encoding(encoding: str | None) -> None:
    line = json_line({"text": STRANGE}, encoding)
    assert json.loads(line) == {"text": STRANGE}
    assert one_line(line, encoding, {}) == line
    assert line.encode(encoding or "utf8").decode(encoding or "utf8") == line


def test_what_can_be_shown_is_not_escaped() -> None:
    assert json_line({"text": "é 漢"}, "utf8") == '{"text": "é 漢"}'
