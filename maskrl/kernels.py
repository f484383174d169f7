"""Convolutions written as matrix products, with hand-written gradients, for XLA on a CPU.

XLA's forward convolutions on a CPU run near the speed of its matrix products; their gradients do
not (kernel gradients: a tenth of it; the gradient of a convolution inside `lax.scan`: a hundredth).
And only matrix products, not convolutions, use a CPU's bfloat16 units (AMX). So this module

* writes a kernel's gradient as `d_out^T @ patches`, a few images at a time, so that patches stay in
  a core's cache;
* takes a convolution and its pooling, for their gradients, as one matrix product over windows with
  stride 2, whose columns are the four pixels of a pooling window; but in float32 on a CPU, where
  products are dear, the 3x3 ones pixel by pixel;
* hoists out of the ConvLSTM's recurrence all that does not depend on `h`, in both directions;
* hands out what the gradients need (`saved`) and takes it back: acting has computed it already, by
  the very parameters at which the learner takes the gradient.

`dtype` is the type of the inputs of the matrix products: float32, or bfloat16, which rounds them
only; sums, pointwise arithmetic and results are float32. Forward, the pooled convolutions are XLA's
own, in float32 whatever the `dtype`: as bfloat16 products they take longer.

A GPU or a TPU takes the same functions, in float32 and all images at once: under `vmap` over actors
a product with patches stays one batched product, where a convolution's gradient to its kernel
becomes a grouped convolution with windows as large as the image. Use the plain ones (`plain_*`)
where gradients to the frames (saliency) or of higher order are wanted.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

# --------------------------------------------------------------------------- plain twins


def plain_conv_same(x: Array, kernel: Array) -> Array:
    """Same-padded convolution: `[N, H, W, Ci]`, `[k, k, Ci, Co]` -> `[N, H, W, Co]`."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def plain_conv_pool(x: Array, kernel: Array, bias: Array, saved: None = None):
    """As `conv_pool`, with derivatives by JAX; it saves nothing."""
    y = plain_conv_same(x, kernel) + bias
    window = (1, 2, 2, 1)
    out = jax.nn.relu(lax.reduce_window(y, -jnp.inf, lax.max, window, window, "VALID"))
    return out, saved


def plain_convlstm_unroll(
    gates_x: Array, kernel_h: Array, h0: Array, c0: Array, is_first: Array, saved: None = None
):
    """As `convlstm_unroll`, with derivatives by JAX; it saves nothing."""
    h, c, rows = h0, c0, []
    for gates, first in zip(gates_x, is_first, strict=True):
        h, c = (jnp.where(first[:, None, None, None], 0.0, s) for s in (h, c))
        i, f, o, g = jnp.split(gates + plain_conv_same(h, kernel_h), 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        rows.append(h)
    return jnp.stack(rows), (h, c), saved


# --------------------------------------------------------------------------- building blocks

# On a CPU images are taken in chunks of about this many output pixels: one chunk's patches and
# products stay in a core's second-level cache.
_CHUNK_PIXELS = 700


def _is_bfloat16(dtype: DTypeLike) -> bool:
    return jnp.dtype(dtype) == jnp.bfloat16


def _matmul(a: Array, b: Array, dtype: DTypeLike) -> Array:
    """`a @ b` with inputs rounded to `dtype`, accumulated in float32."""
    # The barriers keep XLA from folding a neighbouring transposition into the product: its CPU
    # backend then has no bfloat16 implementation ("Unsupported element type for DotThunk").
    a, b = lax.optimization_barrier((a.astype(dtype), b.astype(dtype)))
    return lax.optimization_barrier(jnp.dot(a, b, preferred_element_type=jnp.float32))


def _pack(x: Array, dtype: DTypeLike) -> Array:
    """Rounds to `dtype`; two bfloat16 channels, c and c + C/2, share one uint32: `[..., C/2]`.

    XLA's CPU loops handle 32-bit elements several times faster than bfloat16. Unpacked, channels
    stand in the order of `_packed_order`.
    """
    if not _is_bfloat16(dtype) or x.shape[-1] % 2:
        return x
    bits = lax.bitcast_convert_type(x.astype(dtype), jnp.uint16).astype(jnp.uint32)
    low, high = jnp.split(bits, 2, axis=-1)
    return low | (high << 16)


def _packed_order(channels: int, dtype: DTypeLike, inverse: bool = False) -> np.ndarray:
    order = np.arange(channels)
    if _is_bfloat16(dtype) and channels % 2 == 0:
        order = order.reshape(2, -1).T.ravel()
    return np.argsort(order) if inverse else order


def _patches(x: Array, taps: int, pad: tuple[int, int]) -> Array:
    """`taps x taps` windows of (packed) `[N, H, W, C]`, zero-padded: `[N H' W', taps taps C]`."""
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), pad, pad, (0, 0))))
    _, height, width, c = x.shape
    height, width = height - taps + 1, width - taps + 1
    slices = [
        x[:, i : i + height, j : j + width].reshape(-1, c) for i in range(taps) for j in range(taps)
    ]
    # The barrier stores the slices: fused with the concatenation, they cost a branch per element,
    # and three to six times the time.
    return _unpacked(jnp.concatenate(lax.optimization_barrier(slices), axis=-1))


def _unpacked(x: Array) -> Array:
    """The bfloat16 numbers of packed `[N, C/2]`: `[N, C]`; what is not packed stays."""
    if x.dtype != jnp.uint32:
        return x
    return lax.bitcast_convert_type(x, jnp.bfloat16).reshape(x.shape[0], -1)


def _transposed(a: Array, dtype: DTypeLike) -> Array:
    """`a.T`, stored row by row in `dtype`."""
    a = a.T.astype(dtype)
    if _is_bfloat16(dtype) and a.shape[1] % 2 == 0:
        # XLA gives a plain transposition a column-major layout, for which its CPU backend has no
        # bfloat16 product (it converts to float32 and copies); a change of element size pins rows.
        pairs = lax.bitcast_convert_type(a.reshape(a.shape[0], -1, 2), jnp.uint32)
        a = lax.bitcast_convert_type(pairs, dtype).reshape(a.shape)
    return a


def _flipped(kernel: Array) -> Array:
    """The kernel whose convolution is the transpose of `kernel`'s: `[k, k, Co, Ci]`."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _as_matrix(kernel: Array) -> Array:
    return kernel.reshape(-1, kernel.shape[-1])


def _chunked(arrays: Sequence[Array], pixels: int) -> tuple[list[Array], int]:
    """Splits the leading axis N into `[N / n, n]`, n near `_CHUNK_PIXELS / pixels` (a CPU's) or N.

    Returns the chunks, zero-padded where no n nearby divides N, and N.
    """
    total = arrays[0].shape[0]
    if jax.default_backend() != "cpu":
        return [a[None] for a in arrays], total
    wanted = max(1, min(total, round(_CHUNK_PIXELS / pixels)))
    even = [n for n in range(-(-wanted // 2), min(total, 2 * wanted) + 1) if total % n == 0]
    size = min(even, key=lambda n: abs(n - wanted), default=wanted)
    chunks = -(-total // size)
    padding = chunks * size - total
    if padding:
        arrays = [jnp.pad(a, ((0, padding),) + ((0, 0),) * (a.ndim - 1)) for a in arrays]
    return [a.reshape(chunks, size, *a.shape[1:]) for a in arrays], total


def _unchunked(x: Array, total: int) -> Array:
    return x.reshape(-1, *x.shape[2:])[:total]


def _in_chunks(function: Callable[[Array], Any], x: Array, pixels: int) -> Any:
    """`function` of x `[N, ...]`, whose results are `[N, ...]`, too."""
    (chunks,), total = _chunked([x], pixels)
    if chunks.shape[0] == 1:
        return function(x)
    return jax.tree.map(lambda y: _unchunked(y, total), lax.map(function, chunks))


# --------------------------------------------------------------------------- same convolution


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv_same(x: Array, kernel: Array, dtype: DTypeLike = jnp.float32) -> Array:
    """Same-padded convolution with odd kernel.

    Args: x `[N, H, W, Ci]`; kernel `[k, k, Ci, Co]`; dtype of the products' inputs.
    Returns: `[N, H, W, Co]`, float32.
    """
    return _conv(x, kernel, dtype)


def _conv_same_fwd(x, kernel, dtype):
    return conv_same(x, kernel, dtype), (x, kernel)


def _conv_same_bwd(dtype, residuals, d_out):
    x, kernel = residuals
    return _input_gradient(kernel, dtype)(d_out), _kernel_grad(x, d_out, kernel.shape[0], dtype)


def _conv(x: Array, kernel: Array, dtype: DTypeLike) -> Array:
    if not _is_bfloat16(dtype):
        return plain_conv_same(x, kernel)
    k, _, ci, co = kernel.shape
    matrix = _as_matrix(kernel[:, :, _packed_order(ci, dtype)])

    def product(x):
        patches = _patches(_pack(x, dtype), k, (k // 2,) * 2)
        return _matmul(patches, matrix, dtype).reshape(*x.shape[:3], co)

    return _in_chunks(product, x, x.shape[1] * x.shape[2])


def _input_gradient(kernel: Array, dtype: DTypeLike) -> Callable[[Array], Array]:
    """Gradient of a same convolution to its input: `[N, H, W, Co]` -> `[N, H, W, Ci]`.

    Made outside a loop, it turns the kernel once.
    """
    if not _is_bfloat16(dtype):
        flipped = lax.optimization_barrier(_flipped(kernel))
        return lambda d_out: plain_conv_same(d_out, flipped)
    k, _, ci, co = kernel.shape
    matrix_t = _transposed(_as_matrix(kernel), dtype)

    def scatter(d_out):
        n, h, w, _ = d_out.shape
        d_patches = _matmul(d_out.reshape(-1, co), matrix_t, dtype).reshape(n, h, w, k, k, ci)
        p = k // 2
        d_patches = jnp.pad(d_patches, ((0, 0), (p, p), (p, p), (0, 0), (0, 0), (0, 0)))
        d_patches = lax.optimization_barrier(d_patches)
        starts = [(i, j) for i in range(k) for j in range(k)]
        return sum(
            d_patches[:, 2 * p - i : 2 * p - i + h, 2 * p - j : 2 * p - j + w, i, j]
            for i, j in starts
        )

    return lambda d_out: _in_chunks(scatter, d_out, d_out.shape[1] * d_out.shape[2])


def _kernel_grad(x: Array, d_out: Array, k: int, dtype: DTypeLike) -> Array:
    """Gradient of a same convolution to its kernel: `[k, k, Ci, Co]`."""
    chunks, _ = _chunked([x, d_out], x.shape[1] * x.shape[2])

    def add(total, chunk):
        x, d_out = chunk
        patches = _patches(_pack(x, dtype), k, (k // 2,) * 2)
        d_out_t = _transposed(d_out.reshape(-1, d_out.shape[-1]), dtype)
        return total + _matmul(d_out_t, patches, dtype), None

    zero = jnp.zeros((d_out.shape[-1], k * k * x.shape[-1]))
    total, _ = lax.scan(add, zero, chunks)
    ci = x.shape[-1]
    return total.T.reshape(k, k, ci, -1)[:, :, _packed_order(ci, dtype, inverse=True)]


conv_same.defvjp(_conv_same_fwd, _conv_same_bwd)


# --------------------------------------------------------------------------- pooled convolution


def _windows(x: Array, size: int) -> Array:
    """The part of zero-padded (packed) `[N, H, W, C]` that each 2x2 pixels' outputs depend on.

    Returns: `[N H/2 W/2, size size C]`, for a kernel of `size - 1`.
    """
    n, h, w, c = x.shape
    pad = size // 2 - 1
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    # Two neighbouring pixels of a row are one run of memory.
    x = lax.optimization_barrier(x).reshape(n, h // 2 + pad, 2, w // 2 + pad, 2 * c)
    slices = [
        x[:, i : i + h // 2, row, j : j + w // 2].reshape(-1, 2 * c)
        for i in range(size // 2)
        for row in (0, 1)
        for j in range(size // 2)
    ]
    return _unpacked(jnp.concatenate(lax.optimization_barrier(slices), axis=-1))


def _unblocks(x: Array, pad: int) -> Array:
    """Channels `[.., 4C]` to 2x2 pixels, less a rim of `pad`: `[N, 2H - 2 pad, 2W - 2 pad, C]`."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(n, 2 * h, 2 * w, c // 4)
    return x[:, pad : 2 * h - pad, pad : 2 * w - pad]


def _four_shifts(kernel: Array) -> Array:
    """The kernel at each pixel of a pooling window: `[k, k, Ci, Co]` -> `[k+1, k+1, Ci, 4 Co]`."""
    shifts = [
        jnp.pad(kernel, ((i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i in (0, 1) for j in (0, 1)
    ]
    return jnp.concatenate(shifts, axis=3)


def _blocks_of_kernel(shifts: Array) -> Array:
    """2x2 blocks moved into channels: `[k+1, k+1, Ci, 4 Co]` -> `[t, t, 4 Ci, 4 Co]`."""
    size, _, ci, co = shifts.shape
    shifts = shifts.reshape(size // 2, 2, size // 2, 2, ci, co).transpose(0, 2, 1, 3, 4, 5)
    return shifts.reshape(size // 2, size // 2, 4 * ci, co)


class SavedPool(NamedTuple):
    """A pooled convolution's output, and where each maximum was."""

    out: Array  # float32 [N, H/2, W/2, Co]
    winner: Array  # int8, 0 to 3 in row-major order; -1 where ReLU is 0


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def conv_pool(
    x: Array,
    kernel: Array,
    bias: Array,
    saved: SavedPool | None = None,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Array, SavedPool]:
    """`relu(max_pool_2x2(conv_same(x, kernel) + bias))`.

    Of equal maxima, the first in row-major order receives the gradient, as in PyTorch.
    Where Ci is 1, x is taken for a frame, of which nobody asks the gradient while learning: its
    gradient is right, and free where unused.

    Args: x `[N, H, W, Ci]`, H and W even; kernel `[k, k, Ci, Co]`, k odd; bias `[Co]`; saved by an
      earlier call with the same arguments, if there was one: the output is then not computed again.
    Returns: `[N, H/2, W/2, Co]`, float32; and what was saved, through which no gradient flows.
    """
    saved = _pooled(x, kernel, bias) if saved is None else saved
    return saved.out, saved


def _conv_pool_fwd(x, kernel, bias, saved, dtype):
    out, saved = conv_pool(x, kernel, bias, saved, dtype)
    return (out, saved), (x, kernel, saved.winner)


def _pooled(x, kernel, bias) -> SavedPool:
    def pooled(x):
        y = lax.optimization_barrier(plain_conv_same(x, kernel))
        groups = [y[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        top, winner = groups[0], jnp.zeros(groups[0].shape, jnp.int8)
        for g in range(1, 4):
            winner = jnp.where(groups[g] > top, jnp.int8(g), winner)
            top = jnp.maximum(top, groups[g])
        out = jax.nn.relu(top + bias)
        return SavedPool(out, jnp.where(out > 0, winner, jnp.int8(-1)))

    return _in_chunks(pooled, x, x.shape[1] * x.shape[2] // 4)


def _conv_pool_bwd(dtype, residuals, cotangents):
    x, kernel, winner = residuals
    d_out, _ = cotangents
    k, _, ci, co = kernel.shape
    if ci > 1 and jax.default_backend() == "cpu" and not _is_bfloat16(dtype):
        return *_conv_pool_grads(x, kernel, winner, d_out), None
    t, pad = (k + 1) // 2, k // 2
    chunks, total = _chunked([x, winner, d_out], d_out.shape[1] * d_out.shape[2])
    matrix_t = _flipped(_blocks_of_kernel(_four_shifts(kernel)))[:, :, _packed_order(4 * co, dtype)]
    matrix_t = _as_matrix(matrix_t).astype(dtype)
    group = jnp.arange(4, dtype=jnp.int8)

    def add(sums, chunk):
        x, winner, d_out = chunk
        n, h, w, _ = d_out.shape
        d_kernel, d_bias = sums
        d_bias = d_bias + jnp.where(winner >= 0, d_out, 0.0).sum((0, 1, 2))
        patches = _windows(_pack(x, dtype), k + 1)
        if ci == 1:
            # As `_packed_groups`, whose form XLA takes three times as long to multiply here.
            d_groups = jnp.where(winner[..., None, :] == group[:, None], d_out[..., None, :], 0.0)
            d_groups = _unpacked(_pack(d_groups.reshape(n * h * w, 4 * co), dtype))
            # The patches are the narrower ones to transpose.
            return (d_kernel + _matmul(_transposed(patches, dtype), d_groups, dtype), d_bias), ()
        winner_t, d_out_t = (a.reshape(-1, co).T for a in (winner, d_out))
        d_groups_t = jnp.where(winner_t == group[:, None, None], d_out_t, 0.0)
        d_groups_t = d_groups_t.reshape(4 * co, -1).astype(dtype)
        d_kernel = d_kernel + _matmul(d_groups_t, patches, dtype)
        d_groups = lax.optimization_barrier(_packed_groups(d_out, winner, dtype))
        d_blocks = _matmul(_patches(d_groups, t, (t - 1, t - 1)), matrix_t, dtype)
        d_x = _unblocks(d_blocks.reshape(n, h + t - 1, w + t - 1, 4 * ci), pad)
        return (d_kernel, d_bias), d_x

    size = ((k + 1) ** 2 * ci, 4 * co)
    zeros = jnp.zeros(size if ci == 1 else size[::-1]), jnp.zeros(co)
    (d_shifts, d_bias), d_x = lax.scan(add, zeros, chunks)
    d_shifts = d_shifts[:, _packed_order(4 * co, dtype, inverse=True)] if ci == 1 else d_shifts.T
    d_shifts = d_shifts.reshape(k + 1, k + 1, ci, 4 * co)
    (d_kernel,) = jax.linear_transpose(_four_shifts, kernel)(d_shifts)
    d_kernel = d_kernel[:, :, _packed_order(ci, dtype, inverse=True)]
    d_x = _first_layer_input_grad(d_out, winner, kernel) if ci == 1 else _unchunked(d_x, total)
    return d_x, d_kernel, d_bias, None


def _conv_pool_grads(x, kernel, winner, d_out) -> tuple[Array, Array, Array]:
    """Gradients to x, kernel and bias by way of every pixel's, in float32.

    Windows of 4x4 for four pixels are 16 products a pixel where 3x3 are 9: bfloat16 units make up
    for that, float32 ones do not.
    """
    chunks, total = _chunked([x, winner, d_out], x.shape[1] * x.shape[2])
    input_gradient = _input_gradient(kernel, jnp.float32)

    def add(sums, chunk):
        x, winner, d_out = chunk
        d_kernel, d_bias = sums
        d_y = _unblocks(_packed_groups(d_out, winner, jnp.float32), 0)
        d_y = lax.optimization_barrier(d_y)
        d_kernel = d_kernel + _kernel_grad(x, d_y, kernel.shape[0], jnp.float32)
        d_bias = d_bias + jnp.where(winner >= 0, d_out, 0.0).sum((0, 1, 2))
        return (d_kernel, d_bias), input_gradient(d_y)

    zeros = jnp.zeros_like(kernel), jnp.zeros(kernel.shape[-1])
    (d_kernel, d_bias), d_x = lax.scan(add, zeros, chunks)
    return _unchunked(d_x, total), d_kernel, d_bias


def _packed_groups(d_out: Array, winner: Array, dtype: DTypeLike) -> Array:
    """The gradients of a window's four pixels, 0 but the winner's: (packed) `[N, h, w, 4 Co]`."""
    winner = winner.astype(jnp.int32)
    if _is_bfloat16(dtype):
        # As `_pack` would, but rounded once: pixels g and g + 2 share a number.
        bits = lax.bitcast_convert_type(d_out.astype(dtype), jnp.uint16).astype(jnp.uint32)
        high = bits << 16
        pixels = [jnp.where(winner == g, bits, jnp.where(winner == g + 2, high, 0)) for g in (0, 1)]
    else:
        pixels = [jnp.where(winner == g, d_out, 0.0) for g in range(4)]
    return jnp.concatenate(pixels, axis=-1)


def _first_layer_input_grad(d_out, winner, kernel):
    d_pixels = _packed_groups(d_out, winner, jnp.float32)
    return plain_conv_same(_unblocks(d_pixels, 0), _flipped(kernel))


conv_pool.defvjp(_conv_pool_fwd, _conv_pool_bwd)


# --------------------------------------------------------------------------- ConvLSTM


class SavedUnroll(NamedTuple):
    """A ConvLSTM's states and gates (after their sigmoid or tanh), `[T, B, H, W, C]` each."""

    h: Array
    c: Array
    i: Array
    f: Array
    o: Array
    g: Array


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def convlstm_unroll(
    gates_x: Array,
    kernel_h: Array,
    h0: Array,
    c0: Array,
    is_first: Array,
    saved: SavedUnroll | None = None,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Array, tuple[Array, Array], SavedUnroll]:
    """Unrolls a ConvLSTM without peepholes; gates in the order i, f, o, g.

    Args:
      gates_x: `[T, B, H, W, 4C]`, the part of the gates that does not depend on h, with bias.
      kernel_h: `[k, k, C, 4C]`.
      h0, c0: `[B, H, W, C]`, the carry before row 0.
      is_first: `[T, B]` bool; where set, the carry is zeroed before that row.
      saved: by earlier calls with the same arguments, row by row or at once, if there were any:
        nothing is then computed again.
      dtype: of the inputs of the matrix products.

    Returns: h `[T, B, H, W, C]`, the last (h, c), and what was saved, through which no gradient
      flows.
    """
    if saved is None:
        saved = _convlstm_rows(gates_x, kernel_h, h0, c0, is_first, dtype)
    return saved.h, (saved.h[-1], saved.c[-1]), saved


def _convlstm_fwd(gates_x, kernel_h, h0, c0, is_first, saved, dtype):
    out = convlstm_unroll(gates_x, kernel_h, h0, c0, is_first, saved, dtype)
    return out, (kernel_h, h0, c0, is_first, out[-1])


def _convlstm_rows(gates_x, kernel_h, h0, c0, is_first, dtype) -> SavedUnroll:
    def step(carry, inputs):
        gates, first = inputs
        h, c = (jnp.where(first[:, None, None, None], 0.0, s) for s in carry)
        i, f, o, g = jnp.split(gates + _conv(h, kernel_h, dtype), 4, axis=-1)
        i, f, o, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(g)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), SavedUnroll(h, c, i, f, o, g)

    return lax.scan(step, (h0, c0), (gates_x, is_first))[1]


def _convlstm_bwd(dtype, residuals, cotangents):
    kernel_h, h0, c0, is_first, saved = residuals
    d_h_rows, d_carry, _ = cotangents
    t, b, height, width, _ = d_h_rows.shape
    kept = ~is_first[:, :, None, None, None]
    input_gradient = _input_gradient(kernel_h, dtype)
    h_before, c_before = (
        jnp.where(kept, jnp.concatenate([first[None], rows[:-1]]), 0.0)
        for first, rows in ((h0, saved.h), (c0, saved.c))
    )

    def step(carry, inputs):
        d_h, d_c = carry
        d_h_row, (_, c_after, i, f, o, g), c, keep = inputs
        tanh_c = jnp.tanh(c_after)
        d_h = d_h + d_h_row
        d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
        d_i = d_c * g * i * (1 - i)
        d_f = d_c * c * f * (1 - f)
        d_o = d_h * tanh_c * o * (1 - o)
        d_g = d_c * i * (1 - g * g)
        d_gates = jnp.concatenate([d_i, d_f, d_o, d_g], axis=-1)
        d_h = input_gradient(d_gates)
        return (d_h * keep, d_c * f * keep), d_gates

    (d_h0, d_c0), d_gates = lax.scan(step, d_carry, (d_h_rows, saved, c_before, kept), reverse=True)
    images, d_images = (a.reshape(t * b, height, width, -1) for a in (h_before, d_gates))
    d_kernel = _kernel_grad(images, d_images, kernel_h.shape[0], dtype)
    return d_gates, d_kernel, d_h0, d_c0, None, None


convlstm_unroll.defvjp(_convlstm_fwd, _convlstm_bwd)


# --------------------------------------------------------------------------- the choice


class Kernels(NamedTuple):
    """The three functions that a network is made of; see the ones of the same names above."""

    conv_same: Callable[..., Array]
    conv_pool: Callable[..., tuple[Array, SavedPool | None]]
    convlstm_unroll: Callable[..., tuple[Array, tuple[Array, Array], SavedUnroll | None]]


PLAIN = Kernels(plain_conv_same, plain_conv_pool, plain_convlstm_unroll)


def fast(dtype: DTypeLike) -> Kernels:
    """The hand-written ones, by products of inputs rounded to `dtype`."""
    return Kernels(
        lambda *args: conv_same(*args, dtype),
        lambda *args: conv_pool(*args, dtype),
        lambda *args: convlstm_unroll(*args, dtype),
    )


KERNELS = {"plain": PLAIN, "float32": fast(jnp.float32), "bfloat16": fast(jnp.bfloat16)}
