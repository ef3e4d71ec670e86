"""Texts of a user's own, written by a trained student under a rule of the user's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kdtw_jax.constraints import Constraint, known_constraints, pad_words, read_rule, word_tokens
from kdtw_jax.data.tokenizer import EOS_ID, normalize
from kdtw_jax.decoding.help import generate_with_help, own_gate
from kdtw_jax.decoding.view import readings
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.places import marked
from kdtw_jax.finite import check_written
from kdtw_jax.lines import LONGEST
from kdtw_jax.pretrained.named import find_config, find_model, read_teacher
from kdtw_jax.restore import read_json, restore
from kdtw_jax.train.checkpoint import SavedModel, check_vocabulary, load_model

_ROWS = 32  # texts written together
_SHORTEST = 16  # pieces; lengths are this times a power of two: few programs to compile


class AskingStudent(NamedTuple):
    """A student that may ask, and what belongs to it."""

    student: SavedModel
    teacher: SavedModel
    constraints: tuple[Constraint, ...]  # what it was trained for
    alpha: float
    instruction: str  # what was put around its sources, with {source} in it
    max_source: int  # pieces of a source that it was trained to read at the most, instruction and end included
    max_len: int  # tokens it was trained to write at the most


class Answer(NamedTuple):
    """One text written."""

    text: str
    marked: str  # what the teacher wrote stands in ⟦ ⟧
    tokens: int
    calls: int  # tokens that the teacher wrote
    positions: int  # decoder positions that the teacher processed
    source: int  # pieces of its source, instruction and end included; of more than `max_source` the rest was not read


_NOTHING = Answer("", "", 0, 0, 0, 0)


def open_asking(run: Path, seed: int = 0, *, rule: str | None = None) -> AskingStudent:
    """The asking student of a seed in a run's folder, and its teacher.

    Raises UserError where the folder has none and, as `read_rule` does, if the student is not to be told `rule`: either
    before a model is loaded.
    """
    run = Path(run)
    if not run.is_dir():
        raise UserError(f"{run} is not a run's folder; give one that an experiment has made")
    _, config = restore(run)
    if not (run / "stages" / f"seed{seed}" / "ask.json").exists():
        raise UserError(f"{run} has no student of seed {seed} that learned to ask")
    name = config.teacher_model or str(run / "teacher" / "model")
    if rule is not None:
        read_rule(rule, known_constraints(config.of("ask").constraints, find_config(name, offline=config.offline)))
    own = find_model(str(run / f"seed{seed}" / "ask" / "model"))
    found = find_model(name, offline=config.offline)
    tokenizer = max(own.tokenizer, found.tokenizer, key=lambda known: known.vocab_size)
    check_vocabulary(name, found.tokenizer, own.tokenizer.padded_to(tokenizer.vocab_size))
    student = load_model(own.folder, tokenizer=tokenizer)
    teacher = read_teacher(found.padded_to(tokenizer.vocab_size), dtype=config.teacher.dtype)
    return AskingStudent(
        student._replace(params=jax.device_put(student.params)),
        teacher._replace(params=jax.device_put(teacher.params)),
        known_constraints(config.of("ask").constraints, teacher.model.config),
        config.of("ask").distil.pcl.alpha,
        read_json(run / "stages" / "data.json", f"{run} has no data")["instruction"],
        config.text.max_source,
        config.text.max_target,
    )


def write_under(asking: AskingStudent, rule: str, sources: Iterable[str], *, guard: bool = True) -> Iterator[Answer]:
    """An answer for every source, greedy, in order; sources are taken as they are needed, 32 at a time.

    The student reads `rule`, in words that it was trained on; with `guard` it is enforced as well, so that no output
    exceeds it. A source without text has an empty answer, and of one beyond `max_source` the beginning is read, as in
    training with `on_long` "truncate" (of 2^18 characters at the most). Raises UserError as `read_rule` does, before
    anything is written.
    """
    read = read_rule(rule, asking.constraints)
    tokenizer, banned = asking.student.tokenizer, asking.student.tokenizer.banned_ids
    words = word_tokens(read.words, tokenizer.encode)
    words_1xR = pad_words([words], -(-len(words) // _SHORTEST) * _SHORTEST)
    own, other = asking.student, asking.teacher

    @jax.jit
    def write(params: Any, other_params: Any, source_BxS: jax.Array, words_BxR: jax.Array) -> Any:
        read_BxX, rule_BxX = readings(own.model.config, words_BxR, source_BxS)
        return generate_with_help(
            (own.model, params),
            (other.model, other_params),
            read_BxX,
            source_BxS,
            None,
            None,
            banned=banned,
            max_len=asking.max_len,
            rule=read.rule if guard else None,
            gate=own_gate(own.model, params, own.model.encode(params, rule_BxX), asking.alpha),
        )

    pieces, rows, rest = tokenizer.pieces, 1, iter(sources)
    while texts := list(islice(rest, _ROWS)):
        encoded = [_encode(asking, text) for text in texts]
        ids = [_cut(source, asking.max_source) for source in encoded if source]
        if ids:
            rows = max(rows, _doubled(1, len(ids)))  # what is left at the end has the shape of the others
            room = min(_doubled(_SHORTEST, max(map(len, ids))), asking.max_source)
            source_BxS = pad_words(ids + ids[-1:] * (rows - len(ids)), room)
            words_BxR = np.broadcast_to(words_1xR, (rows, words_1xR.shape[1]))
            found = jax.device_get(write(own.params, other.params, source_BxS, words_BxR))
            check_written(f"under the rule {rule!r}", found.tokens_BxT, found.asked_BxT)
        row = 0
        for source in encoded:
            if not source:
                yield _NOTHING
                continue
            tokens, asked = found.tokens_BxT[row].tolist(), found.asked_BxT[row].tolist()
            yield Answer(
                tokenizer.decode(tokens),
                marked(pieces, tokens, asked),
                int(found.mask_BxT[row].sum()),
                int(sum(asked)),
                int(found.positions_B[row]),
                len(source),
            )
            row += 1


def _encode(asking: AskingStudent, text: str) -> list[int]:
    """The pieces of a source with its instruction and end; none if it has no text."""
    text = text[:LONGEST]
    if not normalize(text):
        return []
    return [*asking.student.tokenizer.encode(asking.instruction.replace("{source}", text)), EOS_ID]


def _cut(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], EOS_ID]


def _doubled(start: int, least: int) -> int:
    while start < least:
        start *= 2
    return start
