"""Students of a teacher at an address: those of its labels, whatever comes between; what it cannot give is refused."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jax
import numpy as np
import pytest
from rich.console import Console

from kdtw_jax.cli import main
from kdtw_jax.errors import Unreachable, UserError
from kdtw_jax.pipeline import elsewhere
from kdtw_jax.pipeline.begin import begin
from kdtw_jax.pipeline.config import Experiment
from kdtw_jax.pipeline.experiment import run_experiment
from kdtw_jax.pipeline.label import Wanted, label
from kdtw_jax.pipeline.labelled import FOLDER, with_labels
from kdtw_jax.pipeline.plan import show_plan
from kdtw_jax.pipeline.prepare import prepare
from kdtw_jax.pipeline.questions import elsewhere_lines, questions, rows_of
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.pipeline.stages import train_students, train_teacher
from kdtw_jax.pipeline.teacher_outputs import prompts_for, readings_for
from kdtw_jax.runs.atomic import read_json
from kdtw_jax.student import load
from kdtw_jax.teachers import named
from kdtw_jax.teachers.ahead import score_rows, without
from kdtw_jax.teachers.in_process import InProcessTeacher
from kdtw_jax.teachers.named import open_teacher
from kdtw_jax.teachers.patient import PatientTeacher
from kdtw_jax.teachers.protocol import Prefix, RowScores, TeacherUnavailable, TopTokens
from kdtw_jax.teachers.resilience import Patience
from kdtw_jax.teachers.server import make_app
from kdtw_jax.training.beforehand import in_order
from kdtw_jax.training.labels import open_labels
from kdtw_jax.training.readings import Kept
from kdtw_jax.training.saved import load_model
from tests.bridge import Bridge, bridged
from tests.simple_teacher import SimpleTeacher, V
from tests.test_labels import World, changed, with_method

ADDRESS = "http://127.0.0.1:8100"
QUESTIONS = (2 * 4 + 1) * 16  # for next tokens, at the most
METHODS = ("pcl", "word_kd", "gkd")  # seqkd takes what is there for gkd


class Net(httpx.BaseTransport):
    """The way to the server, which can be cut after some requests."""

    def __init__(self, bridge: Bridge):
        self.bridge, self.left, self.asked = bridge, 10**9, list[str]()
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.left -= 1
            if self.left < 0:
                raise httpx.ConnectError("cut")
            self.asked.append(request.url.path)
        return self.bridge.handle_request(request)


class Served(World):
    """Texts and a teacher that is served, with the configuration of a run that learns from it over the network."""

    def __init__(self, folder: Path, net: Net | None = None) -> None:
        super().__init__(folder)
        self.live = dataclasses.replace(
            self.live,
            beam_size=1,
            methods=METHODS,
            prompts="none",
            student_model=str(folder / "another"),
            teacher_requests=2,
            text=dataclasses.replace(
                self.live.text,
                tokenizer=self.teacher / "tokenizer.model",
                limit=60,
                max_source=16,
                max_target=16,
                buckets=1,
            ),
        )
        self.cached = dataclasses.replace(self.live, teacher_model=None, teacher_cache=folder / "labels")
        self.remote = dataclasses.replace(self.live, teacher_model=ADDRESS, teacher_wait=0.0)
        label(self.live, folder / "labels", Wanted("greedy", Kept(8)))
        label(self.live, folder / "labels", Wanted("beam", Kept(8, 0.5)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def bridge(world: Served) -> Iterator[Bridge]:
    teacher = InProcessTeacher(load_model(world.teacher))
    with bridged(make_app(teacher)) as made:
        yield made


@pytest.fixture
def net(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> Net:
    made = Net(bridge)
    how = {"transport": made, "sleep": lambda seconds: None}
    monkeypatch.setattr(
        elsewhere,
        "open_teacher",
        lambda name, **more: open_teacher(name, **{**more, **how, "patience": Patience(attempts=1)}),
    )
    return made


def in_run(config: Experiment, folder: Path, work: Callable[..., Any]) -> Any:
    """What `work` makes of a run's setup, its labels being made or there."""
    with begin(folder, "translation", config) as (run, given):
        setup = with_labels(config, prepare(config, run, Console(quiet=True), given), run)
        return work(config, setup, None, run=run)


def given_to(config: Experiment, setup: Any, teacher: None, run: Any) -> dict[str, Any]:
    return {
        m: (prompts_for(config, setup, teacher, run, m), readings_for(config, setup, teacher, run, m)) for m in METHODS
    }


def test_what_is_written_and_read_over_the_network_is_what_labels_have(world: Served, net: Net, tmp_path: Path) -> None:
    config = dataclasses.replace(world.remote, methods=(*METHODS, "seqkd"))
    there, here = in_run(config, tmp_path / "there", given_to), in_run(world.cached, tmp_path / "here", given_to)
    for method in METHODS:
        (outputs, readings), (others, other) = there[method], here[method]
        np.testing.assert_array_equal(outputs.targets.values, others.targets.values)
        np.testing.assert_array_equal(outputs.targets.offsets, others.targets.offsets)
        np.testing.assert_allclose(readings.log_prob_X, other.log_prob_X, atol=1e-4)
        np.testing.assert_allclose(readings.top_log_prob_XxK, other.top_log_prob_XxK, atol=2e-4)
        assert readings.kept == other.kept and (readings.top_ids_XxK == other.top_ids_XxK).mean() > 0.99
    sets = sorted(path.name for path in (tmp_path / "there" / FOLDER).iterdir())
    assert sets == ["beam_top8_temperature0.5", "greedy_top8"]  # one for both methods that take greedy outputs
    assert len(net.asked) > 20


@pytest.mark.long
def test_students_are_those_of_its_labels_bit_for_bit_and_the_run_says_whose_they_are(
    world: Served, net: Net, tmp_path: Path
) -> None:
    config = dataclasses.replace(world.remote, methods=("word_kd",))
    learn = partial(train_students, seed=0)
    there = in_run(config, tmp_path / "there", learn)["word_kd"].params
    before = len(net.asked)
    again = in_run(config, tmp_path / "there", learn)["word_kd"].params
    assert len(net.asked) == before  # a run whose students are done asks nobody
    labels = dataclasses.replace(config, teacher_model=None, teacher_cache=tmp_path / "there" / FOLDER)
    here = in_run(labels, tmp_path / "here", learn)["word_kd"].params
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, there, here)))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, there, again)))
    assert restore(tmp_path / "there")[1].teacher_model == ADDRESS
    moved = dataclasses.replace(config, teacher_model="http://127.0.0.1:8200")
    in_run(moved, tmp_path / "there", lambda *_, **__: None)  # an address is no part of what a run is
    about = open_labels(tmp_path / "there" / FOLDER / "greedy_top4").about
    assert about["teacher"]["hash"] == open_labels(world.folder / "labels" / "greedy_top8").about["teacher"]["hash"]


def on_own_rows(config: Experiment) -> Experiment:
    """Path consistency in part on what the student writes, and on ground truth, which the teacher reads meanwhile."""
    shares = {"student_share": 0.5, "teacher_share": 0.25, "reference_share": 0.25}
    config = with_method(config, "pcl", **shares, updates_per_rollout=2)
    # One request at a time: of several the server makes batches as they come, and two runs' labels differ in last bits.
    return dataclasses.replace(config, methods=("pcl",), teacher_requests=1)


def learned(config: Experiment, folder: Path, method: str) -> Any:
    def work(config: Experiment, setup: Any, _: None, run: Any) -> Any:
        teacher = train_teacher(config, setup, run) if config.has_teacher else None
        return train_students(config, setup, teacher, 0, run)[method].params

    return in_run(config, folder, work)


def farthest(one: Any, other: Any) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), one, other)))


@pytest.mark.long
def test_rows_of_the_student_are_read_over_the_network_and_a_cut_changes_no_bit(
    world: Served, net: Net, tmp_path: Path
) -> None:
    config = on_own_rows(world.remote)
    whole = learned(config, tmp_path / "whole", "pcl")
    requests = len(net.asked)
    net.left = requests - 3  # in the last steps, after a checkpoint
    with pytest.raises(Unreachable):
        learned(config, tmp_path / "cut", "pcl")
    net.left = 10**9
    assert farthest(learned(config, tmp_path / "cut", "pcl"), whole) == 0
    here = dataclasses.replace(config, teacher_model=str(world.teacher))
    first = load_model(world.folder / "another").params
    moved = farthest(first, {name: whole[name] for name in first})
    assert farthest(learned(here, tmp_path / "here", "pcl"), whole) < 0.02 * moved
    labels = dataclasses.replace(config, teacher_cache=world.folder / "labels")  # and what it wrote ahead is from there
    before = len(net.asked)
    assert farthest(learned(labels, tmp_path / "labels", "pcl"), whole) < 0.02 * moved
    assert not any(path.endswith("generate") for path in net.asked[before:])
    assert restore(tmp_path / "labels")[1].teacher_cache == labels.teacher_cache


@pytest.mark.long
def test_gkd_on_the_students_rows_is_the_same_where_all_tokens_are_kept(
    world: Served, net: Net, tmp_path: Path
) -> None:
    tokenizer = load_model(world.teacher).tokenizer
    kept = tokenizer.vocab_size - len(tokenizer.banned_ids)
    config = with_method(world.remote, "gkd", top_k=kept, student_share=0.6, demonstrations="greedy", alpha=0.7)
    config = dataclasses.replace(config, methods=("gkd",))
    there = learned(config, tmp_path / "there", "gkd")
    here = learned(dataclasses.replace(config, teacher_model=str(world.teacher)), tmp_path / "here", "gkd")
    first = load_model(world.folder / "another").params
    assert farthest(here, there) < 0.05 * farthest(first, {name: here[name] for name in first})


def asking(config: Experiment, **distil: Any) -> Experiment:
    """A student that learns to ask, in part on rows of its own, and then comes to rest."""
    own = config.of("ask")
    shares = {"student_share": 0.25, "teacher_share": 0.25, "reference_share": 0.5, "demonstrations": "greedy"}
    distil = {**shares, "updates_per_rollout": 4, "reference_batches": 1, **distil}
    config = with_method(config, "ask", distil=dataclasses.replace(own.distil, **distil), gate_calibration_steps=4)
    return dataclasses.replace(config, methods=("ask",), teacher_requests=1)


@pytest.mark.long
def test_a_student_learns_to_ask_a_teacher_over_the_network_a_cut_changes_no_bit_and_it_asks_that_one(
    world: Served, net: Net, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = asking(world.remote)
    run_experiment("translation", dataclasses.replace(config, out=tmp_path / "whole"))
    said = " ".join(capsys.readouterr().out.split())
    assert "asking is judged with the teacher's weights, which are not here: no asking.csv" in said
    assert f"--teacher {ADDRESS} --rule" in said
    folder = Path("seed0/ask")
    whole = load_model(tmp_path / "whole" / folder / "model").params
    tokens = [i for i, path in enumerate(net.asked) if path == "/v1/next_token"]
    requests = len(net.asked)
    assert 0 < len(tokens) <= QUESTIONS
    for name, left in (("between tokens", tokens[len(tokens) // 2]), ("at rest", requests - 1)):
        net.left = left
        with pytest.raises(Unreachable):
            learned(config, tmp_path / name, "ask")
        net.left = 10**9
        assert farthest(learned(config, tmp_path / name, "ask"), whole) == 0
        assert (tmp_path / name / folder / "prices.json").read_bytes() == (
            tmp_path / "whole" / folder / "prices.json"
        ).read_bytes()
    here = dataclasses.replace(config, teacher_model=str(world.teacher))
    first, other = load_model(world.folder / "another").params, learned(here, tmp_path / "here", "ask")
    moved = farthest(first, {name: whole[name] for name in first})
    assert farthest(other, whole) < 0.02 * moved
    prices = [read_json(tmp_path / name / folder / "prices.json", "")["share"]["price"] for name in ("whole", "here")]
    np.testing.assert_allclose(*prices, rtol=1e-3)

    transport = {"transport": net, "sleep": lambda seconds: None}
    monkeypatch.setattr(named, "open_teacher", lambda name, **more: open_teacher(name, **{**more, **transport}))
    words = ["write", str(tmp_path / "whole"), "--rule", "ask the teacher as often as you like", "--json"]
    texts = ["abc fed", "bad cab deaf", "face"]
    assert main([*words, "--teacher", ADDRESS, "--text", *texts]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    saved, alone = load_model(world.teacher), load(tmp_path / "whole", with_teacher=False)
    student = dataclasses.replace(alone, teacher=saved._replace(params=jax.device_put(saved.params)))
    answers = [answer.to_json() for answer in student.stream(texts, "ask the teacher as often as you like")]
    assert found == [json.loads(json.dumps(answer)) for answer in answers] and any(one["calls"] for one in found)
    for refused, why in ((words, "use kdtw write or kdtw serve, with --teacher"), (["compare", words[1]], "compared")):
        assert main(refused) == 2
        said = capsys.readouterr().err
        assert why in said and "weights" in said and "are not here" in said


def test_a_run_goes_on_where_the_network_was_cut_and_asks_nothing_twice(
    world: Served, net: Net, tmp_path: Path
) -> None:
    config = dataclasses.replace(world.remote, methods=("word_kd",), teacher_requests=1)
    folder = tmp_path / "cut" / FOLDER / "greedy_top4"
    in_run(config, tmp_path / "whole", given_to_one := partial(_word_kd))
    whole = len(net.asked)
    cuts = 0
    net.asked.clear()
    net.left = 4
    while True:
        try:
            in_run(config, tmp_path / "cut", given_to_one)
            break
        except Unreachable:
            cuts += 1
            net.left = 10**9 if cuts == 3 else net.left + 9
            net.left = max(net.left, 9)
    assert cuts == 3
    one, other = (open_labels(place) for place in (folder, tmp_path / "whole" / FOLDER / "greedy_top4"))
    assert [r.target_T.tolist() for r in one.records()] == [r.target_T.tolist() for r in other.records()]
    # Only files that were begun are asked for again, and what an address says of itself.
    assert len([path for path in net.asked if path != "/about"]) <= whole + 3 * 16


def _word_kd(config: Experiment, setup: Any, teacher: None, run: Any) -> Any:
    return readings_for(config, setup, teacher, run, "word_kd")


def test_labels_can_be_made_from_afar(world: Served, net: Net, tmp_path: Path) -> None:
    label(world.remote, tmp_path / "labels", Wanted("greedy", Kept(8)))
    one, other = (open_labels(place / "greedy_top8") for place in (tmp_path / "labels", world.folder / "labels"))
    assert one.about["teacher"]["hash"] == other.about["teacher"]["hash"]
    for mine, its in zip(one.records(), other.records(), strict=True):
        np.testing.assert_array_equal(mine.target_T, its.target_T)
        np.testing.assert_allclose(mine.top_log_prob_TxK, its.top_log_prob_TxK, atol=1e-4)


REFUSED: dict[str, tuple[Callable[[Experiment], Experiment], str]] = {
    "beams": (lambda c: dataclasses.replace(c, beam_size=4), "writes greedily, and beam outputs of size 4 are wanted"),
    "seqkd": (lambda c: dataclasses.replace(c, methods=("seqkd",), beam_size=2), "writes greedily"),
    "k": (lambda c: with_method(c, "word_kd", top_k=73), "says the 72 likeliest tokens .* set top_k to 72 or less"),
    "samples": (
        lambda c: with_method(c, "pcl", demonstrations="sampled", read_ahead=False),
        r"pcl asks the teacher while .*, and the teacher is at an address: .*pcl: {demonstrations: greedy}",
    ),
    "whole distributions": (lambda c: with_method(c, "gkd", top_k=0), "gkd asks the teacher while .* gkd: {top_k: 64}"),
    "k of own rows": (
        lambda c: with_method(c, "gkd", top_k=73, student_share=0.5, demonstrations="greedy"),
        "set top_k to 72 or less",
    ),
    "minillm": (lambda c: dataclasses.replace(c, methods=("minillm",)), "minillm asks .*, or leave the method out"),
    "samples of one that is asked": (
        lambda c: dataclasses.replace(c, methods=("ask",)),
        r"ask asks the teacher while .*ask: {distil: {demonstrations: greedy}}",
    ),
    "arithmetic that it does not say": (
        lambda c: with_method(asking(c), "ask", constraints=("share", "compute")),
        r"ask asks the teacher while .*ask: {constraints: \[share\]}",
    ),
    "k of rows that ask": (lambda c: asking(c, top_k=73), "set top_k to 72 or less"),
    "layers": (
        lambda c: dataclasses.replace(c, student_from_teacher=1, student_model=None),
        "students of the teacher's layers",
    ),
    "vocabulary": (
        lambda c: dataclasses.replace(changed(c, text={"tokenizer": None}), student_model=None),
        r"does not hand over its vocabulary: .*--text\.tok",
    ),
    "another": (
        lambda c: dataclasses.replace(changed(c, text={"tokenizer": Path("byt5")}), student_model=None),
        "has another vocabulary",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_give_is_named_in_a_line_before_anything_is_written(
    world: Served, net: Net, tmp_path: Path, name: str
) -> None:
    change, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as raised:
        in_run(change(world.remote), tmp_path / "run", given_to)
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


def test_one_that_is_not_there_ends_the_command_with_status_1_in_a_line(
    world: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.yaml").write_text(
        f"preset: tiny\nmethods: [word_kd]\nteacher_wait: 0\nword_kd: {{demonstrations: greedy, top_k: 4}}\n"
        f"text: {{tokenizer: {world.teacher / 'tokenizer.model'}}}\n"
    )
    words = [
        "--config",
        str(tmp_path / "run.yaml"),
        "--teacher-model",
        "http://127.0.0.1:9",
        "--out",
        str(tmp_path / "x"),
    ]
    assert main(["train", *words]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: the teacher was waited for 0 s: ") and "the same command continues" in said[-1]
    assert not (tmp_path / "x").exists()


def scores_of(log_prob_V: np.ndarray, token: int, wide: int) -> RowScores:
    order = np.argsort(-log_prob_V, kind="stable")[:wide]
    return RowScores(log_prob_V[[token]], order[None].astype(np.int32), log_prob_V[order][None])


@pytest.mark.parametrize(("alpha", "wide"), [(1.0, 24), (0.5, 24), (2.0, 24), (1.0, 12), (0.25, 12)])
def test_what_is_made_of_what_it_says_is_the_distribution_that_training_has(alpha: float, wide: int) -> None:
    """Exactly where the whole vocabulary is said, and otherwise within what those that are not said can have."""
    rng, banned = np.random.default_rng(0), (0, 2, 5)
    for _ in range(20):
        logits = 3 * rng.normal(size=24)
        log_prob_V = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        free = np.delete(np.arange(24), banned)
        mu = np.exp(log_prob_V[free].astype(np.float64)) / np.exp(log_prob_V[free].astype(np.float64)).sum()
        sharp = mu ** (1 / alpha) / (mu ** (1 / alpha)).sum()
        found = without(scores_of(log_prob_V, 7, wide), Kept(6, alpha), banned, SimpleTeacher().about)
        order = np.argsort(-sharp, kind="stable")[:6]
        np.testing.assert_array_equal(found.top_ids_TxK[0], free[order])
        least = np.exp(np.sort(log_prob_V)[-wide]) if wide < 24 else 0.0
        off = 3 * len(banned) * least + (least ** (1 / alpha - 1) if least and alpha < 1 else 0.0) + 1e-5
        np.testing.assert_allclose(np.exp(found.top_log_probs_TxK[0]), sharp[order], rtol=2 * off / max(alpha, 0.25))
        np.testing.assert_allclose(np.exp(found.log_probs_T[0]), mu[list(free).index(7)], rtol=2 * off)
    few = RowScores(np.zeros(1, np.float32), np.array([[0, 7, 8, 9]]), np.log(np.full((1, 4), 0.2, np.float32)))
    with pytest.raises(UserError, match="set top_k to 3 or less"):
        without(few, Kept(4), banned, SimpleTeacher().about)


def test_batches_are_made_ahead_in_order_and_no_more_than_are_asked_for() -> None:
    begun, gate, taken = list[int](), threading.Event(), list[int]()

    def make(number: Any) -> list[dict[str, np.ndarray]]:
        begun.append(number)
        gate.wait(60)
        return [{"x": np.array([number])}]

    def numbers() -> Iterator[Any]:
        for number in range(10):
            taken.append(number)
            yield number

    found = in_order(make, numbers(), 3)
    threading.Timer(0.0, gate.set).start()
    assert next(found)[0]["x"] == 0 and taken == [0, 1, 2]
    assert [int(rows[0]["x"][0]) for rows in found] == list(range(1, 10)) and sorted(begun) == list(range(10))
    some = in_order(make, numbers(), 2)
    next(some)
    taken.clear()
    some.close()
    assert not taken


def test_one_that_is_waited_for_is_asked_until_it_answers_or_time_is_up() -> None:
    class Late(SimpleTeacher):
        fails = 3

        def next_token(self, prefixes: Any, top_k: int = 8) -> list[TopTokens]:
            self.fails -= 1
            if self.fails >= 0:
                raise TeacherUnavailable("no")
            return super().next_token(prefixes, top_k)

    now, lines = [0.0], list[str]()

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    late = Late()
    patient = PatientTeacher(late, 0.02, clock=lambda: now[0], tell=lines.append)
    assert len(patient.next_token([Prefix((5,))], 2)) == 1 and lines == ["waiting for the teacher, 0 of 0.02 s: no"]
    late.fails = 10**9
    with pytest.raises(Unreachable, match=r"waited for 0\.02 s: no"):
        PatientTeacher(late, 0.02, clock=clock, tell=lines.append).next_token([Prefix((5,))], 2)
    with pytest.raises(UserError, match=r"cannot answer: .*ids go from 0"):
        patient.score([Prefix((5,))], [[V]], 1)


def test_the_plan_says_what_an_engine_is_asked(world: Served, capsys: pytest.CaptureFixture[str]) -> None:
    stages = {stage.name: stage for stage in show_plan(world.remote)}
    said = capsys.readouterr().out
    assert not any(stage.teacher for stage in stages.values()) and "no memory of it here" in said
    assert "1000 greedy outputs of the longest length: 16 requests to write them, 16 to read them (a row in one" in said
    show_plan(dataclasses.replace(world.remote, teacher_model="llama.cpp+http://127.0.0.1:1", methods=("word_kd",)))
    said = capsys.readouterr().out
    assert "1000 requests to write them, 16000 to read them (place by place" in said and "64000 positions" in said
    show_plan(asking(world.remote))
    said = capsys.readouterr().out
    # Twice in 4 of 16 steps and once in 4 more, 6 rows of 16 and 16 tokens at the most.
    assert f"while it writes with help, up to {QUESTIONS} requests for next tokens" in said and "1728 pos" in said
    some = asking(world.remote)
    few = dataclasses.replace(some.of("ask"), helped_fraction=0.25)
    rested = dataclasses.replace(few, gate_calibration_steps=few.gate_calibration_steps + 40)

    def read(config: Any) -> int:
        (line,) = [line for line in elsewhere_lines(some.with_settings(ask=config)) if "student of ask" in line]
        return int(line.split(" to read up to ")[1].split()[0])

    assert read(few) < read(some.of("ask")) and read(rested) == read(few) + 40 // 4 * 6  # at rest all rows are written
    assert [rows_of(f"{engine}http://h:1") for engine in ("", "llama.cpp+", "vllm+")] == [64, 16, 32]
    show_plan(on_own_rows(world.remote))
    assert "while a student of pcl is trained, to read up to" in capsys.readouterr().out
    # As it is counted, so it is asked.
    teacher, length, kept = SimpleTeacher(), 9, Kept(5)
    assert questions(ADDRESS, 300, 3, 200, 128) == (5, 60, 300 * 2 * 203)
    many = 2**17 // (V + 1) // length + 1
    score_rows(teacher, [Prefix((5, 6, 1))] * many, [[3] * length] * many, kept, (0,))
    assert [asked for _, asked in teacher.calls] == [many - 1, 1]
