"""Word problems about what a pupil likes, and their solutions by a student that may ask its teacher, each part checked.

    kdtw classroom runs/classroom --interest Minecraft --grade 4 --rule "ask the teacher for at most 20% of the words"
    kdtw classroom runs/classroom --interest horses --operations subtract add --numbers 34 17 25 --problems 3
    kdtw classroom runs/classroom --interest horses --rule "at most 10% of the words" --calculator

A problem, then its solution in lines: what the teacher wrote in ⟦ ⟧, what the calculator did in ⟨ ⟩, and behind each
line ✓ if all of it is right, or ✗ and what is. Problems of your own come with --problems-file, one a line, "-" for
standard input. What is not understood of them is marked ?: of its solution only what is calculated wrongly is found.
With --json a problem is an object.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kdtw_jax.answers import Answer
from kdtw_jax.classroom.checking import Checked, Span, check_solution
from kdtw_jax.classroom.understanding import understand
from kdtw_jax.classroom.worksheet import Wishes, exercise_json, make_exercises
from kdtw_jax.cli.output import put
from kdtw_jax.constraints import read_rule
from kdtw_jax.errors import UserError
from kdtw_jax.lines import Remarks, argument, json_line, one_line, read_lines, say
from kdtw_jax.marks import CLOSE, OPEN, SPELLED, TOOL_CLOSE, TOOL_OPEN
from kdtw_jax.methods.ask_config import unit_of
from kdtw_jax.runs.compiled import keep_compiled
from kdtw_jax.serving.classroom import language_of, places, reach_of
from kdtw_jax.student import Student, load

_SPELLED = {**SPELLED, "✓": "[right]", "✗": "[wrong]"}
_CLOSED = {OPEN: CLOSE, TOOL_OPEN: TOOL_CLOSE}
_ROWS = 16  # problems that are solved side by side with a calculator
_Account = Literal["output", "document", "auto"]
_MARKS = {"right": "✓", "wrong": "✗", "unexpected": "✗", "unchecked": "?"}


@dataclass(frozen=True)
class Classroom:
    """Options of `kdtw classroom`."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a run of the task classroom"""
    interest: str = ""
    """what the problems are about"""
    grade: int | None = None
    """2 to 7; by default any"""
    operations: tuple[str, ...] = ()
    """what is done, in order: add, subtract, multiply, divide, keep; by default drawn"""
    numbers: tuple[str, ...] = ()
    """the first number and one for each operation: 34, 7.50, 14:35, 3/4, 25%%; by default drawn"""
    problems: int = 1
    """how many"""
    problems_file: str = ""
    """problems of your own instead, one a line; "-": standard input"""
    rule: str | None = None
    """when to ask, in words. By default never"""
    seed: int = 0
    """of what is drawn"""
    method: str = ""
    """the student of this method; by default the one that may ask, if there is one"""
    account: Literal["output", "document"] | None = None
    """what keeps the rule: every solution by itself, or all together; by default together, and one by itself"""
    guard: bool = True
    """enforce the rule; with --no-guard only the student's own gate decides"""
    calculator: bool = False
    """a calculator writes what stands after "=", wherever it understands what stands before; no rule counts that"""
    teacher_alone: bool = False
    """the run's teacher solves, and no student"""
    plain: bool = False
    """leave the marks of writers out"""
    json: bool = False
    """write objects of JSON, one a line"""


def run(arguments: list[str]) -> None:
    """Runs `kdtw classroom`.

    Raises:
      UserError: no problems can be made, the run has no student that solves them, and as `kdtw_jax.load` does.
      BrokenPipeError: nobody reads on.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for --help, which shows the marks
    options = tyro.cli(Classroom, prog="kdtw classroom", description=__doc__, args=arguments)
    if bool(options.interest) == bool(options.problems_file):
        raise UserError("say what the problems are about with --interest, or give your own with --problems-file")
    _check_together(options)
    # What is wrong with the wishes is said before a model is read.
    reach = reach_of(options.run)
    if not reach:
        raise UserError(f"{options.run} is no run of word problems; give one of `kdtw train --task classroom`")
    wishes = Wishes(
        *(argument(options.interest), options.grade, options.operations, options.numbers),
        count=options.problems,
        seed=options.seed,
        small=reach == "small",
        language=(language := language_of(options.run)),
    )
    made = [] if options.problems_file else make_exercises(wishes, places(language))
    texts = [one.text for one in made] or _own(options.problems_file)
    keep_compiled()
    student = load(options.run, options.method, rule=options.rule)
    for remark in read_rule(options.rule, student.constraints).assumed if options.rule else ():
        say(remark)
    writer = _who_writes(student, options)
    encoding = None if sys.stdout is None else sys.stdout.encoding
    account: _Account = options.account or ("output" if options.rule is None or len(texts) == 1 else "auto")
    helped = length = calculated = right = alone = 0
    for index, answer in enumerate(_written(writer, texts, options, account, language)):
        asks = understand(answer.source)
        checked = check_solution(answer.text, asks, language=language)
        if options.json:
            about = exercise_json(made[index]) if made else {"text": answer.source, "answer": asks and asks.answer}
            put(json_line({"problem": about, "solution": answer.to_json(), "checked": checked.to_json()}, encoding))
        else:
            put(one_line(answer.source, encoding, _SPELLED))
            for line in solution_lines(answer, checked, plain=options.plain):
                put("  " + one_line(line, encoding, _SPELLED))
        helped, length, right = helped + answer.helped, length + answer.length, right + checked.is_right
        alone += checked.is_answer_alone
        calculated += answer.by_calculator
    wrote = {"teacher": helped} if writer.teacher is not None else {}
    wrote |= {"calculator": calculated} if options.calculator else {}
    if length and wrote:
        (first, number), *others = wrote.items()
        told = [f"the {first} wrote {number} of {length} {writer.unit.noun} ({number / length:.1%})"]
        say(", ".join([*told, *(f"the {name} {more} ({more / length:.1%})" for name, more in others)]))
    say(
        f"{right} of {len(texts)} solutions are right"
        + (f"; {alone} more have the right answer without its steps" if alone else "")
    )


def _check_together(options: Classroom) -> None:
    """Refuses options that do not go together."""
    if options.teacher_alone:
        others = {
            "--rule": options.rule is not None,
            "--account": options.account is not None,
            "--no-guard": not options.guard,
            "--method": bool(options.method),
        }
        if wrong := [name for name, given in others.items() if given]:
            raise UserError(f"{wrong[0]} does not go with --teacher-alone: no student is there to ask; leave one out")
    if options.account == "document" and not options.guard:
        raise UserError("--account document enforces the rule for all together; leave it or --no-guard out")


def _who_writes(student: Student, options: Classroom) -> Student:
    """The student, or its teacher as one that has nobody to ask; with a calculator, words are counted of either."""
    if options.teacher_alone:
        if student.teacher is None:
            raise UserError(f"{options.run} has no student that asks, and its teacher is read with that one")
        student = replace(student, model=student.teacher, teacher=None, constraints=())
    if options.calculator and student.teacher is None:
        student = replace(student, unit=unit_of("word", student.model.tokenizer))
    return student


def _written(
    writer: Student, texts: list[str], options: Classroom, account: _Account, language: str
) -> Iterator[Answer]:
    """Solutions in order; with a calculator they are written by the engine of a server."""
    if not options.calculator:
        yield from writer.stream(texts, options.rule, guard=options.guard, account=account)
        return
    from kdtw_jax.helpers import make_calculator
    from kdtw_jax.serving.engine import Engine
    from kdtw_jax.serving.in_order import write_in_order

    engine = Engine(
        writer, rows=min(_ROWS, len(texts)), queue=2 * _ROWS, tool=make_calculator(language=language).function
    )
    with closing(engine):
        solved = write_in_order(engine, texts, options.rule, guard=options.guard, account=account, calculator=True)
        yield from (done.answer for done in solved)


def _own(name: str) -> list[str]:
    """Problems of a file, one a line; empty lines are passed over."""
    remarks = Remarks("line")
    if name == "-" and sys.stdin is None:
        raise UserError("there is no standard input to read problems from; give a file with --problems-file")
    try:
        if name == "-":
            found = list(read_lines(sys.stdin.buffer, remarks))
        else:
            with Path(name).open("rb") as file:
                found = list(read_lines(file, remarks))
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from error
    remarks.close()
    problems = [line.strip() for line in found if line.strip()]
    if not problems:
        raise UserError(f"{name} has no problems; give one a line")
    return problems


def solution_lines(answer: Answer, checked: Checked, *, plain: bool = False) -> Iterator[str]:
    """A solution sentence by sentence, with marks of its writers, and what is right of each behind it.

    Args:
      answer: the solution.
      checked: likewise, looked through.
      plain: leave the marks of writers out.
    """
    text, marked = answer.text, answer.text if plain else answer.marked
    places = _places(text, marked)
    begin, open_mark = 0, ""  # a mark that goes over several lines is closed and opened again
    groups = list(_sentences(checked.spans))
    for number, spans in enumerate(groups):
        last = number == len(groups) - 1
        end = len(text) if last else groups[number + 1][0].start
        line = marked[places[begin] : len(marked) if last else places[end]].strip()
        line = open_mark + line
        open_mark = next((mark for mark, end in _CLOSED.items() if line.rfind(mark) > line.rfind(end)), "")
        begin = end
        yield f"{line}{_CLOSED.get(open_mark, '')} {_verdict(spans)}"
    if not groups:
        yield f"{marked} ?" if marked else "(nothing was written) ✗"
    if checked.is_answer_alone:
        yield f"✗ the answer is right, its steps are missing: {'; '.join(checked.missing)}"
    elif checked.missing:
        yield f"✗ missing: {'; '.join(checked.missing)}"


def _sentences(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Words with the calculations after them; an answer is one by itself."""
    group: list[Span] = []
    for span in spans:
        if group and (span.what == "answer" or (span.what == "words" and group[-1].what != "words")):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _verdict(spans: Sequence[Span]) -> str:
    """The mark of a sentence: that of the first part of it that is not right."""
    for verdict in ("wrong", "unexpected", "unchecked"):
        for span in spans:
            if span.verdict == verdict:
                note = "not checked" if verdict == "unchecked" else span.note or "this is not part of the solution"
                return f"{_MARKS[verdict]} {note}"
    return _MARKS["right"]


def _places(text: str, marked: str) -> list[int]:
    """Where each character of a text, and its end, stands in the text with marks; an opening one is of what follows."""
    found, at = list[int](), 0
    for letter in text:
        start = at
        while at < len(marked) and marked[at] in SPELLED and marked[at] != letter:
            at += 1
            start = at if marked[at - 1] not in _CLOSED else start
        found.append(start)
        at += 1
    return [*found, len(marked)]
