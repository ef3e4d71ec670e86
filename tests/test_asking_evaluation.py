"""Evaluation of asking: rival gates, thresholds, equal use, where it asks; on networks of random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.constraints import make_calls, make_share, parse_rule, words_room
from kdtw_jax.data.batches import Bucket
from kdtw_jax.data.tokenizer import EOS_ID, Tokenizer
from kdtw_jax.decoding import gates, generate, log_policy
from kdtw_jax.decoding.baselines import within
from kdtw_jax.decoding.gates import GATES, compared_gates
from kdtw_jax.decoding.help import DecodeState, Gate, stateless
from kdtw_jax.decoding.view import encoder_inputs
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation import strategies
from kdtw_jax.evaluation.asking import evaluate_asking, further_rules, make_phrasings
from kdtw_jax.evaluation.evaluate import compare_with_teacher, decode_split
from kdtw_jax.evaluation.figures import SPARE_COLOURS, asking_figure
from kdtw_jax.evaluation.findings import Texts, exceeded, expected_cost_fit, obedience
from kdtw_jax.evaluation.helped import (
    Decoder,
    DecodeSpec,
    calibrate,
    make_decoder,
    review_split,
    wide,
    write_split,
)
from kdtw_jax.evaluation.operating import make_harness, rewards, write_point
from kdtw_jax.evaluation.operating_figure import operating_figure, strategy_styles
from kdtw_jax.evaluation.places import by_class, by_decile, by_position, piece_classes
from kdtw_jax.evaluation.strategies import Point, Settings, Sharing
from kdtw_jax.evaluation.tradeoff import Curve, compare_gates, mean_quality, pool, quality_at
from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.marks import marked
from kdtw_jax.models import Model, T5Config, make_model, shift_right, split_axis
from kdtw_jax.pipeline.ask_report import COLUMNS, WHERE_COLUMNS, spaced_pairs, summarise_asking
from kdtw_jax.training.deferral import Deferral
from tests.pictures import colours
from tests.world import World

SHARE = make_share()
WORLD = World()
BUCKETS = (Bucket(12, 12, 16),)
LENGTH = 12


def network(seed: int, gate_width: int = 0) -> tuple[Model, Any]:
    """Decided policies, and a gate that says now yes, now no. A student reads its rule with the source."""
    sizes = {"dropout_rate": 0.0, "gate_width": gate_width, "rule_in_source": gate_width > 0}
    model = make_model(T5Config.toy(WORLD.tokenizer.vocab_size, **sizes))
    params = jax.tree.map(lambda x: 1.3 * x, model.init(jax.random.key(seed)))
    if gate_width:
        params["gate"]["saving_out"]["kernel"] *= 30.0
        params["gate"]["saving_out"]["bias"] += 1.0
    return model, params


STUDENT, TEACHER = network(0, 8), network(1)
KNOWN = (make_calls(), SHARE)
PHRASINGS = make_phrasings(KNOWN, WORLD.tokenizer.encode, words_room(KNOWN, WORLD.tokenizer.encode, together=2))
DATA = spaced_pairs(WORLD.data, 64)
WIDE = wide(BUCKETS, DATA)


def decoder(student: tuple[Model, Any] = STUDENT, **changes: Any) -> Decoder:
    settings = {"alpha": 1.0, "sampled_gate": False, "sampled_tokens": False, "seed": 0, **changes}
    return make_decoder(student, TEACHER, WORLD.tokenizer, KNOWN, **settings)


DECODER = decoder()


@pytest.mark.parametrize("spread", [False, True])
def test_several_devices_write_and_review_what_one_does(spread: bool) -> None:
    devices = parallel.select_devices(4)
    teacher = (
        TEACHER[0],
        parallel.shard_params(TEACHER[1], devices, 2 if spread else 1, partial(split_axis, TEACHER[0].role)),
    )
    settings = {"alpha": 1.0, "sampled_gate": True, "sampled_tokens": True, "seed": 3}
    one, several = (
        make_decoder(STUDENT, other, WORLD.tokenizer, KNOWN, **settings, devices=chosen)  # type: ignore[arg-type]
        for other, chosen in ((TEACHER, None), (teacher, devices))
    )
    data = spaced_pairs(WORLD.data, 37)  # a number that does not divide
    rows = (BUCKETS[0]._replace(rows=37),)
    for wanted in (want("learned"), want("learned", guard=True), want("oracle_regret", level=1.0)):
        written = [write_split(each, data, rows, wanted) for each in (one, several)]
        for x, y in zip(*(w[1:] for w in written), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4)
        assert 0 < written[0].calls_N.sum() < written[0].lengths_N.sum()
        reviews = [review_split(each, data, rows, wanted, written[0]) for each in (one, several)]
        for x, y in zip(*reviews, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4)


def want(gate: str, budget: float = 0.2, **changes: Any) -> DecodeSpec:
    return DecodeSpec(gate, PHRASINGS.of(budget, "seen"), budget, **changes)  # type: ignore[arg-type]


def distributions(tokens: jax.Array, source: jax.Array, read: jax.Array) -> tuple[jax.Array, jax.Array]:
    """log pi and log mu at all states of finished rows, from whole passes without caches."""
    found = []
    for (model, params), text in ((STUDENT, read), (TEACHER, source)):
        logits = model.decode(params, model.encode(params, text), shift_right(tokens)).logits_BxTxV
        found.append(log_policy(logits, WORLD.banned))
    return found[0], found[1]


def score_by_hand(gate: str, pi: np.ndarray, mu: np.ndarray) -> np.ndarray:
    p = np.exp(pi)
    if gate == "entropy":
        return -np.where(p > 0, p * np.where(p > 0, pi, 0.0), 0.0).sum(-1)
    if gate == "max_prob":
        return 1 - p.max(-1)
    if gate == "oracle_kl":
        return (p * (np.where(p > 0, pi, 0.0) - np.where(p > 0, mu, 0.0))).sum(-1)
    return mu.max(-1) - np.take_along_axis(mu, pi.argmax(-1)[..., None], -1)[..., 0]


SOURCE = jnp.asarray(WORLD.data.sources.padded(np.arange(6), LENGTH))
TOLD = jnp.asarray(WORLD.data.sources.padded(np.arange(6, 12), LENGTH))  # the student reads another text


def check_scores(gate: str, written: Any, source: Any, read: Any, threshold: float) -> None:
    tokens, score, asked = (np.asarray(x) for x in written)
    pi, mu = (np.asarray(x, np.float64) for x in distributions(jnp.asarray(tokens), source, read))
    by_hand, mask = score_by_hand(gate, pi, mu), tokens != 0
    np.testing.assert_allclose(score[mask], by_hand[mask], atol=2e-4)
    clear = mask & (np.abs(by_hand - threshold) > 1e-3)
    np.testing.assert_array_equal(asked[clear], by_hand[clear] > threshold)
    assert 0 < asked.sum() < mask.sum()


@pytest.mark.parametrize("gate", ["entropy", "max_prob", "oracle_kl", "oracle_regret"])
def test_rival_gates_score_what_whole_passes_of_both_models_say(gate: str) -> None:
    silent = write_split(DECODER, DATA, WIDE, want(gate, level=np.inf))
    wanted = want(gate, level=float(np.median(silent.score_NxT[silent.tokens_NxT != 0])))
    found = write_split(DECODER, DATA, WIDE, wanted)
    source = jnp.asarray(DATA.sources.padded(np.arange(len(DATA)), LENGTH))
    words = wanted.words_KxR[np.arange(len(DATA)) % len(wanted.words_KxR)]  # the phrasings in turn
    read, _ = encoder_inputs(STUDENT[0].config, jnp.asarray(words), source)
    check_scores(gate, (found.tokens_NxT, found.score_NxT, found.asked_NxT), source, read, wanted.level)


def test_the_random_gate_asks_never_always_or_at_its_rate() -> None:
    for level, low, high in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.3, 0.22, 0.38)):
        assert low <= write_split(DECODER, DATA, WIDE, want("random", level=level)).used <= high
    gate: Gate = gates.random_gate(0.25)
    moment: Any = type("M", (), {"history": type("H", (), {"length_B": jnp.zeros(3, jnp.int32)})()})()
    np.testing.assert_array_equal(gate.score((), moment)[0], [0.25] * 3)


def test_gates_thresholds_budgets_words_and_guards_change_without_a_new_trace() -> None:
    traces = []
    model, params = STUDENT

    def counting(*args: Any) -> Any:
        traces.append(1)
        return model.extend(*args)

    counted = decoder((model._replace(extend=counting), params))
    write_split(counted, DATA, WIDE, want("learned"))
    first = len(traces)
    assert first
    for gate in compared_gates():
        write_split(counted, DATA, WIDE, want(gate, 0.35, level=0.7, guard=True))
    assert len(traces) == first


@pytest.mark.parametrize("gate", ["entropy", "max_prob", "oracle_kl", "oracle_regret"])
def test_calibration_finds_the_level_of_a_wanted_use(gate: str) -> None:
    silent = write_split(DECODER, DATA, WIDE, want(gate, 0.3, level=np.inf))
    assert silent.used == 0
    scores = silent.score_NxT[silent.tokens_NxT != 0]
    level, used, _ = calibrate(DECODER, DATA, WIDE, want(gate, 0.3), scores, tries=6)
    assert abs(used - 0.3) < 0.03
    assert write_split(DECODER, DATA, WIDE, want(gate, 0.3, level=level)).used == used


@pytest.mark.parametrize("gate", compared_gates())
def test_guarded_outputs_never_exceed_their_rule(gate: str) -> None:
    # Eager: every gate would ask everywhere but for the guard (the random one by its probability).
    level = 1.0 if gate == "random" else -1.0
    for budget in (0.0, 0.15, 0.5):
        written = write_split(DECODER, DATA, WIDE, want(gate, budget, level=level, guard=True))
        assert (written.calls_N <= budget * written.lengths_N + 1e-3).all()
        assert (written.calls_N + 1 > budget * written.lengths_N).all()  # eager, it asks for all it may
        assert (written.excess_N <= 1e-3).all()
        np.testing.assert_allclose(written.excess_N, written.calls_N - budget * written.lengths_N, atol=1e-4)
    free = write_split(DECODER, DATA, WIDE, want(gate, 0.15, level=level))
    assert free.used == 1.0
    assert (free.excess_N > 0).all()


def test_other_constraints_and_conjunctions_are_enforced_and_their_excess_is_told() -> None:
    for share, calls in ((None, 2.0), (0.5, 3.0), (0.1, 9.0)):
        wanted = DecodeSpec("entropy", PHRASINGS.of(0.2, "seen"), share, level=-1.0, others=((0, calls),))
        free, kept = (write_split(DECODER, DATA, WIDE, wanted._replace(guard=guard)) for guard in (False, True))
        for written in (free, kept):
            over = [written.calls_N - calls] + ([] if share is None else [written.calls_N - share * written.lengths_N])
            np.testing.assert_allclose(written.excess_N, np.max(over, axis=0), atol=1e-4)
        assert (free.excess_N > 0).any() and (kept.excess_N <= 1e-3).all()
        assert share is not None or kept.calls_N.max() == calls


def test_further_rules_name_every_other_constraint_and_its_conjunction_with_the_share() -> None:
    found = further_rules(KNOWN, PHRASINGS)
    assert [(said.share, said.phrasing, said.others[0]) for said in found] == [
        *((None, phrasing, (0, budget)) for phrasing in ("seen", "unseen") for budget in (1.0, 3.0, 6.0, 9.0)),
        (0.2, "seen", (0, 6.0)),
    ]
    rule = parse_rule(found[-1].rule, KNOWN)
    assert [c.name for c in rule.constraints] == ["share", "calls"] and float(rule.budgets[1]) == 6
    assert not further_rules((SHARE,), PHRASINGS)


def test_outputs_stand_in_the_order_of_examples_whatever_the_batches() -> None:
    """By length into buckets, and the last batch filled up."""
    mixed = (Bucket(8, 12, 20), Bucket(12, 12, 24))
    one, other = (write_split(DECODER, DATA, buckets, want("learned", level=0.9)) for buckets in (WIDE, mixed))
    assert 0 < (DATA.sources.lengths <= 8).sum() < len(DATA)
    np.testing.assert_array_equal(one.tokens_NxT, other.tokens_NxT)
    np.testing.assert_array_equal(one.asked_NxT, other.asked_NxT)
    assert one.texts == other.texts
    assert len(set(one.texts)) > 10


def test_a_review_sees_what_the_oracle_saw() -> None:
    wanted = want("oracle_kl", level=2.0)
    written = write_split(DECODER, DATA, WIDE, wanted)
    review = review_split(DECODER, DATA, WIDE, wanted, written)
    np.testing.assert_allclose(review.kl_NxT, written.score_NxT, atol=2e-4)
    assert review.cost_N.std() > 0


def test_an_output_earns_the_teachers_log_probability_of_its_tokens() -> None:
    """In the order of the outputs, however often one is among them."""
    nothing = Deferral(*(jnp.zeros(1) for _ in Deferral._fields))
    harness = make_harness(DECODER, nothing, 1.0)
    targets = [np.asarray(DATA.targets[i]) for i in range(len(DATA))]
    tokens_NxT = np.stack([np.pad(x, (0, LENGTH - len(x))) for x in targets])
    others_NxT = np.where(np.arange(len(DATA))[:, None] % 3 == 0, tokens_NxT, np.roll(tokens_NxT, 1, axis=0))
    source = np.stack([np.pad(x, (0, LENGTH - len(x))) for x in (DATA.sources[i] for i in range(len(DATA)))])
    found = rewards(harness, DATA, WIDE, [tokens_NxT, others_NxT])
    for earned_N, outputs in zip(found, (tokens_NxT, others_NxT), strict=True):
        log_mu = np.asarray(distributions(jnp.asarray(outputs), jnp.asarray(source), jnp.asarray(source))[1])
        taken = np.take_along_axis(log_mu, outputs[..., None], axis=-1)[..., 0]
        expected_N = np.where(outputs != 0, taken, 0.0).sum(axis=1)
        np.testing.assert_allclose(earned_N, expected_N, rtol=1e-4)
        assert len(np.unique(np.round(earned_N, 3))) > len(DATA) // 2


def test_curves_are_straight_between_their_points() -> None:
    use, quality = np.array([0.4, 0.0, 0.2, 0.2]), np.array([50.0, 10.0, 20.0, 40.0])
    np.testing.assert_allclose(quality_at(use, quality, np.array([0.0, 0.1, 0.2, 0.3, 0.9])), [10, 20, 30, 40, 50])
    assert mean_quality(use, quality, 0.4) == pytest.approx(30)
    assert mean_quality(use, quality, 0.2) == pytest.approx(20)
    assert mean_quality(np.array([0.1, 0.3]), np.array([10.0, 30.0]), 0.2) == pytest.approx((10 + 15) / 2)


def curve(slope: float, noise: np.ndarray) -> Curve:
    use = np.array([0.0, 0.25, 0.5])
    quality = 20 + slope * use
    return Curve(use, quality, np.broadcast_to(use, (len(noise), 3)), quality + noise[:, None])


def test_gates_are_compared_at_equal_use_on_the_same_resamples() -> None:
    noise = np.random.default_rng(0).normal(size=200) * 5  # of the test set, the same for all gates: it cancels
    curves = {"learned": curve(30, noise), "random": curve(10, noise), "oracle_regret": curve(50, noise)}
    curves["entropy"] = curve(30, noise)._replace(use_K=np.array([0.0, 0.25, 0.3]))  # reaches 30% only
    curves["oracle_kl"] = curve(50, noise)._replace(use_K=np.array([0.0, 0.1, 0.2]))  # needs no more
    found, draws = compare_gates(curves)
    assert found["range"] == [0.0, 0.3]
    assert found["mean_quality"]["learned"] == pytest.approx(24.5)
    assert found["learned_minus"]["random"] == pytest.approx({"value": 3.0, "low": 3.0, "high": 3.0}, abs=1e-4)
    assert found["way"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    assert found["mean_quality"]["oracle_kl"] == pytest.approx((0.1 * (26.25 + 38.75) + 0.1 * 45) / 0.3)
    together = pool([found, found], [draws, draws])
    assert together["learned_minus"]["random"]["value"] == pytest.approx(3.0)
    silent = {gate: c._replace(use_K=np.zeros(3)) for gate, c in curves.items()}
    assert compare_gates(silent)[0]["way"] is None


def test_help_rates_by_decile_class_and_position() -> None:
    kl = np.arange(40)[::-1].astype(float)
    deciles = by_decile(kl, kl >= 34)
    assert [g.states for g in deciles] == [4] * 10
    assert [g.help_rate for g in deciles] == [0] * 8 + [0.5, 1.0]

    pieces = ["<pad>", "</s>", "<unk>", "▁Haus", "bau", "▁7", ".", "▁selten"]
    training = np.array([3] * 40 + [4] * 30 + [5] * 12 + [6] * 17 + [7] + [1] * 50)
    classes = piece_classes(pieces, training)
    members = {
        name: [p for p, inside in zip(pieces, member, strict=True) if inside] for name, member in classes.items()
    }
    assert members["first piece of a word"] == ["▁Haus", "▁7", "▁selten"]
    assert members["digit"] == ["▁7"]
    assert members["punctuation"] == ["."]
    assert "bau" in members["later piece"] and "." not in members["later piece"]
    assert {"▁7", "▁selten"} <= set(members["rare"]) and not {"▁Haus", "bau", ".", "</s>"} & set(members["rare"])
    rates = {
        g.group: (g.states, g.help_rate) for g in by_class(np.array([3, 3, 5, 1]), np.array([1, 0, 1, 0]), classes)
    }
    assert rates["first piece of a word"] == (3, pytest.approx(2 / 3))
    assert rates["punctuation"] == (0, None)
    assert rates["end of sequence"] == (1, 0.0)

    tokens = np.where(np.arange(24)[None, :] < np.array([[24], [4]]), 5, 0)
    positions = {
        g.group: (g.states, g.help_rate) for g in by_position(tokens, np.arange(24)[None, :] == np.array([[0], [2]]))
    }
    assert positions == {"1-2": (4, 0.25), "3-5": (5, 0.2), "6-10": (5, 0.0), "11-20": (10, 0.0), ">20": (4, 0.0)}


def test_the_teachers_tokens_are_marked_in_samples() -> None:
    assert marked(["▁ein", "▁Haus", "bau", ".", "</s>"], [False, True, True, False, True]) == "ein ⟦Hausbau⟧.⟦∎⟧"
    assert marked(["▁ein", "▁Haus", "bau", "</s>"], [True, False, True, False]) == "⟦ein⟧ Haus⟦bau⟧"
    assert marked(["▁ein", "▁", "bau"], [False, True, False]) == "ein⟦ ⟧bau"


def test_obedience_is_told_apart_by_guard_phrasing_and_budget() -> None:
    def cell(asked: float, used: float, **changes: Any) -> dict[str, Any]:
        numbers = {"outputs": 10, "outputs_over": 2, "excess_calls_p95": 1.0, "excess_share_p95": 0.1}
        return {"guard": 0, "phrasing": "seen", "budget_seen": 1, "asked": asked, "used": used, **numbers, **changes}

    found = obedience([cell(0.1, 0.12), cell(0.2, 0.16), cell(0.2, 0.2, guard=1, outputs_over=0)])
    assert found[0]["error_mean"] == pytest.approx(3) and found[0]["bias"] == pytest.approx(-1)
    assert found[0]["error_p95"] == pytest.approx(3.9) and found[0]["outputs_over"] == 4
    assert (found[1]["guard"], found[1]["cells"], found[1]["outputs_over"]) == (1, 1, 0)


def test_calls_expected_are_fitted_to_calls_made() -> None:
    found = expected_cost_fit(np.array([1.0, 2.0, 3.0]), np.array([3.0, 5.0, 7.0]))
    assert found == pytest.approx({"spearman": 1.0, "slope": 2.0, "intercept": 1.0, "rmse": np.sqrt((4 + 9 + 16) / 3)})
    assert expected_cost_fit(np.ones(3), np.array([1.0, 2.0, 3.0]))["slope"] is None
    assert set(expected_cost_fit(np.zeros(0), np.zeros(0)).values()) == {None}


def endless() -> Tokenizer:
    """A vocabulary in which nothing ends."""
    return replace(WORLD.tokenizer, banned_ids=tuple(sorted({*WORLD.tokenizer.banned_ids, EOS_ID})))


def test_outputs_say_how_many_of_them_did_not_end() -> None:
    model, params = TEACHER
    outputs = decode_split("t", model, params, DATA, WIDE, WORLD.tokenizer)
    source = DATA.sources.padded(np.arange(len(DATA)), LENGTH)
    tokens = generate(model, params, jnp.asarray(source), None, max_len=LENGTH, banned=WORLD.banned).tokens_BxT
    ended = (np.asarray(tokens) == EOS_ID).any(axis=1)
    assert 0 < ended.sum() < len(DATA)
    assert outputs.unfinished == pytest.approx(1 - ended.mean())
    assert decode_split("t", model, params, DATA, WIDE, endless()).unfinished == 1
    ends = replace(WORLD.tokenizer, banned_ids=tuple(i for i in range(WORLD.tokenizer.vocab_size) if i != EOS_ID))
    few = spaced_pairs(DATA, WIDE[0].rows - 1)  # rows that fill the last batch up are no outputs
    assert len(few) % WIDE[0].rows and decode_split("t", model, params, few, WIDE, ends).unfinished == 0
    written = write_split(DECODER, DATA, WIDE, want("random", level=1.0))  # by the teacher alone
    assert written.unfinished == pytest.approx(outputs.unfinished)
    assert exceeded(written)["unfinished"] == written.unfinished


@pytest.mark.parametrize("endings", [False, True])
def test_a_student_is_compared_with_its_teacher_even_where_no_output_ends(endings: bool) -> None:
    few = spaced_pairs(DATA, 16)
    banned = WORLD.tokenizer.banned_ids if endings else endless().banned_ids
    found = compare_with_teacher(
        STUDENT, TEACHER, few, wide(BUCKETS, few), banned=banned, values=PCLConfig(values="head"), top_k=2
    )
    of_value = {name for name in found if name.startswith("v_")}
    assert {name for name, value in found.items() if not np.isfinite(value)} == (
        {"v_spearman", "v_slope"} if endings else of_value  # fresh value heads say 0 everywhere
    )
    assert found["kl_on_policy"] > 0


def test_a_student_none_of_whose_outputs_end_is_judged_all_the_same(tmp_path: Any) -> None:
    few = spaced_pairs(DATA, 3)
    references = [WORLD.tokenizer.decode(few.targets[i].tolist()) for i in range(len(few))]
    settings: dict[str, Any] = {"alpha": 1.0, "sampled_gate": False, "sampled_tokens": False, "seed": 0}
    found = evaluate_asking(
        "toy", make_decoder(STUDENT, TEACHER, endless(), KNOWN, **settings), PHRASINGS,
        Texts(few, references, references, ("bleu",)), spaced_pairs(few, 1), WORLD.data.targets.values, BUCKETS,
        held_out=(), twin=None, resamples=5,
    )  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {r["unfinished"] for r in (*found["rows"], *found["rules"])} == {1.0}
    asking_figure(found["rows"], "bleu", {}, tmp_path / "asking.png")


def test_a_student_that_does_not_know_the_share_or_has_no_gate_is_refused() -> None:
    with pytest.raises(UserError, match="judged on the constraint 'share'"):
        make_phrasings((make_calls(),), WORLD.tokenizer.encode, 40)
    with pytest.raises(UserError, match="no gate to judge"):
        decoder(network(0))


def test_everything_about_a_student_is_plain_values_in_the_columns_of_the_tables(tmp_path: Any) -> None:
    references = [WORLD.tokenizer.decode(DATA.targets[i].tolist()) for i in range(len(DATA))]
    test = Texts(DATA, references, references, ("bleu", "chrf"))
    tokens = WORLD.data.targets.values
    found = evaluate_asking(
        "toy", DECODER, PHRASINGS, test, spaced_pairs(DATA, 16), tokens, BUCKETS,
        held_out=(0.15, 0.25), twin=references, resamples=20,
    )  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {*COLUMNS[:4], *found["rows"][0]} == set(COLUMNS)
    assert {*WHERE_COLUMNS[:4], *found["where"][0]} == set(WHERE_COLUMNS)
    learned = [r for r in found["rows"] if r["gate"] == "learned" and r["metric"] == "bleu"]
    assert len(learned) == 4 * 9 and len(found["rows"]) == 2 * (4 * 9 + 5 * 7)
    assert {r["asked"] for r in learned if not r["budget_seen"]} == {0.15, 0.25}
    for r in found["rows"]:
        assert r["low"] <= r["value"] <= r["high"]
        assert r["calls"] == pytest.approx(r["used"])
        assert r["used"] - 1e-6 <= r["positions"] <= 1
        assert r["guard"] == 0 or r["used"] <= r["asked"] + 1e-6
        assert 0 <= r["unfinished"] <= 1
        if r["asked"] == 0 and r["gate"] != "learned":
            assert r["used"] == 0 and r["value"] == found["alone"][r["metric"]]
    assert found["no_harm"]["bleu"]["value"] < 0
    assert sum(g["states"] for g in found["where"] if g["kind"] == "position") == sum(
        g["states"] for g in found["where"] if g["kind"] == "kl_decile"
    )
    pooled = summarise_asking([found, found], test.metrics)
    harm = found["no_harm"]["bleu"]
    assert pooled["no_harm"]["bleu"] == pytest.approx({k: harm[k] for k in ("value", "low", "high")}, abs=1e-4)
    assert pooled["equal_use"]["bleu"]["mean_quality"] == pytest.approx(found["equal_use"]["bleu"]["mean_quality"])
    assert all(group["outputs_over"] == 0 for group in pooled["obedience"] if group["guard"])
    assert len(found["rules"]) == 2 * 9
    for kept in found["rules"]:
        assert kept["outputs"] == len(DATA) and (kept["outputs_over"] == 0 or not kept["guard"])
    asking_figure(found["rows"], "bleu", {"teacher": 30.0}, tmp_path / "asking.png")
    assert {GATES[gate].color for gate in compared_gates()} <= colours(tmp_path / "asking.png")
    without = [r for r in found["rows"] if r["gate"] != "oracle_kl"]
    asking_figure(without, "bleu", {"teacher": 30.0}, tmp_path / "less.png")
    assert GATES["oracle_kl"].color not in colours(tmp_path / "less.png")


# ---- gates and ways to share the writing from outside


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """What a test registers goes with it."""
    tables: list[dict[str, Any]] = [GATES, strategies.STRATEGIES]
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def test_a_gate_from_outside_writes_is_calibrated_and_drawn_with_its_colour(tmp_path: Path, as_it_was: None) -> None:
    with pytest.raises(UserError, match=r"unknown gate 'margin'; known are learned, .*register_gate"):
        write_split(DECODER, DATA, WIDE, want("margin"))

    def close(moment: DecodeState) -> jax.Array:
        first, second = jax.lax.top_k(moment.log_policy_BxV, 2)[0].T
        return second - first

    gates.register_gate(gates.GateEntry("margin", lambda context: stateless(close), "#123456"))
    gates.register_gate(
        gates.GateEntry("coin", lambda context: gates.random_gate(context.level), "#654321", drawn=True)
    )
    with pytest.raises(UserError, match="the decoder was made without the gate margin; it has learned"):
        write_split(DECODER, DATA, WIDE, want("margin"))
    own = decoder(STUDENT)
    assert own.gates[-2:] == ("margin", "coin") and "forecast" not in own.gates
    eager = write_split(own, DATA, WIDE, want("margin", 0.15, level=-np.inf, guard=True))
    assert eager.calls_N.sum() > 0 and (eager.calls_N <= 0.15 * eager.lengths_N + 1e-3).all()
    scores = write_split(own, DATA, WIDE, want("margin", 0.3, level=np.inf)).score_NxT
    assert abs(calibrate(own, DATA, WIDE, want("margin", 0.3), scores[scores != 0], tries=6)[1] - 0.3) < 0.05
    random, coin = (write_split(own, DATA, WIDE, want(gate, level=0.3)) for gate in ("random", "coin"))
    np.testing.assert_array_equal(random.asked_NxT, coin.asked_NxT)
    rows = [
        {"gate": gate, "metric": "bleu", "guard": 0, "phrasing": "seen", "budget_seen": 1, "asked": b, "used": b}
        | {"value": 10 * b, "low": 9 * b, "high": 11 * b}
        for gate in ("learned", "margin", "of_another_run") for b in (0.1, 0.2)
    ]  # fmt: skip
    asking_figure(rows, "bleu", {}, tmp_path / "asking.png")
    assert {"#123456", SPARE_COLOURS[0]} <= colours(tmp_path / "asking.png")


def test_a_way_to_share_the_writing_from_outside_is_written_and_drawn_in_its_style(
    tmp_path: Path, as_it_was: None
) -> None:

    def points(settings: Settings) -> list[Point]:
        return [Point("halved", f"{n}", number=n, draft_length=3, check_end=True) for n in (0.0, np.inf)]

    sharing = Sharing("halved", points, lambda number: within(number / 2), ("#123456", "P"))
    strategies.register_strategy(sharing)
    gates.register_gate(gates.GateEntry("coin", lambda context: gates.random_gate(context.level), drawn=True))
    with pytest.raises(UserError, match="there is a strategy bild already"):
        strategies.register_strategy(sharing._replace(name="bild"))
    settings = Settings({}, lambda budget: PHRASINGS.of(budget, "seen"))
    every = strategies.every_strategy()
    halved, (coin, *_), (random, *_) = (every[name].points(settings) for name in ("halved", "coin", "random"))
    width = STUDENT[0].config.d_model
    deferral = Deferral(jnp.zeros(width), jnp.zeros(()), jnp.zeros(width), jnp.ones(width))
    harness = make_harness(DECODER, deferral, 1.0)
    told = [*halved, coin, random, every["teacher_only"].points(settings)[0], every["speculative"].points(settings)[2]]
    strict, lenient, tossed, drawn, teacher, usual = (
        write_point(harness, point, DATA, WIDE, PHRASINGS.room) for point in told
    )
    assert strict.texts == teacher.texts == usual.texts != lenient.texts
    np.testing.assert_array_equal(strict.calls_N, usual.calls_N)
    assert lenient.calls_N.sum() < strict.calls_N.sum()
    np.testing.assert_array_equal(tossed.tokens_NxT, drawn.tokens_NxT)
    assert 0.02 < drawn.teacher_N.sum() / drawn.lengths_N.sum() < 0.09
    rows = [
        {
            "method": name,
            "setting": "x",
            "metric": "bleu",
            "calls": x,
            "teacher_tokens": x,
            "value": 10.0 + x,
        }
        for name, x in (("halved", 0.1), ("coin", 0.2), ("bild", 0.3), ("teacher_only", 1.0))
    ]
    operating_figure(rows, "bleu", tmp_path / "points.png")
    assert {"#123456", SPARE_COLOURS[0], "#56B4E9"} <= colours(tmp_path / "points.png")
    assert strategy_styles(["teacher_only", "halved", "of_another_run"]).keys() == {"halved", "of_another_run"}
