"""What asking is worth by all that follows, learned from branches of a finished student's own outputs.

In every state of its outputs in which the teacher would write another token, the output is written to its end twice and
the difference in utility is the label (`kdtw_jax.decoding.branch`); in all others it is 0. A small network on the
student's state then learns the mean of what there is to gain. Labels have heavy tails: so it is the logarithm of the
mean that is fitted, by the likelihood of a Poisson distribution, and it takes some ten thousand branches until it knows
more than what the answer saves here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdtw_jax.constraints.history import History, histories
from kdtw_jax.constraints.unit import TOKENS, Unit
from kdtw_jax.data.batches import Bucket, EncodedSplit, evaluation_batches
from kdtw_jax.decoding.ahead import worth_everywhere
from kdtw_jax.decoding.branch import Writer
from kdtw_jax.decoding.gate import DecodeState, Gate, stateless
from kdtw_jax.decoding.help import generate_with_help
from kdtw_jax.decoding.policy import log_policy
from kdtw_jax.decoding.sample import choose, generate
from kdtw_jax.decoding.utility import Utility
from kdtw_jax.decoding.view import gate_features, prefixes_and_history
from kdtw_jax.models import GateInputs, Model, Params, shift_right
from kdtw_jax.runs.progress import Progress

_HELP = 0.05  # of the tokens are the teacher's, so that states after help are among those learned from
_WIDTHS, _TOKEN = (128, 64), 16


class Labels(NamedTuple):
    """What is known of N states."""

    features_NxF: np.ndarray  # float32
    choices_Nx2: np.ndarray  # int32, the student's two most probable tokens
    worth_N: np.ndarray  # float32, of an answer, in units of the utility


class Foresight(NamedTuple):
    """The network: its layers on standardised features and on the student's two choices."""

    mean_F: jax.Array
    scale_F: jax.Array
    token_VxE: jax.Array
    layers: tuple[tuple[jax.Array, jax.Array], ...]

    def log_worth(self, features_NxF: jax.Array, choices_Nx2: jax.Array) -> jax.Array:
        """The logarithm of what an answer is expected to gain, up to a constant; float32 [N]."""
        x = jnp.concatenate(
            [
                (features_NxF - self.mean_F[None, :]) / self.scale_F[None, :],
                self.token_VxE[choices_Nx2].reshape(len(choices_Nx2), -1),
            ],
            axis=1,
        )
        for weight, bias in self.layers[:-1]:
            x = jax.nn.gelu(x @ weight + bias[None, :])
        weight, bias = self.layers[-1]
        return (x @ weight + bias[None, :])[:, 0]


def foresight_gate(foresight: Foresight, model: Model, params: Params, rule_BxP: jax.Array) -> Gate:
    """Asks where an answer is expected to be worth most by what follows.

    Args:
      foresight: learned beforehand.
      model: the student.
      rule_BxP: what its gate has read of any rule; it is of no consequence.
    """

    def score(state: DecodeState) -> jax.Array:
        history = History(*(leaf[:, None] for leaf in state.history))
        view = gate_features(
            state.log_policy_BxV[:, None], state.hidden_BxD[:, None], state.tokens_BxT[:, None], history
        )
        features_BxTxF = features(model, params, rule_BxP, view)
        return foresight.log_worth(features_BxTxF[:, 0], view.choices_BxTx2[:, 0])

    return stateless(score)


def label_states(
    student: tuple[Model, Params],
    teacher: tuple[Model, Params],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    utility: Utility,
    *,
    banned: tuple[int, ...],
    seed: int,
    unit: Unit = TOKENS,
) -> Labels:
    """Has the student write the outputs of `data`, and labels all of their states.

    Args:
      utility: of whole outputs.
      banned: tokens that are never written.
      unit: what a call buys, and histories count.
    """
    (own, _), (other, _) = student, teacher

    @jax.jit
    def label(params: tuple[Params, Params], source_BxS: jax.Array, noise_BxT: jax.Array) -> tuple[jax.Array, ...]:
        mine = Writer(own, params[0], own.encode(params[0], source_BxS))
        theirs = Writer(other, params[1], other.encode(params[1], source_BxS))
        limits: dict[str, Any] = {"banned": banned, "max_len": noise_BxT.shape[1]}
        by_chance = stateless(lambda state: jnp.full(len(source_BxS), _HELP))
        both = ((own, params[0]), (other, params[1]))
        written = generate_with_help(
            *both, source_BxS, source_BxS, noise_BxT, None, gate=by_chance, read_along=True, unit=unit, **limits
        )
        reference_BxT = generate(*both[1], source_BxS, None, **limits).tokens_BxT
        tokens_BxT, inputs_BxT = written.tokens_BxT, shift_right(written.tokens_BxT)
        decoded = own.decode(params[0], mine.read, inputs_BxT)
        log_pi_BxTxV = log_policy(decoded.logits_BxTxV, banned)
        log_mu_BxTxV = log_policy(other.decode(params[1], theirs.read, inputs_BxT).logits_BxTxV, banned)
        before = histories(source_BxS, tokens_BxT, written.asked_BxT, unit)
        view = gate_features(log_pi_BxTxV, decoded.hidden_BxTxD, *prefixes_and_history(tokens_BxT, before))
        answer_BxT = choose(log_mu_BxTxV.reshape(-1, log_mu_BxTxV.shape[-1]), None).reshape(tokens_BxT.shape)
        states = (tokens_BxT, view.choices_BxTx2[..., 0], answer_BxT)
        worth_BxT = worth_everywhere(mine, theirs, *states, utility, reference_BxT, banned=banned, unit=unit)
        features_BxTxF = features(own, params[0], own.read_rule(params[0], mine.read), view)
        return features_BxTxF, view.choices_BxTx2, worth_BxT, tokens_BxT != 0

    found: list[tuple[np.ndarray, ...]] = []
    with Progress("what answers are worth", total=len(data)) as bar:
        done = 0
        for index, batch in enumerate(evaluation_batches(data, buckets)):
            noise_BxT = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), index), batch.target_BxT.shape)
            *parts, mask_BxT = jax.device_get(label((student[1], teacher[1]), batch.source_BxS, noise_BxT))
            real_B = batch.example_B >= 0
            found.append(tuple(part[mask_BxT & real_B[:, None]] for part in parts))
            done += int(real_B.sum())
            bar.update(done)
    return Labels(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def train_foresight(
    labels: Labels, vocabulary: int, *, seed: int, steps: int = 2000, rows: int = 512, learning_rate: float = 2e-3
) -> Foresight:
    """Fits the logarithm of the mean of what there is to gain.

    Args:
      vocabulary: tokens.
      rows: states of a minibatch.
      learning_rate: of AdamW, the first; it falls to 0.
    """
    features_NxF, choices_Nx2 = jnp.asarray(labels.features_NxF), jnp.asarray(labels.choices_Nx2)
    gain_N = np.maximum(labels.worth_N, 0.0)
    gain_N = jnp.asarray(gain_N / max(float(gain_N[gain_N > 0].mean()), 1e-6) if (gain_N > 0).any() else gain_N)
    key_layers, key_tokens, key_rows = jax.random.split(jax.random.key(seed), 3)
    sizes = (features_NxF.shape[1] + 2 * _TOKEN, *_WIDTHS, 1)
    layers = tuple(
        (jax.random.normal(key, (a, b)) * (0.1 if b == 1 else 1.0) / np.sqrt(a), jnp.zeros(b))
        for key, a, b in zip(jax.random.split(key_layers, 3), sizes[:-1], sizes[1:], strict=True)
    )
    start = Foresight(
        features_NxF.mean(axis=0),
        features_NxF.std(axis=0) + 1e-3,
        0.3 * jax.random.normal(key_tokens, (vocabulary, _TOKEN)),
        layers,
    )
    optimizer = optax.adamw(optax.cosine_decay_schedule(learning_rate, steps), weight_decay=1e-2)

    def loss(learned: tuple[Any, ...], row_X: jax.Array) -> jax.Array:
        log_worth_X = Foresight(start.mean_F, start.scale_F, *learned).log_worth(
            features_NxF[row_X], choices_Nx2[row_X]
        )
        return jnp.mean(jnp.exp(log_worth_X) - gain_N[row_X] * log_worth_X)

    def step(carry: tuple[Any, optax.OptState], key: jax.Array) -> tuple[tuple[Any, optax.OptState], None]:
        learned, moments = carry
        row_X = jax.random.randint(key, (rows,), 0, len(gain_N))
        updates, moments = optimizer.update(jax.grad(loss)(learned, row_X), moments, learned)
        return (optax.apply_updates(learned, updates), moments), None

    learned = (start.token_VxE, start.layers)
    carry = (learned, optimizer.init(learned))
    (learned, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, jax.random.split(key_rows, steps)))(carry)
    return Foresight(start.mean_F, start.scale_F, *learned)


def features(model: Model, params: Params, rule_BxP: jax.Array, view: GateInputs) -> jax.Array:
    """What is learned from: the student's state, the facts, and what an answer saves here by its own gate.

    Args:
      model: the student.
      rule_BxP: what its gate has read of any rule.
      view: of states.

    Returns:
      float32 [B, T, F].
    """
    saving_BxT = model.apply_gate(params, rule_BxP, view).saving_BxT
    return jnp.concatenate([view.hidden_BxTxD.astype(jnp.float32), view.facts_BxTxF, saving_BxT[..., None]], axis=-1)
