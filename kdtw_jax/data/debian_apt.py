"""Debian's package indices, fetched by `apt-get update` into a folder of our own; needs no root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from kdtw_jax.errors import UserError
from kdtw_jax.runs.atomic import explained, write_text

_TIMEOUT_SECONDS = 900
_HELPER = "/usr/lib/apt/apt-helper"
_NO_APT = (
    "the debian tasks need {tool}, which is not on this machine; run them on Debian or Ubuntu, "
    "or copy a data folder prepared there, or use --data cldr or files"
)


class Indices(NamedTuple):
    """Texts of the indices, one item for each archive."""

    packages: tuple[str, ...]
    """names, source packages and description hashes"""
    translations: dict[str, tuple[str, ...]]
    """descriptions by language"""


def download_indices(folder: Path, languages: tuple[str, ...]) -> Indices:
    """The newest Packages and Translation indices of the archives that this machine's apt is set up for.

    Args:
      folder: where apt keeps its lists; created, and reused by a later call.
      languages: codes as in `Translation-de`.

    Raises:
      UserError: no apt, no network, or an index lacks a language; the message says what to do.
    """
    apt = shutil.which("apt-get")
    if apt is None:
        raise UserError(_NO_APT.format(tool="apt-get"))
    helper = shutil.which("apt-helper") or (_HELPER if os.access(_HELPER, os.X_OK) else None)
    if helper is None:
        raise UserError(_NO_APT.format(tool="apt-helper"))
    settings = _write_settings(folder.resolve(), languages)
    with Console(stderr=True).status("apt-get update: downloading package descriptions"):
        update = _call(apt, "-c", settings, "-q", "update")
    rows = _call(apt, "-c", settings, "indextargets", "--format", "$(CREATED_BY)\t$(LANGUAGE)\t$(FILENAME)")
    targets = sorted(row.split("\t") for row in rows.stdout.splitlines() if row.count("\t") == 2)
    packages = [name for kind, _, name in targets if kind == "Packages"]
    named = {lang: [name for k, la, name in targets if (k, la) == ("Translations", lang)] for lang in languages}
    if not packages or not any(named.values()):
        raise UserError(
            f"apt-get update brought no package indices ({_reason(update)}); "
            "check the network and /etc/apt/sources.list*, then run the same command again"
        )
    lacking = [lang for lang in languages if not named[lang]]
    if lacking:
        raise UserError(
            f"no archive that apt is set up for has a Translation-{lacking[0]} index; "
            "use a language they have (Debian: de, fr, es, it, ja, da, pl, ru, ...)"
        )
    with Console(stderr=True).status("reading package descriptions"):
        return Indices(
            packages=tuple(_read(helper, settings, name) for name in packages),
            translations={
                lang: tuple(_read(helper, settings, name) for name in names) for lang, names in named.items()
            },
        )


def stanzas(index: str, fields: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The paragraphs of an index in deb822 format as {field: value}, of the `fields` asked for.

    Continuation lines are kept with their leading space, after a newline. By hand, since python-debian, whose `deb822`
    finds the same in five times the time, is under the GPL, which a package under the Apache licence cannot require.

    Args:
      index: the text of an index; an empty line ends a paragraph.
      fields: names in whatever case; found values have them as they are here.
    """
    wanted = {field.lower(): field for field in fields}
    for block in index.split("\n\n"):
        stanza: dict[str, str] = {}
        field = None
        for line in block.split("\n"):
            if line[:1] in (" ", "\t"):
                if field is not None:
                    stanza[field] += "\n" + line
                continue
            name, colon, value = line.partition(":")
            field = wanted.get(name.lower()) if colon else None
            if field is not None:
                stanza[field] = value.strip()
        if stanza:
            yield stanza


def _write_settings(folder: Path, languages: tuple[str, ...]) -> str:
    """An apt configuration that keeps to `folder`; it is read after the machine's own, which it corrects."""
    unwanted = ("DEP-11", "DEP-11-icons", "DEP-11-icons-small", "DEP-11-icons-hidpi", "Contents-deb", "CNF")
    lines = [
        "#clear Acquire::Languages;",
        "#clear APT::Update::Pre-Invoke;",
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
        "Acquire::Languages { " + " ".join(f'"{lang}";' for lang in languages) + " };",
        'Acquire::Retries "2";',
        # As root, apt would download as a user who may not be able to enter this folder.
        'APT::Sandbox::User "root";',
        f'Dir::State "{folder}";',
        f'Dir::State::Lists "{folder}/lists";',
        f'Dir::Cache "{folder}/cache";',
        *(f'Acquire::IndexTargets::deb::{kind}::DefaultEnabled "false";' for kind in unwanted),
    ]
    with explained(folder):
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    write_text(folder / "apt.conf", "\n".join(lines) + "\n")
    return str(folder / "apt.conf")


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=_TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as e:
        raise UserError(f"{command[0]} did not end within {_TIMEOUT_SECONDS} s; check the network and try again") from e


def _read(helper: str, settings: str, index: str) -> str:
    result = _call(helper, "-c", settings, "cat-file", index)
    if result.returncode != 0:
        raise UserError(f"apt could not read {index} ({_reason(result)}); delete that file and try again")
    return result.stdout


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    """The first complaint of apt, on one line."""
    lines = [line for line in result.stderr.splitlines() if line.startswith(("E:", "W:"))]
    return lines[0][:200] if lines else f"exit status {result.returncode}"
