"""What the layers of several families are made of."""

from __future__ import annotations

import zlib
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Far below any score, yet finite: a row whose source is all padding averages instead of turning into NaN.
MASKED = -1e9

KeysValues = tuple[jax.Array, jax.Array]  # each [B, H, S, d_kv]


def mask_bias(visible: jax.Array) -> jax.Array:
    """Additive form of a boolean mask: 0 where visible, `MASKED` elsewhere."""
    return jnp.where(visible, 0.0, MASKED).astype(jnp.float32)


def seed_of(seed_2: jax.Array | None, place: str) -> jax.Array | None:
    """The seed of a part of a network, so that each part has masks of its own; None stays None."""
    if seed_2 is None:
        return None
    salt = np.uint32(zlib.crc32(place.encode()))
    return jnp.stack([seed_2[0] ^ salt, seed_2[1] + salt])


def dropout(x: jax.Array, rate: float, seed_2: jax.Array | None, place: str) -> jax.Array:
    """Inverted dropout of `x`; the identity without a seed.

    `seed_2` (uint32) is drawn once per forward pass, and of a layer made by `seed_of`: layers that are alike are traced
    once, so that within one nothing may depend on where it stands. `place` names what is dropped there. The bits come
    from a 32-bit integer mixer over the element's index (the constants are those of the low-bias search in Wellons'
    "hash-prospector"): XLA fuses it into the neighbouring arithmetic, which makes dropout nearly free on a CPU, where
    threefry took a quarter of the whole train step.
    """
    own_2 = seed_of(seed_2, place)
    if own_2 is None or rate == 0.0:
        return x
    bits = jax.lax.iota(jnp.uint32, x.size).reshape(x.shape) * np.uint32(0x9E3779B9) + own_2[0]
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15) ^ own_2[1]) * np.uint32(0x846CA68B)
    kept = (bits ^ (bits >> 16)) >= np.uint32(round(rate * 2**32))
    return jnp.where(kept, x * (1.0 / (1.0 - rate)), 0.0).astype(x.dtype)


def traced_once(block: type[nn.Module]) -> dict[bool, type[nn.Module]]:
    """A kind of layer, and (True) one that is computed again for the gradient, each traced once for all that are alike.

    Tracing 30 layers one by one takes a second of each program, and more of one with a gradient. They are not for
    initialisation, where each layer draws what is its own.
    """
    return {remat: nn.jit(nn.remat(block) if remat else block) for remat in (False, True)}


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def wide_einsum(spec: str, left: jax.Array, right: jax.Array) -> jax.Array:
    """`jnp.einsum` of two arrays of one dtype, its result in float32.

    The gradient of the result is rounded to that dtype before it is multiplied. Left to differentiation it would stay
    float32 and make the two products of the backward pass float32 products, half as fast on an accelerator.
    """
    return jnp.einsum(spec, left, right, preferred_element_type=jnp.float32)


def _wide_forward(spec: str, left: jax.Array, right: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return wide_einsum(spec, left, right), (left, right)


def _wide_backward(spec: str, factors: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array, ...]:
    _, pull = jax.vjp(partial(jnp.einsum, spec), *factors)
    slopes: tuple[jax.Array, ...] = pull(slope.astype(factors[0].dtype))
    return slopes


wide_einsum.defvjp(_wide_forward, _wide_backward)


class Linear(nn.Module):
    """A linear map, [B, T, F] to [B, T, `width`], its kernel drawn with standard deviation `std`.

    The product is taken of two matrices: contracting over B and T at once, as the gradient of a three-way
    product does, makes XLA on a CPU copy its operands first, a fifth of the time of a feed-forward layer. The result is
    of that `dtype`, or, `wide`, float32. What a low-rank adapter beside the kernel adds is added (`models.lora`).
    """

    dtype: str
    width: int
    std: float
    wide: bool = False
    bias: bool = False

    @nn.compact
    def __call__(self, x_BxTxF: jax.Array) -> jax.Array:
        rows, length, depth = x_BxTxF.shape
        shape = (depth, self.width)
        kernel = self.param("kernel", nn.initializers.normal(self.std), shape, jnp.float32)
        product = wide_einsum if self.wide else jnp.einsum
        x_XxF = x_BxTxF.reshape(rows * length, depth)
        y_XxW = product("xf,fw->xw", x_XxF, kernel.astype(self.dtype))
        if self.has_variable("params", "lora_b"):
            down_FxR, up_RxW, scale = (
                jnp.asarray(self.get_variable("params", f"lora_{part}"), self.dtype) for part in ("a", "b", "scale")
            )
            y_XxW += scale * (x_XxF @ down_FxR @ up_RxW)
        if self.bias:
            bias_W = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
            y_XxW += bias_W.astype(y_XxW.dtype)[None]
        return y_XxW.reshape(rows, length, self.width)


def write_at(past_BxHxSxE: jax.Array, new_BxHxNxE: jax.Array, position: jax.Array) -> jax.Array:
    """`past` with slots `position` .. `position` + N - 1 overwritten; `position` is [] or, one per row, [B].

    Positions beyond the cache are the caller's error; XLA clamps them.
    """
    if jnp.ndim(position) == 0:
        return jax.lax.dynamic_update_slice_in_dim(past_BxHxSxE, new_BxHxNxE, position, axis=2)
    write_rows = jax.vmap(lambda past, new, at: jax.lax.dynamic_update_slice_in_dim(past, new, at, axis=1))
    return write_rows(past_BxHxSxE, new_BxHxNxE, position)
