"""Flags of the main job: each is explained with its value, and unknown ones are refused."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator

import pytest

from kdtw_jax.methods import METHODS
from kdtw_jax.pipeline.presets import SUMMARIZATION
from tests.commands import train


def test_unknown_flags_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train(["--preset", "tiny", "--no-such-flag", "1"])
    assert ended.value.code == 2
    assert "no-such-flag" in capsys.readouterr().err


def fields(value: object, prefix: str = "--") -> Iterator[tuple[str, object]]:
    """The flags of a configuration and its values."""
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        name, own = prefix + field.name.replace("_", "-"), getattr(value, field.name)
        yield from fields(own, f"{name}.") if dataclasses.is_dataclass(own) else ((name, own),)


@pytest.mark.parametrize("preset", ["tiny", "paper"])
def test_help_explains_every_flag_and_says_its_value_in_the_preset(
    preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["--preset", preset, "--help", "all"], task="summarization") == 0
    said: dict[str, str] = {}  # by flag, without spaces, which a fold may have put anywhere
    group, flag = "", ""
    explained_groups = set()
    for line in capsys.readouterr().out.splitlines():
        if found := re.match(r"  (--[a-z][\w.-]*)", line):
            flag = found[1]
            said.setdefault(flag, "")  # a group's own words may begin with a flag
        elif flag and line.startswith(" " * 6):
            said[flag] += "".join(line.split())
        elif re.match(r" *\S+ options *$", line):
            group, flag = f"--{line.split()[0]}", ""
        elif re.match(r"  \w", line) and not flag:
            explained_groups.add(group)
    config = SUMMARIZATION[preset]
    known = dict(fields(dataclasses.replace(config, settings={})))
    for method in METHODS:
        known |= fields(config.of(method), f"--{method.replace('_', '-')}.")
    assert len(said) <= 120
    for name, text in said.items():
        value = known[name]
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else shlex.quote(str(value))
        words, _, default = text.partition("(default:")
        assert default == "".join(shown.split()) + ")", name
        assert words or name.rpartition(".")[0] in explained_groups, f"{name} is explained nowhere"
