"""Two processes do one run together: the numbers of one process, one writer, checkpoints that either can go on with."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from kdtw_jax.errors import UserError
from kdtw_jax.methods.pcl import pcl
from kdtw_jax.parallel.hosts import HostsConfig
from kdtw_jax.runs import read_metrics
from tests.world import DISTIL, World

ROOT = Path(__file__).resolve().parents[1]


def together(folder: Path) -> None:
    """Runs one_of_two_hosts.py in two processes of two devices each."""
    folder.mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.one_of_two_hosts"]
    started = [
        subprocess.Popen([*command, str(index), str(port), str(folder)], cwd=ROOT, env=os.environ | flags,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for index in range(2)
    ]  # fmt: skip
    try:
        ended = [(process.communicate(), process.returncode) for process in started]
    finally:
        for process in started:
            process.kill()
    for (_, errors), code in ended:
        assert code == 0, errors
    shown = [re.findall(r"^t \d+/8", errors, re.MULTILINE) for (_, errors), _ in ended]
    assert shown[0] and not shown[1]  # one process speaks for all


@pytest.mark.long
def test_two_hosts_train_as_one_does_and_leave_what_one_can_go_on_with(tmp_path: Path) -> None:
    world = World()

    def alone(folder: Path) -> Any:
        return pcl(world.context(folder, seed=3), world.params, DISTIL)

    want = alone(tmp_path / "alone")
    together(tmp_path / "half")
    got = alone(tmp_path / "half" / "run" / "pcl")  # from the checkpoint of step 4, which two hosts have left
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), want, got)
    lines = [read_metrics(tmp_path / folder) for folder in ("alone", "half/run/pcl")]
    assert [line["step"] for line in lines[1]] == [2, 4, 6, 8]
    for one, other in zip(*lines, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert len(list((tmp_path / "half" / "run" / "pcl" / "tensorboard").iterdir())) == 2  # one a start, by one process
    texts = [(tmp_path / "half" / f"texts{index}").read_text(encoding="utf8") for index in range(2)]
    assert texts[0] == texts[1]


def test_hosts_that_cannot_meet_are_refused() -> None:
    with pytest.raises(UserError, match=r"hosts\.index must be in 0 to 1, got 2"):
        HostsConfig(2, 2, "127.0.0.1:1234")
    with pytest.raises(UserError, match="HOST:PORT of process 0, got 'nowhere'"):
        HostsConfig(2, 1, "nowhere")
