"""Write texts of your own with a student that may ask its teacher, under a rule of your own.

    python experiments/write.py runs/quickstart --rule "ask the teacher for at most 20% of the words" < sources.txt
    python experiments/write.py runs/quickstart --rule "do not ask the teacher" --text "12 October 2026"

One output a line on standard output, what the teacher wrote in ⟦ ⟧ (its end of a text ∎); how much that was on standard
error. Sources are UTF-8, one a line; an empty line has an empty output. A line break in an output is written \\n, other
control characters and what the output's encoding lacks with backslashes, too, and marks that it lacks [[ ]] and <end>.
Of a source that is longer than the student was trained for, the beginning is read, and standard error says so.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone without installing

import tyro

import experiments  # noqa: F401, before NumPy and JAX are loaded
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.places import CLOSE, END, OPEN
from kdtw_jax.lines import Remarks, argument, one_line, read_lines, say
from kdtw_jax.methods import load_installed
from kdtw_jax.runs import keep_compiled
from kdtw_jax.writing import open_asking, write_under

_SPELLED = {OPEN: "[[", CLOSE: "]]", END: "<end>"}
_STOPPED, _NO_READER = 130, 141  # as shells number SIGINT and SIGPIPE


@dataclass(frozen=True)
class Write:
    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run whose methods include ask"""
    rule: str
    """when to ask, in words; a form that is not understood is answered with those that are"""
    text: tuple[str, ...] = ()
    """sources; by default the lines of standard input"""
    seed: int = 0
    """the student of this seed"""
    guard: bool = True
    """enforce the rule; with --no-guard only the student's own gate decides"""
    plain: bool = False
    """leave the marks out"""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, 2 after a one-line error, 130 after Ctrl-C, 141 when nobody reads on."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for --help, which shows the marks
    options = tyro.cli(Write, description=__doc__, args=arguments)
    keep_compiled()
    try:
        _write(options)
    except UserError as error:
        say(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return _STOPPED
    except BrokenPipeError:
        return _NO_READER
    return 0


def _write(options: Write) -> None:
    load_installed()
    asking = open_asking(options.run, options.seed, rule=options.rule)
    remarks = Remarks("text" if options.text else "line")
    sources = map(argument, options.text) if options.text else _standard_input(remarks)
    calls = tokens = positions = 0
    for number, answer in enumerate(write_under(asking, options.rule, sources, guard=options.guard), 1):
        if answer.source > asking.max_source:
            read = f"{answer.source} pieces, of which the student reads the {asking.max_source} that it was trained for"
            remarks(number, "long", read)
        _put(answer.text if options.plain else answer.marked, {} if options.plain else _SPELLED)
        calls, tokens, positions = calls + answer.calls, tokens + answer.tokens, positions + answer.positions
    remarks.close()
    if tokens:
        say(f"the teacher wrote {calls} of {tokens} tokens ({calls / tokens:.1%}) and processed {positions}")


def _standard_input(remarks: Remarks) -> Iterable[str]:
    if sys.stdin is None:
        raise UserError("there is no standard input to read sources from; give them with --text")
    stream = getattr(sys.stdin, "buffer", None)  # a stream of text alone may stand in for it
    return read_lines(io.BytesIO(sys.stdin.read().encode("utf8", "replace")) if stream is None else stream, remarks)


def _put(text: str, spelled: dict[str, str]) -> None:
    """One line on standard output."""
    if sys.stdout is None:
        raise UserError("there is no standard output to write to")
    try:
        print(one_line(text, sys.stdout.encoding, spelled), flush=True)
    except OSError as error:
        _drop_output()
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"cannot write to standard output: {error.strerror or error}") from error


def _drop_output() -> None:
    """Python would try to write what is left when it ends, and complain."""
    with contextlib.suppress(OSError, ValueError):  # no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
