"""Training to ask: rows under rules, prices, and what each part of the loss teaches."""

from __future__ import annotations

import math
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.constraints import (
    Terms,
    histories,
    make_calls,
    make_pause,
    make_share,
    start_history,
    total_cost,
    words_room,
)
from kdtw_jax.data.batches import EncodedSplit, Ragged, training_batches
from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.duals import price, prices, update_duals
from kdtw_jax.errors import UserError
from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.methods.ask import ask
from kdtw_jax.methods.ask_config import AskConfig, Rules, dual_configs, first_prices
from kdtw_jax.methods.ask_loss import ask_loss
from kdtw_jax.methods.ask_prices import unit_costs
from kdtw_jax.methods.ask_rows import HELPED, AskingCollector
from kdtw_jax.models import make_model
from kdtw_jax.replay import Sample
from kdtw_jax.training.scoring import REFERENCE, STUDENT, TEACHER
from kdtw_jax.training.state import init_state, make_optimizer
from tests.every_other import make_every_other
from tests.world import DISTIL, TRAINING, WIDE, World, same

CONFIG = AskConfig(
    distil=replace(
        DISTIL, target_decay=0.0, pcl=PCLConfig(values="head", segment_lengths=(1, 2)), demonstration_fraction=0.5
    ),
    gate_width=8,
)
CONSTRAINTS = (make_share(), make_calls(), make_pause(), make_every_other())  # the last is a user's own


def whole_words(text: str) -> list[int]:
    """A token a word: the toy vocabulary has no letters for rules, and short rules make short tests."""
    return [4 + zlib.crc32(word.encode()) % 12 for word in text.split()]


class AskingWorld(World):
    """With a student that has a gate, and rules of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.student = make_model(replace(self.config, gate_width=8))
        self.params = jax.device_get(self.student.init(jax.random.key(0)))
        self.rules = Rules(CONSTRAINTS, whole_words, words_room(CONSTRAINTS, whole_words, together=2))

    def collector(self, devices: int = 1, config: AskConfig = CONFIG) -> AskingCollector:
        context = self.context(Path(), devices, student=self.student)
        return AskingCollector(context, config, self.rules)

    def collected(self, devices: int = 1, step: int = 0, params: Any = None, config: AskConfig = CONFIG) -> Any:
        collector = self.collector(devices, config)
        batch = next(training_batches(self.data, WIDE, seed=0))
        key = init_state(self.params, make_optimizer(TRAINING.optimizer, 8, self.model.role), 0).key_data
        params = parallel.replicate(self.params if params is None else params, collector.devices)
        return collector, *collector(params, collector.prices.start(), batch, key, step)


@pytest.fixture(scope="module")
def world() -> AskingWorld:
    return AskingWorld()


@pytest.fixture(scope="module")
def collected(world: AskingWorld) -> Any:
    return world.collected()


def test_all_sources_come_under_rules_and_do_not_depend_on_devices(world: AskingWorld, collected: Any) -> None:
    _, rows, duals = collected
    _, others, other_duals = world.collected(devices=4)
    assert set(rows) == {STUDENT, TEACHER, REFERENCE, HELPED}
    for source, found in rows.items():
        assert np.array_equal(found.path.tokens_BxT, others[source].path.tokens_BxT)
        assert np.array_equal(found.asked_BxT, others[source].asked_BxT)
        assert np.array_equal(found.rule_BxR, others[source].rule_BxR)
        assert not (found.asked_BxT & (found.path.tokens_BxT == 0)).any()
        assert found.terms.active_BxC.any(1).all()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), duals, other_duals)
    assert not np.array_equal(rows[STUDENT].path.tokens_BxT, rows[HELPED].path.tokens_BxT)  # one sampled, one greedy


def test_a_part_of_the_prompts_is_answered_with_help(world: AskingWorld, collected: Any) -> None:
    part = world.collected(config=replace(CONFIG, helped_fraction=0.3))[1]
    count = math.ceil(0.3 * len(collected[1][HELPED].asked_BxT))
    for mine, all_of_them in zip(jax.tree.leaves(part[HELPED]), jax.tree.leaves(collected[1][HELPED]), strict=True):
        np.testing.assert_allclose(mine, np.asarray(all_of_them)[:count], atol=1e-5)
    assert len(part[STUDENT].asked_BxT) == len(collected[1][STUDENT].asked_BxT)


@pytest.mark.parametrize(
    ("saving", "fall", "rise"), [(-20.0, {"calls"}, set()), (20.0, set(), {"pause", "every_other"})]
)
def test_prices_move_by_how_far_active_rules_are_overstepped_or_not_used_up(
    world: AskingWorld, saving: float, fall: set[str], rise: set[str]
) -> None:
    gate = world.params["gate"]
    always_or_never = {**gate["saving_out"], "bias": np.full(1, saving, np.float32)}
    collector, rows, duals = world.collected(params={**world.params, "gate": {**gate, "saving_out": always_or_never}})
    helped, start = rows[HELPED], collector.prices.start()
    tokens, asked, budget = helped.path.tokens_BxT, helped.asked_BxT, helped.terms.budget_BxC
    written = np.asarray(tokens != 0)
    np.testing.assert_array_equal(asked, written if saving > 0 else np.zeros_like(written))
    moved_down, moved_up = set(), set()
    for index, constraint in enumerate(CONSTRAINTS):
        active = helped.terms.active_BxC[:, index]
        cost = total_cost(constraint, budget[:, index], helped.path.source_BxS, tokens, asked)
        limit = {"share": budget[:, index] * written.sum(1), "calls": budget[:, index]}.get(constraint.name, 0.0)
        over = (cost - limit) / written.sum(1).mean()
        expected = update_duals(collector.prices.duals[index], start[index], budget[:, index], over, active)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), duals[index], expected)
        change = np.asarray(
            prices(collector.prices.duals[index], duals[index]) - prices(collector.prices.duals[index], start[index])
        )
        moved_down |= {constraint.name} if (change < -1e-3).any() else set()
        moved_up |= {constraint.name} if (change > 1e-3).any() else set()
        if not active.any():
            np.testing.assert_array_equal(change, 0)
    assert fall <= moved_down and rise <= moved_up
    assert not moved_up if saving < 0 else not moved_down - {"share", "calls"}


def test_first_prices_make_exponential_savings_obey() -> None:
    dual = dual_configs(CONFIG, [make_share()])[0]
    assert {0.0, 0.6, 1.0} <= set(dual.knots)
    budget = np.asarray(dual.knots)
    inner = (budget > 0) & (budget < 1)
    asks = np.exp(-np.exp(np.asarray(first_prices(dual, make_share()), np.float64)))  # P(saving > price)
    np.testing.assert_allclose(asks[inner], budget[inner], atol=1e-5)


def sample(rows: Any, collector: AskingCollector, source: int = HELPED) -> Sample:
    count = len(rows.asked_BxT)
    return collector.refresh(Sample(rows, jnp.full(count, source)), collector.prices.start(), jax.random.key(7))


def test_replayed_rows_carry_the_price_of_every_step(collected: Any) -> None:
    collector, rows, _ = collected
    priced = sample(rows[HELPED], collector).rows
    helped = priced.rows
    before = histories(helped.path.source_BxS, helped.path.tokens_BxT, helped.asked_BxT)
    at = [jax.tree.map(lambda leaf, t=t: leaf[t], before) for t in range(helped.asked_BxT.shape[1])]
    unit = np.stack([unit_costs(CONSTRAINTS, helped.terms, now) for now in at], axis=1)
    own, length = (np.asarray(leaf)[:-1].T for leaf in (before.own_B, before.length_B))
    for index, constraint in enumerate(CONSTRAINTS):
        active = np.asarray(helped.terms.active_BxC[:, index])
        assert not unit[~active][..., index].any()
        if constraint.name in ("share", "calls"):
            assert (unit[active][..., index] == 1).all()
        else:
            budget = np.asarray(helped.terms.budget_BxC)[active, index][:, None]
            forbidden = {"pause": own[active] < budget, "every_other": (length[active] + 1) % budget != 0}
            np.testing.assert_array_equal(unit[active][..., index], forbidden[constraint.name])
        expected = np.exp(
            price(collector.prices.duals[index], collector.prices.start()[index], helped.terms.budget_BxC[:, index])
        )
        np.testing.assert_allclose(priced.price_BxC[:, index], expected, rtol=1e-6)
        quoted = priced.quotes
        expected = np.exp(
            price(collector.prices.duals[index], collector.prices.start()[index], quoted.terms.budget_BxC[:, index])
        )
        np.testing.assert_allclose(quoted.price_QxC[:, index], expected, rtol=1e-6)


def test_the_gate_learns_from_its_own_terms_alone_and_leaves_the_student_as_it_was(
    world: AskingWorld, collected: Any
) -> None:
    collector, rows, _ = collected
    batch = sample(rows[HELPED], collector)
    loss = ask_loss(world.student, CONFIG, CONSTRAINTS, world.banned)

    names = ("saving", "price", "quote", "cost", "pcl", "value_error", "kl")

    @jax.jit
    def weighed(params: Any, weight_X: jax.Array) -> Any:
        def total(p: Any) -> jax.Array:
            terms = loss(p, (), batch, jax.random.key(0))
            return sum(w * terms[name].mean() for w, name in zip(weight_X, names, strict=True))

        return jax.grad(total)(params)

    def gradient(*chosen: str) -> Any:
        return weighed(world.params, jnp.asarray([float(name in chosen) for name in names]))

    def norm(tree: Any) -> float:
        return sum(float(np.abs(x).sum()) for x in jax.tree.leaves(tree))

    of_gate, of_rest = gradient("saving", "price", "quote", "cost"), gradient("pcl", "value_error", "kl")
    assert all(np.any(x) for x in jax.tree.leaves(of_gate["gate"]))
    assert norm({k: v for k, v in of_gate.items() if k != "gate"}) == 0
    assert norm(of_rest["gate"]) == 0 < norm(of_rest["shared"])
    assert norm(gradient("saving")["gate"]["price_out"]) == 0 < norm(gradient("price")["gate"]["price_out"])
    assert norm(gradient("saving")["gate"]["near"]) == 0 < norm(gradient("price")["gate"]["near"])
    assert norm(gradient("quote")["gate"]["cost_out"]) == 0 < norm(gradient("quote")["gate"]["price_out"])


def test_a_student_that_is_its_teacher_has_nothing_to_save_and_asks_at_the_rate_of_the_price(
    world: AskingWorld,
) -> None:
    """With the normalised reward nothing is left to learn there either; the literal one goes on pushing."""
    student, params = world.student, {**world.params, **world.teacher[1]}
    rules = Rules((make_share(),), whole_words, words_room((make_share(),), whole_words))
    config = replace(CONFIG, saving="kl", distil=replace(CONFIG.distil, top_k=20))
    # The student reads the rule and the teacher does not: equal only if neither reads anything.
    blind = student._replace(encode=lambda p, s, k=None: student.encode(p, jnp.zeros_like(s).at[:, 0].set(1), k))
    deaf = world.teacher[0]
    deaf = deaf._replace(encode=lambda p, s, k=None: world.teacher[0].encode(p, jnp.zeros_like(s).at[:, 0].set(1), k))
    context = world.context(Path(), student=blind, teacher=(deaf, world.teacher[1]))
    collector = AskingCollector(context, config, rules)
    batch = next(training_batches(world.data, WIDE, seed=0))
    rows = collector.demonstrate(batch, 0)
    log_price = -0.7
    gate = {**params["gate"], "saving_out": jax.tree.map(jnp.zeros_like, params["gate"]["saving_out"])}
    gate["price_out"] = {"kernel": jnp.zeros((8, 1)), "bias": jnp.full(1, log_price)}
    replayed = collector.refresh(Sample(rows, jnp.full(8, STUDENT)), collector.prices.start(), jax.random.key(0))
    same_price = jax.tree.map(lambda x: jnp.full(x.shape, np.exp(log_price)), replayed.rows.price_BxC)
    replayed = replayed._replace(rows=replayed.rows._replace(price_BxC=same_price))
    for normalize in (True, False):
        loss = jax.jit(ask_loss(blind, replace(config, normalize_help=normalize), (make_share(),), world.banned))
        terms = loss({**params, "gate": gate}, (), replayed, jax.random.key(0))
        assert float(terms["saving"].mean()) == pytest.approx(0.0, abs=1e-6)
        assert float(terms["price"].mean()) == pytest.approx(0.0, abs=1e-9)
        assert (float(terms["pcl"].mean()) < 1e-8) == normalize
    assert rows.asked_BxT.any()


@pytest.mark.parametrize("together", [False, True])
def test_what_is_written_depends_on_the_rule_only_where_both_are_read_as_one_text(
    world: AskingWorld, collected: Any, together: bool
) -> None:
    """Its asking does in either case: the price and V_C are those of the rule."""
    collector, rows, _ = collected
    config = replace(world.student.config, rule_in_source=together)
    loss = jax.jit(ask_loss(make_model(config), CONFIG, CONSTRAINTS, world.banned))
    one = sample(rows[HELPED], collector)
    other = one._replace(rows=one.rows._replace(rows=one.rows.rows._replace(rule_BxR=one.rows.rows.rule_BxR[::-1])))
    terms = [loss(world.params, (), batch, jax.random.key(0)) for batch in (one, other)]
    assert (terms[0]["kl"].mean() == terms[1]["kl"].mean()) == (not together)
    assert terms[0]["price"].mean() != terms[1]["price"].mean()
    assert terms[0]["cost"].mean() != terms[1]["cost"].mean()


@pytest.mark.long
def test_an_interrupted_run_ends_with_the_same_bits_prices_included(world: AskingWorld, tmp_path: Path) -> None:
    """Then only the gate goes on, with prices that do not waver with the newest rows."""

    def train(folder: str, settle: int = 8, stop_after: int | None = None) -> Any:
        context = world.context(tmp_path / folder, 2, student=world.student, buckets=WIDE, stop_after=stop_after)
        return ask(context, world.params, replace(CONFIG, gate_calibration_steps=settle), world.rules)

    whole = train("whole")
    for step in (5, 13):
        train("cut", stop_after=step)
    assert same(whole, train("cut"))
    params, duals = whole
    before, wavering = train("whole", settle=0)
    assert not same(before["gate"], world.params["gate"])
    assert any(np.any(d.violation_K) for d in wavering)
    assert not any(np.any(d.violation_K) for d in duals)
    assert not same(params["gate"], before["gate"])
    assert same({**params, "gate": ()}, {**before, "gate": ()})
    assert not same(duals, wavering)


@pytest.mark.long
def test_a_gate_may_learn_beside_a_student_that_does_not(world: AskingWorld, tmp_path: Path) -> None:
    context = world.context(tmp_path, student=world.student, buckets=WIDE)
    params, duals = ask(context, world.params, replace(CONFIG, gate_alone=True), world.rules)
    assert same({**params, "gate": ()}, {**world.params, "gate": ()})
    assert not same(params["gate"], world.params["gate"]) and any(np.any(d.violation_K) for d in duals)


@pytest.mark.long
def test_a_student_comes_to_rest_on_other_sources_and_reads_none_of_their_targets(
    world: AskingWorld, tmp_path: Path
) -> None:
    def rest(folder: str, unseen: EncodedSplit | None = None) -> Any:
        if folder != "home":
            shutil.copytree(
                tmp_path / "home", tmp_path / folder, ignore=lambda *_: ["gate_calibration"]
            )  # trained likewise
        context = world.context(tmp_path / folder, student=world.student, buckets=WIDE, unseen=unseen)
        return ask(context, world.params, replace(CONFIG, gate_calibration_steps=4), world.rules)

    def scrambled(texts: Ragged) -> Ragged:
        return Ragged.pack([[5] * (len(text) - 1) + [EOS_ID] for text in texts])

    data, home = world.data, rest("home")
    assert same(home, rest("targets", replace(data, targets=scrambled(data.targets))))
    assert not same(home, rest("sources", replace(data, sources=scrambled(data.sources))))


def test_at_rest_rows_are_written_at_the_prices_of_the_table_whatever_is_read(
    world: AskingWorld, collected: Any
) -> None:
    collector, *_ = collected
    batch = next(training_batches(world.data, WIDE, seed=0))
    key = init_state(world.params, make_optimizer(TRAINING.optimizer, 8, world.model.role), 0).key_data
    gate = world.params["gate"]
    misread = {**gate, "price_out": {"kernel": gate["price_out"]["kernel"], "bias": jnp.full(1, 3.0)}}

    def written(log_price: float, gate: Any) -> Any:
        table = tuple(d._replace(integral_K=jnp.full(d.integral_K.shape, log_price)) for d in collector.prices.start())
        settling = world.collector(config=replace(CONFIG, gate_calibration_steps=8))
        params = parallel.replicate({**world.params, "gate": gate}, settling.devices)
        rows, moved = settling.calibrate_gate(params, table, batch, key, 0)
        return rows[HELPED], moved

    (dear, _), (cheap, moved) = written(4.0, gate), written(-6.0, gate)
    free = dear.terms.active_BxC[:, 0] & (dear.terms.budget_BxC[:, 0] > 0)  # a share of the words, whose unit cost is 1
    assert free.any() and not dear.asked_BxT[free].any() and cheap.asked_BxT[free].any()
    assert any(not same(a, b) for a, b in zip(moved, collector.prices.start(), strict=True))
    assert np.array_equal(cheap.asked_BxT, written(-6.0, misread)[0].asked_BxT)


def test_a_gate_learns_what_an_answer_saves_and_what_a_rule_costs(world: AskingWorld, collected: Any) -> None:
    """Nothing but the gate is trained, on a fixed batch: its parts approach their targets."""
    import optax

    collector, rows, _ = collected
    batch = sample(rows[HELPED], collector)
    loss = ask_loss(world.student, CONFIG, CONSTRAINTS, world.banned)
    optimizer, trunk = optax.adam(1e-2), jax.tree.map(jnp.asarray, world.params)

    @jax.jit
    def errors(gate: Any) -> tuple[jax.Array, Any]:
        terms = loss({**trunk, "gate": gate}, (), batch, jax.random.key(0))
        found = {k: terms[k].mean() for k in ("saving", "price", "quote", "cost")}
        return sum(found.values()), found

    @jax.jit
    def train(gate: Any) -> tuple[Any, Any]:
        def step(carry: Any, _: None) -> tuple[Any, None]:
            gate, moments = carry
            updates, moments = optimizer.update(jax.grad(lambda g: errors(g)[0])(gate), moments)
            return (optax.apply_updates(gate, updates), moments), None

        (gate, _), _ = jax.lax.scan(step, (gate, optimizer.init(gate)), length=200)
        return gate, errors(gate)[1]

    # Its sign: a constant forecast of c is off by c^2 / 2 - c E[saving] more than one of 0.
    flat = [{**trunk["gate"], "saving_out": {"kernel": jnp.zeros((8, 1)), "bias": jnp.full(1, c)}} for c in (0.0, 1.0)]
    none, one = (float(errors(gate)[1]["saving"]) for gate in flat)
    assert 0.5 - (one - none) > 0.1  # what an answer saves is positive
    start = errors(trunk["gate"])[1]
    _, end = train(trunk["gate"])
    for name, value in end.items():
        assert float(value) < 0.3 * float(start[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constraints": ()}, "at least one"),
        ({"constraints": ("share", "share")}, "distinct"),
        ({"helped_share": 1.0}, "helped_share"),
        ({"helped_fraction": 0.0}, "helped_fraction"),
        ({"gate_width": 0}, "gate_width"),
        ({"gate_calibration_steps": -1}, "gate_calibration_steps"),
        ({"distil": replace(DISTIL, target_decay=0.9)}, "target_decay"),
        ({"distil": replace(DISTIL, likelihood_share=0.5, target_decay=0.0)}, "likelihood_share must be 0"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(CONFIG, **changes)


def test_rows_under_no_rule_at_all_would_cost_nothing() -> None:
    terms = Terms(jnp.zeros((2, 1)), jnp.zeros((2, 1), bool))
    assert not unit_costs((make_share(),), terms, start_history(jnp.ones((2, 3), jnp.int32))).any()
