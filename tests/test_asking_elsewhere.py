"""Learning to ask a teacher elsewhere: the rows of one that is here, asked for together, of what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdtw_jax import parallel
from kdtw_jax.constraints import known_constraints
from kdtw_jax.data.batches import Batch, training_batches
from kdtw_jax.errors import UserError
from kdtw_jax.methods.ask import elsewhere
from kdtw_jax.methods.ask_config import AskConfig, Rules, unit_of
from kdtw_jax.methods.ask_rows import HELPED, AskingCollector
from kdtw_jax.teachers.ahead import read_batch
from kdtw_jax.teachers.answering import AnsweringTeacher
from kdtw_jax.teachers.in_process import InProcessTeacher
from kdtw_jax.teachers.protocol import Prefix, RowScores, TopTokens
from kdtw_jax.training.readings import Kept
from kdtw_jax.training.saved import SavedModel
from kdtw_jax.training.scoring import STUDENT, TEACHER
from kdtw_jax.training.state import init_state, make_optimizer
from tests.simple_teacher import SimpleTeacher, V
from tests.test_ask import CONFIG, AskingWorld
from tests.world import TRAINING, WIDE

ASK = replace(CONFIG, distil=replace(CONFIG.distil, demonstrations="greedy"), gate_calibration_steps=4)


class Watched:
    """A teacher of which one sees what it is asked and says, and which may say fewer tokens of a place."""

    def __init__(self, inner: InProcessTeacher, most: int = 0):
        self.inner, self.asked = inner, list[list[Prefix]]()
        self.said = dict[tuple[Any, ...], list[int]]()
        self.about = replace(inner.about, max_top_k=most) if most else inner.about

    def next_token(self, prefixes: Sequence[Prefix], top_k: int = 8) -> list[TopTokens]:
        assert top_k <= self.about.max_top_k
        self.asked.append(list(prefixes))
        found = self.inner.next_token(prefixes, top_k)
        self.said |= {(x.source, x.written): said.ids_K.tolist() for x, said in zip(prefixes, found, strict=True)}
        return found

    def score(self, prefixes: Sequence[Prefix], tokens: Sequence[Sequence[int]], top_k: int = 0) -> list[RowScores]:
        return self.inner.score(prefixes, tokens, top_k)

    def generate(self, prefixes: Sequence[Prefix], max_len: int, banned: Sequence[int] = ()) -> list[list[int]]:
        raise AssertionError("nothing is written ahead here")

    def close(self) -> None: ...


class Remote(AskingWorld):
    """With the teacher behind the protocol."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = InProcessTeacher(SavedModel(*self.teacher, self.tokenizer))
        gate = jax.tree.map(lambda x: np.asarray(6.0 * x, np.float32), self.params["gate"])
        self.params = {**self.params, "gate": gate}  # which asks now and then

    def rows(self, config: AskConfig, devices: int, rules: Rules, teacher: Watched | None) -> Any:
        """Fresh rows by source, and of a student at rest; and the prices."""
        changes: dict[str, Any] = {}
        if teacher is not None:

            def reader(rows: Batch, kept: Kept) -> Callable[[], Any]:
                return lambda: read_batch(teacher, rows, kept, self.banned)

            changes |= {"teacher": None, "reader": reader, "answers": AnsweringTeacher(teacher, self.banned)}
        # What the teacher wrote ahead is the batch's targets.
        context = self.context(Path(), devices, student=self.student, prompts=self.data, **changes)
        made = AskingCollector(context, config, rules)
        batch = next(training_batches(self.data, WIDE, seed=0))
        batch = jax.tree.map(lambda x: x[:-1], batch)  # rows that do not divide between devices
        key = init_state(self.params, make_optimizer(TRAINING.optimizer, 8, self.model.role), 0).key_data
        params = parallel.replicate(self.params, made.devices)
        rows, duals = made(params, made.prices.start(), batch, key, 0)
        resting, _ = made.calibrate_gate(params, duals, batch, key, 1)
        return {**rows, "resting": resting[HELPED]}, duals


@pytest.fixture(scope="module")
def world() -> Remote:
    return Remote()


@pytest.mark.parametrize(("tokens", "unit"), [("greedy", "token"), ("sample", "word")])
def test_rows_are_those_of_a_teacher_here_on_any_number_of_devices(world: Remote, tokens: Any, unit: str) -> None:
    config = replace(ASK, tokens=tokens, gate="sample" if tokens == "sample" else "threshold")
    teacher, rules = Watched(world.inner), world.rules._replace(unit=unit_of(unit, world.tokenizer))
    here, duals = world.rows(config, 1, rules, None)
    there, others = world.rows(config, 2, rules, teacher)
    assert set(here) == set(there) == {STUDENT, TEACHER, HELPED, "resting"}
    for source, mine in here.items():
        its = there[source]
        np.testing.assert_array_equal(mine.path.tokens_BxT, its.path.tokens_BxT)
        np.testing.assert_array_equal(mine.asked_BxT, its.asked_BxT)
        np.testing.assert_allclose(mine.path.teacher_log_prob_BxT, its.path.teacher_log_prob_BxT, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), duals, others)
    wanted = list[tuple[Any, ...]]()
    for source in (STUDENT, HELPED, "resting"):
        path, asked_BxT = there[source].path, np.asarray(there[source].asked_BxT)
        assert 0 < asked_BxT.sum() < np.sum(path.tokens_BxT != 0)
        for row, t in zip(*np.nonzero(asked_BxT), strict=True):
            words = [tuple(np.asarray(x).tolist()) for x in (path.source_BxS[row], path.tokens_BxT[row, :t])]
            wanted.append((tuple(i for i in words[0] if i), words[1]))
    sent = [(prefix.source, prefix.written) for request in teacher.asked for prefix in request]
    if unit == "token":  # only rows that ask are asked about, once each, those of a token together
        assert sorted(sent) == sorted(wanted)
        assert len(teacher.asked) < len(sent)
    assert set(wanted) <= set(sent)
    for request in teacher.asked:
        assert len({prefix.session for prefix in request}) == len(request)
        assert len({len(prefix.written) for prefix in request}) == 1


def test_of_a_teacher_that_says_few_tokens_greedy_rows_are_the_same_and_drawn_ones_are_of_these(world: Remote) -> None:
    few = Watched(world.inner, most=len(world.banned) + 1)
    config = replace(ASK, distil=replace(ASK.distil, top_k=1))
    here, _ = world.rows(config, 1, world.rules, None)
    there, _ = world.rows(config, 1, world.rules, few)
    for source in (HELPED, "resting"):  # nothing is drawn in them
        np.testing.assert_array_equal(here[source].path.tokens_BxT, there[source].path.tokens_BxT)
    drawn = there[STUDENT]
    asked = list(zip(*np.nonzero(drawn.asked_BxT), strict=True))
    for row, t in asked:
        source, tokens = (np.asarray(x[row]).tolist() for x in (drawn.path.source_BxS, drawn.path.tokens_BxT))
        assert tokens[t] in few.said[tuple(i for i in source if i), tuple(tokens[:t])]
    assert asked


def test_what_is_said_is_what_may_be_written_of_as_many_tokens_as_the_teacher_says() -> None:
    teacher, banned = SimpleTeacher(), (0, 2, 5)
    sources = np.array([[5, 6, 1], [7, 1, 0], [9, 1, 0]], np.int32)
    tokens, heard = np.array([[4, 3], [8, 8], [6, 1]], np.int32), np.array([True, False, True])
    for most, wide in ((V, V), (5, 5)):
        teacher.about = replace(teacher.about, max_top_k=most)
        said = AnsweringTeacher(teacher, banned)(sources, Kept(4))(tokens, heard)
        assert said.ids_BxK.shape == said.log_probs_BxK.shape == (3, wide)
        assert not np.isfinite(said.log_probs_BxK[1]).any()
        for row, source in ((0, (5, 6, 1)), (2, (9, 1))):
            log_prob_V = teacher.log_probs(Prefix(source, tuple(tokens[row].tolist())))
            some = [i for i in np.argsort(-log_prob_V, kind="stable")[:wide] if i not in banned]
            real_K = np.isfinite(said.log_probs_BxK[row])
            assert said.ids_BxK[row][real_K].tolist() == some
            np.testing.assert_array_equal(said.log_probs_BxK[row][real_K], log_prob_V[some])
    assert teacher.calls == [("next", 2)] * 2
    with pytest.raises(UserError, match="set top_k to 5 or less"):
        AnsweringTeacher(teacher, banned)(sources, Kept(6))
    with pytest.raises(UserError, match="none may be written"):
        AnsweringTeacher(teacher, range(V))(sources, Kept(4))(tokens, heard)
    only = TopTokens(np.array([2, 3, 4], np.int32), np.array([0.0, -np.inf, -np.inf], np.float32))
    teacher.next_token = lambda prefixes, top_k: [only] * len(prefixes)  # type: ignore
    with pytest.raises(UserError, match="none may be written, or they have no probabilities"):
        AnsweringTeacher(teacher, banned)(sources, Kept(4))(tokens, heard)


def test_no_two_outputs_share_a_session_in_other_processes_either(world: Remote) -> None:
    watched, sources = Watched(world.inner), np.array([[5, 6, 1], [7, 1, 0]], np.int32)
    for process in (AnsweringTeacher(watched, world.banned) for _ in range(2)):
        for _ in range(2):
            answer = process(sources, Kept(4))
            for written in ([[], []], [[4], [5]]):
                answer(np.array(written, np.int32), np.array([True, True]))
    names = [tuple(prefix.session for prefix in request) for request in watched.asked]
    assert names[::2] == names[1::2]  # one output keeps its own
    assert len({name for pair in names for name in pair}) == 8


def test_what_a_teacher_elsewhere_cannot_be_asked_for_is_named_with_what_would_do(
    world: Remote, tmp_path: Path
) -> None:
    assert elsewhere(ASK, False) == {}
    assert elsewhere(CONFIG, False) == {"distil": {"demonstrations": "greedy"}}
    assert elsewhere(replace(ASK, constraints=("share", "compute")), False) == {"constraints": ["share"]}
    assert elsewhere(replace(ASK, constraints=("compute",)), False) is None
    with pytest.raises(UserError, match=r"the rule compute counts the teacher's arithmetic, .*: leave it out"):
        known_constraints(("share", "compute"), None)
    assert [c.name for c in known_constraints(("share", "price=2"), None)] == ["share", "price"]
    context = world.context(tmp_path, student=world.student, teacher=None, reader=lambda rows, kept: None)
    with pytest.raises(UserError, match="give TrainContext answers beside its reader"):
        AskingCollector(context, ASK, world.rules)
