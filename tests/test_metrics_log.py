"""The log of a training's numbers: resumed equals uninterrupted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tensorboardX.event_file_writer import EventFileWriter
from tensorboardX.proto.event_pb2 import Event

from kdtw_jax.errors import UserError
from kdtw_jax.runs import MetricsLog, read_metrics
from tests.disk import log_steps, numbers


@pytest.mark.parametrize("restored", [0, 4, 7])
@pytest.mark.parametrize("torn", [b"", b'{"step": 8, "lo'])
def test_an_interrupted_and_resumed_log_equals_an_uninterrupted_one(tmp_path: Path, restored: int, torn: bytes) -> None:
    log_steps(tmp_path / "whole", None, 1, 10)
    log_steps(tmp_path / "cut", None, 1, 7)
    with (tmp_path / "cut" / "metrics.jsonl").open("ab") as f:
        f.write(torn)
    log_steps(tmp_path / "cut", restored, restored + 1, 10)
    whole, cut = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut"))
    assert cut == whole
    assert read_metrics(tmp_path / "cut") == [{"step": s, **numbers(s)} for s in range(1, 11)]


def test_a_fresh_log_keeps_nothing_of_an_older_one(tmp_path: Path) -> None:
    log_steps(tmp_path, None, 0, 5)
    log_steps(tmp_path, None, 0, 2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2]


def test_each_line_is_on_disk_at_once_and_is_json_even_for_nan(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as log:
        log.write(1, {"loss": math.nan, "norm": math.inf, "ok": 2})
        line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(name)) == {
        "step": 1, "loss": None, "norm": None, "ok": 2.0,
    }  # fmt: skip
    assert math.isnan(read_metrics(tmp_path)[0]["loss"])


def test_tensorboard_gets_the_scalars_and_the_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Event] = []
    monkeypatch.setattr(EventFileWriter, "add_event", lambda _, event: seen.append(event))
    log_steps(tmp_path, 3, 4, 5)
    scalars = [(e.step, v.tag) for e in seen for v in e.summary.value]
    assert scalars == [(4, "loss"), (4, "tokens"), (5, "loss"), (5, "tokens")]
    assert [e.step for e in seen if e.session_log.status == e.session_log.START] == [4]
    assert len(list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))) == 1


@pytest.mark.parametrize("line", ["loss 3\n", '{"loss": 3}\n', "3\n"])
def test_a_metrics_file_that_is_not_ours_is_named_and_kept(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line)
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        MetricsLog(tmp_path, 3)
    assert (tmp_path / "metrics.jsonl").read_text() == line
