"""Helpers by name: those of the package, and a user's own.

One of your own is a function that makes it: `register("mine", make_mine)`; installed with a package of yours that names
the function under the entry points `kdtw_jax.helpers`; or typed, `--helper module:make_mine`. No code is looked for by
a name that a file says.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import Any

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.helpers.calculator import make_calculator
from kdtw_jax.helpers.glossary import make_glossary
from kdtw_jax.helpers.protocol import Begun, Helper, Suggestion
from kdtw_jax.helpers.teacher import TeacherHelper
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.registry import Registry

# Takes nothing, or the text after "=" in --helper NAME=TEXT.
HelperMaker = Callable[..., Helper]

HELPERS: Registry[HelperMaker] = Registry(
    {"calculator": make_calculator, "glossary": make_glossary},
    kind="helper",
    group="kdtw_jax.helpers",
    how="kdtw_jax.helpers.register(NAME, MAKER), --helper MODULE:MAKER",
    expected=Callable,
    register=lambda name, maker: register(name, maker),
)
_OPTIONS = re.compile(r":((?:price|worth)=[^:,]*(?:,(?:price|worth)=[^:,]*)*)$")
_DEAREST = 1e6


@dataclass(frozen=True)
class NamedHelper:
    """A helper under a name and at a price of the user's own."""

    helper: Helper
    name: str
    price: float

    @property
    def exact(self) -> bool:
        """As the helper says."""
        return self.helper.exact

    def suggest(self, begun: Sequence[Begun]) -> list[Suggestion | None]:
        """As the helper does, of each that is `begun`."""
        return self.helper.suggest(begun)


@dataclass(frozen=True)
class HelperSpec:
    """What --helper says: NAME, NAME=WHERE or MODULE:MAKER, each with :price=NUMBER,worth=NUMBER behind it."""

    name: str
    where: str | None = None
    price: float | None = None
    """cost units per word; None: the helper's own"""
    worth: float = 1.0
    """of what the student's gate expects an answer to save, how much this helper's saves"""


def register(name: str, maker: HelperMaker) -> HelperMaker:
    """Adds a helper.

    Args:
      name: by which it is asked for.
      maker: makes it, from nothing or from the text that stands behind "=" on the command line.

    Raises:
      UserError: it is no name or no function, or another one has the name.
    """
    if not re.fullmatch(r"[\w-]+", name) or name in ("student", "cost"):
        raise UserError(f"a helper's name is a word, and neither student nor cost, not {name!r:.60}")
    if not callable(maker):
        raise UserError(f"a helper is registered by the function that makes it, not by {maker!r:.80}")
    return HELPERS.add(name, maker)


def read_helper(said: str) -> HelperSpec:
    """Reads one --helper.

    Args:
      said: as in "calculator", "large=runs/mine:price=3", "tools:make_units:price=0.5".

    Raises:
      UserError: it is none.
    """
    numbers = dict[str, float]()
    text = said
    if found := _OPTIONS.search(said):
        text = said[: found.start()]
        for part in found[1].split(","):
            key, _, number = part.partition("=")
            numbers[key] = _number(said, key, number)
    name, equals, where = text.partition("=")
    if not name or (equals and not where) or not re.fullmatch(r"[\w.:-]+", name) or name in ("student", "cost"):
        raise UserError(f"--helper takes NAME, NAME=WHERE or MODULE:MAKER, as in large=runs/mine:price=3, got {said!r}")
    return HelperSpec(name, where or None, numbers.get("price"), numbers.get("worth", 1.0))


def make_helper(spec: HelperSpec, tokenizer: Tokenizer, **patience: Any) -> Helper:
    """The helper that is meant: a registered one, one of a module, or else the teacher at `where`.

    Args:
      spec: what was said.
      tokenizer: the student's, which a teacher has to share.
      patience: of `kdtw_jax.teachers.resilience.Endpoint`, for teachers over the network.

    Raises:
      UserError: there is none.
    """
    module, colon, function = spec.name.partition(":")
    if colon:
        if not function.isidentifier():
            raise UserError(f"--helper takes MODULE:MAKER, as in tools:make_units, got {spec.name!r}")
        try:
            maker = getattr(import_module(module), function)
        except Exception as error:
            raise UserError(f"--helper {spec.name}: {error}; is the folder of {module} in PYTHONPATH?") from error
        made = _made(spec.name, maker, spec.where)
    elif spec.name in HELPERS or spec.where is None:
        made = _made(spec.name, HELPERS.find(spec.name), spec.where)
    else:
        made = _teacher(spec, tokenizer, patience)
    price = made.price if spec.price is None else spec.price
    if not _is_price(price):
        raise UserError(f"the helper {made.name} has a price of {price!r:.60}; it has to be a number from 0 up")
    name = made.name if colon else spec.name
    if (name, price) == (made.name, made.price):
        return made
    if isinstance(made, TeacherHelper):
        made.price = price
        return made
    return NamedHelper(made, name, price)


def _made(name: str, maker: HelperMaker, where: str | None) -> Helper:
    if not callable(maker):
        raise UserError(f"a helper is made by a function, {name} is {maker!r:.80}")
    try:
        parameters = list(inspect.signature(maker).parameters.values())
    except (TypeError, ValueError) as error:
        raise UserError(f"--helper {name}: it is not known what {maker!r:.80} takes; give a function") from error
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or (needed and where is None):
        wanted = "nothing, or the text behind =" if len(needed) > 1 else f"a text: --helper {name}=TEXT"
        raise UserError(f"the helper {name} needs {wanted}")
    if where is not None and not any(_takes_text(p) for p in parameters):
        raise UserError(f"the helper {name} takes nothing behind =; its price is said as {name}:price=NUMBER")
    try:
        made = maker() if where is None else maker(where)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--helper {name}: {type(error).__name__}: {error}") from error
    if not isinstance(made, Helper):
        raise UserError(f"{name} must make a helper (name, price, exact and suggest), not {made!r:.80}")
    return made


def _takes_text(parameter: inspect.Parameter) -> bool:
    """Whether the text behind "=" may be a parameter's value: of one by place, and no number."""
    by_place = parameter.kind in (
        parameter.POSITIONAL_ONLY,
        parameter.POSITIONAL_OR_KEYWORD,
        parameter.VAR_POSITIONAL,
    )
    return by_place and not isinstance(parameter.default, Real)


def _teacher(spec: HelperSpec, tokenizer: Tokenizer, patience: dict[str, Any]) -> TeacherHelper:
    from kdtw_jax.teachers.named import open_teacher
    from kdtw_jax.teachers.protocol import TeacherUnavailable

    where = str(spec.where)
    if "://" not in where and (Path(where) / "stages").is_dir():  # a run: its teacher
        where = restore(Path(where))[1].teacher_model or str(Path(where) / "teacher" / "model")
    try:
        teacher = open_teacher(where, tokenizer=tokenizer, **(patience if "://" in where else {}))
    except TeacherUnavailable as error:
        raise UserError(f"--helper {spec.name}={where}: {error}; is it served there? (kdtw serve-teacher)") from error
    return TeacherHelper(spec.name, teacher, tokenizer, 1.0 if spec.price is None else spec.price)


def _is_price(value: Any) -> bool:
    return isinstance(value, Real) and 0 <= float(value) < _DEAREST


def _number(said: str, key: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value < _DEAREST:
        raise UserError(f"--helper {said}: {key} has to be a number from 0 up, not {number!r}")
    return value
