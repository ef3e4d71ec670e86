"""The notebooks run: on the committed results, and on a run folder of a user's own."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

from kdtw_jax.decoding.gates import compared_gates
from kdtw_jax.evaluation import operating_table
from kdtw_jax.evaluation.obedience import obedience
from kdtw_jax.evaluation.tradeoff import Curve, compare_gates
from kdtw_jax.pipeline import ask_report, experiment
from kdtw_jax.runs import provenance, write_csv, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
NAMES = ("distillation", "asking", "operating_points", "paths", "token_mdp")
Notebook = Any  # a mapping with attributes, without types


def load(name: str, results: Path | None = None) -> Notebook:
    """A notebook, pointed to a folder as a user would do it: by the one path at its top."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    if results is not None:
        (cell,) = [cell for cell in notebook.cells if cell.id == "path"]
        line = re.compile(r'RESULTS = Path\("\.\./results/translation[a-z-]*"\)')
        cell.source, found = line.subn(f"RESULTS = Path({str(results)!r})", cell.source)
        assert found == 1
    return notebook


def execute(notebooks: Sequence[Notebook], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs them in place, in one kernel that forgets all names in between: importing JAX takes longer than most.

    Raises CellExecutionError for the first cell that fails.
    """
    cells = [c for notebook in notebooks for c in (*notebook.cells, nbformat.v4.new_code_cell("%reset -f"))]
    for name, value in {"JAX_PLATFORMS": "cpu", "JUPYTER_PLATFORM_DIRS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    whole = nbformat.NotebookNode(cells=cells, metadata=notebooks[0].metadata, nbformat=4, nbformat_minor=5)
    # Sockets in a folder of its own (their paths must be short) need no ports.
    with tempfile.TemporaryDirectory(prefix="nb") as folder:
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
            monkeypatch.setenv(name, folder)
        client = NotebookClient(
            whole,
            kernel_name="python3",
            timeout=300,  # a cell, on a busy machine
            startup_timeout=300,
            resources={"metadata": {"path": str(NOTEBOOKS)}},
            config=Config({"ConnectionFileMixin": {"transport": "ipc", "ip": f"{folder}/kernel"}}),
        )
        client.execute()


def said(notebook: Notebook) -> str:
    """All that its cells printed."""
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return "".join(o["text"] for o in outputs if o.output_type == "stream")


def tables(notebook: Notebook) -> str:
    """All that its cells displayed as text."""
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return "".join(o.get("data", {}).get("text/plain", "") for o in outputs)


def figures(notebook: Notebook) -> list[str]:
    """The cells that drew."""
    return [
        cell.id
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def run_folder(path: Path) -> Path:
    """What a run of two seeds leaves, of numbers that mean nothing; no twin without help, a further rule."""
    rng, seeds, methods = np.random.default_rng(0), (0, 1), ("mle", "ask")
    named = {"task": "translation", "data": "files", "preset": "tiny"}

    def score(metric: str, value: float) -> dict[str, Any]:
        return {"metric": metric, "value": value, "low": value - 1, "high": value + 1}

    distilled: list[dict[str, Any]] = []
    for seed, method in [(0, "teacher"), *((seed, method) for seed in seeds for method in methods)]:
        own = {**named, "seed": seed, "method": method}
        distilled += [{**own, **score(metric, rng.uniform(20, 30))} for metric in ("rouge1", "rouge1_sampled")]
        plain = {"parameters": 1e6, "kl_on_policy": 1.2, "kl_reverse": 1.1, "kl_forward": 0.9, "agreement": 0.7}
        plain |= {"unfinished": 0.25, "unfinished_sampled": 0.5}
        distilled += [{**own, "metric": metric, "value": value} for metric, value in plain.items()]
    write_csv(path / "distil.csv", distilled, experiment.COLUMNS)

    rows: list[dict[str, Any]] = []
    where: list[dict[str, Any]] = []
    told: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        cells: list[dict[str, Any]] = []
        budgets = np.array([0.0, 0.2, 0.4])
        curves = {}
        for gate in compared_gates():
            use, quality = budgets * rng.uniform(0.9, 1.1), 20 + 10 * budgets + rng.uniform(0, 1, 3)
            curves[str(gate)] = Curve(use, quality, np.tile(use, (5, 1)), quality + rng.normal(size=(5, 3)))
            for guard in (0, 1) if gate == "learned" else (0,):
                kind = {"guard": guard, "phrasing": "seen", "budget_seen": 1}
                for asked, used, value in zip(budgets.tolist(), use.tolist(), quality.tolist(), strict=True):
                    cost = {"calls": used, "positions": 2 * used, "unfinished": 0.375}
                    at = {**kind, "asked": asked, "used": used}
                    rows.append({**named, "seed": seed, "gate": gate, **at, **score("rouge1", value), **cost})
                    over = {"outputs": 9, "outputs_over": 1, "excess_calls_p95": 1.0, "excess_share_p95": 0.1}
                    cells += [{**at, **over}] if gate == "learned" else []
        groups = [("kl_decile", 1, 0.0), ("kl_decile", 2, 1.0), ("token", "rare", 0.3), ("position", "1-2", 0.1)]
        counted = [{"kind": kind, "group": group, "states": 10, "help_rate": rate} for kind, group, rate in groups]
        where += [{**named, "seed": seed, **line} for line in counted]
        equal, draws = compare_gates(curves)
        expected = [{"asked": b, "expected": 10 * b, "calls": 9 * b} for b in budgets.tolist()]
        rule = {"rule": "at most 3 calls", "phrasing": "seen", "guard": 0, "used": 0.1, "excess_calls_mean": -1.0}
        told[seed] = {
            "alone": {"rouge1": 20.0},
            "equal_use": {"rouge1": equal},
            "draws": {"rouge1": draws},
            "no_harm": None,
            "obedience": cells,
            "expected_calls": {"by_budget": expected, "spearman": None, "slope": 1.1, "intercept": 0.0, "rmse": 0.5},
            "rules": [{**rule, "outputs": 9, "outputs_over": 1}],
        }
    write_csv(path / "asking.csv", rows, ask_report.COLUMNS)
    write_csv(path / "where.csv", where, ask_report.WHERE_COLUMNS)
    pooled = ask_report.summarise_asking(list(told.values()), ["rouge1"])
    shown = {str(seed): {**f, "obedience": obedience(f["obedience"])} for seed, f in told.items()}
    write_json(path / "asking.json", {"gate": "threshold", "tokens": "greedy", "pooled": pooled, "seeds": shown})

    points: list[dict[str, Any]] = []
    for seed in seeds:
        for i, method in enumerate(("student_only", "teacher_only", "asking", "oracle_kl")):
            timed = dict.fromkeys(("ms_b1", "ms_b32"), None if method == "oracle_kl" else 1.0 + i)
            costs = dict.fromkeys(("teacher_tokens", "calls", "positions", "no_call_share"), i / 4)
            flops = dict.fromkeys(("teacher_flops", "student_flops"), 1e6 * i)
            at = {"method": method, "setting": "0.2", **score("rouge1", 20.0 + i), **costs, **flops, **timed}
            points.append({**named, "seed": seed, **at})
    write_csv(path / "operating_points.csv", points, operating_table.COLUMNS)
    areas = {"rouge1": {axis: {"asking": 21.0 + axis.count("l")} for axis in ("calls", "teacher_tokens")}}
    measured = provenance(["python", "experiments/operating_points.py"], seeds, time.time())
    write_json(path / "operating_points.json", {"frontiers": {str(s): areas for s in seeds}, "provenance": measured})

    record = provenance(["python", "experiments/translation.py"], seeds, time.time(), config={"seeds": seeds})
    record["config"]["methods"] = methods
    write_json(path / "provenance.json", record)
    for seed in seeds:
        for method, term in (("mle", "nll"), ("ask", "kl")):
            lines = [json.dumps({"step": step, term: 1 / step}) + "\n" for step in (10, 20)]
            write_text(path / f"seed{seed}" / method / "metrics.jsonl", "".join(lines))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_committed_without_outputs(name: str) -> None:
    notebook = load(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.metadata == {}
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.long
def test_notebooks_draw_the_committed_results_and_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, results = run_folder(tmp_path / "run"), ROOT / "results"
    silent = tmp_path / "silent"  # a run in which nobody may ask
    silent.mkdir()
    distilled = {folder: load("distillation", folder) for folder in (results / "translation", own)}
    committed = (results / "summarization", results / "translation-asking", results / "cldr")
    asking = {f: load("asking", f) for f in (*committed, own, silent)}
    points = {f: load("operating_points", f) for f in (own, silent)}
    execute([*distilled.values(), *asking.values(), *points.values()], monkeypatch)

    for folder, notebook in (*distilled.items(), *asking.items()):
        assert "Warning" not in said(notebook)
        if folder != silent:
            name = "asking-provenance.json" if notebook in asking.values() else "provenance.json"
            record = folder / name if (folder / name).exists() else folder / "provenance.json"
            commit = json.loads(record.read_text())["commit"] or "unknown (not run from a checkout)"
            assert f"commit    {commit}" in said(notebook)
    assert figures(distilled[results / "translation"]) == ["quality", "distance", "value"]
    assert figures(distilled[own]) == ["quality", "distance", "curves"]
    # Of gates one figure for the mean, and one by use, which older runs do not say.
    assert figures(asking[results / "summarization"]) == ["use", "lead", "obey", "harm", "where", "calls"]
    assert figures(asking[results / "translation-asking"]) == ["use", "lead", "lead", "obey", "where", "calls"]
    assert figures(asking[results / "cldr"]) == ["use", "lead", "lead", "obey", "harm", "where", "calls"]
    assert figures(asking[own]) == ["use", "lead", "lead", "obey", "where", "calls"]
    assert "unfinished" not in tables(distilled[results / "translation"]) + said(distilled[results / "translation"])
    assert "25.0" in said(distilled[own]) + tables(distilled[own])
    assert "37.50" in said(asking[own]) + tables(asking[own])
    assert "no twin" in said(asking[own]) and "not known" in said(asking[own])
    assert figures(points[own]) == ["calls", "tokens", "time", "costs"]
    assert "experiments/operating_points.py" in said(points[own]) and "23.00 ± 0.00" in tables(points[own])
    assert figures(points[silent]) == [] and "no operating_points.csv" in said(points[silent])
    assert figures(asking[silent]) == [] and "nothing to show" in said(asking[silent])


@pytest.mark.long
def test_the_walkthrough_trains_to_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = load("token_mdp")
    execute([notebook], monkeypatch)
    assert "Warning" not in said(notebook)
    assert figures(notebook) == ["optimum", "pcl", "price", "dual", "tied"]


@pytest.mark.long
def test_the_notebook_of_paths_draws_theorem_head_room_lambda_and_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = load("paths")
    execute([notebook], monkeypatch)
    assert "Warning" not in said(notebook)
    assert figures(notebook) == ["theorem", "headroom", "lambda", "prices"]
    for path in (ROOT / "results" / "paths").glob("lambda-*/provenance.json"):
        value = json.loads(path.read_text())["config"]["pcl"]["path_lambda"]
        assert f"{value:.2f}" in said(notebook) + tables(notebook)
