"""Constraints by name: those of the package, and a user's own.

One of your own is an entry more: `register(make_mine)`, a function that makes it, before the command line is read or a
run is restored; installed with a package of yours that names the function under the entry points of
`kdtw_jax.constraints`, which the command line reads; or named on the command line, `--constraint module:make_mine`. No
code is looked for by a name that a file says.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from importlib import import_module

from kdtw_jax.constraints.builtin import (
    make_after,
    make_calls,
    make_compute,
    make_first,
    make_in_a_row,
    make_pause,
    make_price,
    make_share,
)
from kdtw_jax.constraints.record import Constraint
from kdtw_jax.errors import UserError
from kdtw_jax.models import Costs, ModelConfig, costs
from kdtw_jax.registry import Registry

# Takes nothing, or what the arithmetic of the teacher takes that its costs are about.
Maker = Callable[[], Constraint] | Callable[[Costs], Constraint]

CONSTRAINTS: Registry[Maker] = Registry(
    {},
    kind="constraint",
    group="kdtw_jax.constraints",
    how="kdtw_jax.constraints.register(MAKER), --constraint MODULE:MAKER",
    expected=Callable,
    register=lambda name, maker: register(maker),
)
_ANY_TEACHER = Costs(1.0, 1.0, *(lambda source, target: 1.0,) * 3)  # names and words are the same for all


def made(maker: Maker, teacher: Costs) -> Constraint:
    """The constraint of a maker, for a teacher of these costs. Raises UserError for a function that makes none."""
    needed = _values_taken(maker)
    if needed > 1:
        raise UserError(f"{_named(maker)} must take nothing or the teacher's costs, it takes {needed} values")
    found = maker(teacher) if needed else maker()  # type: ignore[call-arg]
    if not isinstance(found, Constraint):
        raise UserError(f"{_named(maker)} must return a Constraint, not {found!r:.80}")
    return found


def register(maker: Maker) -> Maker:
    """Adds a constraint, by the name that what is made has.

    Raises:
      UserError: it makes none, or another one has its name.
    """
    if not callable(maker):
        raise UserError(f"a constraint is registered by the function that makes it, not by {maker!r:.80}")
    name = made(maker, _ANY_TEACHER).name
    return CONSTRAINTS.add(name, maker)


def known_constraints(names: Sequence[str], teacher: ModelConfig | None) -> tuple[Constraint, ...]:
    """The constraints of these names. Of "price=2.5" only that price is ever drawn.

    Args:
      names: the constraints.
      teacher: whose arithmetic some of them count; None: it is elsewhere, and does not say what it takes.

    Raises:
      UserError: a name that none has, or a budget that makes no sense or is none of a price: a student is judged over
        the range of all others; or one of a teacher elsewhere that counts its arithmetic.
    """
    found = []
    if teacher is None and (counting := need_costs(names)):
        raise UserError(
            f"the rule {counting[0]} counts the teacher's arithmetic, which one at an address does not say: leave it "
            "out of ask.constraints"
        )
    for name, said in zip(without_budgets(names), names, strict=True):
        constraint = made(CONSTRAINTS.find(name), _ANY_TEACHER if teacher is None else costs(teacher))
        if said != name:
            number = said.removeprefix(f"{name}=")
            if constraint.price is None:
                raise UserError(
                    f"{said!r:.80}: of a price alone one value may be trained for, as in price=2.5; say {name}"
                )
            if not re.fullmatch(r"\d+(?:\.\d+)?", number):
                raise UserError(f"{said!r:.80} must have a number after the =, as in {name}=2.5")
            budget = constraint.wording.read(number)
            constraint = constraint._replace(low=budget, high=budget)
        found.append(constraint)
    return tuple(found)


def need_costs(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the `names` whose constraints count what the teacher's arithmetic takes."""
    return tuple(name for name in names if _values_taken(CONSTRAINTS.find(name.partition("=")[0])))


def _values_taken(maker: Maker) -> int:
    return sum(p.default is p.empty for p in inspect.signature(maker).parameters.values())


def without_budgets(names: Sequence[str]) -> tuple[str, ...]:
    """Drops what stands after "=": "price" of "price=2.5"."""
    return tuple(name.partition("=")[0] for name in names)


def every_constraint() -> list[Constraint]:
    """All there are, of whatever teacher: for their words."""
    return [made(maker, _ANY_TEACHER) for maker in CONSTRAINTS.values()]


def load_named(place: str) -> None:
    """Registers the constraint of `module:function`: for command lines, where a user types it. Raises UserError where
    it cannot be had."""
    module, _, function = place.partition(":")
    if not module or not function.isidentifier():
        raise UserError(f"--constraint takes MODULE:FUNCTION, as in rules:make_mine, got {place!r}")
    try:
        maker = getattr(import_module(module), function)
    except Exception as error:
        raise UserError(f"--constraint {place}: {error}; is the folder of {module} in PYTHONPATH?") from error
    register(maker)


def _named(maker: Maker) -> str:
    return str(getattr(maker, "__qualname__", maker))


for _maker in (make_share, make_calls, make_pause, make_in_a_row, make_first, make_after, make_compute, make_price):
    register(_maker)
