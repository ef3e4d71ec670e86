"""A cheap and a dear teacher of one student: quality against cost with each alone, with both, and with an oracle.

    python experiments/helpers.py --run runs/wide --cheap runs/en-de/teacher/model \\
        --dear runs/wide/teacher/model runs/en-de/teacher/model --seeds 0 --costs 1 2 4 6 --results results/helpers

The student is one of a run that learned to ask, the dear teacher its own or another, the cheap one any model of its
vocabulary, or several that vote. A word of a teacher costs in proportion to its parameters. What each is worth is
measured on training texts, of which no target is read. Takes minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import kdtw_jax
from kdtw_jax.data.task import load_task
from kdtw_jax.errors import UserError
from kdtw_jax.helpers.budgets import Limits
from kdtw_jax.helpers.measure import AlongWriter, measure_worth
from kdtw_jax.helpers.worth import Worth, worth_folder, write_worth
from kdtw_jax.metrics.builtin import ratio_of_sums
from kdtw_jax.metrics.scores import Statistics, bootstrap, interval, sentence_statistics
from kdtw_jax.metrics.scoring import choose_scoring
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs import keep_compiled, provenance, write_csv, write_json
from kdtw_jax.runs.provenance import running_code, typed
from kdtw_jax.student import Student
from kdtw_jax.training.saved import SavedModel, load_model

_NEVER = 1e6  # nats
_SAMPLED = 640  # texts that an oracle's prices are found on
CHEAP, DEAR = "cheap", "dear"
SYSTEMS: dict[str, tuple[str, ...]] = {CHEAP: (CHEAP,), DEAR: (DEAR,), "both": (CHEAP, DEAR)}


@dataclass(frozen=True)
class Args:
    """A cheap and a dear teacher of one student."""

    run: Path
    """a finished run with a student that asks"""
    cheap: tuple[Path, ...]
    """folders of other models of that vocabulary, which are the cheap teacher together, by the mean of their
    log-probabilities; {seed} in one is the student's"""
    dear: tuple[Path, ...] = ()
    """folders of the dear teacher's models, together likewise; by default the teacher of the run"""
    data_dir: Path = Path("runs/data")
    """where data sets are kept"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """of students"""
    measured: int = 3000
    """training texts that helpers are measured on"""
    judged: int = 500
    """pairs that outputs are judged on"""
    split: Literal["validation", "test"] = "validation"
    """of these pairs"""
    costs: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """cost units per word that prices are chosen for; a word of one of the cheap models costs 1"""
    oracle: bool = True
    """also choose with the dear teacher's reading of all candidates"""
    results: Path | None = None
    """write the tables there"""


class Point(NamedTuple):
    """A system at one price of a cost unit, judged."""

    system: str
    target: float  # cost units per word that the price was chosen for
    texts: list[str]
    cost_N: np.ndarray  # cost units of each text
    words_N: np.ndarray  # of each text
    helped_KxN: np.ndarray  # words of each helper


def together(models: Sequence[SavedModel]) -> SavedModel:
    """Several models as one, whose distribution is the normalised geometric mean of theirs."""
    if len(models) == 1:
        return models[0]
    parts = [one.model for one in models]

    def encode(params: Any, source_BxS: Any, dropout_key: Any = None) -> Any:
        return tuple(model.encode(p, source_BxS) for model, p in zip(parts, params, strict=True))

    def start(params: Any, encoded: Any, max_len: int) -> Any:
        return tuple(m.start(p, e, max_len) for m, p, e in zip(parts, params, encoded, strict=True))

    def extend(params: Any, caches: Any, tokens_BxN: Any, position: Any) -> Any:
        said = [m.extend(p, c, tokens_BxN, position) for m, p, c in zip(parts, params, caches, strict=True)]
        logits = [jax.nn.log_softmax(decoded.logits_BxTxV, axis=-1) for decoded, _ in said]
        mean = jnp.mean(jnp.stack(logits), axis=0)
        return said[0][0]._replace(logits_BxTxV=mean), tuple(cache for _, cache in said)

    model = parts[0]._replace(encode=encode, start=start, extend=extend)
    return SavedModel(model, tuple(one.params for one in models), models[0].tokenizer)


def parameters(model: SavedModel) -> int:
    """How many parameters a model has."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(model.params))


def write(
    writer: AlongWriter, worth: Worth, sources: Sequence[str], units_K: Sequence[float], system: str, cost: float
) -> Point:
    """Writes texts with some of the helpers, at the prices that a cost budget needs; "oracle" chooses by the gain.

    An oracle's prices are found on the gains themselves, which `worth` has as its sample.
    """
    oracle, _, name = system.rpartition(" ")
    some = SYSTEMS[name]
    units = dict(zip(writer.names, units_K, strict=True))
    limits = Limits(tuple(units[helper] for helper in some), (None,) * len(some), (None,) * len(some), cost)
    nats = dict(zip(some, worth.of(some).nats(limits), strict=True))
    decision = writer.decision(
        None if oracle else worth, [nats.get(helper, _NEVER) for helper in writer.names], oracle=bool(oracle)
    )
    return outputs(writer, sources, decision, units_K, system, cost)


def outputs(
    writer: AlongWriter, sources: Sequence[str], decision: Any, units_K: Sequence[float], system: str, cost: float
) -> Point:
    """What is written by a decision, as a point of a system whose cost was chosen to be `cost`."""
    tokenizer, count = writer.student.model.tokenizer, len(units_K)
    marks, counted = tokenizer.words, Limits(tuple(units_K), (None,) * count, (None,) * count)
    texts, cost_N, words_N = [""] * len(sources), np.zeros(len(sources)), np.zeros(len(sources))
    helped_KxN = np.zeros((count, len(sources)))
    for numbers, along in writer.write(sources, decision):
        for row, n in enumerate(numbers):
            mask_T = np.asarray(along.mask_BxT[row])
            tokens, writers = along.tokens_BxT[row][mask_T].tolist(), along.writer_BxT[row][mask_T].tolist()
            use = counted.use(marks, tokens, writers)
            texts[n] = tokenizer.decode(tokens)
            cost_N[n], words_N[n], helped_KxN[:, n] = use.cost, use.words, use.words_K
    return Point(system, cost, texts, cost_N, words_N, helped_KxN)


def ascending(cost_P: np.ndarray, value_P: np.ndarray) -> list[int]:
    """The points of a frontier, by cost, that nothing cheaper is better than: nobody has to spend all that he may."""
    found = list[int]()
    for p in np.argsort(cost_P).tolist():
        if not found or value_P[p] >= value_P[found[-1]]:
            found.append(p)
    return found


def curve(cost_P: np.ndarray, value_P: np.ndarray, at: float) -> float:
    """The value of a frontier at a cost, between its points; beyond the last one that of the last."""
    order = np.argsort(cost_P)
    return float(np.interp(at, cost_P[order], value_P[order]))


class Judged(NamedTuple):
    """Points of a metric, means over seeds; P: points, R: resamples of the texts, the same for all."""

    cost_P: np.ndarray
    value_P: np.ndarray
    cost_RxP: np.ndarray
    value_RxP: np.ndarray


def judge(seeds: Sequence[Sequence[Point]], references: Sequence[str], metric: str, language: str) -> Judged:
    """Points of each seed, in one order, judged against references."""
    scoring, found = choose_scoring(language), []
    for points in seeds:
        used = [Statistics(np.stack([p.cost_N, p.words_N], axis=1), ratio_of_sums) for p in points]
        judged = [sentence_statistics(metric, point.texts, references, scoring) for point in points]
        values = [np.array([s.formula(s.rows.sum(axis=0)) for s in system]) for system in (used, judged)]
        found.append((*values, *(bootstrap(system, 1000, seed=0) for system in (used, judged))))
    return Judged(*(np.mean(arrays, axis=0) for arrays in zip(*found, strict=True)))


def frontier(
    seeds: Sequence[Sequence[Point]], judged: Judged, metric: str, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of all points."""
    rows = []
    for i, point in enumerate(seeds[0]):
        low, high = interval(judged.value_RxP[:, i], judged.value_P[i])
        shares = {
            f"{name}_share": np.mean([points[i].helped_KxN[k].sum() / points[i].words_N.sum() for points in seeds])
            for k, name in enumerate(names)
        }
        rows.append(
            {"system": point.system, "target": point.target, "cost": judged.cost_P[i], **shares}
            | {"metric": metric, "value": judged.value_P[i], "low": low, "high": high}
        )
    return rows


def ahead_of(points: Sequence[Point], judged: Judged, metric: str) -> list[dict[str, Any]]:
    """By how much both teachers are ahead of each alone for at most the same cost, and oracles of what is told.

    The other frontier begins at the student alone and may end where its teacher writes every word. Of its points those
    count that nothing cheaper is better than. It is read between them, in each resample anew.
    """
    rows = []
    pairs = [("both", CHEAP), ("both", DEAR), ("oracle both", "oracle dear")]
    for system, other in [*pairs, ("oracle both", "both")]:
        members = [i for i, point in enumerate(points) if point.system in (other, f"{other} always", "student")]
        members = [members[p] for p in ascending(judged.cost_P[members], judged.value_P[members])]
        for i, point in enumerate(points):
            if point.system != system or len(members) < 2:
                continue
            value = judged.value_P[i] - curve(judged.cost_P[members], judged.value_P[members], judged.cost_P[i])
            draws = [
                value_P[i] - curve(cost_P[members], value_P[members], cost_P[i])
                for cost_P, value_P in zip(judged.cost_RxP, judged.value_RxP, strict=True)
            ]
            low, high = interval(np.array(draws), value)
            rows.append(
                {"system": system, "minus": other, "cost": judged.cost_P[i], "metric": metric}
                | {"value": value, "low": low, "high": high}
            )
    return rows


def gain_sample(writer: AlongWriter, sources: Sequence[str], worth: Worth) -> Worth:
    """What is measured, with the gains themselves as the sample that prices are found on: for an oracle."""
    found = []
    for _, along in writer.write(sources, writer.decision(None, [_NEVER] * len(writer.names))):
        row_N, place_N = np.nonzero(along.begins_BxT & along.mask_BxT)
        found.append(np.asarray(along.gain_BxTxK, float)[row_N, place_N])
    rest = worth.mean_F, worth.scale_F, worth.weight_FxK, worth.bias_K
    return Worth(worth.helpers, *rest, np.concatenate(found), worth.states_per_word, worth.told)


def points_of(args: Args, seed: int, config: Any, measured: Sequence[str], sources: Sequence[str]) -> Any:
    """All points of a student, and what is to be said of it."""
    student: Student = kdtw_jax.load(args.run, "ask", seed, with_teacher=False)
    tokenizer = student.model.tokenizer

    def read(folders: Sequence[Path]) -> SavedModel:
        return together([load_model(folder, tokenizer=tokenizer) for folder in folders])

    cheap, dear = ([Path(str(folder).format(seed=seed)) for folder in some] for some in (args.cheap, args.dear))
    own = Path(config.teacher_model or args.run / "teacher" / "model")
    helpers = {CHEAP: read(cheap), DEAR: read(dear or [own])}
    sizes = [parameters(model) for model in helpers.values()]
    units_K = [float(len(args.cheap)), round(len(args.cheap) * sizes[1] / sizes[0], 1)]
    writer, started = AlongWriter(student, helpers), time.time()
    worth = measure_worth(writer, measured)
    print(f"seed {seed}: told of held-out states (r squared): {worth.told}", flush=True)
    write_worth(worth_folder(args.run, "ask", seed), worth, {"texts": len(measured), "judge": DEAR})
    sample = gain_sample(writer, measured[:_SAMPLED], worth)
    points = [outputs(writer, sources, writer.decision(None, [_NEVER] * 2), units_K, "student", 0.0)]
    for name in ("", *(["oracle "] if args.oracle else [])):
        for system in SYSTEMS:
            for cost in args.costs:
                if system == CHEAP and (name or cost > units_K[0]):
                    continue
                points.append(write(writer, sample if name else worth, sources, units_K, f"{name}{system}", cost))
                per_word = float(points[-1].cost_N.sum()) / float(points[-1].words_N.sum())
                print(f"{time.time() - started:5.0f} s  {name}{system} for {cost}: {per_word:.3f}", flush=True)
    for model in (CHEAP, DEAR):  # who is asked before every word
        nats = [-_NEVER if name == model else _NEVER for name in writer.names]
        points.append(outputs(writer, sources, writer.decision(None, nats), units_K, f"{model} always", float("nan")))
    about = {"parameters": dict(zip(writer.names, sizes, strict=True)), "told": worth.told}
    return points, about | {"price": dict(zip(writer.names, units_K, strict=True))}


def run(args: Args) -> None:
    """Runs the experiment.

    Raises:
      UserError: a model cannot be read, or there are too few pairs.
    """
    started = time.time()
    running_code()  # what runs here, whatever is committed meanwhile
    keep_compiled()
    config = restore(args.run)[1]
    if config.teacher_elsewhere and not args.dear:
        raise UserError(f"{args.run} learned from a teacher at an address: name the dear teacher's folder by --dear")
    student: Student = kdtw_jax.load(args.run, "ask", args.seeds[0], with_teacher=False)
    task = load_task(config.data, data_dir=args.data_dir)

    def some(split: str, count: int) -> list[Any]:
        """Pairs from all over a split whose sources are read whole."""
        pairs = task.splits[split]
        found = list[Any]()
        for n in np.random.default_rng(0).permutation(len(pairs)).tolist():
            if len(found) < count and student.encode(pairs[n]["source"])[1] == 0:
                found.append(pairs[n])
        if len(found) < count:
            raise UserError(f"{len(found)} pairs of {split} are too few; lower --measured or --judged")
        return found

    measured = [pair["source"] for pair in some("train", args.measured)]
    many = some(args.split, args.judged)
    sources, references = [pair["source"] for pair in many], [pair["target"] for pair in many]
    found = {seed: points_of(args, seed, config, measured, sources) for seed in args.seeds}
    seeds = [points for points, _ in found.values()]
    rows, ahead = list[dict[str, Any]](), list[dict[str, Any]]()
    for metric in ("chrf", "bleu"):
        judged = judge(seeds, references, metric, task.language)
        rows += frontier(seeds, judged, metric, (CHEAP, DEAR))
        ahead += ahead_of(seeds[0], judged, metric)
    for row in (*rows, *ahead):
        print("  ".join(f"{x:.3f}" if isinstance(x, float) else str(x) for x in row.values()))
    if args.results is not None:
        shares = [f"{name}_share" for name in (CHEAP, DEAR)]
        columns = ["system", "target", "cost", *shares, "metric", "value", "low", "high"]
        write_csv(args.results / "frontier.csv", rows, columns)
        write_csv(args.results / "ahead.csv", ahead, ["system", "minus", "cost", "metric", "value", "low", "high"])
        more: dict[str, Any] = {"split": args.split, "pairs": len(many), "measured_texts": len(measured)}
        more |= {"students": {str(seed): about for seed, (_, about) in found.items()}}
        record = provenance(typed(), args.seeds, started, **more)
        write_json(args.results / "provenance.json", record)


if __name__ == "__main__":
    try:
        run(tyro.cli(Args, description=__doc__))
    except UserError as error:
        sys.exit(f"error: {error}")
