"""What a training run carries from step to step, and the one optimiser update all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from kdtw_jax import parallel
from kdtw_jax.errors import UserError
from kdtw_jax.flags import flags
from kdtw_jax.losses.metric import Weighted
from kdtw_jax.models import Path, Role, RoleOf, names_of
from kdtw_jax.ranges import check_ranges

PyTree = Any
Params = Any
Metrics = dict[str, Weighted]
# (params, target params, rows, key) -> named terms. Terms are (sum, weight) pairs over this device's rows, which are
# the first axis of every leaf of `rows` but for those inside a `Whole`.
LossFn = Callable[[Params, Params, Any, jax.Array], Metrics]
# Weight of a term in the objective, fixed or as a function of the step (int32 []).
Coefficient = float | Callable[[jax.Array], jax.Array]


class Whole(NamedTuple):
    """What all rows share, such as the parameters of a teacher: not cut up with them."""

    value: Any


class TrainState(NamedTuple):
    """Frozen. `target_params` is a slow copy of `params` (an exponential moving average), or () without one."""

    step: jax.Array  # int32 []
    params: Params
    opt_state: optax.OptState
    target_params: Params
    key_data: jax.Array  # uint32 [4]: the run's random key; the key of a step is folded in from it


@dataclass(frozen=True)
class Rates:
    """Learning rates by the role of a parameter (`models.roles`), as multiples of the rate of all other matrices.

    Adam moves every entry by about the learning rate, whatever its size, while T5 starts its parameters at sizes from
    0.01 to 1 and was made for Adafactor, whose steps are in proportion to a parameter's size (arXiv 1910.10683,
    section 3.1.2). One rate for all leaves the vocabulary and the positions behind: in the same 95 s of
    training the 3.9 M teacher of debian/en-de came to 4.6 nats per token without these multiples (a rate of 8 for the
    embedding, 1 elsewhere, batches of 2048) and to 2.9 with them (batches of 1024).
    """

    embedding: float = 60.0  # starts at standard deviation 1
    relative_bias: float = 100.0  # a table of attention scores, which have to reach a few units
    norm: float = 10.0  # starts at 1
    query: float = 0.1  # starts 1 / sqrt(d_kv) below the other matrices, since scores are not divided by it
    value_head: float = 20.0  # starts at 0, far from values of minus tens of nats
    gate: float = 1.0  # all of it

    def __post_init__(self) -> None:
        check_ranges(self, "rates.", **dict.fromkeys(vars(self), "(0, inf)"))


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to `final_fraction` of the peak."""

    learning_rate: float = 1e-3
    warmup_steps: int = 100
    final_fraction: float = field(default=0.1, metadata=flags())
    weight_decay: float = field(default=0.0, metadata=flags())
    clip_norm: float = field(default=1.0, metadata=flags())
    beta2: float = field(default=0.98, metadata=flags())
    accumulate: int = 1  # parts that a device's rows are cut into, one in memory at a time; the update stays the same
    rates: Rates = field(default_factory=Rates, metadata=flags())

    def __post_init__(self) -> None:
        check_ranges(
            self,
            "optimizer.",
            learning_rate="(0, inf)",
            warmup_steps="[0, inf)",
            final_fraction="[0, 1]",
            weight_decay="[0, inf)",
            clip_norm="(0, inf)",
            beta2="[0, 1)",
            accumulate="[1, inf)",
        )


def make_optimizer(config: OptimizerConfig, steps: int, role: RoleOf) -> optax.GradientTransformation:
    """Makes the optimiser of a run.

    Args:
        config: what it is to be.
        steps: the updates of the run.
        role: what a parameter is for (`Model.role`), which its rate goes by.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=min(config.warmup_steps, max(steps // 2, 1)),
        decay_steps=max(steps, 2),
        end_value=config.learning_rate * config.final_fraction,
    )
    rates = {kind: optax.scale(vars(config.rates).get(kind, 1.0)) for kind in get_args(Role)}
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(schedule, b1=0.9, b2=config.beta2, weight_decay=config.weight_decay),
        optax.partition(rates, _labels(role)),
    )


def _labels(label: Callable[[Path], Any]) -> Callable[[Params], Any]:
    """Turns a function of the names that lead to a parameter into one of trees of parameters."""
    return lambda params: jax.tree.map_with_path(lambda path, _: label(names_of(path)), params)


Part = Callable[[Params], tuple[Params, Params]]  # the parameters that learn and those at rest, None in their places


def part_of(role: RoleOf, learning: tuple[Role, ...]) -> Part:
    """Makes what parts the parameters of the roles that learn from all others; of () all learn."""

    def part(params: Params) -> tuple[Params, Params]:
        learns = _labels(lambda path: not learning or role(path) in learning)(params)
        rests = jax.tree.map(lambda one: not one, learns)
        return _kept(params, learns), _kept(params, rests)

    return part


def _kept(params: Params, which: Any) -> Params:
    return jax.tree.map(lambda x, one: x if one else None, params, which)


def joined(learning: Params, resting: Params) -> Params:
    """The inverse of a `Part`."""
    return jax.tree.map(lambda x, y: y if x is None else x, learning, resting, is_leaf=lambda x: x is None)


_EVERYTHING = part_of(lambda path: "matrix", ())

# "rbg" makes the bits of dropout masks several times cheaper on CPU than the default generator.
PRNG = "rbg"


def init_state(
    params: Params,
    optimizer: optax.GradientTransformation,
    seed: int,
    *,
    target: bool = False,
    part: Part = _EVERYTHING,
) -> TrainState:
    """Makes step 0 of a run; `target` keeps a slow copy of the parameters beside them, `part` says which learn."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(part(params)[0]),
        target_params=jax.tree.map(jnp.array, params) if target else (),
        key_data=jax.random.key_data(jax.random.key(seed, impl=PRNG)),
    )


def step_key(key_data: jax.Array, step: jax.Array | int, purpose: int) -> jax.Array:
    """Makes the key of one step for one purpose.

    Args:
      key_data: of the run (`TrainState`).
      step: the step.
      purpose: 0 dropout, 1 rollouts, 2 teacher samples, 3 replay, 4 rollouts with help, 5 who writes the outputs of a
        batch.
    """
    key = jax.random.wrap_key_data(key_data, impl=PRNG)
    return jax.random.fold_in(jax.random.fold_in(key, step), purpose)


def make_update(
    loss_fn: LossFn,
    coefficients: Mapping[str, Coefficient],
    optimizer: optax.GradientTransformation,
    *,
    target_decay: float = 0.0,
    accumulate: int = 1,
    part: Part = _EVERYTHING,
) -> Callable[[TrainState, Any], tuple[TrainState, Metrics]]:
    """Makes one optimiser step on `sum_k coefficients[k] * mean(term k)`, to be mapped by `parallel.data_parallel`.

    Gradients are `psum(d total) / psum(weight)`: the same for any split of the rows, over devices or over `accumulate`
    parts that follow each other on a device. For the parts the weights of all terms have to be known beforehand; where
    they are a matter of masks alone that costs nothing, where they depend on the model (which tokens it can emit) a
    further forward pass. A loss that compares the rows of a minibatch with each other sees a part at a time.

    Args:
      loss_fn: gives the terms.
      coefficients: their weights; terms without one are metrics only.
      optimizer: makes updates of gradients (`make_optimizer`).
      target_decay: EMA decay of the target parameters; 0: none are kept.
      accumulate: parts that a device's rows are cut into.
      part: which parameters learn; nothing is computed for the gradient of the others.

    Returns:
      The step, whose metrics are summed over devices. It raises UserError, when traced, for rows that do not divide
      into the parts.
    """

    def update(state: TrainState, rows: Any) -> tuple[TrainState, Metrics]:
        key = parallel.device_key(step_key(state.key_data, state.step, 0))
        learning, resting = part(state.params)

        def objective(
            learning: Params, rows: Any, key: jax.Array, weights: dict[str, jax.Array] | None
        ) -> tuple[jax.Array, Metrics]:
            terms = loss_fn(joined(learning, resting), state.target_params, rows, key)
            weights = {k: parallel.psum_weight(terms[k].weight) for k in coefficients} if weights is None else weights
            loss = jnp.zeros(())
            for name, weight in coefficients.items():
                loss += (weight(state.step) if callable(weight) else weight) * (terms[name].total / weights[name])
            return loss, terms

        gradient = jax.value_and_grad(objective, has_aux=True)
        if accumulate == 1:
            (loss, terms), grads = gradient(learning, rows, key, None)
        else:
            parts = cut_rows(rows, accumulate)

            def weigh(index: jax.Array) -> dict[str, jax.Array]:
                terms = loss_fn(state.params, state.target_params, parts(index), jax.random.fold_in(key, index))
                return {k: terms[k].weight for k in coefficients}

            def add(sums: PyTree, index: jax.Array) -> tuple[PyTree, None]:
                one = gradient(learning, parts(index), jax.random.fold_in(key, index), weights)
                return jax.tree.map(jnp.add, sums, one), None

            places = jnp.arange(accumulate)
            weights = jax.tree.map(lambda x: parallel.psum_weight(jnp.sum(x)), jax.lax.map(weigh, places))
            nothing = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype),
                jax.eval_shape(lambda: gradient(learning, parts(0), key, weights)),
            )
            ((loss, terms), grads), _ = jax.lax.scan(add, nothing, places)
        loss, grads, terms = parallel.psum_tree((loss, grads, terms))
        updates, opt_state = optimizer.update(grads, state.opt_state, learning)
        params = joined(optax.apply_updates(learning, updates), resting)
        one = jnp.ones(())
        terms = {"loss": Weighted(loss, one), "grad_norm": Weighted(optax.tree.norm(grads), one), **terms}
        target = state.target_params
        if target_decay:
            target = optax.incremental_update(params, target, 1.0 - target_decay)
        return TrainState(state.step + 1, params, opt_state, target, state.key_data), terms

    return update


def cut_rows(rows: Any, parts: int) -> Callable[[jax.Array | int], Any]:
    """Cuts rows into `parts`, given by their number: leaves [B, ...] become [B / parts, ...].

    Those inside a `Whole` stay as they are. The function that is returned raises UserError where B does not divide.
    """

    def cut(leaf: Any, index: jax.Array | int) -> Any:
        if isinstance(leaf, Whole):
            return leaf
        count = len(leaf)
        if count % parts:
            raise UserError(f"{count} rows per device do not divide into accumulate={parts} parts; choose a divisor")
        return jax.lax.dynamic_slice_in_dim(jnp.asarray(leaf), index * (count // parts), count // parts)

    return lambda index: jax.tree.map(lambda leaf: cut(leaf, index), rows, is_leaf=lambda x: isinstance(x, Whole))
