"""A run that was begun is bound to its configuration and its text, and is restored as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kdtw_jax.data.tokenizer import UNK_ID, load_tokenizer
from kdtw_jax.errors import UserError
from kdtw_jax.pipeline.config import EvalConfig, parse, plain
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.restore import restore
from kdtw_jax.runs import open_run, write_json
from tests.commands import train
from tests.mirrored import mirrored


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirrored(tmp_path_factory.mktemp("data"))


def test_a_second_configuration_is_kept_out_of_a_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: Path
) -> None:
    out = tmp_path / "run"
    words = ["--preset", "tiny", "--out", str(out), "--data", "files"]
    words += ["--text.files.train-source", str(corpus / "a.en"), "--text.files.train-target", str(corpus / "a.de")]
    config = parse(PRESETS, None, words)
    with open_run(out, {"task": "translation", **config.identity()}) as run:
        run.mark_done("teacher")
    assert train([*words, "--student.d-ff", "8"]) == 2
    assert "student.d_ff was 64, now 8" in capsys.readouterr().err


def test_text_that_changed_under_a_run_is_noticed_once_there_is_something_to_lose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: Path
) -> None:
    for side in ("en", "de"):
        (tmp_path / side).write_text((corpus / f"a.{side}").read_text(encoding="utf8"), encoding="utf8")
    out = tmp_path / "run"
    words = ["--preset", "tiny", "--out", str(out), "--pcl.top-k", "999", "--data", "files"]
    words += ["--text.files.train-source", str(tmp_path / "en"), "--text.files.train-target", str(tmp_path / "de")]

    def vocabulary() -> bytes:
        assert train(words) == 2
        assert "pcl.top_k is 999" in capsys.readouterr().err
        return (out / "tokenizer.model").read_bytes()

    first = vocabulary()
    words += ["--ask.constraints", "share", "compute"]  # the rules of a student are no part of a run
    assert vocabulary() != first and UNK_ID not in load_tokenizer(out / "tokenizer.model").encode("GFLOP")
    words = words[:-3]
    (tmp_path / "de").write_text((tmp_path / "en").read_text(encoding="utf8").upper(), encoding="utf8")
    second = vocabulary()
    assert second != first  # it is that of the new text
    with open_run(out, json.loads((out / "config.json").read_text())) as run:
        run.mark_done("teacher")
    (tmp_path / "de").write_text((tmp_path / "en").read_text(encoding="utf8"), encoding="utf8")
    assert train(words) == 2
    assert "is not what the run in" in capsys.readouterr().err
    assert (out / "tokenizer.model").read_bytes() == second


def test_a_restored_run_is_judged_as_the_last_time_and_its_methods_are_what_they_were(tmp_path: Path) -> None:
    tiny = PRESETS["tiny"]
    asking = replace(tiny.of("ask"), gate_calibration_steps=2)  # at rest on what is left of validation
    config = replace(tiny, methods=("mle", "ask"), beam_targets=("ask",)).with_settings(ask=asking)
    with open_run(tmp_path / "run", {"task": "translation", **config.identity()}) as run:
        for method in config.methods:
            run.claim(f"seed0/{method}", config.identity_of(method))
            run.mark_done(f"seed0/{method}")
    judged = EvalConfig(split="validation", limit=5, ask_limit=7, metrics=("chrf",), beam_size=7)
    later = replace(config, methods=("mle",), beam_targets=(), beam_size=7, eval=judged)
    assert later.identity() == config.identity()
    write_json(tmp_path / "run" / "judging.json", plain(later.eval))
    task, found = restore(tmp_path / "run")
    assert (task, found.methods) == ("translation", config.methods)
    assert (found.beam_size, found.beam_targets) == (tiny.beam_size, ("ask",))
    assert found.eval == replace(judged, limit=tiny.eval.limit)  # the pairs of validation that prices came to rest on
    assert found.identity() == config.identity()
    assert all(found.identity_of(method) == config.identity_of(method) for method in config.methods)
    assert found.of("ask") == asking
    with open_run(tmp_path / "run", {"task": "translation", **later.identity()}) as run:
        run.claim("seed0/mle", later.identity_of("mle"))
        changed = replace(config, beam_size=7)
        with pytest.raises(UserError, match="beam_size was 2, now 7"):
            run.claim("seed0/ask", changed.identity_of("ask"))


def test_a_decoder_only_run_that_is_older_than_the_place_of_rules_goes_on(tmp_path: Path) -> None:
    config = PRESETS["tiny"].in_family("causal")
    old = {"task": "translation", **config.identity()}
    for name in ("teacher", "student"):  # as they were written then
        old[name] = {key: value for key, value in plain(vars(config)[name]).items() if key != "rule_after"}
    with open_run(tmp_path / "run", old) as run:
        run.mark_done("teacher")
    open_run(tmp_path / "run", {"task": "translation", **config.identity()}).close()
    assert restore(tmp_path / "run")[1].identity() == config.identity()
    placed = replace(config, student=replace(config.student, rule_after=(5,)))  # which is another run
    with pytest.raises(UserError, match=r"student.rule_after was \(unset\), now \[5\]"):
        open_run(tmp_path / "run", {"task": "translation", **placed.identity()})
