"""A student that writes with several helpers: before each word it goes on by itself or lets one of them write it.

Helpers that are exact are heard before every word, in their order, and write wherever they do not decline. Of the
others the one is asked whose saving most exceeds its price in nats, if one does,

    saving_k(s) - price_k,    k in its budget, and the budget of the cost,

the greedy form of the gate over {write, ask 1, .., ask K} that is exact for an enumerable problem
(`kdtw_jax.tabular.helpers_mdp`). If it declines, the next best is. A word is one of the student's vocabulary, as rules
count them (`kdtw_jax.text.words`). All rows of a batch go on a token at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Literal
from uuid import uuid4

import jax
import numpy as np

from kdtw_jax.constraints import pad_words, word_tokens
from kdtw_jax.data.tokenizer import EOS_ID, PAD_ID, Tokenizer
from kdtw_jax.data.tool_words import tokens_apart, tokens_of_text
from kdtw_jax.errors import UserError
from kdtw_jax.helpers.answer import STUDENT, HelpedAnswer
from kdtw_jax.helpers.budgets import Budget, HelperUse, Limits, limits_of
from kdtw_jax.helpers.prices import GatePrices, gate_prices
from kdtw_jax.helpers.protocol import Begun, Helper, Suggestion
from kdtw_jax.helpers.steps import Looked, make_steps
from kdtw_jax.student import ALONE, Student
from kdtw_jax.text.words import word_numbers

_ROWS = 32  # texts written together
_SHORTEST = 16  # pieces; lengths are this times a power of two: few programs to compile

# Of N states what a word of each of K helpers saves, nats [N, K]: from features [N, F] (`Looked`) and the outputs.
Savings = Callable[[np.ndarray, Sequence[Begun]], np.ndarray]


@dataclass
class _Output:
    """One under way."""

    text: str
    source: list[int]
    source_tokens: int
    session: str
    tokens: list[int] = field(default_factory=list)
    writers: list[int] = field(default_factory=list)  # of each token: a helper's number, -1 the student
    begun: list[bool] = field(default_factory=list)  # of each token: a suggestion begins with it
    queue: deque[tuple[int, int, bool]] = field(default_factory=deque)  # suggested tokens that are not written yet
    closed: bool = False  # what is written, with the queue, ends in a word that is over, as a tool has said it
    use: HelperUse | None = None  # of tokens and queue
    done: bool = False

    def state(self, tokenizer: Tokenizer) -> Begun:
        written = tuple(self.tokens)
        return Begun(self.text, tokenizer.decode(written), tuple(self.source), written, self.session)


class HelpedWriter:
    """Writes texts with a student and its helpers.

    Raises:
      UserError: budgets are of no helper, or there is nothing to decide by: a student without a gate, or whose rules
        are not about shares.
    """

    def __init__(
        self,
        student: Student,
        helpers: Sequence[Helper],
        budgets: Sequence[Budget] = (),
        *,
        savings: Savings | None = None,
        worth: Sequence[float] | None = None,
        nats: Sequence[float] | None = None,
        guard: bool = True,
    ):
        """Makes one; nothing is written yet.

        Args:
          student: who writes; its own teacher is not asked, unless it is among the helpers.
          helpers: whom it may ask.
          budgets: of helpers and of the cost.
          savings: what a word of each helper saves in a state; by default what the student's gate expects of its
            teacher times `worth`.
          worth: a factor for each helper, by default 1.
          nats: the price of a word of each helper in nats; by default what the gate has learned that a call costs under
            the rule "ask the teacher for at most .." of the helper's share, and nothing where no budget bounds it.
          guard: no finished output is over its budgets; otherwise they only set prices.
        """
        self.student, self.helpers, self.guard = student, tuple(helpers), guard
        self.limits: Limits = limits_of(self.helpers, budgets)
        asked = [not helper.exact for helper in self.helpers]
        if any(asked) and savings is None and student.model.model.config.gate_width == 0:
            raise UserError(
                "this student has no gate, so it does not know when to ask a teacher: load one of the method ask"
            )
        self._asked_K, self._savings = np.array(asked, bool), savings
        self._worth_K = np.ones(len(asked)) if worth is None else np.asarray(worth, float)
        if len(self._worth_K) != len(asked) or (nats is not None and len(nats) != len(asked)):
            raise UserError(f"worth and nats have a number for each of the {len(asked)} helpers")
        if nats is not None:
            self._prices = GatePrices(np.asarray(nats, float), np.full(len(asked), -1), (ALONE,))
        else:
            self._prices = gate_prices(student, self.limits, self._asked_K, ALONE)
        own = student.model
        self._banned = set(own.tokenizer.banned_ids)
        self._marks = own.tokenizer.words
        self._steps = make_steps(
            own.model,
            banned=own.tokenizer.banned_ids,
            max_len=student.max_target,
            unit=student.unit,
            apart=tokens_apart(own.tokenizer),
        )
        words = [word_tokens(rule, student.encode_rule) for rule in self._prices.rules]
        self._words_RxW = pad_words(words, -(-max(map(len, words)) // _SHORTEST) * _SHORTEST)
        self._name, self._numbers = uuid4().hex, count(1)
        self.total: HelperUse = self.limits.nothing
        """what finished outputs of the account have used"""

    def __call__(self, sources: Iterable[str]) -> list[HelpedAnswer]:
        """Answers to `sources`, each within the budgets by itself."""
        return list(self.stream(sources))

    def stream(
        self, sources: Iterable[str], *, account: Literal["output", "document"] = "output"
    ) -> Iterator[HelpedAnswer]:
        """An answer for every source, greedy, in order; 32 are written at a time.

        Args:
          sources: texts.
          account: what keeps shares and cost: each output, or all that this writer writes so, together. A number of
            words holds in each output.
        """
        rows, rest = 1, iter(sources)
        while texts := list(islice(rest, _ROWS)):
            outputs = []
            for text in texts:
                source, cut = self.student.encode(text)
                session = f"{self._name}-{next(self._numbers)}"
                outputs.append(_Output(text, source, len(source) + cut, session, use=self.limits.nothing))
            some = [output for output in outputs if output.source]
            if some:
                rows = max(rows, _doubled(1, len(some)))
                self._write(some, rows, shared=account == "document")
            yield from map(self._answer, outputs)

    def _write(self, outputs: list[_Output], rows: int, *, shared: bool) -> None:
        """Writes outputs to their ends; `rows`: of the batch, which the last one fills up."""
        sources = [output.source for output in outputs]
        room = min(_doubled(_SHORTEST, max(map(len, sources))), self.student.max_source)
        source_BxS = pad_words(sources + sources[-1:] * (rows - len(sources)), room)
        params = self.student.model.params
        looked, state = self._steps.begin(params, source_BxS, self._words_RxW)
        for place in range(self.student.max_target):
            said: Looked = jax.device_get(looked)
            own_B = [int((said.apart_B if output.closed else said.token_B)[row]) for row, output in enumerate(outputs)]
            self._decide(outputs, own_B, said, self.student.max_target - place, shared=shared)
            token_B, helped_B, active_B = np.zeros(rows, np.int32), np.zeros(rows, bool), np.zeros(rows, bool)
            for row, output in enumerate(outputs):
                if output.done:
                    continue
                output.closed &= bool(output.queue)
                token, writer, begins = output.queue.popleft() if output.queue else (own_B[row], -1, False)
                if token == PAD_ID:
                    raise UserError("the student's scores are not finite; take another run")
                output.tokens.append(token)
                output.writers.append(writer)
                output.begun.append(begins)
                output.done = token == EOS_ID
                token_B[row], helped_B[row], active_B[row] = token, writer >= 0, True
                self._count(output, shared=shared)
            if all(output.done for output in outputs):
                return
            if place + 1 < self.student.max_target:
                looked, state = self._steps.go_on(params, state, token_B, helped_B, active_B)

    def _count(self, output: _Output, *, shared: bool) -> None:
        """What an output has used by now, what is in its queue included."""
        queued = list(output.queue)
        tokens = [*output.tokens, *(token for token, *_ in queued)]
        writers = [*output.writers, *(writer for _, writer, _ in queued)]
        before, output.use = output.use, self.limits.use(self._marks, tokens, writers)
        if shared and before is not None:
            self.total = self.total + output.use - before

    def _decide(self, outputs: list[_Output], own_B: list[int], said: Looked, room: int, *, shared: bool) -> None:
        """Puts what helpers suggest into the queues of outputs that are before a word, as the student's tokens say."""
        rows = [row for row, output in enumerate(outputs) if self._before_a_word(output, own_B[row])]
        if not rows or not self.helpers:
            return
        begun = {row: outputs[row].state(self.student.model.tokenizer) for row in rows}
        for exact in np.flatnonzero(~self._asked_K):
            self._hear(int(exact), rows, begun, outputs, room, shared=shared)
            rows = [row for row in rows if not outputs[row].queue]
        if not rows or not self._asked_K.any():
            return
        score_NxK = self._savings_of(said, rows, [begun[row] for row in rows]) - self._prices.of(
            np.asarray(said.price_BxR)[rows]
        )
        score_NxK = np.where(self._asked_K[None, :], score_NxK, -np.inf)
        scores = dict(zip(rows, score_NxK, strict=True))
        while scores:
            wish = {row: int(score_K.argmax()) for row, score_K in scores.items() if score_K.max() > 0}
            for k in sorted(set(wish.values())):
                self._hear(k, [row for row in wish if wish[row] == k], begun, outputs, room, shared=shared)
            for row, k in wish.items():
                scores[row][k] = -np.inf
            scores = {row: scores[row] for row in wish if not outputs[row].queue}

    def _before_a_word(self, output: _Output, token: int) -> bool:
        """Whether a word, or the end, comes next, as far as the student's own next token says it."""
        if output.done or output.queue:
            return False
        last = output.tokens[-1] if output.tokens else PAD_ID
        marks = self._marks
        return bool(token == EOS_ID or marks.blank_V[last] or marks.blank_V[token] or marks.begins_V[token])

    def _savings_of(self, said: Looked, rows: list[int], begun: list[Begun]) -> np.ndarray:
        if self._savings is None:
            saving_NxK: np.ndarray = np.asarray(said.saving_B)[rows][:, None] * self._worth_K[None, :]
            return saving_NxK
        return np.array(self._savings(np.asarray(said.features_BxF)[rows], begun), float)

    def _hear(
        self, k: int, rows: list[int], begun: dict[int, Begun], outputs: list[_Output], room: int, *, shared: bool
    ) -> None:
        """What helper number k suggests in some rows, as far as budgets let it."""
        may = [
            row for row in rows if self._keeps(outputs[row], self.limits.one_more(self._used(outputs[row]), k), shared)
        ]
        if not may:
            return
        found = self.helpers[k].suggest([begun[row] for row in may])
        if len(found) != len(may):
            raise UserError(f"the helper {self.helpers[k].name} gave {len(found)} answers to {len(may)} outputs")
        for row, suggestion in zip(may, found, strict=True):
            tokens = () if suggestion is None else self._tokens(k, outputs[row], begun[row], suggestion)
            if not tokens or len(tokens) > room:
                continue
            output = outputs[row]
            writers = [*output.writers, *(k for _ in tokens)]
            if self._keeps(output, self.limits.use(self._marks, [*output.tokens, *tokens], writers), shared):
                output.queue.extend((token, k, i == 0) for i, token in enumerate(tokens))
                output.closed = suggestion is not None and not suggestion.tokens
                self._count(output, shared=shared)

    def _used(self, output: _Output) -> HelperUse:
        return self.limits.nothing if output.use is None else output.use

    def _keeps(self, output: _Output, use: HelperUse, shared: bool) -> bool:
        total = self.total + use - self._used(output) if shared else use
        return not self.guard or self.limits.keeps(total, use)

    def _tokens(self, k: int, output: _Output, begun: Begun, suggestion: Suggestion) -> tuple[int, ...]:
        """The tokens of a suggestion; none where the vocabulary cannot say its text."""
        tokenizer = self.student.model.tokenizer
        if not suggestion.tokens:
            return tokens_of_text(tokenizer, begun.written, begun.written_text, suggestion.text)
        tokens = tuple(map(int, suggestion.tokens))
        if any(not 0 <= token < tokenizer.vocab_size or token in self._banned for token in tokens):
            raise UserError(f"the helper {self.helpers[k].name} suggests tokens that are never written: {tokens!r:.80}")
        return tokens[: tokens.index(EOS_ID) + 1] if EOS_ID in tokens else tokens

    def _answer(self, output: _Output) -> HelpedAnswer:
        names = [helper.name for helper in self.helpers]
        pieces, use = self.student.pieces, self._used(output)
        if not output.tokens:
            return HelpedAnswer(output.text, "", unit="word", helpers=tuple(names), used=use.words_K)
        return HelpedAnswer(
            output.text,
            self.student.model.tokenizer.decode(output.tokens),
            tuple(pieces[token] for token in output.tokens),
            tuple(writer >= 0 for writer in output.writers),
            0,
            output.source_tokens,
            "word",
            tuple(word_numbers(self._marks, output.tokens)),
            tuple(output.begun),
            by=tuple(names[writer] if writer >= 0 else STUDENT for writer in output.writers),
            helpers=tuple(names),
            used=use.words_K,
            cost=use.cost,
        )


def _doubled(start: int, least: int) -> int:
    while start < least:
        start *= 2
    return start
