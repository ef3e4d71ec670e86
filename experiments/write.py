"""Write texts of your own with a student that may ask its teacher, under a rule of your own.

    python experiments/write.py runs/quickstart --rule "ask the teacher for at most 20% of the words" < sources.txt
    python experiments/write.py runs/quickstart --rule "do not ask the teacher" --text "12 October 2026"

One output a line on standard output, what the teacher wrote in ⟦ ⟧; how much that was on standard error.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a clone without installing

import tyro

import experiments  # noqa: F401, before NumPy and JAX are loaded
from kdtw_jax.errors import UserError
from kdtw_jax.runs import keep_compiled
from kdtw_jax.writing import open_asking, write_under


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
    """Returns the exit status: 0, or 2 after a one-line error."""
    options = tyro.cli(Write, description=__doc__, args=arguments)
    keep_compiled()
    try:
        asking = open_asking(options.run, options.seed)
        sources = options.text or [line.rstrip("\n") for line in sys.stdin]
        calls = tokens = positions = 0
        for answer in write_under(asking, options.rule, sources, guard=options.guard):
            print(answer.text if options.plain else answer.marked, flush=True)
            calls, tokens, positions = calls + answer.calls, tokens + answer.tokens, positions + answer.positions
        if tokens:
            print(
                f"the teacher wrote {calls} of {tokens} tokens ({calls / tokens:.1%}) and processed {positions}",
                file=sys.stderr,
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
