"""Write texts of your own with a student of a run, under a rule of your own where it may ask its teacher.

    kdtw write runs/quickstart --rule "ask the teacher for at most 20% of the words" < sources.txt
    kdtw write runs/quickstart --rule "do not ask the teacher" --text "a source of your own"

One output a line on standard output, what the teacher wrote in ⟦ ⟧ (its end of a text ∎); how much that was on standard
error. Sources are UTF-8, one a line, read and written a few at a time; an empty line has an empty output. A line break
in an output is written \\n, other control characters and what the output's encoding lacks with backslashes, too, and
marks that it lacks [[ ]] and <end>. Of a source that is longer than the student was trained for, the beginning is read,
and standard error says so. With --json an output is an object: source, text, share, calls, positions, of each token who
wrote it, what the share counts ("unit"), and where that is the word, how many words there are and were asked for; with
--helper also who wrote each word, how many each helper did, and what that cost.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kdtw_jax.answers import Answer
from kdtw_jax.cli.elsewhere import TIMEOUT, check_timeout, patience_with, teacher_at
from kdtw_jax.cli.extensions import load_extensions
from kdtw_jax.cli.output import put
from kdtw_jax.cli.write_helped import check_helped, helped_stream, helped_writer, worth_folder
from kdtw_jax.constraints import read_rule
from kdtw_jax.errors import UserError
from kdtw_jax.lines import Remarks, argument, json_line, one_line, read_lines, say
from kdtw_jax.marks import SPELLED
from kdtw_jax.runs.compiled import keep_compiled
from kdtw_jax.student import Student, load

_ROWS = 16  # texts that are written side by side where the teacher is elsewhere
_Account = Literal["output", "document", "auto"]


@dataclass(frozen=True)
class Write:
    """Options of `kdtw write`."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run"""
    rule: str | None = None
    """when to ask, in words; a form that is not understood is answered with those that are. By default never"""
    text: tuple[str, ...] = ()
    """sources; by default the lines of standard input"""
    teacher: str = ""
    """where the teacher is served, such as http://127.0.0.1:8100 (kdtw serve-teacher); by default it is read from the
    run"""
    teacher_timeout: float = TIMEOUT
    """seconds that a teacher elsewhere has to answer, twice; then the student writes on alone"""
    method: str = ""
    """the student of this method; by default the one that may ask, if there is one"""
    seed: int | None = None
    """the student of this seed; by default the run's first"""
    guard: bool = True
    """enforce the rule; with --no-guard only the student's own gate decides"""
    account: Literal["output", "document"] | None = None
    """what keeps an enforced rule: every output by itself, or all of them together, so that easy ones save for hard
    ones; by default together, and a single --text by itself"""
    plain: bool = False
    """leave the marks out"""
    json: bool = False
    """write objects of JSON, one a line"""
    helper: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """one more who may write words: calculator, glossary=FILE, NAME=RUN or NAME=http://... (a teacher), MODULE:MAKER
    (your own); :price=NUMBER behind it is its cost per word. May be repeated; the teacher is then not asked"""
    budget: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """of a helper or of the cost of all: NAME=10% of the words, NAME=3 words of an output, cost=0.5 per word"""
    nats_per_cost: float | None = None
    """nats that a helper's word has to save per unit of its cost; by default as the student's gate has learned it"""
    constraint: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """MODULE:FUNCTION that makes a rule of your own, which the run was trained with; may be repeated"""


def run(arguments: list[str]) -> None:
    """Runs `kdtw write`.

    Raises:
      UserError: a stream cannot be read or written, and as `kdtw_jax.load` does.
      BrokenPipeError: nobody reads on.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for --help, which shows the marks
    options = tyro.cli(Write, prog="kdtw write", description=__doc__, args=arguments)
    check_timeout(options.teacher_timeout)
    others = {"--rule": options.rule is not None, "--teacher": bool(options.teacher)}
    load_extensions(options.constraint)
    check_helped(options.helper, options.budget, options.nats_per_cost, others)
    keep_compiled()
    alone = bool(options.teacher or options.helper)
    student = load(options.run, options.method, options.seed, rule=options.rule, with_teacher=not alone)
    for remark in read_rule(options.rule, student.constraints).assumed if options.rule else ():
        say(remark)
    remarks = Remarks("text" if options.text else "line")
    sources = map(argument, options.text) if options.text else _standard_input(remarks)
    helped = length = positions = 0
    encoding = None if sys.stdout is None else sys.stdout.encoding
    account: _Account = options.account or ("output" if len(options.text) == 1 else "auto")
    written: Iterator[Answer]
    if options.helper:
        given = (options.helper, options.budget, options.nats_per_cost)
        folder = worth_folder(options.run, options.method or "ask", options.seed)
        writer = helped_writer(student, folder, *given, guard=options.guard, timeout=options.teacher_timeout)
        written = helped_stream(writer, sources, "output" if account == "output" else "document")
    elif options.teacher:
        written = _elsewhere(student, sources, options, account)
    else:
        written = student.stream(sources, options.rule, guard=options.guard, account=account)
    for number, answer in enumerate(written, 1):
        if answer.source_tokens > student.max_source:
            most = f"of which the student reads the {student.max_source} that it was trained for"
            remarks(number, "long", f"{answer.source_tokens} pieces, {most}")
        if options.json:
            put(json_line(answer.to_json(), encoding))
        else:
            text, spelled = (answer.text, {}) if options.plain else (answer.marked, SPELLED)
            put(one_line(text, encoding, spelled))
        helped, length = helped + answer.helped, length + answer.length
        positions += answer.positions
    remarks.close()
    if length and student.teacher is not None and not options.helper:
        told = f"processed {positions}" + (" tokens" if student.unit.noun == "words" else "")
        say(f"the teacher wrote {helped} of {length} {student.unit.noun} ({helped / length:.1%}) and {told}")


def _elsewhere(student: Student, sources: Iterable[str], options: Write, account: _Account) -> Iterator[Answer]:
    """Asks a teacher that is served elsewhere; says at the end how often it did not answer."""
    from kdtw_jax.serving.engine import Engine
    from kdtw_jax.serving.in_order import write_in_order

    if student.teacher is None:
        raise UserError("this student did not learn to ask: leave --teacher out")
    where, timeout, alone = options.teacher, options.teacher_timeout, 0
    with closing(teacher_at(where, student.model.tokenizer, timeout)) as teacher:
        patience = patience_with(where, timeout)
        engine = Engine(student, rows=_ROWS, queue=2 * _ROWS, teacher=teacher, patience=patience)
        with closing(engine):
            for done in write_in_order(engine, sources, options.rule, guard=options.guard, account=account):
                alone += done.degraded
                yield done.answer
    if alone:
        say(f"the teacher did not answer in {alone} of the texts: there the student went on alone")


def _standard_input(remarks: Remarks) -> Iterable[str]:
    if sys.stdin is None:
        raise UserError("there is no standard input to read sources from; give them with --text")
    stream = getattr(sys.stdin, "buffer", None)  # a stream of text alone may stand in for it
    return read_lines(io.BytesIO(sys.stdin.read().encode("utf8", "replace")) if stream is None else stream, remarks)
