"""Measuring what helpers are worth to a student: on its own outputs, before each word, while they read along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from kdtw_jax.constraints import pad_words, word_tokens
from kdtw_jax.errors import UserError
from kdtw_jax.helpers.along import Along, AlongProgram, Decision, make_along
from kdtw_jax.helpers.answer import STUDENT
from kdtw_jax.helpers.steps import feature_count
from kdtw_jax.helpers.worth import Worth, fit_worth
from kdtw_jax.student import ALONE, Student
from kdtw_jax.training.identity import model_hash
from kdtw_jax.training.saved import SavedModel, check_vocabulary

_ROWS = 32  # texts written together
_NEVER = 1e6  # nats that nothing saves


class AlongWriter:
    """A student and helpers that are models here, for measuring and judging them: texts of one shape together."""

    def __init__(self, student: Student, helpers: Mapping[str, SavedModel]):
        """Compiles when it is first used.

        Args:
          student: who writes.
          helpers: by their names, of the student's vocabulary; the last one is the judge.

        Raises:
          UserError: another vocabulary, or no helper.
        """
        if not helpers:
            raise UserError("name a helper: the last one is the judge")
        own = student.model
        self.student, self.names = student, tuple(helpers)
        for name, model in helpers.items():
            check_vocabulary(name, model.tokenizer, own.tokenizer)
            if model.model.config.vocab_size != own.model.config.vocab_size:
                raise UserError(f"the helper {name} has other rows in its embedding than the student; pad them alike")
        self.models = {name: _hash(model) for name, model in {STUDENT: own, **helpers}.items()}
        self._params = [jax.device_put(model.params) for model in helpers.values()]
        self._program: AlongProgram = make_along(
            own.model,
            [model.model for model in helpers.values()],
            marks=own.tokenizer.words,
            banned=own.tokenizer.banned_ids,
            max_len=student.max_target,
            unit=student.unit,
        )
        words = word_tokens(ALONE, student.encode_rule)
        self._words_1xW = pad_words([words], len(words))

    def write(self, sources: Sequence[str], decision: Decision) -> Iterator[tuple[list[int], Along]]:
        """What is written, shorter texts first, with the numbers of each batch's; those without text are left out.

        Args:
          sources: texts.
          decision: by what it is decided who writes.
        """
        encoded = [(n, source) for n, text in enumerate(sources) if (source := self.student.encode(text)[0])]
        encoded.sort(key=lambda one: len(one[1]))  # outputs of one batch end at about the same time
        for start in range(0, len(encoded), _ROWS):
            part = encoded[start : start + _ROWS]
            filled = [source for _, source in part]
            source_BxS = pad_words(filled + filled[-1:] * (_ROWS - len(part)), self.student.max_source)
            along = self._program(self.student.model.params, self._params, source_BxS, self._words_1xW, decision)
            found: Any = jax.device_get(along)
            yield [n for n, _ in part], Along(*(leaf[: len(part)] for leaf in found))

    def decision(self, worth: Worth | None, nats: Sequence[float], *, oracle: bool = False) -> Decision:
        """By what it is decided who writes.

        Args:
          worth: what is told of each helper; None: nothing, for an oracle.
          nats: what a word of each costs.
          oracle: decides by the gain itself.
        """
        size, count = feature_count(self.student.model.model), len(self.names)
        told = (np.zeros(size), np.ones(size), np.zeros((size, count)), np.zeros(count))
        if worth is not None:
            told = (worth.mean_F, worth.scale_F, worth.weight_FxK, worth.bias_K)
        mean_F, scale_F, weight_FxK, bias_K = (np.asarray(x, np.float32) for x in told)
        return Decision(mean_F, scale_F, weight_FxK, bias_K, np.asarray(nats, np.float32), np.asarray(oracle))


def measure_worth(writer: AlongWriter, sources: Sequence[str]) -> Worth:
    """Measures what a word of each helper saves, and fits what the student's features tell of it.

    Args:
      writer: a student, who writes alone here, and its helpers.
      sources: texts that it was not trained on; some hundreds.

    Raises:
      UserError: too few states.
    """
    features, gains, texts, words = [], [], [], 0
    marks = writer.student.model.tokenizer.words
    for numbers, along in writer.write(sources, writer.decision(None, [_NEVER] * len(writer.names))):
        row_N, place_N = np.nonzero(along.begins_BxT & along.mask_BxT)
        features.append(np.asarray(along.features_BxTxF)[row_N, place_N])
        gains.append(word_gains(along)[row_N, place_N])
        texts.append(np.asarray(numbers)[row_N])
        last_BxT = np.pad(along.tokens_BxT[:, :-1], ((0, 0), (1, 0)))
        starts_BxT = (marks.begins_V[along.tokens_BxT] | marks.blank_V[last_BxT]) & ~marks.blank_V[along.tokens_BxT]
        words += int((starts_BxT & (along.tokens_BxT > 1)).sum())
    if not features:
        raise UserError("the student wrote nothing on these texts; give others")
    features_NxF, gain_NxK, text_N = map(np.concatenate, (features, gains, texts))
    return replace(fit_worth(writer.names, features_NxF, gain_NxK, text_N, words), models=writer.models)


def word_gains(along: Along) -> np.ndarray:
    """What each helper's word is worth in every state, had it begun there, [B, T, K], nats, while the student writes.

    Both write the same tokens up to the first that differs. What that one is worth is what the word is: no one has read
    what follows a helper's token that the student did not write. Where the helper's word is over before, asking it
    changes nothing. Arrays of `along` may be of NumPy.
    """
    mask_BxTx1 = np.asarray(along.mask_BxT)[..., None]
    gain_BxTxK = np.where(mask_BxTx1, np.asarray(along.gain_BxTxK), 0.0)  # 0 where both write the same token
    runs_BxTxK = np.asarray(along.runs_BxTxK) & mask_BxTx1
    found, later_BxK = np.zeros_like(gain_BxTxK), np.zeros_like(gain_BxTxK[:, 0])
    for t in range(gain_BxTxK.shape[1] - 1, -1, -1):
        found[:, t] = np.where(gain_BxTxK[:, t] != 0, gain_BxTxK[:, t], later_BxK)
        later_BxK = np.where(runs_BxTxK[:, t], found[:, t], 0.0)
    return found


def _hash(saved: SavedModel) -> str:
    """Its `model_hash`; "" for several models as one, which have none."""
    return model_hash(saved.model, saved.params) if isinstance(saved.params, dict) else ""
