"""Where a rule in words stands in what a student reads: before its source, and of a chat inside the user's message."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.models import CausalConfig, ModelConfig

Config = TypeVar("Config", bound=ModelConfig)
_LONG = 2**20  # tokens, of which no rule has as many
_HOW = {"rule_read": "as a prompt"}  # what a stage says; students that were trained before it read a rule without more


def rule_encoder(tokenizer: Tokenizer, *, in_source: bool) -> Callable[[str], list[int]]:
    """Makes the function from a rule in words to its tokens.

    A decoder-only student reads a rule as it reads anything: alone, it is a prompt of its own, in the chat template or
    with a line's end; in its source, it is a line of the user's message, and `with_rule_place` says where that begins.

    Args:
      tokenizer: of the student.
      in_source: whether the rule and the source are one text (`rule_in_source`).
    """
    if tokenizer.prompts is None:
        return tokenizer.encode
    if in_source:
        return lambda text: tokenizer.encode(f"{text}\n")
    return lambda text: tokenizer.prompt(text, _LONG)[0]


def how_read(tokenizer: Tokenizer) -> dict[str, str]:
    """What the training of an asking student states of how it reads rules; of `tokenizer`, where it has prompts."""
    return {} if tokenizer.prompts is None else dict(_HOW)


def check_read_alike(name: str, stated: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Refuses an asking student that learned to read rules in another way than `rule_encoder` says them.

    Args:
      name: of the student, for the message.
      stated: what its training stated.
      tokenizer: of it.

    Raises:
      UserError: it was trained when a rule was no prompt yet.
    """
    if any(stated.get(key) != value for key, value in how_read(tokenizer).items()):
        raise UserError(
            f"{name} learned to read rules as plain tokens, of an older version, and not as prompts: train it again in "
            "another folder (--out), or write with the version that trained it"
        )


def without_how_read(stated: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage has `stated` beside that."""
    return {key: value for key, value in stated.items() if key not in _HOW}


def with_rule_place(config: Config, tokenizer: Tokenizer) -> Config:
    """Returns a student's config that says after which tokens of a source the rule stands, where it stands in that.

    Those are what the chat template, or a beginning token, puts before a user's words.

    Args:
      config: of a student.
      tokenizer: of it.
    """
    if not (config.rule_in_source and isinstance(config, CausalConfig) and tokenizer.prompts is not None):
        return config
    return dataclasses.replace(config, rule_after=tokenizer.prompts.head)
