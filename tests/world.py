"""A small world for tests of training: a task, a vocabulary, a teacher, a student; settings that take seconds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Batch, Bucket, EncodedSplit, encode_split
from kdtw_jax.data.tokenizer import Tokenizer, train_tokenizer
from kdtw_jax.losses.pcl import PCLConfig
from kdtw_jax.methods.mle import MLEConfig
from kdtw_jax.methods.pcl_config import DistilConfig
from kdtw_jax.models import Model, Params, T5Config, make_model
from kdtw_jax.training.context import StudentTraining, TrainContext
from kdtw_jax.training.fresh import TeacherStates, read
from kdtw_jax.training.loop import LoopConfig
from kdtw_jax.training.state import OptimizerConfig, Whole

BUCKETS = (Bucket(8, 8, 8), Bucket(12, 12, 4))
WIDE = (Bucket(12, 12, 8),)
LOOP = LoopConfig(steps=8, log_every=2, checkpoint_every=4)
TRAINING = StudentTraining(loop=LOOP, optimizer=OptimizerConfig(1e-2, warmup_steps=1))
FIT = MLEConfig()
DISTIL = DistilConfig(
    pcl=PCLConfig(values="head", segment_lengths=(1, 2, 0)),
    updates_per_rollout=2,
    capacity=16,
    top_k=4,
    target_decay=0.9,
)


class World:
    """A reversal task, its vocabulary, a teacher and a student with other weights."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        words = [rng.choice(list("abcdefg"), size=rng.integers(1, 9)) for _ in range(200)]
        pairs = [{"source": " ".join(w), "target": " ".join(w[::-1]), "group": ""} for w in words]
        task: Any = SimpleNamespace(name="toy", splits={"train": pairs}, instruction="{source}")
        self.tokenizer: Tokenizer = train_tokenizer((p["source"] for p in pairs), vocab_size=30, exact=False)
        self.banned = self.tokenizer.banned_ids
        self.data: EncodedSplit = encode_split(
            task, "train", self.tokenizer, max_source=12, max_target=12, on_long="drop", instruct=False
        )
        self.config = T5Config.toy(self.tokenizer.vocab_size, dropout_rate=0.0)
        self.model: Model = make_model(self.config)
        self.params = jax.device_get(self.model.init(jax.random.key(0)))
        self.teacher = (self.model, jax.device_get(self.model.init(jax.random.key(1))))

    def context(self, folder: Path, devices: int = 1, **changes: Any) -> TrainContext:
        """Of a training of the student here, on so many devices, in `TRAINING` unless that is changed, too."""
        usual: dict[str, Any] = {"name": "t", "student": self.model, "teacher": self.teacher, "data": self.data}
        usual |= {"buckets": BUCKETS, "banned": self.banned, "tokenizer": self.tokenizer, "training": TRAINING}
        usual |= {"devices": parallel.select_devices(devices), "seed": 0}
        return TrainContext(**{**usual, "folder": folder, **changes})


def heard(model: Model, params: Params, batch: Batch) -> TeacherStates:
    """What a teacher makes of a whole batch."""
    hidden_BxTxD = read(model, params, jnp.asarray(batch.source_BxS), jnp.asarray(batch.target_BxT))
    return TeacherStates(hidden_BxTxD, Whole(model.output_layer(params)))


def same(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ) and jax.tree.structure(a) == jax.tree.structure(b)
