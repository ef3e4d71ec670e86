"""Texts of a user's own, written by a trained student under a rule of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from kdtw_jax.constraints import Constraint, known_constraints, pad_words, parse_rule, word_tokens
from kdtw_jax.constraints.wording import clauses
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.decoding.help import generate_with_help, own_gate
from kdtw_jax.decoding.view import readings
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation.places import marked
from kdtw_jax.finite import check_written
from kdtw_jax.pretrained.named import find_model, read_teacher
from kdtw_jax.restore import read_json, restore
from kdtw_jax.train.checkpoint import SavedModel, check_vocabulary, load_model

_ROWS = 32  # texts written together
_MULTIPLE = 16  # lengths are rounded up to it: fewer programs to compile


class AskingStudent(NamedTuple):
    """A student that may ask, and what belongs to it."""

    student: SavedModel
    teacher: SavedModel
    constraints: tuple[Constraint, ...]  # what it was trained for
    alpha: float
    instruction: str  # what was put around its sources, with {source} in it
    max_len: int  # tokens it was trained to write at the most


class Answer(NamedTuple):
    """One text written."""

    text: str
    marked: str  # what the teacher wrote stands in ⟦ ⟧
    tokens: int
    calls: int  # tokens that the teacher wrote
    positions: int  # decoder positions that the teacher processed


def open_asking(run: Path, seed: int = 0) -> AskingStudent:
    """The asking student of a seed in a run's folder, and its teacher.

    Raises UserError where the folder has none.
    """
    run = Path(run)
    _, config = restore(run)
    if not (run / "stages" / f"seed{seed}" / "ask.json").exists():
        raise UserError(f"{run} has no student of seed {seed} that learned to ask")
    own = find_model(str(run / f"seed{seed}" / "ask" / "model"))
    name = config.teacher_model or str(run / "teacher" / "model")
    found = find_model(name, offline=config.offline)
    tokenizer = max(own.tokenizer, found.tokenizer, key=lambda known: known.vocab_size)
    check_vocabulary(name, found.tokenizer, own.tokenizer.padded_to(tokenizer.vocab_size))
    student = load_model(own.folder, tokenizer=tokenizer)
    teacher = read_teacher(found.padded_to(tokenizer.vocab_size), dtype=config.teacher.dtype)
    return AskingStudent(
        student._replace(params=jax.device_put(student.params)),
        teacher._replace(params=jax.device_put(teacher.params)),
        known_constraints(config.ask.constraints, teacher.model.config),
        config.ask.distil.pcl.alpha,
        read_json(run / "stages" / "data.json", f"{run} has no data")["instruction"],
        config.text.max_target,
    )


def write_under(asking: AskingStudent, rule: str, sources: Sequence[str], *, guard: bool = True) -> Iterator[Answer]:
    """An answer for every source, greedy, in order.

    The student reads `rule`; with `guard` it is enforced as well, so that no output exceeds it. Raises UserError as
    `parse_rule` does, before anything is written.
    """
    parsed = parse_rule(rule, asking.constraints)
    tokenizer, banned = asking.student.tokenizer, asking.student.tokenizer.banned_ids
    words = word_tokens("; ".join(clauses(rule)), tokenizer.encode)
    words_1xR = pad_words([words], _rounded(len(words)))
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
            rule=parsed if guard else None,
            gate=own_gate(own.model, params, own.model.encode(params, rule_BxX), asking.alpha),
        )

    for start in range(0, len(sources), _ROWS):
        texts = [asking.instruction.replace("{source}", text) for text in sources[start : start + _ROWS]]
        ids = [[*tokenizer.encode(text), EOS_ID] for text in texts]
        ids += [[EOS_ID]] * (min(_ROWS, len(sources)) - len(ids))  # the last rows keep the shape
        source_BxS = pad_words(ids, _rounded(max(map(len, ids))))
        words_BxR = np.broadcast_to(words_1xR, (len(ids), words_1xR.shape[1]))
        found = jax.device_get(write(own.params, other.params, source_BxS, words_BxR))
        check_written(f"under the rule {rule!r}", found.tokens_BxT[: len(texts)], found.asked_BxT[: len(texts)])
        for row in range(len(texts)):
            tokens, asked = found.tokens_BxT[row].tolist(), found.asked_BxT[row].tolist()
            yield Answer(
                tokenizer.decode(tokens),
                marked(tokenizer.pieces, tokens, asked),
                int(found.mask_BxT[row].sum()),
                int(sum(asked)),
                int(found.positions_B[row]),
            )


def _rounded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE
