"""Gates and ways to share the writing from outside; what the shared harness makes of outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdtw_jax.decoding import gates
from kdtw_jax.decoding.baselines import within
from kdtw_jax.decoding.gate import DecodeState, stateless
from kdtw_jax.decoding.gates import GATES
from kdtw_jax.errors import UserError
from kdtw_jax.evaluation import strategies
from kdtw_jax.evaluation.asking_figure import asking_figure
from kdtw_jax.evaluation.calibration import calibrate
from kdtw_jax.evaluation.figures import SPARE_COLOURS
from kdtw_jax.evaluation.harness import make_harness
from kdtw_jax.evaluation.operating import costs_per_token, teacher_log_probs, write_point
from kdtw_jax.evaluation.operating_figure import operating_figure, strategy_styles
from kdtw_jax.evaluation.rows import spaced_pairs
from kdtw_jax.evaluation.strategies import Point, Settings, Sharing
from kdtw_jax.evaluation.written import write_split
from kdtw_jax.training.deferral import Deferral
from tests.asking import (
    DATA,
    DECODER,
    LENGTH,
    PHRASINGS,
    STUDENT,
    WIDE,
    decoder,
    distributions,
    want,
)
from tests.pictures import colours


def test_an_output_earns_the_teachers_log_probability_of_its_tokens() -> None:
    """In the order of the outputs, however often one is among them."""
    nothing = Deferral(*(jnp.zeros(1) for _ in Deferral._fields))
    harness = make_harness(DECODER, nothing, 1.0)
    targets = [np.asarray(DATA.targets[i]) for i in range(len(DATA))]
    tokens_NxT = np.stack([np.pad(x, (0, LENGTH - len(x))) for x in targets])
    others_NxT = np.where(np.arange(len(DATA))[:, None] % 3 == 0, tokens_NxT, np.roll(tokens_NxT, 1, axis=0))
    source = np.stack([np.pad(x, (0, LENGTH - len(x))) for x in (DATA.sources[i] for i in range(len(DATA)))])
    found = teacher_log_probs(harness, DATA, WIDE, [tokens_NxT, others_NxT])
    for earned_N, outputs in zip(found, (tokens_NxT, others_NxT), strict=True):
        log_mu = np.asarray(distributions(jnp.asarray(outputs), jnp.asarray(source), jnp.asarray(source))[1])
        taken = np.take_along_axis(log_mu, outputs[..., None], axis=-1)[..., 0]
        expected_N = np.where(outputs != 0, taken, 0.0).sum(axis=1)
        np.testing.assert_allclose(earned_N, expected_N, rtol=1e-4)
        assert len(np.unique(np.round(earned_N, 3))) > len(DATA) // 2


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

    def close(state: DecodeState) -> jax.Array:
        first, second = jax.lax.top_k(state.log_policy_BxV, 2)[0].T
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
    asking_figure(rows, "bleu", {}, {"uses": [], "learned_minus": {}}, tmp_path / "asking.png")
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


def test_drafts_for_the_gate_count_as_the_students_positions() -> None:
    """Where nobody asks the output is the student's own, and what is drafted beside is paid for all the same."""
    width = STUDENT[0].config.d_model
    harness = make_harness(DECODER, Deferral(jnp.zeros(width), jnp.zeros(()), jnp.zeros(width), jnp.ones(width)), 1.0)
    few = spaced_pairs(DATA, 8)
    alone, forecast, drafts, asking = (
        write_point(harness, Point("asking", "x", gate=gate, level=level), few, WIDE, PHRASINGS.room)
        for gate, level in (("silent", np.inf), ("forecast", np.inf), ("drafts", np.inf), ("drafts", 0.0))
    )
    assert alone.texts == forecast.texts == drafts.texts != asking.texts
    np.testing.assert_array_equal(forecast.passes_N, alone.passes_N)
    assert (drafts.passes_N > 2 * forecast.passes_N).all()
    assert asking.calls_N.sum() > 0 and drafts.calls_N.sum() == 0
    one = STUDENT[0].config
    cost = [costs_per_token(o, one, one, np.asarray(few.sources.lengths))["student_flops"] for o in (forecast, drafts)]
    assert cost[1] > 1.5 * cost[0]
