"""What a lazy teacher has not read yet, some positions at a time.

The teacher answers only where it is asked. It has not seen what the student wrote since, so a call first processes
these tokens, `SPAN` at once, as in the verification of speculative decoding (arXiv 2211.17192).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kdtw_jax.models import Cache, Decoded, Model, Params

SPAN = 8  # positions that the teacher processes at once; a longer span takes several passes


def decoder_inputs(tokens_BxT: jax.Array) -> jax.Array:
    """What the decoder reads of these tokens, int32 [B, 1 + T + SPAN]: the start token, which is padding, comes first.

    A span may begin at any token and is whole also where it reaches past the end.
    """
    return jnp.pad(tokens_BxT, ((0, 0), (1, SPAN)))


def read_span(
    network: tuple[Model, Params], cache: Cache, inputs_BxX: jax.Array, place_BxN: jax.Array
) -> tuple[Decoded, Cache]:
    """Feeds a model the inputs at N successive places of every row; its answers to each, and its cache thereafter.

    Args:
      inputs_BxX: as `decoder_inputs` gives them.
      place_BxN: int32, of which each row goes up by 1; rows may begin at different places.
    """
    model, params = network
    span_BxN = jnp.take_along_axis(inputs_BxX, place_BxN, axis=1)
    decoded, cache = model.extend(params, cache, span_BxN, place_BxN[:, 0])
    return decoded, cache


def successive(first_B: jax.Array, count: int) -> jax.Array:
    """The `count` places from `first_B` on, int32 [B, count]."""
    return first_B[:, None] + jnp.arange(count, dtype=jnp.int32)[None, :]
