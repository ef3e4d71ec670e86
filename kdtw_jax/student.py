"""A trained student that writes texts of the user's own, under a rule of the user's own where it learned to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload

import jax
import numpy as np

from kdtw_jax.answers import Answer, Answers
from kdtw_jax.constraints import TOKENS, Constraint, Rule, Unit, known_constraints, pad_words, read_rule, word_tokens
from kdtw_jax.constraints.account import Account, shared
from kdtw_jax.data.rule_place import check_read_alike, rule_encoder
from kdtw_jax.decoding.programs import WritePlan, WriteProgram, program_alone, program_under, write_rows
from kdtw_jax.errors import UserError
from kdtw_jax.lines import LONGEST
from kdtw_jax.methods.ask_config import unit_of
from kdtw_jax.models import Params, make_model
from kdtw_jax.pipeline.restore import read_json, restore
from kdtw_jax.pipeline.teacher_cache import CACHE_STAGE
from kdtw_jax.pretrained.named import find_config, find_model, read_teacher
from kdtw_jax.text.normal import is_blank
from kdtw_jax.text.words import word_numbers
from kdtw_jax.training.saved import SavedModel, check_vocabulary, load_model

ALONE = "do not ask the teacher"
_NOWHERE: Params = {}  # weights that were not read
_ROWS = 32  # texts written together
_SHORTEST = 16  # pieces; lengths are this times a power of two: few programs to compile

Keeping = Account | Literal["output", "document", "auto"]


@dataclass(frozen=True)
class Student:
    """A student of a run: called with texts it writes an answer for each.

    `student(["a source"], rule="ask the teacher for at most 20% of the words")`
    """

    model: SavedModel
    teacher: SavedModel | None
    """whom it may ask; None for a student that did not learn to"""
    constraints: tuple[Constraint, ...]
    """what its rules may be about"""
    alpha: float
    instruction: str
    """what was put around its sources, with {source} in it"""
    max_source: int
    """pieces of a source that it was trained to read at the most, instruction and end included"""
    max_target: int
    """tokens that it writes at the most"""
    unit: Unit = TOKENS
    """what its rules count, and what a call buys"""
    _programs: dict[tuple[Any, ...], WriteProgram] = field(default_factory=dict, repr=False, compare=False)

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, sources: str, rule: str | None = ..., *, guard: bool = ..., account: Keeping = ...
    ) -> Answer: ...

    @overload
    def __call__(
        self, sources: Iterable[str], rule: str | None = ..., *, guard: bool = ..., account: Keeping = ...
    ) -> Answers: ...

    def __call__(
        self,
        sources: str | Iterable[str],
        rule: str | None = None,
        *,
        guard: bool = True,
        account: Keeping = "output",
    ) -> Answer | Answers:
        """The answer to a text, or the answers to several; arguments and errors as for `stream`."""
        if isinstance(sources, str):
            return next(self.stream([sources], rule, guard=guard, account=account))
        return Answers(self.stream(sources, rule, guard=guard, account=account))

    def stream(
        self,
        sources: Iterable[str],
        rule: str | None = None,
        *,
        guard: bool = True,
        account: Keeping = "output",
    ) -> Iterator[Answer]:
        """An answer for every source, greedy, in order; sources are taken as they are needed, 32 at a time.

        Args:
          sources: texts. One without text has an empty answer, and of one beyond `max_source` the beginning is read, as
            in training with `on_long` "truncate" (of 2^18 characters at the most).
          rule: when to ask the teacher, in words; by default it is not asked.
          guard: enforce the rule; otherwise the student's own gate alone keeps it.
          account: who keeps an enforced rule: "output", each output by itself; "document", all outputs of this call
            together; "auto", "document" where the rule is one that can be shared, else "output"; an `Account`, all that
            are written on it, under its rule.

        Raises:
          UserError: as `read_rule` does, or a rule for a student that did not learn to ask, or an account that does not
            fit it; before anything is written.
        """
        if isinstance(account, Account):
            if rule not in (None, account.rule):
                raise UserError(f"the account is of the rule {account.rule!r}, not of {rule!r}; leave the rule out")
            rule = account.rule
        if self.teacher is not None and self.teacher.params is _NOWHERE:
            raise UserError("this student was loaded without its teacher's weights: leave with_teacher=False out")
        if self.teacher is None and rule is not None:
            raise UserError("this student did not learn to ask: leave the rule out, or load one of the method ask")
        opened = _opened(account, rule, guard)
        return self._write_all(sources, self._plan(rule, guard, opened, share=account == "auto" and guard))

    def _plan(self, rule: str | None, guard: bool, account: Account | None, *, share: bool = False) -> WritePlan:
        """How texts are written under a rule: by one program for all rules about the same things.

        Args:
          share: open an account where there is none and the rule is one that can be shared.
        """
        own, other = self.model, self.teacher
        limits: dict[str, Any] = {"banned": own.tokenizer.banned_ids, "max_len": self.max_target}
        if other is None:
            program = self._programs.setdefault((), program_alone(own.model, **limits))
            return WritePlan(program, Rule((), ()), np.zeros((1, 1), np.int32), None, "")
        read = read_rule(ALONE if rule is None else rule, self.constraints)
        if share and rule is not None and shared(read.rule):
            account = Account(rule)
        if account is not None:
            account.check(read.rule, self.unit)
        words = word_tokens(read.words, self.encode_rule)
        words_1xR = pad_words([words], -(-len(words) // _SHORTEST) * _SHORTEST)
        about = read.rule.constraints
        limits |= {"alpha": self.alpha, "guard": guard, "unit": self.unit}
        made = program_under(about, own.model, other.model, **limits)
        program = self._programs.setdefault((guard, self.unit.name, *(constraint.name for constraint in about)), made)
        return WritePlan(program, read.rule, words_1xR, account, "" if rule is None else f"under the rule {rule!r}")

    def _write_all(self, sources: Iterable[str], plan: WritePlan) -> Iterator[Answer]:
        rows, rest = 1, iter(sources)
        params = (self.model.params, None if self.teacher is None else self.teacher.params)
        while texts := list(islice(rest, _ROWS)):
            encoded = [self.encode(text) for text in texts]
            ids = [source for source, _ in encoded if source]
            if ids:
                rows = max(rows, _doubled(1, len(ids)))  # what is left at the end has the shape of the others
                room = min(_doubled(_SHORTEST, max(map(len, ids))), self.max_source)
                source_BxS = pad_words(ids + ids[-1:] * (rows - len(ids)), room)
                found = write_rows(plan, params, source_BxS, len(ids))
            row = 0
            for text, (source, cut) in zip(texts, encoded, strict=True):
                if not source:
                    yield Answer(text, "")
                    continue
                mask_T = found.mask_BxT[row]
                tokens, asked, called = (x[row][mask_T].tolist() for x in found[:3])
                yield self.answer(text, len(source) + cut, tokens, asked, called, int(found.positions_B[row]))
                row += 1

    @cached_property
    def pieces(self) -> list[str]:
        """The text of every id, as `Tokenizer.pieces` has it."""
        return self.model.tokenizer.pieces

    def answer(
        self,
        text: str,
        source_tokens: int,
        tokens: Sequence[int],
        asked: Sequence[bool],
        called: Sequence[bool],
        positions: int,
        calculated: Sequence[bool] = (),
    ) -> Answer:
        """What was written as an answer.

        Args:
          text: the source.
          source_tokens: pieces of it, what was cut off included.
          tokens: that were written, the end of the text included.
          asked: of each, the teacher wrote it.
          called: of each, the teacher was called for it.
          positions: that the teacher processed.
          calculated: of each, a calculator wrote it; by default there was none.
        """
        pieces, marks = self.pieces, self.unit.marks
        return Answer(
            text,
            self.model.tokenizer.decode(tokens),
            tuple(pieces[token] for token in tokens),
            tuple(asked),
            positions,
            source_tokens,
            self.unit.name,
            () if marks is None else tuple(word_numbers(marks, tokens)),
            () if self.unit.one_token else tuple(called),
            tuple(calculated),
        )

    @cached_property
    def encode_rule(self) -> Callable[[str], list[int]]:
        """The ids of a rule in words, as the student reads it."""
        return rule_encoder(self.model.tokenizer, in_source=self.model.model.config.rule_in_source)

    def encode(self, text: str) -> tuple[list[int], int]:
        """The ids of a source with its instruction and end, and how many were cut off; none if it has no text."""
        text = text[:LONGEST]
        if is_blank(text):
            return [], 0
        return self.model.tokenizer.prompt(self.instruction.replace("{source}", text), self.max_source)


def load(
    run: Path | str,
    method: str = "",
    seed: int | None = None,
    *,
    rule: str | None = None,
    with_teacher: bool = True,
) -> Student:
    """The student of a method and seed in a run's folder, with its teacher if it may ask.

    Args:
      run: the folder.
      method: by default the one that asks if there is one, otherwise the first of the run.
      seed: by default the run's first.
      rule: a rule that will be used; given here, it is checked before a model is loaded.
      with_teacher: read the teacher's weights. Without them the student can only be written with by what asks a teacher
        elsewhere (`kdtw_jax.serving`).

    Raises:
      UserError: where the folder has no such student, and as `Student.stream` does for `rule`.
    """
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"{run} is not a run's folder; give one that an experiment has made")
    _, config = restore(run)
    instruction = read_json(run / "stages" / "data.json", f"{run} has no data").get("instruction")
    if not isinstance(instruction, str):
        raise UserError(f"{run / 'stages' / 'data.json'} is damaged: it has no instruction; take another run")
    seed = config.seeds[0] if seed is None else seed
    size: Any
    done = [name for name in config.methods if (run / "stages" / f"seed{seed}" / f"{name}.json").exists()]
    method = method or ("ask" if "ask" in done or rule is not None else next(iter(done), "ask"))
    if method not in done:
        learned = "that learned to ask" if method == "ask" else f"of the method {method}"
        raise UserError(
            f"{run} has no student of seed {seed} {learned}; finished are {', '.join(done) or 'none of that seed'}"
        )
    if rule is not None and method != "ask":
        raise UserError(f"the student of the method {method} did not learn to ask: leave the rule out, or take ask")
    name = config.teacher_model or str(run / "teacher" / "model")
    away = config.teacher_elsewhere
    if away and method == "ask" and with_teacher:
        raise UserError(
            f"the student of {run} learned from a teacher at an address, whose weights are not here: use kdtw write or "
            f"kdtw serve, with --teacher {name} or where it is served now"
        )
    if rule is not None:
        size = None if away else find_config(name, offline=config.offline)
        read_rule(rule, known_constraints(config.of("ask").constraints, size))
    own = find_model(str(run / f"seed{seed}" / method / "model"))
    if method == "ask":
        stage = read_json(run / "stages" / f"seed{seed}" / "ask.config.json", f"{run} has no student that asks")
        check_read_alike(f"the student of seed {seed} in {run}", stage, own.tokenizer)
    tokenizer, teacher = own.tokenizer, None
    if method == "ask" and not with_teacher:
        if away:  # what model it is is said nowhere here: one of the student's size stands for it
            rows = read_json(run / "stages" / f"{CACHE_STAGE}.json", f"{run} does not say its teacher").get("rows", 0)
            size = replace(own.config, vocab_size=max(own.tokenizer.vocab_size, rows if isinstance(rows, int) else 0))
        else:
            size = find_config(name, offline=config.offline)
        tokenizer = own.tokenizer.padded_to(max(own.tokenizer.vocab_size, size.vocab_size))
        teacher = SavedModel(make_model(replace(size, vocab_size=tokenizer.vocab_size)), _NOWHERE, tokenizer)
    elif method == "ask":
        found = find_model(name, offline=config.offline)
        tokenizer = max(own.tokenizer, found.tokenizer, key=lambda known: known.vocab_size)
        check_vocabulary(name, found.tokenizer, own.tokenizer.padded_to(tokenizer.vocab_size))
        teacher = read_teacher(found.padded_to(tokenizer.vocab_size), dtype=config.teacher.dtype)
        teacher = teacher._replace(params=jax.device_put(teacher.params))
    student = load_model(own.folder, tokenizer=tokenizer)
    return Student(
        student._replace(params=jax.device_put(student.params)),
        teacher,
        () if teacher is None else known_constraints(config.of("ask").constraints, None if away else teacher[0].config),
        config.of("ask").distil.pcl.alpha,
        instruction,
        config.text.max_source,
        config.text.max_target,
        TOKENS if teacher is None else unit_of(config.of("ask").unit, student.tokenizer),
    )


def _opened(account: Keeping, rule: str | None, guard: bool) -> Account | None:
    """The account that outputs are written on; None: each keeps its rule by itself."""
    if account in ("output", "auto"):
        return None
    if not isinstance(account, Account) and account != "document":
        raise UserError(f'account is "output", "document", "auto" or an Account, not {account!r}')
    if rule is None:
        raise UserError("an account is the budget of a rule; give a rule")
    if not guard:
        raise UserError("an account enforces its rule; leave guard=False (--no-guard) out")
    return account if isinstance(account, Account) else Account(rule)


def _doubled(start: int, least: int) -> int:
    while start < least:
        start *= 2
    return start
