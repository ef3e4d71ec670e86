"""Word problems for a class, matched to a pupil's interests, and their solutions: `classroom/NAME`.

- `solve`: a problem -> each step with its calculation, and the answer line;
- `ways`: likewise, but a solution goes one of three ways, a third of them each, and nothing in a problem says which:
  step by step, in one's head (the answer line alone), or by a rule of thumb (over the next ten and back);
- `large`: as `solve`, tested at numbers from 100 on, which are not in training;
- `write`: a specification (grade, interest, numbers and operations) -> the problem;
- `outline`: lesson outlines, of which `kdtw_jax.data.classroom_outlines` says more.

Everything is made on the spot by the grammar of `kdtw_jax.classroom`, with cities of CLDR. What the test has of its own
hangs on the text only, and is the same for every seed; a pair's `group` says which, and of how many steps it is:

- `interest`: a pupil's interest that is nowhere in training;
- `chain`: a sequence of operations that is not;
- `carry`: a sum or difference, with a carry, of two numbers that never meet in training: it is right only if carried
  out;
- `familiar`: none of these, but a problem of its own.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from kdtw_jax.classroom import arithmetic
from kdtw_jax.classroom.interests import Interest, draw_interest
from kdtw_jax.classroom.problems import CHAINS, WAYS, Problem, draw_specification, tell
from kdtw_jax.classroom.specification import Specification, results
from kdtw_jax.data import cldr_names
from kdtw_jax.data.classroom_outlines import outline_pairs
from kdtw_jax.data.classroom_reasoning import SOURCE as REASONING
from kdtw_jax.data.classroom_shares import is_kept_out, share_of
from kdtw_jax.data.pair import Pair
from kdtw_jax.data.record import Task, TaskRequest, TaskSource
from kdtw_jax.data.splits import PairSplits
from kdtw_jax.data.store import stored
from kdtw_jax.errors import UserError

SIZES = {"train": 60_000, "validation": 1_000, "test": 2_000}
SEED = 0
CONDITIONS = ("familiar", "interest", "chain", "carry")
_HELD_OUT = {"chain": 0.12, "carry": 0.08}
_LARGE = range(100, 1000)

Render = Callable[[Problem, random.Random], tuple[str, str]]


def _solve(problem: Problem, rng: random.Random) -> tuple[str, str]:
    return problem.text, problem.solutions["steps"]


def _ways(problem: Problem, rng: random.Random) -> tuple[str, str]:
    return problem.text, problem.solutions[rng.choice(WAYS)]


def _write(problem: Problem, rng: random.Random) -> tuple[str, str]:
    return problem.specification.line, problem.text


_PROBLEMS: dict[str, Render] = {"solve": _solve, "ways": _ways, "large": _solve, "write": _write}
METRICS: dict[str, tuple[str, ...]] = {
    "solve": ("right", "calculations", "chrf"),
    "ways": ("right", "calculations"),
    "large": ("right", "calculations", "chrf"),
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
    render = _PROBLEMS[name]
    rng = random.Random(seed)
    places = [slot.text("en", "") for slot in cldr_names.cities()]
    seen: set[str] = set()
    splits: dict[str, list[Pair]] = {}
    for split, size in SIZES.items():
        wanted = size if limit is None else min(size, limit)
        splits[split] = []
        while len(splits[split]) < wanted:
            # In turn: a limit takes them evenly.
            condition = "familiar" if split == "train" else CONDITIONS[len(splits[split]) % len(CONDITIONS)]
            interest = draw_interest(rng)
            large = name == "large" and split == "test"
            drawn = _draw_large(rng, interest) if large else draw_specification(rng, interest.name)
            if drawn is None or condition_of(drawn) != ("familiar" if large else condition):
                continue
            problem = tell(drawn, rng, interest=interest, places=places, distractors=0.0 if name == "write" else 0.25)
            source, target = render(problem, rng)
            if source not in seen:
                seen.add(source)
                group = f"{'large' if large else condition} {len(drawn.steps)}"
                splits[split].append({"source": source, "target": target, "group": group})
    return splits


def _draw_large(rng: random.Random, interest: Interest) -> Specification | None:
    """A problem of sums and differences whose first number is above those of training."""
    grade = rng.choice((2, 3))
    chain = rng.choice([chain for chain in CHAINS[grade] if "multiply" not in chain[1]])
    return draw_specification(rng, interest.name, grade=3, chain=chain, numbers=_LARGE)


def condition_of(specification: Specification) -> str:
    """Which of what the test has of its own a problem has: one of CONDITIONS, or "several"."""
    found = []
    if is_kept_out(specification.interest):
        found.append("interest")
    # Each operation alone is in training, so that none is first seen in the test.
    if len(specification.steps) > 1:
        chain = f"chain|{specification.kind}|{'|'.join(specification.operations)}"
        if share_of(chain) < _HELD_OUT["chain"]:
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
        if share_of(f"numbers|{step.operation}|{left}|{step.number}") < _HELD_OUT["carry"]:
            kept_out = True
            ones, more = int(left) % 10, int(step.number) % 10
            carried |= ones + more > 9 if step.operation == "add" else ones < more
    return kept_out, carried


def _load(request: TaskRequest) -> Task:
    name = "solve" if request.name == "classroom" else request.name.removeprefix("classroom/")
    if name not in METRICS:
        classroom_pairs(name)  # which says so

    def make() -> PairSplits:
        with Console(stderr=True).status(f"{request.name}: making pairs, some seconds"):
            splits = classroom_pairs(name)
        return PairSplits(splits, {f"{split}_pairs": float(len(pairs)) for split, pairs in splits.items()})

    made = stored(request.data_dir, request.name.replace("/", "-"), _recipe(), make)
    return Task(request.name, made.splits, METRICS[name], "{source}", made.notes, made.fingerprint, "en")


def _recipe() -> str:
    """The generator's own text: with another the pairs are made anew."""
    modules = [*Path(arithmetic.__file__).parent.glob("*.py"), *Path(__file__).parent.glob("classroom*.py")]
    text = b"".join(module.read_bytes() for module in sorted(modules))
    return hashlib.blake2b(text, digest_size=8).hexdigest()


SOURCE = TaskSource(_load, "classroom")
SOURCES = {"classroom": SOURCE, "classroom/": SOURCE._replace(form="classroom/NAME"), "classroom:": REASONING}
