"""Budgets of helpers, each in words and all together in cost units, and what outputs have used of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.errors import UserError
from kdtw_jax.helpers.protocol import Helper
from kdtw_jax.text.words import WordMarks, word_numbers

COST = "cost"
_ROUNDING = 1e-9  # of a sum of prices
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s?%")


class HelperUse(NamedTuple):
    """What was used in one or more outputs."""

    words: int  # whoever wrote them
    words_K: tuple[int, ...]  # that have a token of each helper's
    cost: float  # cost units: the words of each helper at its price, and an end of a text that it wrote as one word

    def __add__(self, other: HelperUse) -> HelperUse:  # type: ignore[override]
        words_K = tuple(a + b for a, b in zip(self.words_K, other.words_K, strict=True))
        return HelperUse(self.words + other.words, words_K, self.cost + other.cost)

    def __sub__(self, other: HelperUse) -> HelperUse:
        words_K = tuple(a - b for a, b in zip(self.words_K, other.words_K, strict=True))
        return HelperUse(self.words - other.words, words_K, self.cost - other.cost)


class Budget(NamedTuple):
    """A bound on one helper, or on the cost of all."""

    name: str
    """of the helper, or "cost" """
    share: float | None = None
    """of the words, 0 to 1; of cost: cost units per word"""
    words: int | None = None
    """in an output"""


@dataclass(frozen=True)
class Limits:
    """The budgets of helpers in their order; None: no bound."""

    price_K: tuple[float, ...]
    """cost units per word"""
    share_K: tuple[float | None, ...]
    """of the words, 0 to 1"""
    words_K: tuple[int | None, ...]
    """in an output"""
    cost: float | None = None
    """cost units per word, all helpers together"""

    @property
    def nothing(self) -> HelperUse:
        """Nothing used yet."""
        return HelperUse(0, (0,) * len(self.price_K), 0.0)

    def keeps(self, total: HelperUse, output: HelperUse) -> bool:
        """Whether a use is within all bounds.

        Args:
          total: of the outputs that share them.
          output: of each output alone, for numbers of words.
        """
        shares = all(
            share is None or used <= share * total.words + _ROUNDING
            for share, used in zip(self.share_K, total.words_K, strict=True)
        )
        numbers = all(n is None or used <= n for n, used in zip(self.words_K, output.words_K, strict=True))
        return shares and numbers and (self.cost is None or total.cost <= self.cost * total.words + _ROUNDING)

    def one_more(self, use: HelperUse, k: int) -> HelperUse:
        """`use` after one more word that helper number `k` writes."""
        words_K = tuple(used + (i == k) for i, used in enumerate(use.words_K))
        return HelperUse(use.words + 1, words_K, use.cost + self.price_K[k])

    def use(self, marks: WordMarks, tokens: Sequence[int], writers: Sequence[int]) -> HelperUse:
        """What an output uses.

        Args:
          marks: of the vocabulary.
          tokens: of the output, its end included where it has one.
          writers: of each token: the helper's number, -1 the student.
        """
        numbers = word_numbers(marks, tokens)
        helped = {(k, word) for k, word in zip(writers, numbers, strict=True) if k >= 0 and word >= 0}
        words_K = tuple(sum(k == one for k, _ in helped) for one in range(len(self.price_K)))
        cost = sum(price * used for price, used in zip(self.price_K, words_K, strict=True))
        if len(tokens) and tokens[-1] == EOS_ID and writers[-1] >= 0:
            cost += self.price_K[writers[-1]]
        return HelperUse(max(numbers, default=-1) + 1, words_K, cost)


def read_budget(said: str) -> Budget:
    """Reads one --budget.

    Args:
      said: as in "large=10%" (of the words), "large=3" (words in an output), "cost=0.5" (cost units per word).

    Raises:
      UserError: it is none.
    """
    name, _, number = said.partition("=")
    share = _SHARE.fullmatch(number.strip())
    if name and name != COST and share and float(share[1]) <= 100:
        return Budget(name, share=float(share[1]) / 100)
    if name and name != COST and re.fullmatch(r"\d{1,6}", number):
        return Budget(name, words=int(number))
    if name == COST and re.fullmatch(r"\d+(?:\.\d+)?", number):
        return Budget(COST, share=float(number))
    raise UserError(
        "--budget takes a share of the words (large=10%), words of an output (large=3) or cost units per word "
        f"(cost=0.5), got {said!r:.60}"
    )


def limits_of(helpers: Sequence[Helper], budgets: Sequence[Budget]) -> Limits:
    """The bounds of `helpers` that `budgets` state.

    Raises:
      UserError: a budget is of no helper, makes no sense, or there are two of one kind for one.
    """
    names = [helper.name for helper in helpers]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two helpers are called {doubled[0]}; give each a name of its own")
    shares: dict[str, float] = {}
    words: dict[str, int] = {}
    for budget in budgets:
        if budget.name not in (*names, COST):
            raise UserError(
                f"a budget is of {budget.name!r:.60}; helpers are {', '.join(names) or 'none'}, or say {COST}"
            )
        if (budget.share is not None and budget.name in shares) or (budget.words is not None and budget.name in words):
            raise UserError(f"two budgets of one kind for {budget.name}; keep one of them")
        if budget.share is not None:
            most = math.inf if budget.name == COST else 1.0
            if not 0 <= budget.share <= most:
                raise UserError(f"the budget of {budget.name} is {budget.share}; it has to be from 0 to {most:g}")
            shares[budget.name] = budget.share
        if budget.words is not None:
            if budget.words < 0:
                raise UserError(f"the budget of {budget.name} is {budget.words} words; it has to be 0 or more")
            words[budget.name] = budget.words
    return Limits(
        tuple(helper.price for helper in helpers),
        tuple(shares.get(name) for name in names),
        tuple(words.get(name) for name in names),
        shares.get(COST),
    )
