"""A token MDP small enough to enumerate: exact optima, and a tabular student that must reach them.

States are the prefixes without EOS of at most `horizon` - 1 tokens, so every complete path is one state's
prefix followed by EOS and there are as many paths as states. At the last depth EOS is the only token allowed,
for teacher and student alike (log mu = -inf for the others): every path ends, and with alpha = gamma = 1
V* = 0 and pi* = mu hold exactly at every state, the last depth included.

The oracles are numpy in float64; the student trains in JAX through the very losses and replay buffer that
models use.
Axis letters: S states, A actions (the vocabulary), N paths, T = horizon, R rows of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdtw_jax.errors import UserError
from kdtw_jax.losses.metric import Weighted
from kdtw_jax.losses.pcl import PCLConfig, pcl_loss, policy_and_value
from kdtw_jax.replay import ReplayState, make_replay

EOS = 0
STUDENT, TEACHER, UNIFORM = 0, 1, 2  # who may produce a path
SOURCES = ("student", "teacher", "uniform")


@dataclass(frozen=True)
class EnumerableMDP:
    """Tables over prefixes; index S in `next_state_SxA` stands for the end, whose value is 0."""

    prefixes: tuple[tuple[int, ...], ...]
    next_state_SxA: np.ndarray  # int32
    log_mu_SxA: np.ndarray  # float64, the teacher; -inf where a token may not be produced
    horizon: int

    @property
    def allowed_SxA(self) -> np.ndarray:
        """bool: the token may be produced."""
        return np.isfinite(self.log_mu_SxA)

    def next_value(self, value_S: np.ndarray) -> np.ndarray:
        """Expected value after each action, SxA: the one place that knows the transition."""
        return np.append(value_S, 0.0)[self.next_state_SxA]


class Solution(NamedTuple):
    """An optimum: values and the policy that goes with them."""

    value_S: np.ndarray
    log_pi_SxA: np.ndarray


class Paths(NamedTuple):
    """Complete paths as rows, padded with zeros after EOS."""

    states_NxT: np.ndarray  # int32
    tokens_NxT: np.ndarray  # int32
    mask_NxT: np.ndarray  # bool, True up to and including EOS
    asked_NxT: np.ndarray  # bool, the student asked and the teacher wrote the token (`kdtw_jax.tabular.help_tabular`)


def random_mdp(vocabulary: int, horizon: int, *, seed: int, spread: float = 1.0) -> EnumerableMDP:
    """A teacher with normal logits of standard deviation `spread` at every prefix.

    Raises UserError beyond a vocabulary of 4 (EOS included) or a horizon of 5, where enumeration stops being
    cheap.
    """
    if not 2 <= vocabulary <= 4 or not 1 <= horizon <= 5:
        raise UserError(f"need a vocabulary of 2 to 4 and a horizon of 1 to 5, got {vocabulary} and {horizon}")
    words = range(1, vocabulary)
    prefixes = tuple(p for length in range(horizon) for p in product(words, repeat=length))
    index = {prefix: s for s, prefix in enumerate(prefixes)}
    end = len(prefixes)
    next_state = [[end] + [index.get((*prefix, a), end) for a in words] for prefix in prefixes]
    logits = np.random.default_rng(seed).normal(size=(end, vocabulary)) * spread
    logits[[len(prefix) == horizon - 1 for prefix in prefixes], 1:] = -np.inf
    log_mu = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return EnumerableMDP(prefixes, np.array(next_state, np.int32), log_mu, horizon)


def soft_optimum(
    mdp: EnumerableMDP, alpha: float = 1.0, gamma: float = 1.0, reward_SxA: np.ndarray | None = None
) -> Solution:
    """Soft backward induction: Q = r + gamma V(next), V = alpha logsumexp(Q / alpha), pi = e^[(Q-V)/alpha].

    The reward is log mu unless given (-inf where a token may not be produced).
    """
    reward_SxA = mdp.log_mu_SxA if reward_SxA is None else reward_SxA
    value_S = np.zeros(len(mdp.prefixes))
    for _ in range(mdp.horizon):  # a sweep settles one more depth, from the last to the root
        q_SxA = reward_SxA + gamma * mdp.next_value(value_S)
        value_S = alpha * np.logaddexp.reduce(q_SxA / alpha, axis=1, keepdims=True)[:, 0]
    return Solution(value_S, (q_SxA - value_S[:, None]) / alpha)


def policy_value(mdp: EnumerableMDP, log_pi_SxA: np.ndarray, alpha: float = 1.0, gamma: float = 1.0) -> np.ndarray:
    """V^pi, [S]: E_pi sum_t gamma^t (log mu - alpha log pi) from each state on.

    At alpha = gamma = 1 it is minus KL(pi || mu) over the rest of the sequence.
    """
    pi_SxA = np.exp(log_pi_SxA)
    gain_SxA = np.where(pi_SxA > 0, mdp.log_mu_SxA - alpha * np.where(pi_SxA > 0, log_pi_SxA, 0.0), 0.0)
    value_S = np.zeros(len(mdp.prefixes))
    for _ in range(mdp.horizon):
        value_S = np.sum(pi_SxA * (gain_SxA + gamma * mdp.next_value(value_S)), axis=1)
    return value_S


def occupancy(mdp: EnumerableMDP, log_pi_SxA: np.ndarray) -> np.ndarray:
    """Probability that a path under pi passes through each state, [S]."""
    reach = np.zeros(len(mdp.prefixes) + 1)
    reach[0] = 1.0
    for s in range(len(mdp.prefixes)):  # a prefix comes after all of its own prefixes
        np.add.at(reach, mdp.next_state_SxA[s], reach[s] * np.exp(log_pi_SxA[s]))
    return reach[:-1]


def all_paths(mdp: EnumerableMDP) -> Paths:
    """Every complete path once, written without help; path n is prefix n and then EOS, N = S."""
    shape = (len(mdp.prefixes), mdp.horizon)
    states, tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, bool)
    for n, prefix in enumerate(mdp.prefixes):
        state = 0
        for t, token in enumerate((*prefix, EOS)):
            states[n, t], tokens[n, t], mask[n, t] = state, token, True
            state = mdp.next_state_SxA[state, token]
    return Paths(states, tokens, mask, np.zeros(shape, bool))


def path_log_prob(log_pi_SxA: jax.Array, paths: Paths) -> jax.Array:
    """log-probability of each path under a policy, [N]."""
    return jnp.sum(jnp.where(paths.mask_NxT, log_pi_SxA[paths.states_NxT, paths.tokens_NxT], 0.0), axis=1)


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
        """The PCL loss, [], with a weight a path (a probability, where paths are enumerated and not
        drawn).
        """
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
    """Adam on `expected_loss`."""
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
    """Adam on minibatches with `shares` rows of each source from a replay buffer that gains `fresh` rows of
    each a step.

    With shares (n, 0, 0) and capacity = fresh the paths are on-policy; a larger capacity keeps stale ones.
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
