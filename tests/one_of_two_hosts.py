"""Run by test_hosts.py, once a process: trains, writes what came out if it is the one that writes."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")


def main(index: int, port: str, folder: Path) -> None:
    from kdtw_jax.parallel.hosts import HostsConfig, is_writer, join, wait

    join(HostsConfig(2, index, f"127.0.0.1:{port}"))

    from kdtw_jax import parallel
    from kdtw_jax.evaluation.decode import decode_split
    from kdtw_jax.methods.pcl import pcl
    from kdtw_jax.runs import open_run
    from kdtw_jax.training.saved import load_model, save_model
    from tests.world import BUCKETS, DISTIL, World, same

    world = World()
    devices = parallel.select_devices()
    assert len(devices) == 4 and len(jax.local_devices()) == 2
    with open_run(folder / "run", {"what": "two hosts"}) as run:
        context = world.context(folder / "run" / "pcl", 0, seed=3, stop_after=4)
        params = pcl(context, world.params, DISTIL)
        save_model(run.path / "model", world.config, params, world.tokenizer)
        run.mark_done("pcl")
        assert run.done("pcl")
        assert same(load_model(run.path / "model").params, params)
    texts = decode_split("t", world.model, params, world.data, BUCKETS, world.tokenizer, devices=devices).texts
    assert len(texts) == len(world.data)
    said = str(sorted(texts.items()))
    (folder / f"texts{index}").write_text(said, encoding="utf8")
    if is_writer():
        np.savez(folder / "params.npz", *jax.tree.leaves(params))
    wait("end")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
