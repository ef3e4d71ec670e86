"""Whose scores were no numbers where a training stopped: another model's than the one in training, perhaps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kdtw_jax import parallel
from kdtw_jax.data.batches import Bucket, EncodedSplit, evaluation_batches
from kdtw_jax.models import Model, shift_right
from kdtw_jax.training.state import Params


def blamed(
    models: Mapping[str, tuple[Model, Params]],
    data: EncodedSplit,
    buckets: Sequence[Bucket],
    examples: Sequence[int],
    devices: parallel.Devices,
) -> str | None:
    """The first of the named `models` whose scores of these examples' targets are not all finite; None where all are.

    For the message of a training that has ended: nothing is looked at while all goes well.
    """
    places = np.flatnonzero(np.isin(data.examples, np.asarray(examples)))
    part = dataclasses.replace(data.chosen(places), room=None)
    for name, (model, params) in models.items():

        def sound(params: Any, source_BxS: jax.Array, tokens_BxT: jax.Array, model: Model = model) -> jax.Array:
            decoded = model.decode(params, model.encode(params, source_BxS), shift_right(tokens_BxT))
            finite_BxT = jnp.all(jnp.isfinite(decoded.logits_BxTxV), axis=-1)
            behind_BxT = (tokens_BxT == 0).at[:, 0].set(False)  # the first state every source has, answered or not
            return jnp.all(finite_BxT | behind_BxT, axis=1)

        looking = parallel.map_batch(sound, parallel.place_params(params, devices))
        for batch in evaluation_batches(part, buckets):
            if not np.asarray(looking(batch.source_BxS, batch.target_BxT)).all():
                return name
    return None
