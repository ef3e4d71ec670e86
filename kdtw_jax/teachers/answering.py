"""A teacher elsewhere that is asked for the next tokens of outputs while a student writes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from uuid import uuid4

import numpy as np

from kdtw_jax.decoding.elsewhere import Answer, Said
from kdtw_jax.errors import UserError
from kdtw_jax.teachers.ahead import asked_for, without_padding
from kdtw_jax.teachers.protocol import Prefix, Teacher
from kdtw_jax.training.readings import Kept


class AnsweringTeacher:
    """An `Answering`: all rows of a batch that ask at a token are asked about together, in sessions of their own.

    Names of sessions are new in each process: who has read something of an output that was begun before reads it anew,
    and a training that goes on has the answers that it would have had.
    """

    def __init__(self, teacher: Teacher, banned: Sequence[int]):
        """Of an open `teacher`, with ids that are never written, `banned`."""
        self._teacher, self._banned = teacher, np.asarray(banned, np.int64)
        self._name, self._numbers = uuid4().hex, count()

    def __call__(self, source_BxS: np.ndarray, kept: Kept) -> Answer:
        """Says whom to ask about a batch.

        Args:
          source_BxS: int32, padded with 0.
          kept: tokens of a place that training keeps; as many log-probabilities are asked for as for these.

        Raises:
          UserError: the teacher says too few.
        """
        about, number = self._teacher.about, next(self._numbers)
        wide = asked_for(about, kept, self._banned.tolist())
        sources = [tuple(without_padding(source_S)) for source_S in source_BxS]

        def answer(tokens_BxT: np.ndarray, heard_B: np.ndarray) -> Said:
            heard = np.flatnonzero(heard_B)
            prefixes = [Prefix(sources[i], tuple(tokens_BxT[i].tolist()), f"{self._name}-{number}-{i}") for i in heard]
            ids_BxK = np.zeros((len(heard_B), wide), np.int32)
            logs_BxK = np.full((len(heard_B), wide), -np.inf, np.float32)
            for i, said in zip(heard, self._teacher.next_token(prefixes, wide), strict=True):
                stays_K = ~np.isin(said.ids_K, self._banned)
                if not np.isfinite(said.log_probs_K[stays_K]).any() or np.isnan(said.log_probs_K).any():
                    raise UserError(
                        f"of the {wide} tokens that the teacher {about.name} says of a place none may be written, or "
                        "they have no probabilities; have its server say more, or take another teacher"
                    )
                found = int(stays_K.sum())
                ids_BxK[i, :found], logs_BxK[i, :found] = said.ids_K[stays_K], said.log_probs_K[stays_K]
            return Said(ids_BxK, logs_BxK)

        return answer
