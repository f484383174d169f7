"""Masks laid over the frame, exactly where the network saw it.

The network sees rows view[0]:view[1] of the frame and all columns, squeezed to a square, and its
mask is a grid of 10 x 10 cells over that square. Laying it over the frame undoes this: every cell
covers its tenth of the view's rows and of the columns, whole, with nothing smoothed between cells.
Rows outside the view are left as they are.

Three styles. `spotlight`, the default: the game in its own colours, dimmed where the mask is low,
in a light of the branch's colour where it is high, with a line around the cells above half of the
scale. Dimming alone shows nothing on a black screen, and colours that cover the game hide what they
explain; of all tried on six games, in this one a reader both names the objects and says where the
mask is high. `contours`: only lines, around the cells above half and above three quarters of the
scale. `colours`: a colour map over the grey frame; it alone shows small differences exactly.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colormaps

from maskrl.errors import UserError
from maskrl.recording import MASK_CELLS, Recording

STYLES = ("spotlight", "contours", "colours")
STRENGTH = 0.55  # how much a spotlight dims, and how much colours cover
COLOUR_MAP = "inferno"  # its lightness rises evenly: readable in grey and to colour-blind people
LIGHT = {"policy": (255, 228, 110), "value": (0, 229, 255)}  # RGB, of spotlights and contours
HAZE = 0.42  # of the light, in a cell at the top of the scale, over black
CONTOURS = {"spotlight": (0.5,), "contours": (0.5, 0.75), "colours": ()}  # parts of the scale
_DASH = 4  # pixels: where two lines fall together they take turns
_CELLS = MASK_CELLS**2  # also the number of "no cell", outside the view


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
class Drawn:
    """One mask as it is drawn."""

    mask: np.ndarray  # float [10, 10] in [0, 1]
    scale: Scale = ABSOLUTE
    style: str = STYLES[0]
    light: tuple[int, int, int] = LIGHT["policy"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """One branch's mask over a whole recording, and how it is drawn."""

    mask: np.ndarray  # float32 [T, 10, 10]
    scale: Scale
    style: str = STYLES[0]
    light: tuple[int, int, int] = LIGHT["policy"]

    def at(self, t: int) -> Drawn:
        """The mask of frame t."""
        return Drawn(self.mask[t], self.scale, self.style, self.light)


def layers(
    recording: Recording,
    branch: str = "both",
    contrast: bool = True,
    style: str = STYLES[0],
    beside: Sequence[Recording] = (),
) -> dict[str, Layer]:
    """The masks to draw, by branch: "policy", "value".

    Args:
      recording: the game.
      branch: policy, value, or both, which means those that the agent has, if any.
      contrast: stretch the scale over the recording, or span 0 to 1.
      style: one of STYLES.
      beside: recordings of the same agent that are looked at beside this one: all share a scale.

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
        name: Layer(
            mask,
            shared_scale(
                contrast_scale(played)
                for played in (mask, *(other.masks().get(name) for other in beside))
                if played is not None
            )
            if contrast
            else ABSOLUTE,
            style,
            LIGHT[name],
        )
        for name, mask in masks.items()
    }


def contrast_scale(mask: np.ndarray) -> Scale:
    """The scale from the 1st to the 99th percentile of a recording's mask, float32 [T, 10, 10].

    A mask that hardly varies (by less than 0.01) is not stretched: it gets the absolute scale.
    """
    low, high = (float(q) for q in np.percentile(mask, [1, 99]))
    return Scale(low, high, "contrast-stretched") if high - low >= 0.01 else ABSOLUTE


def shared_scale(scales: Iterable[Scale]) -> Scale:
    """The scale from the least to the greatest of these scales' ends."""
    scales = list(scales)
    low, high = min(s.low for s in scales), max(s.high for s in scales)
    return ABSOLUTE if ABSOLUTE in scales else Scale(low, high, "contrast-stretched")


def difference_scale(*differences: np.ndarray) -> Scale:
    """The scale of masks' differences, blue below zero, red above, to the largest of them."""
    most = max(float(np.abs(d).max()) for d in differences) or 1.0
    return Scale(-most, most, "difference", "coolwarm")


def colours(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Mask values, float [...], as uint8 [..., 3] RGB; values beyond the scale take its ends."""
    return _table(scale.colour_map)[np.round(_position(values, scale) * 255).astype(np.uint8)]


def _position(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Where mask values lie on the scale, from 0 to 1."""
    return np.clip((values - scale.low) / (scale.high - scale.low), 0, 1)


def overlay(
    frame: np.ndarray,
    drawn: Sequence[Drawn],
    view: tuple[int, int],
    strength: float = STRENGTH,
) -> np.ndarray:
    """Masks over the frame.

    Args:
      frame: uint8 [210, 160, 3], RGB.
      drawn: one mask, or two in the first one's style; in colours, the second as contours.
      view: rows [top, bottom) of the frame that the network sees.
      strength: of `spotlight` and `colours`: 0 shows the (grey) frame alone.

    Returns:
      uint8 [210, 160, 3], RGB.
    """
    top, bottom = view
    style = drawn[0].style
    positions = [np.ravel(_position(d.mask, d.scale)) for d in drawn]
    # Each style takes every pixel x of a cell to gain * x + offset: [100, 3] each.
    if style == "spotlight":
        dimmed = 1 - strength * (1 - np.max(positions, axis=0))[:, None]
        haze = sum(
            HAZE * p[:, None] * np.array(d.light) for p, d in zip(positions, drawn, strict=True)
        )
        haze = np.minimum(haze, 255)
        gain, offset = dimmed * (1 - haze / 255), haze
    elif style == "contours":
        gain, offset = np.ones((_CELLS, 3)), np.zeros((_CELLS, 3))
    else:
        gain = np.full((_CELLS, 3), 1 - strength)
        offset = strength * colours(drawn[0].mask, drawn[0].scale).reshape(_CELLS, 3)
    gain, offset = (part.reshape(MASK_CELLS, MASK_CELLS, 3) for part in (gain, offset + 0.5))
    columns = cover(view)[top] % MASK_CELLS
    starts = np.searchsorted(cover(view)[top:bottom, 0] // MASK_CELLS, range(MASK_CELLS + 1)) + top
    result = frame.copy()
    for row, (start, stop) in enumerate(itertools.pairwise(starts)):
        seen = frame[start:stop]
        under = grey(seen)[..., None] if style == "colours" else seen
        result[start:stop] = (
            under * gain[row, columns].astype(np.float32)
            + offset[row, columns].astype(np.float32)  # 0.5 in it rounds
        )
    levels = CONTOURS[style]
    if style == "colours":
        positions, drawn, levels = positions[1:], drawn[1:], (0.5,)
    _draw_lines(result, positions, [d.light for d in drawn], levels, view)
    return result


def _draw_lines(picture, positions, lights, levels, view) -> None:
    """Draws, for every mask, lines just inside the borders of the cells above each level."""
    pixels, own, other = _borders(view)
    lines = []
    for position in positions:
        lit = np.zeros(len(pixels), bool)
        for level in levels:
            above = np.append(position > level, False)
            lit |= above[own] & ~above[other]
        lines.append(np.unique(pixels[lit]))
    flat = picture.reshape(-1, 3)
    for line, light in zip(reversed(lines), reversed(lights), strict=True):
        flat[line] = light
    if len(lines) == 2:
        common = np.intersect1d(*lines)
        row, column = np.divmod(common, picture.shape[1])
        flat[common[(row + column) // _DASH % 2 == 1]] = lights[1]


@functools.cache
def cover(view: tuple[int, int], width: int = 160, height: int = 210) -> np.ndarray:
    """int [210, 160]: the number of the cell in which a pixel's centre lies; outside, _CELLS."""
    top, bottom = view
    cells = np.full((height, width), _CELLS)
    row, column = (
        ((np.arange(size) + 0.5) * MASK_CELLS / size).astype(int) for size in (bottom - top, width)
    )
    cells[top:bottom] = row[:, None] * MASK_CELLS + column
    return cells


@functools.cache
def _borders(view: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels beside another cell: their numbers in the frame, their cells, those cells."""
    cells = cover(view)
    padded = np.pad(cells, 1, constant_values=_CELLS)
    found = []
    for shifted in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        at = np.flatnonzero((shifted != cells) & (cells != _CELLS))
        found.append((at, cells.ravel()[at], shifted.ravel()[at]))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def grey(frame: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] RGB as the network sees it: float32 [...] in 0..255, the channels' mean."""
    red, green, blue = (frame[..., channel].astype(np.float32) for channel in range(3))
    return (red + green + blue) / 3


def scale_bar(layer: Drawn | Layer, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: the scale as it looks over black (top) to over white (bottom).

    What lies under the mask changes what is on the screen, so the bar shows both; where a picture
    has contours, lines stand at their values.
    """
    along = np.linspace(0, 1, width)
    under = np.linspace(0, 255, height)[:, None, None]
    scale = layer.scale
    if layer.style == "colours":
        cover = colours(scale.low + along * (scale.high - scale.low), scale)
        bar = STRENGTH * cover + (1 - STRENGTH) * under
    elif layer.style == "spotlight":
        haze = HAZE * along[:, None] * np.array(layer.light)
        bar = under * (1 - STRENGTH * (1 - along[:, None])) * (1 - haze / 255) + haze
    else:
        bar = np.broadcast_to(under, (height, width, 3)).copy()
    for level in CONTOURS[layer.style]:
        at = round(level * (width - 1))
        bar[:, at : at + max(width // 150, 1)] = layer.light
    return np.round(bar).astype(np.uint8)


@functools.cache
def _table(colour_map: str) -> np.ndarray:
    """uint8 [256, 3]: the colour map's colours."""
    return colormaps[colour_map](np.arange(256), bytes=True)[:, :3]
