"""Which model it is, by what it computes: the same name wherever its files lie and however they are laid out."""

from __future__ import annotations

import hashlib
import json

import jax
import numpy as np

from kdtw_jax.models import Model, Params, family_of
from kdtw_jax.models.roles import HEADS
from kdtw_jax.training.disk import leaves_by_place

_DIGITS = 16
# Of a configuration: rows that no token has, heads of ours, and how a pass is computed, not what.
_COMPUTED = ("vocab_size", "dropout_rate", "remat", "fused_attention")
_NO_PART = (*_COMPUTED, "value_heads", "gate_width", "rule_in_source", "rule_after")


def model_hash(model: Model, params: Params) -> str:
    """Hashes the weights of a model and what is computed with them: 16 hexadecimal digits of BLAKE2b (RFC 7693).

    Rows of zeros at the end of a vocabulary, as padding leaves them, and our own heads make no difference.

    Args:
      model: whose configuration counts, but for what changes nothing of its outputs.
      params: on a host, or small enough to be fetched.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in _NO_PART}
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    digest.update(json.dumps([family_of(model.config).name, config], sort_keys=True, default=str).encode())
    for name in sorted(set(params) - set(HEADS)):
        axis = model.vocabulary_axis(name)
        for place, leaf in sorted(leaves_by_place(params[name]).items()):
            x = _without_padding(np.asarray(jax.device_get(leaf)), axis)
            digest.update(f"{name}/{place} {x.dtype} {x.shape}".encode())
            digest.update(np.ascontiguousarray(x).view(np.uint8).data if x.size else b"")
    return digest.hexdigest()


def _without_padding(x: np.ndarray, axis: int | None) -> np.ndarray:
    if axis is None:
        return x
    rows = np.moveaxis(x, axis, 0)
    used = np.flatnonzero(rows.reshape(len(rows), -1).any(axis=1))
    return np.moveaxis(rows[: used[-1] + 1 if len(used) else 0], 0, axis)
