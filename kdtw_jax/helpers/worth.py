"""What a word of each helper saves, measured on texts and told from what the student sees; and prices from budgets.

In a state before a word, helper k's word is worth

    D_k(s) = log mu(the helper's token | s') - log mu(the student's own token | s'),

nats under a judge mu, the dear teacher, who reads along while it is measured and not when texts are written; s' is the
first state from s on, within the helper's word, in which the two differ (0 if they do not). A ridge
regression tells D_k from the features that the student's gate has of a state (`Looked`). A sample of what it tells is
kept, from which the prices that bring budgets about are found, as multipliers of

    min over nu, lambda >= 0 of  E_s tau log(1 + sum_k exp((D_k(s) - nu_k - lambda units_k) / tau)) + nu . b + lambda c,

the dual of `kdtw_jax.tabular.helpers_mdp` for one step, at a small temperature tau.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from kdtw_jax.errors import UserError
from kdtw_jax.helpers.answer import STUDENT
from kdtw_jax.helpers.budgets import Limits
from kdtw_jax.helpers.protocol import Begun, Helper
from kdtw_jax.runs.atomic import read_arrays, read_json, write_arrays, write_json

_RIDGES = (10.0, 100.0, 1000.0)  # of standardised features; the one that tells held-out sources best is taken
_HELD_OUT = 5  # every fifth text
_TEMPERATURE = 0.05  # nats
_SAMPLE = 4096  # states
_MEASURED = "words"  # by the first token that differs; before it was that of s, whatever followed
_ARRAYS = ("mean_F", "scale_F", "weight_FxK", "bias_K", "sample_NxK")


@dataclass(frozen=True)
class Worth:
    """What is told of each helper's word; arrays are float64."""

    helpers: tuple[str, ...]
    mean_F: np.ndarray
    scale_F: np.ndarray
    weight_FxK: np.ndarray
    bias_K: np.ndarray
    sample_NxK: np.ndarray
    """what it tells in states that it was fitted on, nats"""
    states_per_word: float
    """states before words and ends, per word of the student's"""
    told: dict[str, float]
    """of each helper: how well held-out states are told, the square of the correlation"""
    models: Mapping[str, str] = field(default_factory=dict)
    """hashes of the models that it was measured with (`model_hash`), the student's as "student"; "": not known"""

    def __call__(self, features_NxF: np.ndarray, begun: Sequence[Begun] = ()) -> np.ndarray:
        """Nats that a word of each helper saves in N states, [N, K], by their features; `begun` is not read."""
        saving_NxK: np.ndarray = (features_NxF - self.mean_F) / self.scale_F @ self.weight_FxK + self.bias_K
        return saving_NxK

    def of(self, names: Sequence[str]) -> Worth:
        """The same for some of the helpers, in another order.

        Args:
          names: of these.

        Raises:
          UserError: one was not measured.
        """
        if missing := sorted(set(names) - set(self.helpers)):
            raise UserError(f"what {missing[0]} is worth was not measured; measured are {', '.join(self.helpers)}")
        order = [self.helpers.index(name) for name in names]
        told = {name: self.told[name] for name in names}
        some = self.weight_FxK[:, order], self.bias_K[order], self.sample_NxK[:, order]
        return Worth(tuple(names), self.mean_F, self.scale_F, *some, self.states_per_word, told, self.models)

    def nats(self, limits: Limits) -> np.ndarray:
        """The prices of a word of each helper under which the sample keeps shares and cost, nats [K].

        Args:
          limits: of these helpers in their order. Numbers of words bind nothing here.
        """
        count = len(self.helpers)
        units_K = np.asarray(limits.price_K, float)
        bounds = [np.inf if share is None else share for share in limits.share_K]
        bounds_X = np.array([*bounds, np.inf if limits.cost is None else limits.cost]) / self.states_per_word
        binding_X = np.isfinite(bounds_X)
        if not binding_X.any():
            return np.zeros(count)
        costs_KxX = np.concatenate([np.eye(count), units_K[:, None]], axis=1)[:, binding_X]

        def dual(multiplier_X: np.ndarray) -> tuple[float, np.ndarray]:
            net_NxK = (self.sample_NxK - costs_KxX @ multiplier_X) / _TEMPERATURE
            logits = np.concatenate([np.zeros((len(net_NxK), 1)), net_NxK], axis=1)
            use_K = softmax(logits, axis=1)[:, 1:].mean(axis=0)
            value = _TEMPERATURE * logsumexp(logits, axis=1).mean() + multiplier_X @ bounds_X[binding_X]
            return float(value), bounds_X[binding_X] - use_K @ costs_KxX

        start = np.full(int(binding_X.sum()), 0.1)
        found = minimize(dual, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 100.0)] * len(start))
        nats_K: np.ndarray = costs_KxX @ found.x
        return nats_K


def fit_worth(
    names: Sequence[str], features_NxF: np.ndarray, gain_NxK: np.ndarray, text_N: np.ndarray, words: int
) -> Worth:
    """Fits what is told of each helper's word.

    Args:
      names: of the helpers.
      features_NxF: of the states.
      gain_NxK: D_k, nats.
      text_N: int, the text that each state is of; every fifth is held out to choose the ridge, and then fitted too.
      words: of the student's in all texts.

    Raises:
      UserError: fewer than 50 states, or none that is held out, or no other.
    """
    if len(features_NxF) < 50:
        raise UserError(f"{len(features_NxF)} states are too few to measure helpers on; give more texts")
    features = np.asarray(features_NxF, float)
    mean_F, scale_F = features.mean(axis=0), features.std(axis=0) + 1e-6
    x_NxF = (features - mean_F) / scale_F
    held_N = text_N % _HELD_OUT == 0
    if not 0 < held_N.sum() < len(held_N):
        raise UserError("helpers are measured on texts of which every fifth is held out; give at least 6, with words")

    def solved(rows_N: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        x, y = x_NxF[rows_N], gain_NxK[rows_N]
        center_F, bias_K = x.mean(axis=0), y.mean(axis=0)
        x = x - center_F
        weight_FxK = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ (y - bias_K))
        return weight_FxK, bias_K - center_F @ weight_FxK

    tries = []
    for ridge in _RIDGES:
        weight_FxK, bias_K = solved(~held_N, ridge)
        tries.append(x_NxF[held_N] @ weight_FxK + bias_K)
    best = int(np.argmin([np.mean((told - gain_NxK[held_N]) ** 2) for told in tries]))
    weight_FxK, bias_K = solved(np.ones(len(x_NxF), bool), _RIDGES[best])
    told = {name: _r2(tries[best][:, k], gain_NxK[held_N, k]) for k, name in enumerate(names)}
    sample_NxK = (x_NxF @ weight_FxK + bias_K)[:: max(len(x_NxF) // _SAMPLE, 1)]
    return Worth(tuple(names), mean_F, scale_F, weight_FxK, bias_K, sample_NxK, len(x_NxF) / max(words, 1), told)


def measured(worth: Worth, helpers: Sequence[Helper], limits: Limits) -> tuple[Worth, np.ndarray]:
    """What is told of a writer's helpers, in their order, and the prices in nats that its budgets need, [K].

    Args:
      worth: what was measured; exact helpers, which are not asked by what they save, need not be among it.
      helpers: the writer's.
      limits: of these helpers.

    Raises:
      UserError: one that is not exact was not measured.
    """
    places = [k for k, helper in enumerate(helpers) if not helper.exact]
    some, count = worth.of([helpers[k].name for k in places]), len(helpers)
    nats_K = np.zeros(count)
    nats_K[places] = some.nats(
        Limits(
            tuple(limits.price_K[k] for k in places),
            tuple(limits.share_K[k] for k in places),
            tuple(limits.words_K[k] for k in places),
            limits.cost,
        )
    )
    weight_FxK, bias_K = np.zeros((len(some.mean_F), count)), np.zeros(count)
    weight_FxK[:, places], bias_K[places] = some.weight_FxK, some.bias_K
    sample_NxK = np.zeros((len(some.sample_NxK), count))
    sample_NxK[:, places] = some.sample_NxK
    names = tuple(helper.name for helper in helpers)
    whole = Worth(names, some.mean_F, some.scale_F, weight_FxK, bias_K, sample_NxK, some.states_per_word, some.told)
    return whole, nats_K


def write_worth(folder: Path, worth: Worth, about: dict[str, Any]) -> None:
    """Writes what was measured as helpers.npz and helpers.json.

    Args:
      folder: where; of a run RUN, `worth_folder` says where the command line looks.
      worth: what was measured.
      about: plain values beside it, such as how many texts.

    Raises:
      UserError: the file system refuses.
    """
    write_arrays(folder / "helpers.npz", {name: np.asarray(getattr(worth, name), np.float64) for name in _ARRAYS})
    text = {"helpers": list(worth.helpers), "states_per_word": worth.states_per_word, "told": worth.told}
    text |= {"models": dict(worth.models), "measured": _MEASURED}
    write_json(folder / "helpers.json", {**text, "about": about})


def read_worth(folder: Path) -> Worth:
    """Reads what `write_worth` wrote to `folder`.

    Raises:
      UserError: it is not there, damaged, or of an older way to measure.
    """
    plain = read_json(folder / "helpers.json", f"{folder} has no measured helpers")
    if plain.get("measured") != _MEASURED:
        raise UserError(f"{folder / 'helpers.json'} was not measured by words, as it is now; measure again")
    arrays = read_arrays(folder / "helpers.npz")
    try:
        names = tuple(str(name) for name in plain["helpers"])
        worth = Worth(
            names,
            **{name: arrays[name] for name in _ARRAYS},
            states_per_word=float(plain["states_per_word"]),
            told={name: float(plain["told"][name]) for name in names},
            models={str(name): str(value) for name, value in plain.get("models", {}).items()},
        )
        features, count = worth.weight_FxK.shape
        fits = worth.mean_F.shape == worth.scale_F.shape == (features,) and worth.bias_K.shape == (count,)
        fits = fits and count == len(names) and worth.sample_NxK.shape[1:] == (count,) and len(worth.sample_NxK) > 0
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{folder / 'helpers.json'} is damaged ({error!r:.60}); measure again") from error
    if not fits or not all(np.isfinite(arrays[name]).all() for name in _ARRAYS):
        raise UserError(f"{folder / 'helpers.npz'} is damaged: shapes or numbers do not fit; measure again")
    return worth


def check_worth(worth: Worth, features: int, models: Mapping[str, str]) -> None:
    """Checks that what was measured is of a student and of helpers at hand.

    Args:
      worth: what was measured.
      features: that the student has of a state.
      models: hashes of those at hand by their names, the student's as "student"; "": not known, and not checked.

    Raises:
      UserError: it is of another model.
    """
    for name, known in worth.models.items():
        if known and models.get(name) and models[name] != known:
            other = "measure again" if name == STUDENT else "measure again, or give this one another name"
            raise UserError(f"what helpers are worth was measured with another model as {name} ({known}); {other}")
    if len(worth.mean_F) != features:
        raise UserError(f"what helpers are worth was measured with {len(worth.mean_F)} features, not {features}")


def worth_folder(run: Path, method: str, seed: int) -> Path:
    """Where a `run` keeps what helpers are worth to its student of a `method` and seed."""
    return run / f"seed{seed}" / method / "helpers"


def _r2(told_N: np.ndarray, gain_N: np.ndarray) -> float:
    if told_N.std() == 0 or gain_N.std() == 0:
        return 0.0
    return float(np.corrcoef(told_N, gain_N)[0, 1] ** 2)
