"""A trained student that writes texts of the user's own, under a rule of the user's own where it learned to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax.answers import Answer, Answers
from kdtw_jax.constraints import Constraint, Rule, known_constraints, pad_words, read_rule, word_tokens
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.decoding.gate import own_gate
from kdtw_jax.decoding.help import Helped, generate_with_help
from kdtw_jax.decoding.sample import generate
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.errors import UserError
from kdtw_jax.finite import check_written
from kdtw_jax.lines import LONGEST
from kdtw_jax.pipeline.restore import read_json, restore
from kdtw_jax.pretrained.named import find_config, find_model, read_teacher
from kdtw_jax.text.normal import normalize
from kdtw_jax.training.saved import SavedModel, check_vocabulary, load_model

ALONE = "do not ask the teacher"
_ROWS = 32  # texts written together
_SHORTEST = 16  # pieces; lengths are this times a power of two: few programs to compile

Array = jax.Array | np.ndarray
Budgets = tuple[jax.Array, ...]
# Own parameters, the teacher's, sources, words of the rule, its numbers.
WriteProgram = Callable[[Any, Any, Array, Array, Budgets], Helped]


@dataclass(frozen=True)
class Student:
    """A student of a run: called with texts it writes an answer for each.

    `student(["12 October 2026"], rule="ask the teacher for at most 20% of the words")`
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
    _programs: dict[tuple[tuple[str, ...], bool], WriteProgram] = field(default_factory=dict, repr=False, compare=False)

    @overload
    def __call__(self, sources: str, rule: str | None = ..., *, guard: bool = ...) -> Answer: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, sources: Iterable[str], rule: str | None = ..., *, guard: bool = ...) -> Answers: ...

    def __call__(
        self, sources: str | Iterable[str], rule: str | None = None, *, guard: bool = True
    ) -> Answer | Answers:
        """The answer to a text, or the answers to several; arguments and errors as for `stream`."""
        if isinstance(sources, str):
            return next(self.stream([sources], rule, guard=guard))
        return Answers(self.stream(sources, rule, guard=guard))

    def stream(self, sources: Iterable[str], rule: str | None = None, *, guard: bool = True) -> Iterator[Answer]:
        """An answer for every source, greedy, in order; sources are taken as they are needed, 32 at a time.

        Args:
          sources: texts. One without text has an empty answer, and of one beyond `max_source` the beginning is read, as
            in training with `on_long` "truncate" (of 2^18 characters at the most).
          rule: when to ask the teacher, in words; by default it is not asked.
          guard: enforce the rule, so that no output exceeds it; otherwise the student's own gate alone keeps it.

        Raises:
          UserError: as `read_rule` does, or a rule for a student that did not learn to ask; before anything is written.
        """
        if self.teacher is None and rule is not None:
            raise UserError("this student did not learn to ask: leave the rule out, or load one of the method ask")
        program = self._program(ALONE if rule is None else rule, guard)
        return self._write_all(sources, *program, "" if rule is None else f"under the rule {rule!r}")

    def _program(self, rule: str, guard: bool) -> tuple[np.ndarray, Budgets, WriteProgram]:
        """The words of a rule, 1xR, its numbers, and what writes under it: one program for all rules about the same
        things."""
        own, other = self.model, self.teacher
        banned = own.tokenizer.banned_ids
        if other is None:

            def alone(params: Any, _: Any, source_BxS: jax.Array, words_BxR: jax.Array, budgets: Budgets) -> Helped:
                made = generate(own.model, params, source_BxS, None, max_len=self.max_target, banned=banned)
                nobody_BxT = jnp.zeros(made.mask_BxT.shape, bool)
                score_BxT, none_B = nobody_BxT.astype(jnp.float32), jnp.zeros(len(source_BxS), jnp.int32)
                return Helped(made.tokens_BxT, nobody_BxT, score_BxT, made.mask_BxT, made.finished_B, none_B)

            return np.zeros((1, 1), np.int32), (), self._programs.setdefault(((), guard), jax.jit(alone))
        read = read_rule(rule, self.constraints)
        words = word_tokens(read.words, own.tokenizer.encode)
        words_1xR = pad_words([words], -(-len(words) // _SHORTEST) * _SHORTEST)

        def write(
            params: Any, other_params: Any, source_BxS: jax.Array, words_BxR: jax.Array, budgets: Budgets
        ) -> Helped:
            read_BxX, rule_BxX = encoder_inputs(own.model.config, words_BxR, source_BxS)
            return generate_with_help(
                (own.model, params),
                (other.model, other_params),
                read_BxX,
                source_BxS,
                None,
                None,
                banned=banned,
                max_len=self.max_target,
                rule=Rule(read.rule.constraints, budgets) if guard else None,
                gate=own_gate(own.model, params, own.model.encode(params, rule_BxX), self.alpha),
            )

        about = tuple(constraint.name for constraint in read.rule.constraints)
        return words_1xR, read.rule.budgets, self._programs.setdefault((about, guard), jax.jit(write))

    def _write_all(
        self, sources: Iterable[str], words_1xR: np.ndarray, budgets: Budgets, write: WriteProgram, under: str
    ) -> Iterator[Answer]:
        pieces, rows, rest = self.model.tokenizer.pieces, 1, iter(sources)
        other = None if self.teacher is None else self.teacher.params
        while texts := list(islice(rest, _ROWS)):
            encoded = [self._encode(text) for text in texts]
            ids = [_cut(source, self.max_source) for source in encoded if source]
            if ids:
                rows = max(rows, _doubled(1, len(ids)))  # what is left at the end has the shape of the others
                room = min(_doubled(_SHORTEST, max(map(len, ids))), self.max_source)
                source_BxS = pad_words(ids + ids[-1:] * (rows - len(ids)), room)
                words_BxR = np.broadcast_to(words_1xR, (rows, words_1xR.shape[1]))
                found = jax.device_get(write(self.model.params, other, source_BxS, words_BxR, budgets))
                check_written(under, found.tokens_BxT, found.asked_BxT)
            row = 0
            for text, source in zip(texts, encoded, strict=True):
                if not source:
                    yield Answer(text, "")
                    continue
                tokens = found.tokens_BxT[row][found.mask_BxT[row]].tolist()
                yield Answer(
                    text,
                    self.model.tokenizer.decode(tokens),
                    tuple(pieces[token] for token in tokens),
                    tuple(found.asked_BxT[row][found.mask_BxT[row]].tolist()),
                    int(found.positions_B[row]),
                    len(source),
                )
                row += 1

    def _encode(self, text: str) -> list[int]:
        """The pieces of a source with its instruction and end; none if it has no text."""
        text = text[:LONGEST]
        if not normalize(text):
            return []
        return [*self.model.tokenizer.encode(self.instruction.replace("{source}", text)), EOS_ID]


def load(run: Path | str, method: str = "", seed: int | None = None, *, rule: str | None = None) -> Student:
    """The student of a method and seed in a run's folder, with its teacher if it may ask.

    Args:
      run: the folder.
      method: by default the one that asks if there is one, otherwise the first of the run.
      seed: by default the run's first.
      rule: a rule that will be used; given here, it is checked before a model is loaded.

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
    if rule is not None:
        read_rule(rule, known_constraints(config.of("ask").constraints, find_config(name, offline=config.offline)))
    own = find_model(str(run / f"seed{seed}" / method / "model"))
    tokenizer, teacher = own.tokenizer, None
    if method == "ask":
        found = find_model(name, offline=config.offline)
        tokenizer = max(own.tokenizer, found.tokenizer, key=lambda known: known.vocab_size)
        check_vocabulary(name, found.tokenizer, own.tokenizer.padded_to(tokenizer.vocab_size))
        teacher = read_teacher(found.padded_to(tokenizer.vocab_size), dtype=config.teacher.dtype)
        teacher = teacher._replace(params=jax.device_put(teacher.params))
    student = load_model(own.folder, tokenizer=tokenizer)
    return Student(
        student._replace(params=jax.device_put(student.params)),
        teacher,
        () if teacher is None else known_constraints(config.of("ask").constraints, teacher.model.config),
        config.of("ask").distil.pcl.alpha,
        instruction,
        config.text.max_source,
        config.text.max_target,
    )


def _cut(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], EOS_ID]


def _doubled(start: int, least: int) -> int:
    while start < least:
        start *= 2
    return start
