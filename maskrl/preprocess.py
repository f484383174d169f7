"""Frame -> network input: crop, resize, running normaliser. Pure functions, state passed through.

The two bilinear resizes of the original (rows to `resized_rows`, columns to 80; then rows to 80;
half-pixel centres, no antialiasing) are linear in the pixels and separable. Half as many columns
are the means of pairs; one matrix product does the rows, with the division by 255.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from maskrl.types import Normaliser

SIZE = 80  # the network's input is 80 x 80
DECAY = 0.9999  # of the running statistics


@dataclasses.dataclass(frozen=True)
class Crop:
    """Rows `top:bottom` of the frame, resized to `resized_rows` before they are resized to 80."""

    top: int = 34
    bottom: int = 34 + 160
    resized_rows: int = 80


# The original's crops (crop1, crop2 + 160, dim2); any other game takes the default.
CROPS = {
    "BeamRider": Crop(20, 20 + 160, 80),
    "MsPacman": Crop(2, 10 + 160, 84),
    "Seaquest": Crop(30, 30 + 160, 80),
    "SpaceInvaders": Crop(8, 36 + 160, 94),
}


def crop_of(game: str) -> Crop:
    """The part of the screen that the network sees in this game (`game` as EnvPool spells it)."""
    return CROPS.get(game, Crop())


def bilinear_matrix(rows_in: int, rows_out: int) -> np.ndarray:
    """float64 [rows_out, rows_in]: bilinear resize, half-pixel centres, no antialiasing."""
    centre = (np.arange(rows_out) + 0.5) * rows_in / rows_out - 0.5
    low = np.floor(centre).astype(int)
    weight = centre - low
    matrix = np.zeros((rows_out, rows_in))
    rows = np.arange(rows_out)
    np.add.at(matrix, (rows, np.clip(low, 0, rows_in - 1)), 1 - weight)
    np.add.at(matrix, (rows, np.clip(low + 1, 0, rows_in - 1)), weight)
    return matrix


@functools.cache
def _resize_matrix(crop: Crop) -> np.ndarray:
    """float32 [80, bottom - top]: from sums of two columns, in 0 to 510, to 80 rows in [0, 1]."""
    rows = bilinear_matrix(crop.resized_rows, SIZE) @ bilinear_matrix(
        crop.bottom - crop.top, crop.resized_rows
    )
    return (rows / (2 * 255)).astype(np.float32)


def resize(frame: chex.Array, crop: Crop) -> chex.Array:
    """uint8 [B, 210, 160] or RGB [B, 3, 210, 160] -> float32 [B, 80, 80] in [0, 1].

    Which of the two it is, is told by the rank (B may be 3); the channels of RGB are averaged (the
    original's grey).
    """
    chex.assert_type(frame, jnp.uint8)
    chex.assert_rank(frame, {3, 4})
    pixels = frame[..., crop.top : crop.bottom, :].astype(jnp.float32)
    if frame.ndim == 4:
        chex.assert_axis_dimension(frame, 1, 3)
        pixels = pixels.mean(axis=1)
    pairs = pixels[..., ::2] + pixels[..., 1::2]
    # One product for every frame: the other orders of [B, ...] cost transpositions.
    rows = jnp.broadcast_to(_resize_matrix(crop), (len(frame), SIZE, pixels.shape[-2]))
    # Full precision where it costs nothing: accelerators' defaults would round pixels to 8 bits.
    return jnp.matmul(rows, pairs, precision=jax.lax.Precision.HIGHEST)


def init_normaliser(batch_size: int) -> Normaliser:
    """The normaliser of environments that have shown no frame yet."""
    return Normaliser(
        mean=jnp.zeros(batch_size), std=jnp.zeros(batch_size), count=jnp.zeros(batch_size)
    )


def normalise(normaliser: Normaliser, pixels: chex.Array) -> tuple[Normaliser, chex.Array]:
    """Takes pixels [B, 80, 80] into the running statistics, then normalises with them.

    Returns:
      The new statistics, and float32 [B, 80, 80].
    """
    chex.assert_rank(pixels, 3)
    state = Normaliser(
        mean=DECAY * normaliser.mean + (1 - DECAY) * pixels.mean(axis=(1, 2)),
        std=DECAY * normaliser.std + (1 - DECAY) * pixels.std(axis=(1, 2)),
        count=normaliser.count + 1,
    )
    # 1 - DECAY**count loses four digits in float32 while count is small.
    correction = -jnp.expm1(state.count * np.log(DECAY))
    mean = (state.mean / correction)[:, None, None]
    std = (state.std / correction)[:, None, None]
    return state, (pixels - mean) / (std + 1e-8)
