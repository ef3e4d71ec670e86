"""Who asks the teacher: the student's own gate, and its rivals. What learning to ask is worth shows beside them.

Scores have no common unit: where one is enough to ask is a threshold of each gate's own. Only drawn gates need uniforms
as noise. The oracles see the teacher's distribution at every state, which no student can afford: they say how much
there is to gain.

A gate of your own is an entry more: `register_gate(GateEntry(...))`, before a decoder is made; or installed with a
package of yours that names the entry under the entry points of `kdtw_jax.gates`, which the command line reads. It is
then compared, tabled and drawn beside the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdtw_jax.decoding.ahead import Ahead, drafts_gate, oracle_ahead
from kdtw_jax.decoding.gate import DecodeState, Gate, forecast, own_gate, stateless
from kdtw_jax.decoding.sample import choose
from kdtw_jax.decoding.utility import Utility, log_mu, nearness
from kdtw_jax.losses.masked import entropy, kl_divergence
from kdtw_jax.models import Encoded, Model, Params
from kdtw_jax.registry import Registry

_FLOOR = 0.05  # nats that an answer is expected to save: below, drafts are not worth their positions
Measure = Callable[[jax.Array, jax.Array], jax.Array]  # (log_pi_BxV, log_mu_BxV) -> float32 [B]


def random_gate(probability: jax.Array | float) -> Gate:
    """Asks with that probability at every token, whatever the state: with uniforms in [0, 1) as noise, exactly so."""
    return stateless(lambda state: jnp.full(state.history.length_B.shape, probability, jnp.float32))


def entropy_gate() -> Gate:
    """Asks where the student is unsure: entropy of its own token, nats."""
    return stateless(lambda state: entropy(state.log_policy_BxV))


def max_prob_gate() -> Gate:
    """Asks where the student's most probable token is not probable: 1 - its probability."""
    return stateless(lambda state: -jnp.expm1(jnp.max(state.log_policy_BxV, axis=-1)))


def oracle_gate(measure: Measure) -> Gate:
    """Asks where student and teacher are apart by `measure`, in nats, over all tokens. The teacher has to read along;
    its reading is not part of what asking costs."""

    def score(state: DecodeState) -> jax.Array:
        if state.teacher_log_policy_BxV is None:
            raise ValueError("an oracle needs a teacher that reads along")
        return measure(state.log_policy_BxV, state.teacher_log_policy_BxV)

    return stateless(score)


def divergence(log_pi_BxV: jax.Array, log_mu_BxV: jax.Array) -> jax.Array:
    """KL(pi || mu), nats [B]: what an answer saves where tokens are sampled."""
    return kl_divergence(log_pi_BxV, log_mu_BxV)


def regret(log_pi_BxV: jax.Array, log_mu_BxV: jax.Array) -> jax.Array:
    """log mu(best) - log mu(the student's most probable token), nats [B]: for greedy tokens."""
    choice_B = choose(log_pi_BxV, None)
    return jnp.max(log_mu_BxV, axis=-1) - jnp.take_along_axis(log_mu_BxV, choice_B[:, None], axis=-1)[:, 0]


class GateContext(NamedTuple):
    """What a gate may be made of, within a program."""

    model: Model  # the student
    params: Params
    rule: Encoded  # what the student has read of the rule
    alpha: float
    level: jax.Array  # float32 []; of a drawn gate its probability, of another one its threshold
    deferral: Callable[[jax.Array], jax.Array] | None = None  # log-odds of asking from states [B, D], fitted beforehand
    around: Ahead | None = None  # for gates that look ahead
    foresight: Gate | None = None  # what was learned of that beforehand


class GateEntry(NamedTuple):
    """A gate by name.

    make(context): the gate, without a state.
    color: its lines in figures of gates.
    style: colour and marker among the ways to share the writing, "" and "": by chance.
    drawn: its score is a probability, and its decisions are drawn.
    oracle: it sees the teacher's distribution, so the teacher reads along.
    compared: it is judged beside the learned gate at equal use; the others are parts of ways to share the writing.
    ahead: it writes all that may follow at every state, so it is judged only where that is wanted.
    """

    name: str
    make: Callable[[GateContext], Gate]
    color: str = ""
    style: tuple[str, str] = ("", "")
    drawn: bool = False
    oracle: bool = False
    compared: bool = True
    ahead: bool = False


def register_gate(entry: GateEntry) -> GateEntry:
    """Adds a gate.

    Raises:
      UserError: another gate has its name.
    """
    return GATES.add(entry.name, entry)


def find_gate(name: str) -> GateEntry:
    """Returns the gate of a name.

    Raises:
      UserError: no gate has that name.
    """
    return GATES.find(name)


def compared_gates(*, ahead: bool = False) -> tuple[str, ...]:
    """Names of the gates that are judged beside each other, the learned one among them; or of those that look ahead."""
    return tuple(name for name, entry in GATES.items() if entry.compared and entry.ahead == ahead)


def is_oracle(name: str) -> bool:
    """Whether a gate of that name sees the teacher's distribution."""
    return name in GATES and GATES[name].oracle


def looks_ahead(name: str) -> bool:
    """Whether a gate of that name writes all that may follow."""
    return name in GATES and GATES[name].ahead


def score_by(gates: Sequence[Gate], which: jax.Array, memory: Any = ()) -> Gate:
    """The gate of a number (int32 []) that a program is told.

    Args:
      memory: what all of them keep and hand on: int32 [B], where positions are counted that the student processes for
        its gate.
    """
    scores = [gate.score for gate in gates]
    return Gate(lambda memory, state: jax.lax.switch(which, scores, memory, state), memory)


def silent() -> Gate:
    """Never asks by itself."""
    return stateless(lambda state: jnp.zeros(state.history.length_B.shape, jnp.float32))


def _deferral(context: GateContext) -> Gate:
    """Asks by log-odds that were fitted beforehand."""
    deferral = context.deferral
    if deferral is None:
        raise ValueError("this gate needs the log-odds of asking")
    return stateless(lambda state: jax.nn.sigmoid(deferral(state.hidden_BxD)))


def _looking_ahead(utility: Utility) -> Callable[[GateContext], Gate]:
    def make(context: GateContext) -> Gate:
        if context.around is None:
            raise ValueError("this gate needs to know who writes and reads what follows")
        return oracle_ahead(context.around, utility)

    return make


def _foresight(context: GateContext) -> Gate:
    """Asks by what was learned from branches beforehand."""
    if context.foresight is None:
        raise ValueError("this gate needs what is learned from branches")
    return context.foresight


def _drafts(context: GateContext) -> Gate:
    if context.around is None:
        raise ValueError("this gate needs to know who writes what follows")
    return drafts_gate(context.around, forecast(context.model, context.params, context.rule), _FLOOR)


_BUILTIN = (
    GateEntry(
        "learned",
        lambda given: own_gate(given.model, given.params, given.rule, given.alpha),
        "#CC79A7",
    ),
    GateEntry("random", lambda given: random_gate(given.level), "#999999", ("#999999", "o"), drawn=True),
    GateEntry("entropy", lambda given: entropy_gate(), "#0072B2", ("#E69F00", "o")),
    GateEntry("max_prob", lambda given: max_prob_gate(), "#56B4E9", ("#E69F00", "s")),
    GateEntry("oracle_kl", lambda given: oracle_gate(divergence), "#E69F00", ("#000000", "1"), oracle=True),
    GateEntry("oracle_regret", lambda given: oracle_gate(regret), "#D55E00", ("#000000", "2"), oracle=True),
    GateEntry("foresight", _foresight, "#332288", ahead=True),
    GateEntry("drafts", _drafts, "#882255", ("#882255", "P"), ahead=True),
    GateEntry("oracle_rest", _looking_ahead(log_mu), "#009E73", ("#000000", "3"), oracle=True, ahead=True),
    GateEntry("oracle_nearness", _looking_ahead(nearness), "#F0E442", ("#000000", "4"), oracle=True, ahead=True),
    GateEntry("co_llm", _deferral, compared=False),
    GateEntry("forecast", lambda given: forecast(given.model, given.params, given.rule), compared=False),
    GateEntry("silent", lambda given: silent(), compared=False),
)
GATES = Registry(
    {entry.name: entry for entry in _BUILTIN},
    kind="gate",
    group="kdtw_jax.gates",
    how="kdtw_jax.decoding.gates.register_gate(GateEntry(...))",
    expected=GateEntry,
    register=lambda name, entry: register_gate(entry),
)
