"""How solutions of a finished run of `classroom` come out: what is right, and where the teacher was asked.

    python experiments/solutions.py runs/quickstart
    python experiments/solutions.py runs/mine --rules "never ask" "at most 20% of the words" --results results/classroom

Three tables, as `conditions.csv`, `kinds.csv` and `helpers.csv` of the folder `--results`: right answers of the teacher
and of each student, by what is new in a problem (`kdtw_jax/data/classroom.py`) and by its steps; by kind of word
(`kdtw_jax/classroom/kinds.py`), how often the student alone writes another word than the reference solution, and how
often it asks for the word under each rule; and what each gets right with the calculator
(`kdtw_jax/helpers/calculator.py`), with its teacher under rules if it asks, and with both, at what cost. Where some
solutions say their answer alone and others have steps, `ways.csv` says how often either comes out, and how often right.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import kdtw_jax
from kdtw_jax.answers import Answer
from kdtw_jax.classroom.kinds import KINDS, is_in_the_head, word_kinds
from kdtw_jax.classroom.languages import language_of
from kdtw_jax.data.pair import Pair
from kdtw_jax.errors import UserError
from kdtw_jax.helpers import HelperUse, Limits, make_calculator
from kdtw_jax.metrics.builtin import mean_rows, ratio_of_sums
from kdtw_jax.metrics.classroom import right_solutions
from kdtw_jax.metrics.scores import Statistics, bootstrap, interval
from kdtw_jax.metrics.scoring import ENGLISH
from kdtw_jax.pipeline.prepare import look_up
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs import Progress, print_table, provenance, write_csv, write_json
from kdtw_jax.runs.tables import Cell, Row
from kdtw_jax.serving.classroom import SOLVED
from kdtw_jax.serving.engine import Engine
from kdtw_jax.serving.in_order import write_in_order
from kdtw_jax.student import Student

CONDITIONS = ("run", "model", "seed", "rule", "share", "condition", "steps", "problems", "right")
# `cost` is in units per word; who writes is a student or the teacher, whom nobody helps but the calculator.
HELPER_COLUMNS: tuple[str, ...] = ("run", "model", "seed", "helpers", "rule", "condition", "steps", "problems", "words")
HELPER_COLUMNS += ("teacher_words", "calculator_words", "cost", "right", "low", "high")
_HELPERS = {"student": -1, "teacher": 0, "calculator": 1}  # by number, as `Limits` has them
WAY_COLUMNS = ("run", "model", "seed", "rule", "way", "problems", "share", "right")
KIND_COLUMNS = ("run", "seed", "rule", "kind", "words", "share_of_words", "help_rate", "wrong_alone")


@dataclass(frozen=True)
class Args:
    """Which run, and under which rules."""

    run: Annotated[Path, tyro.conf.Positional]
    """the folder of a finished run whose students solve word problems"""
    rules: tuple[str, ...] = ("never ask", "at most 10% of the words", "at most 20% of the words")
    """for the students that ask; not enforced but by their gate"""
    priced: tuple[str, ...] = tuple(f"at most {share}% of the words" for share in (5, 10, 20))
    """likewise, in the table of helpers"""
    price: float = 0.1
    """of a word that the calculator writes, where one of the teacher's costs 1"""
    split: str = "test"
    """of the data"""
    limit: int | None = None
    """problems at the most"""
    results: Path | None = None
    """folder for conditions.csv, ways.csv, kinds.csv, helpers.csv and provenance-solutions.json"""


def main(args: Args) -> None:
    """Writes the tables.

    Raises:
      UserError: no such run or split, or it is of another task.
    """
    started = time.time()
    _, config = restore(args.run)
    if config.data not in SOLVED:
        raise UserError(f"{args.run} is of {config.data}; this is for runs of {', '.join(map(str, SOLVED))}")
    pairs = list(look_up(config).task.splits[args.split])[: args.limit]
    if not 0 <= args.price < float("inf"):
        raise UserError(f"price is a number from 0 up, not {args.price}")
    conditions, ways, kinds, helpers = list[Row](), list[Row](), list[Row](), list[Row]()
    for seed in config.seeds:
        for method in config.methods:
            student = kdtw_jax.load(args.run, method, seed)
            if method != "ask":
                alone = _write(student, pairs, None, method)
                conditions += _conditions(args.run.name, method, seed, "", pairs, alone)
                ways += _ways(args.run.name, method, seed, "", pairs, alone)
                helpers += _helpers(args, student, method, seed, pairs)
                continue
            assert student.teacher is not None
            if seed == config.seeds[0]:
                teacher = dataclasses.replace(student, model=student.teacher, teacher=None, constraints=())
                alone = _write(teacher, pairs, None, "teacher")
                conditions += _conditions(args.run.name, "teacher", seed, "", pairs, alone)
                ways += _ways(args.run.name, "teacher", seed, "", pairs, alone)
                helpers += _helpers(args, teacher, "teacher", seed, pairs)
            own = _write(student, pairs, None, "ask")
            for rule in args.rules:
                answers = _write(student, pairs, rule, f"ask, {rule}")
                conditions += _conditions(args.run.name, method, seed, rule, pairs, answers)
                ways += _ways(args.run.name, method, seed, rule, pairs, answers)
                kinds += _kinds(args.run.name, seed, rule, pairs, own, answers)
            helpers += _helpers(args, student, method, seed, pairs)
    ways = ways if len({row["way"] for row in ways}) > 1 else []
    _show(conditions, ways, kinds, helpers)
    if args.results is not None:
        write_csv(args.results / "conditions.csv", conditions, CONDITIONS)
        if ways:
            write_csv(args.results / "ways.csv", ways, WAY_COLUMNS)
        write_csv(args.results / "kinds.csv", kinds, KIND_COLUMNS)
        write_csv(args.results / "helpers.csv", helpers, HELPER_COLUMNS)
        write_json(args.results / "provenance-solutions.json", provenance(sys.orig_argv, list(config.seeds), started))


def _write(student: Student, pairs: Sequence[Pair], rule: str | None, what: str) -> list[Answer]:
    answers = list[Answer]()
    with Progress(what, total=len(pairs)) as progress:
        for answer in student.stream([pair["source"] for pair in pairs], rule, guard=False):
            answers.append(answer)
            progress.update(len(answers))
    return answers


def _conditions(
    run: str, model: str, seed: int, rule: str, pairs: Sequence[Pair], answers: Sequence[Answer]
) -> list[Row]:
    """Right answers by condition and steps; "all" of either is over all of them."""
    right = right_solutions([a.text for a in answers], [pair["target"] for pair in pairs], ENGLISH)
    rows = list[Row]()
    for (condition, steps), places in _groups(pairs):
        words, helped = sum(answers[i].length for i in places), sum(answers[i].helped for i in places)
        share = helped / words if words and rule else 0.0
        rate = 100 * sum(right[i] for i in places) / len(places)
        cells = (run, model, seed, rule, share, condition, steps, len(places), rate)
        rows.append(dict(zip(CONDITIONS, cells, strict=True)))
    return rows


def _groups(pairs: Sequence[Pair]) -> list[tuple[tuple[str, str], list[int]]]:
    """The numbers of pairs by condition and steps; "all" of either is all of them."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, pair in enumerate(pairs):
        condition, steps = pair["group"].split(" ")
        for group in ((condition, steps), (condition, "all"), ("all", steps), ("all", "all")):
            found[group].append(i)
    return sorted(found.items())


def _ways(run: str, model: str, seed: int, rule: str, pairs: Sequence[Pair], answers: Sequence[Answer]) -> list[Row]:
    """How many solutions are found in the head, how many in steps, and how many of either are right."""
    language = language_of(pairs[0]["target"])
    texts = [answer.text for answer in answers]
    taken = defaultdict[str, list[bool]](list)
    for text, is_right in zip(texts, right_solutions(texts, [pair["target"] for pair in pairs], ENGLISH), strict=True):
        taken["in the head" if is_in_the_head(text, language) else "in steps"].append(is_right)
    rates = [(way, len(of), len(of) / len(pairs), 100 * sum(of) / len(of)) for way, of in sorted(taken.items())]
    return [dict(zip(WAY_COLUMNS, (run, model, seed, rule, *found), strict=True)) for found in rates]


def _helpers(args: Args, writer: Student, model: str, seed: int, pairs: Sequence[Pair]) -> Iterator[Row]:
    """What comes out with each helper, and with both, at what cost; of the teacher every word of its own costs."""
    systems, sources = [("", ""), ("calculator", "")], [pair["source"] for pair in pairs]
    if writer.teacher is not None:
        systems += [(helpers, rule) for helpers in ("teacher", "teacher, calculator") for rule in args.priced]
    calculator = make_calculator(language=language_of(pairs[0]["target"]))
    with closing(Engine(writer, tool=calculator.function)) as engine:
        for helpers, rule in systems:
            answers, is_calculated = list[Answer](), "calculator" in helpers
            with Progress(" ".join((model, helpers, rule)), total=len(pairs)) as progress:
                for done in write_in_order(engine, sources, rule or None, guard=False, calculator=is_calculated):
                    answers.append(done.answer)
                    progress.update(len(answers))
            uses = helper_uses(writer, answers, args.price, own="teacher" if model == "teacher" else "student")
            right = right_solutions([a.text for a in answers], [pair["target"] for pair in pairs], ENGLISH)
            for group, places in _groups(pairs):
                use = sum((uses[i] for i in places[1:]), uses[places[0]])
                some = [100.0 * right[i] for i in places]
                value = sum(some) / len(some)
                draws = bootstrap([Statistics(mean_rows(some), ratio_of_sums)], 1000, seed=0)[:, 0]
                found = (len(places), use.words, *use.words_K, use.cost / max(use.words, 1), value)
                cells: tuple[Cell, ...] = (args.run.name, model, seed, helpers, rule, *group, *found)
                cells += interval(draws, value)
                yield dict(zip(HELPER_COLUMNS, cells, strict=True))


def helper_uses(student: Student, answers: Sequence[Answer], price: float, *, own: str) -> list[HelperUse]:
    """The words of the teacher and of the calculator in each answer, and their cost; a teacher's word costs 1.

    Args:
      student: of whose vocabulary they are.
      answers: in the order of the result.
      price: of a word of the calculator's.
      own: "teacher" if the answers' student is one, who then writes at that price; else "student".
    """
    ids = {piece: number for number, piece in enumerate(student.pieces)}
    limits, marks = Limits((1.0, price), (None, None), (None, None)), student.model.tokenizer.words
    helper = {"student": _HELPERS[own], "teacher": _HELPERS["teacher"], "calculator": _HELPERS["calculator"]}
    return [
        limits.use(marks, [ids[piece] for piece in answer.tokens], [helper[who] for _, who in answer.writers])
        for answer in answers
    ]


def _kinds(
    run: str, seed: int, rule: str, pairs: Sequence[Pair], own: Sequence[Answer], answers: Sequence[Answer]
) -> list[Row]:
    """Help by kind of the words written; mistakes by kind of the reference's words, up to the first one of a text."""
    words, helped = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    met, wrong = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for pair, alone, answer in zip(pairs, own, answers, strict=True):
        asked = {w for w, of_teacher in zip(answer.words, answer.by_teacher, strict=True) if of_teacher}
        for number, kind in enumerate(word_kinds(answer.text)):
            words[kind] += 1
            helped[kind] += number in asked
        written = alone.text.split()
        for number, (word, kind) in enumerate(zip(pair["target"].split(), word_kinds(pair["target"]), strict=True)):
            met[kind] += 1
            if number >= len(written) or written[number] != word:
                wrong[kind] += 1
                break  # what follows hangs on it
    total = sum(words.values())
    return [
        {
            "run": run,
            "seed": seed,
            "rule": rule,
            "kind": kind,
            "words": words[kind],
            "share_of_words": words[kind] / total if total else None,
            "help_rate": helped[kind] / words[kind] if words[kind] else None,
            "wrong_alone": wrong[kind] / met[kind] if met[kind] else None,
        }
        for kind in KINDS
    ]


def _show(conditions: Sequence[Row], ways: Sequence[Row], kinds: Sequence[Row], helpers: Sequence[Row]) -> None:
    shown = [row for row in conditions if row["condition"] == "all" or row["steps"] == "all"]
    print_table("right answers, %", shown, [c for c in CONDITIONS if c != "run"])
    if ways:
        print_table("solutions by way", ways, [c for c in WAY_COLUMNS if c != "run"])
    if kinds:
        print_table("help by kind of word", kinds, [c for c in KIND_COLUMNS if c != "run"])
    wide: dict[tuple[object, ...], dict[str, Cell]] = {}
    for row in helpers:
        if row["steps"] == "all":
            line = wide.setdefault(tuple(row[c] for c in ("model", "seed", "helpers", "rule")), {})
            names = {"teacher, calculator": "both", "": "none"}
            line |= {"model": row["model"], "help": names.get(str(row["helpers"]), row["helpers"])}
            line |= {"rule": str(row["rule"]).removesuffix(" of the words"), str(row["condition"]): row["right"]}
            if row["condition"] == "all":
                line |= {"cost": row["cost"]}
    if wide:
        shown = list(wide.values())
        columns = list(dict.fromkeys(name for line in shown for name in line))
        print_table("right answers with helpers, %, and their cost per word", shown, columns)


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except UserError as error:
        sys.exit(f"error: {error}")
