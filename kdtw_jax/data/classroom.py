"""Word problems for a class, matched to a pupil's interests, and their solutions: `classroom/NAME`.

- `solve`: a problem -> each step with its calculation, and the answer line; of 1 to 3 steps, for grades 2 to 7;
- `quick`: likewise, of 1 or 2 steps with numbers up to 30, which small models learn in minutes;
- `ways`: two small changes of a small number, solved in one's head, which says the answer alone, or written out step
  by step, each as often; nothing in a problem says which;
- `hasty`: the same problems, nine of ten solved in one's head;
- `large`: as `solve`, tested at numbers from 100 on, which are not in training;
- `write`: a specification (grade, interest, numbers and operations) -> the problem;
- `quick-de`, `solve-de` and `ways-de`: the same in German;
- `outline`: lesson outlines, of which `kdtw_jax.data.classroom_outlines` says more.

Half of what solvers are trained on are drills: calculations alone. Everything is made on the spot by the grammar
of `kdtw_jax.classroom`, with cities of CLDR. What the test has of its own hangs on the text only, and is the same for
every seed; a pair's `group` says which, and of how many steps it is:

- `interest`: a pupil's interest that is nowhere in training;
- `chain`: a sequence of operations that is not;
- `carry`: a sum or difference, with a carry, of two numbers that never meet in training: it is right only if carried
  out;
- `familiar`: none of these, but a problem of its own.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from kdtw_jax.classroom import arithmetic
from kdtw_jax.classroom.interests import draw_interest
from kdtw_jax.classroom.languages import GRAMMARS
from kdtw_jax.classroom.problems import CHAINS, SMALL, Chain, Problem, draw_specification, is_small, tell
from kdtw_jax.classroom.specification import UNITS, Operation, Specification, Step, results
from kdtw_jax.classroom.workings import workings
from kdtw_jax.data import cldr_names
from kdtw_jax.data.classroom_outlines import outline_pairs
from kdtw_jax.data.classroom_reasoning import SOURCE as REASONING
from kdtw_jax.data.classroom_shares import is_kept_out
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.record import Task, TaskRequest, TaskSource
from kdtw_jax.data.splits import PairSplits
from kdtw_jax.data.store import stored
from kdtw_jax.errors import UserError
from kdtw_jax.text.fraction import fixed_fraction

SIZES = {"train": 60_000, "validation": 1_000, "test": 2_000}
SEED = 0
CONDITIONS = ("familiar", "interest", "chain", "carry")
# Of these chains each operation is in training at its place, before or after other ones.
HELD_OUT_CHAINS: frozenset[Chain] = frozenset(
    {
        ("things", ("subtract", "divide")),
        ("things", ("keep", "add")),
        ("measure", ("add", "keep")),
        ("money", ("subtract", "add")),
        ("things", ("multiply", "subtract", "keep")),
        ("things", ("add", "add", "divide")),
        ("measure", ("subtract", "add", "keep")),
        ("money", ("subtract", "add", "subtract")),
    }
)
_HELD_OUT_NUMBERS = 0.08  # of the pairs that are added or subtracted
_SUM = re.compile(r"(?<![\d.,:/])(\d+) ([+-]) (\d+)(?![\d:/]|[.,]\d)")
_LARGE = range(100, 1000)
_FEW = range(2, 21)  # which a small model can add without fail, a step at a time
_CHANGES = 2  # of both at once it is less sure

_HASTE = 0.9  # of the solutions of `hasty` are found in one's head
_DRILLED = 6  # calculations of a drill, at least
_ALL = tuple(dict.fromkeys(chain for chains in CHAINS.values() for chain in chains))
_QUICK = tuple(filter(is_small, _ALL))
_SUMS = tuple(chain for chain in _QUICK if {*chain[1]} <= {"add", "subtract"})

Draw = Callable[[random.Random, str], Specification]
Render = Callable[[Problem, random.Random], tuple[str, str]]


def _any(rng: random.Random, interest: str) -> Specification:
    return draw_specification(rng, interest)


def _quick(rng: random.Random, interest: str) -> Specification:
    chain = rng.choice(_QUICK)
    return draw_specification(rng, interest, grade=len(chain[1]) + 2, chain=chain, numbers=SMALL)


def _large(rng: random.Random, interest: str) -> Specification:
    return draw_specification(rng, interest, grade=3, chain=rng.choice(_SUMS), numbers=_LARGE)


def _changes(rng: random.Random, interest: str) -> Specification:
    """What is added and taken away is drawn within bounds, as too few of free numbers keep to them."""
    while True:
        start = left = rng.choice(_FEW)
        steps = list[Step]()
        for _ in range(_CHANGES):
            operation: Operation = rng.choice(("add", "subtract"))
            room = range(_FEW.start, _FEW.stop - left if operation == "add" else left)
            if not room:
                break
            number = rng.choice(room)
            steps.append(Step(operation, str(number)))
            left += number if operation == "add" else -number
        if len(steps) == _CHANGES and left > 1:  # "1 stickers" is no English
            return Specification(3, interest, rng.choice(UNITS), str(start), tuple(steps))


def _solve(problem: Problem, rng: random.Random) -> tuple[str, str]:
    return problem.text, problem.solution()


def _ways(problem: Problem, rng: random.Random) -> tuple[str, str]:
    return problem.text, rng.choice((problem.solution(), problem.answer_line))


def _hasty(problem: Problem, rng: random.Random) -> tuple[str, str]:
    return problem.text, problem.answer_line if rng.random() < _HASTE else problem.solution()


def _write(problem: Problem, rng: random.Random) -> tuple[str, str]:
    return problem.specification.line, problem.text


def _in_the_head(expression: str, rng: random.Random) -> str:
    return workings(expression)["head"]


class _Problems(NamedTuple):
    """How the pairs of a task of problems are made."""

    draw: Draw
    render: Render
    drilled: Callable[[str, random.Random], str] | None = _in_the_head  # calculations alone are half of training
    distractors: float = 0.25
    tested: Draw | None = None  # what the test is of, where that is none of `conditions`
    conditions: tuple[str, ...] = CONDITIONS
    times: int = 1  # so many times the usual pairs of training
    language: str = "en"


_PROBLEMS: dict[str, _Problems] = {
    "quick": _Problems(_quick, _solve),
    "solve": _Problems(_any, _solve),
    # With fewer problems a teacher knows their answers by heart, and of others too few.
    "ways": _Problems(_changes, _ways, distractors=0.0, conditions=("familiar", "interest"), times=3),
    "large": _Problems(_any, _solve, tested=_large),
    "write": _Problems(_any, _write, None, distractors=0.0),
}
_PROBLEMS["hasty"] = _PROBLEMS["ways"]._replace(render=_hasty)
_PROBLEMS |= {f"{name}-de": _PROBLEMS[name]._replace(language="de") for name in ("quick", "solve", "ways")}
METRICS: dict[str, tuple[str, ...]] = {
    "quick": ("right", "calculations", "chrf"),
    "solve": ("right", "calculations", "chrf"),
    "ways": ("right", "in_head", "chrf"),
    "hasty": ("right", "in_head", "chrf"),
    "large": ("right", "calculations", "chrf"),
    "quick-de": ("right", "calculations", "chrf"),
    "solve-de": ("right", "calculations", "chrf"),
    "ways-de": ("right", "in_head", "chrf"),
    "write": ("specification", "chrf"),
    "outline": ("outline", "chrf"),
}


def classroom_pairs(name: str, seed: int = SEED, limit: int | None = None) -> dict[str, list[Pair]]:
    """The splits "train", "validation" and "test" of a task, of distinct problems.

    Args:
      name: one of METRICS.
      seed: which problems are drawn; what is kept out of training does not depend on it.
      limit: at most this many pairs a split.

    Raises:
      UserError: an unknown name.
    """
    if name not in METRICS:
        raise UserError(f"unknown task 'classroom/{name}'; use {', '.join(f'classroom/{one}' for one in METRICS)}")
    if name == "outline":
        return outline_pairs(seed, limit)
    task, rng = _PROBLEMS[name], random.Random(seed)
    places = [slot.text(task.language, "") for slot in cldr_names.cities()]
    seen: set[str] = set()
    splits: dict[str, list[Pair]] = {}
    for split, size in SIZES.items():
        size *= task.times if split == "train" else 1
        wanted, pairs = size if limit is None else min(size, limit), list[Pair]()
        tested = task.tested if split == "test" else None
        while len(pairs) < wanted:
            if split == "train" and task.drilled and len(pairs) % 2:
                pairs.append(_drill(rng, task.draw, task.drilled, task.language))
                continue
            condition = "familiar" if split == "train" or tested else task.conditions[len(pairs) % len(task.conditions)]
            interest = draw_interest(rng, task.language)
            drawn = (tested or task.draw)(rng, interest.name)
            if condition_of(drawn) != condition:
                continue
            problem = tell(
                drawn,
                rng,
                interest=interest,
                places=places,
                distractors=task.distractors,
                language=task.language,
            )
            source, target = task.render(problem, rng)
            if split == "train" and _writes_held_out_numbers(target):
                continue  # what is calculated on the way meets as little as the problem's own numbers
            if source not in seen:
                seen.add(source)
                group = f"{name if tested else condition} {len(drawn.steps)}"
                pairs.append({"source": source, "target": target, "group": group})
        if split != "train":  # a part of them, evenly spaced, is of all conditions
            random.Random(seed).shuffle(pairs)
        splits[split] = pairs
    return splits


def _drill(rng: random.Random, draw: Draw, drilled: Callable[[str, random.Random], str], language: str) -> Pair:
    """Calculations alone, as a class does them before word problems: those of several problems."""
    grammar = GRAMMARS[language]
    written = grammar.notation.written
    expressions, solved = list[str](), list[str]()
    while len(expressions) < _DRILLED:
        found = draw(rng, "drill")
        if condition_of(found) == "familiar":
            lefts = [found.start, *(results(found) or [])]
            for step, left in zip(found.steps, lefts, strict=False):
                working = drilled(expression := step.expression(left, found.kind), rng)
                if not _writes_held_out_numbers(working):
                    expressions.append(written(expression))
                    solved.append(f"{written(working)}.")
    return {"source": f"{grammar.drill} {', '.join(expressions)}", "target": " ".join(solved), "group": "drill"}


def condition_of(specification: Specification) -> str:
    """Which of what the test has of its own a problem has: one of CONDITIONS, or "several"."""
    found = []
    if is_kept_out(specification.interest):
        found.append("interest")
    if (specification.kind, specification.operations) in HELD_OUT_CHAINS:
        found.append("chain")
    kept_out, carried = _meets_held_out_numbers(specification)
    if kept_out:
        found.append("carry" if carried else "several")
    return "familiar" if not found else found[0] if len(found) == 1 else "several"


def _meets_held_out_numbers(specification: Specification) -> tuple[bool, bool]:
    """Whether numbers meet that do so nowhere in training, and whether some of them carry."""
    lefts = [specification.start, *(results(specification) or [])]
    kept_out = carried = False
    for step, left in zip(specification.steps, lefts, strict=False):
        if step.operation not in ("add", "subtract") or not (left.isdigit() and step.number.isdigit()):
            continue
        if _is_held_out(step.operation, left, step.number):
            kept_out = True
            ones, more = int(left) % 10, int(step.number) % 10
            carried |= ones + more > 9 if step.operation == "add" else ones < more
    return kept_out, carried


def _writes_held_out_numbers(solution: str) -> bool:
    """Whether numbers meet in the sums and differences of a solution that do so nowhere in training."""
    found = _SUM.finditer(solution)
    return any(_is_held_out("add" if one[2] == "+" else "subtract", one[1], one[3]) for one in found)


def _is_held_out(operation: str, left: str, right: str) -> bool:
    """Of sums and differences that can be carried out in parts, which are known."""
    expression = f"{left} {'+' if operation == 'add' else '-'} {right}"
    few = fixed_fraction(f"numbers|{operation}|{left}|{right}") < _HELD_OUT_NUMBERS  # first, as it rules out most
    return few and "written" in workings(expression)


def _load(request: TaskRequest) -> Task:
    name = "quick" if request.name == "classroom" else request.name.removeprefix("classroom/")
    if name not in METRICS:
        classroom_pairs(name)  # which says so

    def make() -> PairSplits:
        with Console(stderr=True).status(f"{request.name}: making pairs, some seconds"):
            splits = classroom_pairs(name)
        return PairSplits(splits, {f"{split}_pairs": float(len(pairs)) for split, pairs in splits.items()})

    made = stored(request.data_dir, request.name.replace("/", "-"), _recipe(), make)
    language = _PROBLEMS[name].language if name in _PROBLEMS else "en"
    return Task(request.name, made.splits, METRICS[name], "{source}", made.notes, made.fingerprint, language)


def _recipe() -> str:
    """The generator's own text: with another the pairs are made anew."""
    modules = [*Path(arithmetic.__file__).parent.glob("*.py"), *Path(__file__).parent.glob("classroom*.py")]
    text = b"".join(module.read_bytes() for module in sorted(modules))
    return hashlib.blake2b(text, digest_size=8).hexdigest()


SOURCE = TaskSource(_load, "classroom")
SOURCES = {"classroom": SOURCE, "classroom/": SOURCE._replace(form="classroom/NAME"), "classroom:": REASONING}
