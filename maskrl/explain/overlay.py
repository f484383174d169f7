"""A mask laid over the frame, exactly where the network saw it.

The network sees rows view[0]:view[1] of the frame and all columns, squeezed to a square, and its
mask is a grid of 10 x 10 cells over that square. Laying it over the frame undoes this: every cell
covers its tenth of the view's rows and of the columns, whole, with nothing smoothed between cells.
Rows outside the view are left as they are. Under the mask the frame stands in grey, which is how
the network sees it, so that all colour is the mask's.
"""

import dataclasses
import functools

import numpy as np
from matplotlib import colormaps

from maskrl.errors import UserError
from maskrl.recording import Recording

OPACITY = 0.6  # of the mask's colours over the grey frame
COLOUR_MAP = "inferno"  # its lightness rises evenly: readable in grey and to colour-blind people


@dataclasses.dataclass(frozen=True)
class Scale:
    """Which mask values take the first and the last colour, and how they were chosen."""

    low: float
    high: float
    name: str
    colour_map: str = COLOUR_MAP  # of matplotlib

    @property
    def words(self) -> str:
        """The scale in words: every picture of a mask carries them."""
        return f"{self.name} scale, {self.low:.2g} to {self.high:.2g}"


ABSOLUTE = Scale(0.0, 1.0, "absolute")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One branch's mask over a whole recording, and the colours it is drawn in."""

    mask: np.ndarray  # float32 [T, 10, 10]
    scale: Scale


def layers(recording: Recording, branch: str = "both", contrast: bool = True) -> dict[str, Layer]:
    """The masks to draw, by branch: "policy", "value".

    Args:
      recording: the game.
      branch: policy, value, or both, which means those that the agent has, if any.
      contrast: stretch the colours over the recording, or span 0 to 1.

    Raises:
      UserError: the agent lacks the mask that was asked for by name.
    """
    masks = recording.masks()
    if branch != "both":
        if branch not in masks:
            raise UserError(
                f"the agent of this {recording.game} game has no {branch} mask "
                f"(its masks: {', '.join(masks) or 'none'})"
            )
        masks = {branch: masks[branch]}
    return {
        name: Layer(mask, contrast_scale(mask) if contrast else ABSOLUTE)
        for name, mask in masks.items()
    }


def contrast_scale(mask: np.ndarray) -> Scale:
    """The scale from the 1st to the 99th percentile of a recording's mask, float32 [T, 10, 10].

    A mask that hardly varies (by less than 0.01) is not stretched: it gets the absolute scale.
    """
    low, high = (float(q) for q in np.percentile(mask, [1, 99]))
    return Scale(low, high, "contrast-stretched") if high - low >= 0.01 else ABSOLUTE


def difference_scale(*differences: np.ndarray) -> Scale:
    """The scale of masks' differences, blue below zero, red above, to the largest of them."""
    most = max(float(np.abs(d).max()) for d in differences) or 1.0
    return Scale(-most, most, "difference", "coolwarm")


def colours(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Mask values, float [...], as uint8 [..., 3] RGB; values beyond the scale take its ends."""
    position = (values - scale.low) / (scale.high - scale.low)
    return _table(scale.colour_map)[np.round(np.clip(position, 0, 1) * 255).astype(np.uint8)]


def spread(cells: np.ndarray, view: tuple[int, int], width: int = 160) -> np.ndarray:
    """Cells [n, n, ...] laid over the view: [view[1] - view[0], width, ...].

    A pixel belongs to the cell in which its centre lies.
    """
    rows, columns = (
        ((np.arange(size) + 0.5) * n / size).astype(int)
        for n, size in zip(cells.shape, (view[1] - view[0], width), strict=False)
    )
    return cells[:, columns][rows]


def overlay(
    frame: np.ndarray,
    mask: np.ndarray,
    view: tuple[int, int],
    scale: Scale = ABSOLUTE,
    opacity: float = OPACITY,
) -> np.ndarray:
    """The mask over the frame.

    Args:
      frame: uint8 [210, 160, 3], RGB.
      mask: float [10, 10] in [0, 1].
      view: rows [top, bottom) of the frame that the network sees.
      scale: which mask values take the first and the last colour.
      opacity: 0 shows the grey frame alone, 1 the mask alone.

    Returns:
      uint8 [210, 160, 3], RGB.
    """
    top, bottom = view
    cover = spread(colours(mask, scale).astype(np.float32) * opacity, view, frame.shape[1])
    cover += ((1 - opacity) * grey(frame[top:bottom]))[..., None]
    cover += 0.5  # rounds
    result = frame.copy()
    result[top:bottom] = cover.astype(np.uint8)
    return result


def grey(frame: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] RGB as the network sees it: float32 [...] in 0..255, the channels' mean."""
    red, green, blue = (frame[..., channel].astype(np.float32) for channel in range(3))
    return (red + green + blue) / 3


def scale_bar(scale: Scale, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: the scale's colours as they look over black (top) to white.

    What lies under the mask changes the colour on the screen, so the bar shows both.
    """
    values = np.linspace(scale.low, scale.high, width)
    under = np.linspace(0, 255, height)[:, None, None]
    return np.round(OPACITY * colours(values, scale) + (1 - OPACITY) * under).astype(np.uint8)


@functools.cache
def _table(colour_map: str) -> np.ndarray:
    """uint8 [256, 3]: the colour map's colours."""
    return colormaps[colour_map](np.arange(256), bytes=True)[:, :3]
