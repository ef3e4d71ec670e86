"""What the rows of results say of the outputs that they are about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import pytest
from rich.console import Console

from kdtw_jax.data.tokenizer import EOS_ID
from kdtw_jax.evaluation.decode import Decoding, decode_split
from kdtw_jax.models import make_model
from kdtw_jax.pipeline.config import parse
from kdtw_jax.pipeline.prepare import look_up, prepare
from kdtw_jax.pipeline.presets import TRANSLATION as PRESETS
from kdtw_jax.pipeline.stages import Trained, result_rows
from kdtw_jax.runs import open_run
from tests.mirrored import mirrored


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirrored(tmp_path_factory.mktemp("data"))


def test_rows_say_which_share_of_outputs_does_not_end(tmp_path: Path, corpus: Path) -> None:
    words = ["--preset", "tiny", "--data", "files", "--text.folder", str(tmp_path), "--devices", "1"]
    words += ["--text.files.train-source", str(corpus / "a.en"), "--text.files.train-target", str(corpus / "a.de")]
    config = parse(PRESETS, None, [*words, "--eval.beam-size", "2"])
    with open_run(tmp_path / "run", config.identity()) as run:
        setup = prepare(config, run, Console(quiet=True), look_up(config))
        model = make_model(replace(config.teacher, vocab_size=setup.tokenizer.vocab_size, tie_embeddings=False))
        params: dict[str, Any] = jax.tree.map(lambda x: 3.0 * x, model.init(jax.random.key(0)))
        kernel = params["lm_head"]["kernel"]
        fresh = Trained(model, {**params, "lm_head": {"kernel": kernel.at[:, EOS_ID].multiply(2.0)}})  # some ends
        rows = result_rows(config, setup, fresh, fresh, "teacher", 0, run)
    found = {row["metric"]: row["value"] for row in rows}
    ways = {"": Decoding(), "_sampled": Decoding("sample")}
    ways["_beam2"] = Decoding("beam", beam_size=2, length_penalty=config.eval.length_penalty)
    expected = {
        f"unfinished{suffix}": decode_split("", *fresh, setup.test, setup.buckets, setup.tokenizer, way).unfinished
        for suffix, way in ways.items()
    }
    assert expected.items() <= found.items() and len(set(expected.values())) == 3
