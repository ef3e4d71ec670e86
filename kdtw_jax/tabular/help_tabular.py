"""A tabular student that may ask, trained by PCL: it must reach the optima that `kdtw_jax.tabular.help_mdp` solves for.

Paths carry a flag per step, asked or not; after asking, the token is one the teacher drew. Such a step's residual

    C = r(s, ask) - alpha log pi(ask|s) + gamma V(s.y) - V(s),   y ~ mu,

varies with y, so the mean of C^2 carries gamma^2 Var_y V(s.y), and what minimises it is off the optimum wherever V* is
not the same after every answer (the literal reward; under the normalised one V* = 0). Two things avoid that:
`stop_far_end` together with either d = 1 or paths of the student's own, where the step is a policy gradient and needs
C to be right on average only; and, for every d and all data, `exact_answer`, which puts the expectation in V's place.
A student that cannot express its teacher is another matter: on paths not its own, its gate learns KL(mu || pi) with the
wrong sign, and asks least where it is needed most.
Axis letters as in `kdtw_jax.tabular.help_mdp`; K: budgets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kdtw_jax.duals import DualConfig, Duals, price, start_duals, update_duals
from kdtw_jax.losses.help import asked_path, help_logit
from kdtw_jax.tabular.help_mdp import extended_optimum
from kdtw_jax.tabular.mdp import EnumerableMDP, Paths, Solution, all_paths
from kdtw_jax.tabular.student import STUDENT, Tabular, TabularStudent, expected_loss


def asked_paths(mdp: EnumerableMDP) -> Paths:
    """Every complete path with every choice of steps asked at: 2^length rows for each of `all_paths`."""
    plain = all_paths(mdp)
    flags_FxT = np.array(list(product((False, True), repeat=mdp.horizon)))
    path_N, flags_N = np.nonzero(~np.any(flags_FxT & ~plain.mask_NxT[:, None], axis=-1))
    return jax.tree.map(lambda table: table[path_N], plain)._replace(asked_NxT=flags_FxT[flags_N])


@dataclass(frozen=True)
class Asking(Tabular):
    """A student with asking as its last action. `row_S` ties what it writes; whether it asks is free in every state."""

    price: float | jax.Array = 1.0
    normalize: bool = True  # the reward; see `kdtw_jax.losses.help.asked_path`
    exact_answer: bool = False  # see the module's docstring

    def init(self) -> TabularStudent:
        """Zeros: asking is as likely as any token."""
        return super().init()._replace(ask_S=jnp.zeros(len(self.mdp.prefixes)))

    def paths(self) -> Paths:
        """All there are, with every choice of steps asked at."""
        return asked_paths(self.mdp)

    def optimum(self) -> Solution:
        """What training has to reach."""
        alpha, gamma = self.config.alpha, self.config.gamma
        return extended_optimum(self.mdp, float(self.price), alpha=alpha, gamma=gamma, normalize=self.normalize)

    def logits(self, student: TabularStudent) -> jax.Array:
        """[SxX]"""
        assert student.ask_S is not None
        return jnp.concatenate([super().logits(student), student.ask_S[:, None]], axis=1)

    def terms(self, student: TabularStudent, paths: Paths) -> tuple[jax.Array, jax.Array, jax.Array]:
        """log pi of each action, its reward, and V of the state it was taken in, NxT."""
        at, log_mu_SxA = (paths.states_NxT, paths.tokens_NxT), jnp.asarray(self.mdp.log_mu_SxA, jnp.float32)
        own_SxA = jax.nn.log_softmax(super().logits(student) / self.config.alpha, axis=-1)
        odds_S, value_S = help_logit(self.log_pi(student), -1), self.value(student)
        asked_NxT, price_1x1 = jnp.asarray(paths.asked_NxT), jnp.reshape(self.price, (1, 1))
        log_pi_NxT, reward_NxT = asked_path(
            own_SxA[at], odds_S[at[0]], log_mu_SxA[at], asked_NxT, price_1x1, normalize=self.normalize
        )
        if self.exact_answer:
            # A reward with mean zero, so that it serves any d: C(i,d) is the sum of its one-step residuals.
            next_SxA = jnp.append(value_S, 0.0)[self.mdp.next_state_SxA]
            next_SxA = jax.lax.stop_gradient(next_SxA) if self.config.stop_far_end else next_SxA
            off_SxA = jnp.sum(jnp.exp(log_mu_SxA) * next_SxA, axis=1, keepdims=True) - next_SxA
            reward_NxT += self.config.gamma * jnp.where(asked_NxT, off_SxA[at], 0.0)
        return log_pi_NxT, reward_NxT, value_S[at[0]]

    def behaviour(self, student: TabularStudent, paths: Paths) -> jax.Array:
        """log-probability of the paths under each source, [3, N]: the student, the teacher that asks at the rate
        sigma(-price), and any action alike. Whoever asks, the teacher answers.
        """
        at, log_mu_SxA = (paths.states_NxT, paths.tokens_NxT), jnp.asarray(self.mdp.log_mu_SxA, jnp.float32)
        ask_Sx1 = jnp.full((len(self.mdp.prefixes), 1), jax.nn.log_sigmoid(-self.price))
        teacher_SxX = jnp.concatenate([log_mu_SxA + jax.nn.log_sigmoid(self.price), ask_Sx1], axis=1)
        policies = (
            self.log_pi(student),
            teacher_SxX,
            jax.nn.log_softmax(jnp.where(jnp.isfinite(teacher_SxX), 0.0, -jnp.inf)),
        )

        def log_prob(policy_SxX: jax.Array) -> jax.Array:
            asked_NxT = policy_SxX[at[0], -1] + log_mu_SxA[at]
            step_NxT = jnp.where(paths.asked_NxT, asked_NxT, policy_SxX[at])
            return jnp.sum(jnp.where(paths.mask_NxT, step_NxT, 0.0), axis=1)

        return jax.lax.stop_gradient(jnp.stack([log_prob(policy) for policy in policies]))

    def share(self, student: TabularStudent) -> jax.Array:
        """Of the tokens of its own paths, how many the student asks for, []: expected calls by expected length."""
        paths = self.paths()
        prob_N = jnp.exp(self.behaviour(student, paths)[STUDENT])
        calls, length = (prob_N @ jnp.sum(x, axis=1, dtype=jnp.float32) for x in (paths.asked_NxT, paths.mask_NxT))
        return calls / length


class PricedStudents(NamedTuple):
    """What training with learned prices gives, one student per budget. L: steps."""

    students: TabularStudent  # leaves [K, ...]
    price_LxK: jax.Array
    share_LxK: jax.Array  # of the tokens asked for, after the step


def train_priced(
    asking: Asking,
    budget_K: jax.Array,
    config: DualConfig,
    shares: jax.Array,
    *,
    start_K: jax.Array,
    steps: int,
    optimizer: optax.GradientTransformation,
) -> PricedStudents:
    """Descent on `expected_loss`, one student per budget, while `kdtw_jax.duals` moves the prices.

    One step of the students, then one of the prices by what the students use in expectation.

    Args:
      asking: what is trained; its price is not used.
      budget_K: share of the tokens that each student may ask for.
      config: how prices move.
      shares: [3], of the paths from each of `SOURCES`.
      start_K: prices to begin with, [knots].
      steps: of the students, and of the prices.
      optimizer: should not decay its step size, since students have to keep up with the prices.
    """
    Carry = tuple[TabularStudent, optax.OptState, Duals]

    def step(carry: Carry, _: None) -> tuple[Carry, tuple[jax.Array, jax.Array]]:
        students, moments, duals = carry
        price_K = price(config, duals, budget_K)

        def loss(student: TabularStudent, price: jax.Array) -> jax.Array:
            return expected_loss(replace(asking, price=price), student, shares)

        updates, moments = optimizer.update(jax.vmap(jax.grad(loss))(students, price_K), moments)
        students = optax.apply_updates(students, updates)
        share_K = jax.vmap(asking.share)(students)
        return (students, moments, update_duals(config, duals, budget_K, share_K - budget_K)), (price_K, share_K)

    @jax.jit
    def run(students: TabularStudent) -> PricedStudents:
        start = (students, optimizer.init(students), start_duals(config, start_K))
        (students, _, _), (price_LxK, share_LxK) = jax.lax.scan(step, start, length=steps)
        return PricedStudents(students, price_LxK, share_LxK)

    return run(jax.tree.map(lambda x: jnp.tile(x, (len(budget_K), *[1] * x.ndim)), asking.init()))
