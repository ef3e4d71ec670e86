"""`kdtw write` with helpers: the options --helper, --budget and --nats-per-cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kdtw_jax.cli.elsewhere import TIMEOUT, waiting
from kdtw_jax.errors import UserError
from kdtw_jax.lines import say

if TYPE_CHECKING:
    from kdtw_jax.helpers import HelpedAnswer, HelpedWriter
    from kdtw_jax.student import Student


def check_helped(
    helpers: tuple[str, ...], budgets: tuple[str, ...], nats: float | None, others: dict[str, bool]
) -> None:
    """Checks options that go with --helper, before a model is read.

    Args:
      helpers: each --helper.
      budgets: each --budget.
      nats: --nats-per-cost.
      others: options that do not go with it, and whether they are given.

    Raises:
      UserError: something needs a helper, does not go with one, or is not understood.
    """
    if not helpers:
        if budgets or nats is not None:
            raise UserError("--budget and --nats-per-cost are about helpers: name them with --helper")
        return
    from kdtw_jax.helpers import read_budget, read_helper

    if wrong := [name for name, given in others.items() if given]:
        raise UserError(f"{wrong[0]} does not go with --helper; say the budget of a helper with --budget")
    if nats is not None and not 0 <= nats < 1e6:
        raise UserError(f"nats-per-cost is a number from 0 up, not {nats}")
    names = [read_helper(helper).name for helper in helpers]
    for budget in map(read_budget, budgets):
        if budget.name != "cost" and budget.name not in names and not any(":" in name for name in names):
            raise UserError(f"a budget is of {budget.name!r:.60}; helpers are {', '.join(names)}, or say cost")


def worth_folder(run: Path, method: str, seed: int | None) -> Path | None:
    """Where a `run` keeps what helpers are worth to its student of a `method` and `seed`; None: it was not measured."""
    found = sorted(run.glob(f"seed{'*' if seed is None else seed}/{method}/helpers"))
    if seed is not None or not found:
        return found[0] if found else None
    from kdtw_jax.helpers.worth import worth_folder as of_seed
    from kdtw_jax.pipeline.restore import restore

    return of_seed(run, method, restore(run)[1].seeds[0])


def helped_writer(
    student: Student,
    folder: Path | None,
    helpers: tuple[str, ...],
    budgets: tuple[str, ...],
    nats: float | None,
    *,
    guard: bool,
    timeout: float = TIMEOUT,
) -> HelpedWriter:
    """The writer that the options mean.

    Args:
      student: who writes.
      folder: where its run keeps what helpers are worth to it, if that was measured; it is used if all are among them.
      helpers: each --helper.
      budgets: each --budget.
      nats: --nats-per-cost.
      guard: budgets are enforced.
      timeout: --teacher-timeout, for helpers at an address.

    Raises:
      UserError: what was measured is of other models; and as `kdtw_jax.helpers.make_helper` and `HelpedWriter` do.
    """
    from kdtw_jax.helpers import HelpedWriter, TeacherHelper, limits_of, make_helper, read_budget, read_helper
    from kdtw_jax.helpers.steps import feature_count
    from kdtw_jax.helpers.worth import check_worth, measured, read_worth
    from kdtw_jax.training.identity import model_hash

    specs, bounds = [read_helper(helper) for helper in helpers], [read_budget(budget) for budget in budgets]
    made = [make_helper(spec, student.model.tokenizer, **waiting(spec.where or "", timeout)) for spec in specs]
    price = None if nats is None else [nats * helper.price for helper in made]
    asked = {helper.name for helper in made if not helper.exact}
    if folder is not None and asked and (folder / "helpers.json").exists():
        known = read_worth(folder)
        if asked <= set(known.helpers):
            own = student.model
            models = {h.name: h.teacher.about.model for h in made if isinstance(h, TeacherHelper)}
            models["student"] = model_hash(own.model, own.params)
            check_worth(known, feature_count(own.model), models)
            told, found = measured(known, made, limits_of(made, bounds))
            return HelpedWriter(
                student, made, bounds, savings=told, nats=found.tolist() if price is None else price, guard=guard
            )
    return HelpedWriter(student, made, bounds, worth=[spec.worth for spec in specs], nats=price, guard=guard)


def helped_stream(
    writer: HelpedWriter, sources: Iterable[str], account: Literal["output", "document"]
) -> Iterator[HelpedAnswer]:
    """Answers of a `writer` to `sources` on an `account`; at the end standard error says who wrote how many words.

    It says of teachers that could not be reached, too, and their connections are then closed.
    """
    from kdtw_jax.helpers import TeacherHelper

    words, cost = 0, 0.0
    used = dict.fromkeys((helper.name for helper in writer.helpers), 0)
    teachers = [helper for helper in writer.helpers if isinstance(helper, TeacherHelper)]
    try:
        for answer in writer.stream(sources, account=account):
            words, cost = words + answer.length, cost + answer.cost
            for name, number in zip(answer.helpers, answer.used, strict=True):
                used[name] += number
            yield answer
    finally:
        for teacher in teachers:
            teacher.close()
    if words:
        told = ", ".join(f"{name} {number} ({number / words:.1%})" for name, number in used.items())
        say(f"of {words} words helpers wrote: {told}; cost {cost:g}, {cost / words:.3f} per word")
    for teacher in teachers:
        if teacher.unanswered:
            say(f"{teacher.name} did not answer {teacher.unanswered} times: there it was as if it had declined")
