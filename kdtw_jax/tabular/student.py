"""A tabular student of a token MDP, trained by PCL: it must reach the optimum that `kdtw_jax.tabular.mdp` solves for.

It trains in JAX, through the very losses and replay buffer that models use.
Axis letters as in `kdtw_jax.tabular.mdp`; R: rows of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdtw_jax.losses.metric import Weighted
from kdtw_jax.losses.pcl import PCLConfig, pcl_loss, policy_and_value
from kdtw_jax.replay import ReplayState, make_replay
from kdtw_jax.tabular.mdp import EnumerableMDP, Paths, Solution, all_paths, path_log_prob, soft_optimum

STUDENT, TEACHER, UNIFORM = 0, 1, 2  # who may produce a path
SOURCES = ("student", "teacher", "uniform")


class TabularStudent(NamedTuple):
    """Parameters. States that share a row of logits cannot tell each other apart."""

    logits_RxA: jax.Array
    value_S: jax.Array  # the "head" values
    ask_S: jax.Array | None = None  # logits of asking, for a student that may (`kdtw_jax.tabular.help_tabular`)


@dataclass(frozen=True)
class Tabular:
    """A student over a given MDP: which states share parameters, and the loss it is trained with."""

    mdp: EnumerableMDP
    config: PCLConfig
    row_S: tuple[int, ...] | None = None  # row of logits of each state; one of its own each by default
    fit_value_on_policy: bool = False  # only the student's own paths move the values

    def init(self) -> TabularStudent:
        """Zeros: the uniform policy."""
        states, actions = self.mdp.log_mu_SxA.shape
        rows = states if self.row_S is None else max(self.row_S) + 1
        return TabularStudent(jnp.zeros((rows, actions)), jnp.zeros(states))

    def paths(self) -> Paths:
        """All there are."""
        return all_paths(self.mdp)

    def optimum(self) -> Solution:
        """What training has to reach."""
        return soft_optimum(self.mdp, self.config.alpha, self.config.gamma)

    def logits(self, student: TabularStudent) -> jax.Array:
        """[SxA], -inf where a token may not be produced."""
        logits = student.logits_RxA if self.row_S is None else student.logits_RxA[jnp.asarray(self.row_S)]
        return jnp.where(self.mdp.allowed_SxA, logits, -jnp.inf)

    def log_pi(self, student: TabularStudent) -> jax.Array:
        """[SxA]"""
        return jax.nn.log_softmax(self.logits(student) / self.config.alpha, axis=-1)

    def value(self, student: TabularStudent) -> jax.Array:
        """[S]"""
        first = jnp.zeros((1, len(self.mdp.prefixes)), jnp.int32)
        return policy_and_value(self.logits(student)[None], student.value_S[None], first, **self.config.of_values)[1][0]

    def distance(self, student: TabularStudent) -> tuple[float, float]:
        """From the optimum: max |V - V*| and the largest total variation of the policy, over all states."""
        best = self.optimum()
        variation_S = 0.5 * np.abs(np.exp(self.log_pi(student)) - np.exp(best.log_pi_SxA)).sum(axis=1)
        return float(np.abs(self.value(student) - best.value_S).max()), float(np.max(variation_S))

    def terms(self, student: TabularStudent, paths: Paths) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the loss is made of: log pi of each action, its reward, and V of the state it was taken in, NxT."""
        states, tokens = jnp.asarray(paths.states_NxT), jnp.asarray(paths.tokens_NxT)
        head = student.value_S[states]
        log_pi, value = policy_and_value(self.logits(student)[states], head, tokens, **self.config.of_values)
        return log_pi, jnp.asarray(self.mdp.log_mu_SxA, jnp.float32)[states, tokens], value

    def loss(self, student: TabularStudent, paths: Paths, source_N: jax.Array, weight_N: jax.Array) -> jax.Array:
        """The PCL loss, [], with a weight per path (a probability, where paths are enumerated and not drawn)."""
        log_pi, reward, value = self.terms(student, paths)
        fit = source_N == STUDENT if self.fit_value_on_policy else jnp.ones_like(source_N, bool)

        def one(*row: jax.Array) -> Weighted:
            log_pi, reward, value, mask, fit = (x[None] for x in row)
            done = jnp.ones(1, bool)
            return pcl_loss(log_pi, reward, value, mask, done, fit_value_B=fit, **self.config.of_loss)[0]

        each = jax.vmap(one)(log_pi, reward, value, jnp.asarray(paths.mask_NxT), fit)
        return Weighted(jnp.sum(weight_N * each.total), jnp.sum(weight_N * each.weight)).mean()

    def behaviour(self, student: TabularStudent, paths: Paths) -> jax.Array:
        """log-probability of the paths under each source's policy, [3, N]; nothing to differentiate."""
        uniform = jnp.log(self.mdp.allowed_SxA / self.mdp.allowed_SxA.sum(axis=1, keepdims=True))
        policies = (self.log_pi(student), jnp.asarray(self.mdp.log_mu_SxA, jnp.float32), uniform)
        return jax.lax.stop_gradient(jnp.stack([path_log_prob(policy, paths) for policy in policies]))


def expected_loss(tabular: Tabular, student: TabularStudent, shares: jax.Array) -> jax.Array:
    """The loss over all paths, [], when `shares`, [3], of them come from each of `SOURCES`."""
    paths = tabular.paths()
    tiled = jax.tree.map(lambda x: jnp.tile(x, (len(SOURCES), 1)), paths)
    source = jnp.repeat(jnp.arange(len(SOURCES)), len(paths.mask_NxT))
    weight = (jnp.exp(tabular.behaviour(student, paths)) * shares[:, None]).reshape(-1)
    return tabular.loss(student, tiled, source, weight)


def train_expected(tabular: Tabular, shares: jax.Array, *, steps: int, learning_rate: float = 0.1) -> TabularStudent:
    """Trains a student by Adam on `expected_loss`, from zeros.

    Args:
      tabular: what is trained.
      shares: [3], of the paths from each of `SOURCES`.
      steps: of Adam.
      learning_rate: at the first step; it falls to zero as a cosine.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def step(
        carry: tuple[TabularStudent, optax.OptState], _: None
    ) -> tuple[tuple[TabularStudent, optax.OptState], None]:
        student, moments = carry
        gradient = jax.grad(lambda s: expected_loss(tabular, s, shares))(student)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(student, updates), moments), None

    @jax.jit
    def run(student: TabularStudent) -> TabularStudent:
        return jax.lax.scan(step, (student, optimizer.init(student)), length=steps)[0][0]

    return run(tabular.init())


def train_from_replay(
    tabular: Tabular,
    shares: tuple[int, int, int],
    *,
    steps: int,
    seed: int,
    capacity: int,
    fresh: int = 16,
    learning_rate: float = 0.1,
) -> TabularStudent:
    """Trains a student by Adam on minibatches from a replay buffer, from zeros.

    With shares (n, 0, 0) and capacity = fresh the paths are on-policy; a larger capacity keeps stale ones.

    Args:
      tabular: what is trained.
      shares: rows of a minibatch from each of `SOURCES`.
      steps: of Adam.
      seed: of everything drawn.
      capacity: rows that the buffer keeps of each source.
      fresh: rows of each source that it gains per step.
      learning_rate: at the first step; it falls to zero as a cosine.
    """
    paths = tabular.paths()
    replay = make_replay(capacity, shares, SOURCES)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    Carry = tuple[TabularStudent, optax.OptState, ReplayState]

    def step(carry: Carry, key: jax.Array) -> tuple[Carry, None]:
        student, moments, buffer = carry
        draw, pick = jax.random.split(key)
        log_prob = tabular.behaviour(student, paths)
        # Paths are few enough to draw whole ones, which is what drawing token by token amounts to.
        drawn = jax.random.categorical(draw, log_prob, axis=-1, shape=(fresh, len(SOURCES)))
        for source in range(len(SOURCES)):
            rows = jax.tree.map(lambda x, source=source: jnp.asarray(x)[drawn[:, source]], paths)
            buffer = replay.add(buffer, rows, source)
        sample = replay.sample(buffer, pick)
        ones = jnp.ones(sum(shares))
        updates, moments = optimizer.update(
            jax.grad(tabular.loss)(student, sample.rows, sample.source_X, ones), moments
        )
        return (optax.apply_updates(student, updates), moments, buffer), None

    @jax.jit
    def run(student: TabularStudent, key: jax.Array) -> TabularStudent:
        start = (student, optimizer.init(student), replay.init(jax.tree.map(lambda x: x[0], paths)))
        return jax.lax.scan(step, start, jax.random.split(key, steps))[0][0]

    return run(tabular.init(), jax.random.key(seed))
