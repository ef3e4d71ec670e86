"""What the fields of a model's config may be."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, TypeAlias

from kdtw_jax.errors import UserError

Allowed: TypeAlias = Mapping[str, range | tuple[bool | str, ...]]


def check_fields(config: Any, allowed: Allowed, least: Mapping[str, float], most: Mapping[str, float] = {}) -> None:
    """Checks the fields of a config.

    Args:
      config: a dataclass.
      allowed: what whole numbers and choices may be, by the names of fields.
      least: what numbers have to reach; where that is not 0, they are to be above 0.
      most: what they have to stay below, where that is not 1.

    Raises:
      UserError: for the first that is none of them.
    """
    for name, values in allowed.items():
        if not _like(value := vars(config)[name], values[0]) or value not in values:
            raise refusal(name, value, _described(values))
    for name, low in least.items():
        high = most.get(name, 1.0)
        if not (_like(value := vars(config)[name], 0) or _like(value, 0.0)) or not low <= value < high:
            raise refusal(name, value, f"a number {'above' if low else 'of at least'} 0 and below {high:g}")


def check_fused(config: Any, depth: str) -> None:
    """Checks that cuDNN's attention can be had, `depth` being the field with that of a head.

    Raises:
      UserError: it cannot.
    """
    if config.dtype != "bfloat16" or vars(config)[depth] % 8:
        raise UserError(
            f"model config: fused_attention with dtype {config.dtype!r} and {depth} {vars(config)[depth]}; "
            "cuDNN's needs 'bfloat16' and a multiple of 8"
        )


def refusal(name: str, value: object, wanted: str) -> UserError:
    """The error of a field that is not what is `wanted`."""
    return UserError(f"model config: {name} is {reprlib.repr(value)}; it has to be {wanted}")


def _like(value: object, other: object) -> bool:
    """Whether it is of the kind of another one; True is no number."""
    return isinstance(value, type(other)) and isinstance(value, bool) == isinstance(other, bool)


def _described(allowed: range | tuple[bool | str, ...]) -> str:
    if not isinstance(allowed, range):
        return " or ".join(map(repr, allowed))
    return f"{'an even' if allowed.step == 2 else 'a whole'} number of at least {allowed[0]} and at most {allowed[-1]}"
