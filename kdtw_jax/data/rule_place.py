"""Where a rule in words stands in what a student reads: before its source, and of a chat inside the user's message."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from kdtw_jax.data.tokenizer import Tokenizer
from kdtw_jax.models import CausalConfig, ModelConfig

Config = TypeVar("Config", bound=ModelConfig)
_LONG = 2**20  # tokens, of which no rule has as many


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
