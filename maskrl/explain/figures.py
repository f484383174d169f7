"""The paper's figures, from recordings: as PNG, and as PDF with its text as text.

Every function returns a figure; `save` writes it. Places and sizes are in inches from the figure's
top left corner, so that nothing overlaps whatever the number of frames.
"""

import dataclasses
import pathlib
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskrl.errors import UserError
from maskrl.explain.frames import Chosen, boundaries
from maskrl.explain.joystick import icon
from maskrl.explain.overlay import Layer, Scale, difference_scale, overlay, scale_bar
from maskrl.explain.video import title
from maskrl.recording import Recording

CONSECUTIVE = 15  # frames, as in the paper's Figures 13 to 18

_MARGIN = 0.25
_GAP = 0.12
_COLUMNS = 6  # frames side by side
_WIDTH = 1.6  # of a frame: two dots of the PNG for each of its pixels
_SHAPE = 210 / 160  # a frame's height by its width
_GREEN, _RED = "#1a8a3a", "#c0392b"


class _Page:
    """A figure on which things are placed in inches from the top left corner."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        place = (x / self.width, 1 - (y + height) / self.height)
        return self.figure.add_axes((*place, width / self.width, height / self.height))

    def picture(self, x: float, y: float, width: float, pixels: np.ndarray) -> None:
        """Pixels of any shape, `width` inches wide, not smoothed."""
        axes = self.axes(x, y, width, width * pixels.shape[0] / pixels.shape[1])
        axes.imshow(pixels, interpolation="none", aspect="auto")
        axes.set_axis_off()

    def joystick(self, x: float, y: float, width: float, action_name: str) -> None:
        axes = self.axes(x, y, width, width * 4 / 7)
        axes.imshow(icon(action_name, 96, (0, 0, 0)), interpolation="antialiased", aspect="auto")
        axes.set_axis_off()

    def text(self, x: float, y: float, words: str, size: float = 8, **style) -> None:
        style = {"va": "top", "ha": "left", "linespacing": 1.3} | style
        self.figure.text(x / self.width, 1 - y / self.height, words, fontsize=size, **style)

    def scale(self, x: float, y: float, width: float, scale: Scale, of: str) -> None:
        """The scale's bar with its words: 0.5 inches high."""
        _bar(self.axes(x, y, width, 0.14), scale)
        words = (
            f"{of}: {scale.words}\nbar: over black (top) to over white (bottom)\n"
            "in the game's colours: what the agent does not see"
        )
        self.text(x + width + 0.12, y - 0.02, words, 7)


def policy_figure(recording: Recording, layer: Layer, chosen: Sequence[Chosen]) -> Figure:
    """The paper's Figure 2: the policy mask and the action at chosen frames, and why these.

    Args:
      recording: the game.
      layer: the policy mask.
      chosen: the frames, of any number.
    """
    width, note = _WIDTH, 1.05
    height = 2 * width * _SHAPE + 0.05 + note
    lines = -(-len(chosen) // _COLUMNS)
    columns = max(min(len(chosen), _COLUMNS), 3)  # room for the words
    page = _Page(2 * _MARGIN + columns * (width + _GAP) - _GAP, 0.75 + lines * (height + 0.1) + 0.5)
    _heading(page, recording, "policy mask and action at chosen frames")
    for number, frame in enumerate(chosen):
        x = _MARGIN + number % _COLUMNS * (width + _GAP)
        y = 0.75 + number // _COLUMNS * (height + 0.1)
        page.picture(x, y, width, recording.frames[frame.index])
        y += width * _SHAPE + 0.05
        page.picture(x, y, width, _masked(recording, layer, frame.index))
        _note(page, x, y + width * _SHAPE + 0.06, width, recording, frame, _letter(number))
    page.scale(_MARGIN, page.height - 0.48, 2.2, layer.scale, "policy mask")
    return page.figure


def value_figure(recording: Recording, layer: Layer | None, chosen: Sequence[Chosen]) -> Figure:
    """The paper's Figure 3: the value mask at chosen frames over the state value's curve.

    Green broken lines stand where a stage begins (dashed) and where a life was lost (dotted).

    Args:
      recording: the game.
      layer: the value mask; None, of an agent that has none, shows the bare frames.
      chosen: the frames, of any number; letters tie them to the curve.
    """
    width, note, curve = _WIDTH, 1.05, 2.0
    height = width * _SHAPE + note
    lines = -(-len(chosen) // _COLUMNS)
    columns = max(min(len(chosen), _COLUMNS), 3)
    page = _Page(
        2 * _MARGIN + columns * (width + _GAP) - _GAP,
        0.75 + lines * (height + 0.1) + curve + 1.35,
    )
    shown = "value mask at chosen frames" if layer else "chosen frames"
    _heading(page, recording, f"{shown}, and the state value")
    for number, frame in enumerate(chosen):
        x = _MARGIN + number % _COLUMNS * (width + _GAP)
        y = 0.75 + number // _COLUMNS * (height + 0.1)
        t = frame.index
        pixels = _masked(recording, layer, t) if layer else recording.frames[t]
        page.picture(x, y, width, pixels)
        _note(page, x, y + width * _SHAPE + 0.06, width, recording, frame, _letter(number))
    y = 0.75 + lines * (height + 0.1) + 0.2
    axes = page.axes(_MARGIN + 0.4, y, page.width - 2 * _MARGIN - 0.4, curve)
    _value_curve(axes, recording, chosen)
    if layer:
        page.scale(_MARGIN, page.height - 0.48, 2.2, layer.scale, "value mask")
    return page.figure


@dataclasses.dataclass(frozen=True)
class Row:
    """One game's row of a gallery: all that is kept of its recording."""

    title: str
    score: float
    scale: Scale
    pictures: list[np.ndarray]  # uint8 [210, 160, 3], the mask over the frame
    words: list[str]  # below each


def gallery_row(recording: Recording, layer: Layer, chosen: Sequence[Chosen]) -> Row:
    """The row of this game: the mask `layer` at the chosen frames."""
    return Row(
        title(recording),
        recording.final_score,
        layer.scale,
        [_masked(recording, layer, frame.index) for frame in chosen],
        [f"step {frame.index}: {frame.reason}" for frame in chosen],
    )


def gallery(rows: Sequence[Row], branch: str) -> Figure:
    """The paper's Figures 4 to 12: one branch's mask, a row of frames for each game.

    Args:
      rows: the games.
      branch: the masks' name, policy or value.
    """
    width, label = _WIDTH, 1.45
    height = width * _SHAPE + 0.62
    columns = max(len(row.pictures) for row in rows)
    page = _Page(2 * _MARGIN + label + columns * (width + _GAP) - _GAP, 0.55 + len(rows) * height)
    page.text(_MARGIN, 0.18, f"{branch} mask at chosen frames", 12, weight="bold")
    for number, row in enumerate(rows):
        y = 0.55 + number * height
        game, *parts = row.title.split(" · ")
        page.text(_MARGIN, y, game, 10, weight="bold")
        parts.append(f"score {row.score:.0f}")
        words = [line for part in parts for line in textwrap.wrap(part, 22)]
        page.text(_MARGIN, y + 0.22, "\n".join(words), 7)
        _bar(page.axes(_MARGIN, y + width * _SHAPE - 0.45, label - 0.3, 0.14), row.scale)
        scale = textwrap.fill(row.scale.words, 26)
        page.text(_MARGIN, y + width * _SHAPE - 0.12, scale, 6.5)
        for column, (pixels, words) in enumerate(zip(row.pictures, row.words, strict=True)):
            x = _MARGIN + label + column * (width + _GAP)
            page.picture(x, y, width, pixels)
            page.text(x, y + width * _SHAPE + 0.05, textwrap.fill(words, 31), 6.5)
    return page.figure


def consecutive(
    recording: Recording, layers: dict[str, Layer], start: int, chosen: Chosen | None = None
) -> Figure:
    """The paper's Figures 13 to 18: consecutive frames; rows for the image and for each mask.

    Args:
      recording: the game.
      layers: the masks.
      start: the first of CONSECUTIVE frames, fewer where the game ends.
      chosen: the frame for whose sake they are shown.
    """
    width, label, gap = _WIDTH / 2, 0.75, 0.04
    frames = range(start, min(start + CONSECUTIVE, len(recording)))
    height = width * _SHAPE + gap
    page = _Page(
        2 * _MARGIN + label + max(len(frames), 6) * (width + gap) - gap,
        0.95 + (1 + len(layers)) * height + 0.75 + (0.55 if layers else 0),
    )
    words = f"{len(frames)} consecutive steps, {start} to {frames[-1]}"
    reason = f" (step {chosen.index}: {chosen.reason})" if chosen else ""
    _heading(page, recording, words + reason)
    for row, name in enumerate(["image", *layers]):
        y = 0.95 + row * height
        words = name if name == "image" else f"{name}\nmask"
        page.text(_MARGIN, y + height / 2, words, 9, va="center")
        for column, t in enumerate(frames):
            x = _MARGIN + label + column * (width + gap)
            if name == "image":
                page.text(x + width / 2, y - 0.04, str(t), 7, va="bottom", ha="center")
                page.picture(x, y, width, recording.frames[t])
            else:
                page.picture(x, y, width, _masked(recording, layers[name], t))
    y = 0.95 + (1 + len(layers)) * height + 0.04
    page.text(_MARGIN, y, "action\nvalue\nreward", 7)
    for column, t in enumerate(frames):
        x = _MARGIN + label + column * (width + gap)
        action = recording.action_names[recording.action[t]]
        page.joystick(x + width - 0.4, y + 0.16, 0.36, action)
        reward = f"{recording.reward[t]:+g}" if recording.reward[t] else "·"
        page.text(x, y + 0.01, action, 6)  # DOWNRIGHTFIRE is as wide as a frame
        page.text(x, y + 0.135, f"{recording.value[t]:.2f}\n{reward}", 7)
    for column, (name, layer) in enumerate(layers.items()):
        x = _MARGIN + column * 5.5
        page.scale(x, page.height - 0.48, 2.2, layer.scale, f"{name} mask")
    return page.figure


@dataclasses.dataclass(frozen=True)
class Moment:
    """What an agent sees and makes of it at one step."""

    frame: np.ndarray  # uint8 [210, 160, 3], RGB
    masks: dict[str, np.ndarray]  # by branch, float [10, 10] in [0, 1]
    probabilities: np.ndarray  # float [A]
    value: float


def reaction(
    before: Moment,
    after: Moment,
    view: tuple[int, int],
    action_names: Sequence[str],
    heading: str,
    scales: dict[str, Scale],
) -> Figure:
    """The paper's Figures 19 and 20: an agent's reaction to a state that was changed.

    Rows: before, after, the difference (after less before). Columns: frame, masks; and at the
    right the policy's probabilities and the value before and after.

    Args:
      before: the moment as it was.
      after: the same moment, changed; it has the same masks.
      view: rows [top, bottom) of the frame that the network sees.
      action_names: [A], of the console.
      heading: game, agent, and what was changed.
      scales: by branch, of the masks before and after.
    """
    width, label, bars = _WIDTH, 0.9, 3.6
    height = width * _SHAPE
    columns = ["image", *before.masks]
    page = _Page(
        2 * _MARGIN + label + len(columns) * (width + _GAP) + 0.9 + bars,
        0.8 + 3 * (height + _GAP) + 0.5 * (len(before.masks) + 1),
    )
    page.text(_MARGIN, 0.18, textwrap.fill(heading, int(page.width * 9)), 11, weight="bold")
    differences = {name: after.masks[name] - mask for name, mask in before.masks.items()}
    between = difference_scale(*differences.values()) if differences else None
    changed = (before.frame != after.frame).any(axis=-1)
    lit = np.where(changed[..., None], after.frame, after.frame // 4)
    for row, name in enumerate(("before", "after", "difference")):
        y = 0.8 + row * (height + _GAP)
        words = name if row < 2 else "difference\n(the image's\nchange is lit)"
        page.text(_MARGIN, y + height / 2, words, 9, va="center")
        frame = (before.frame, after.frame, lit)[row]
        for column, branch in enumerate(columns):
            x = _MARGIN + label + column * (width + _GAP)
            if row == 0:
                words = branch if branch == "image" else f"{branch} mask"
                page.text(x + width / 2, y - 0.05, words, 9, va="bottom", ha="center")
            if branch == "image":
                page.picture(x, y, width, frame)
            else:
                mask = (before.masks[branch], after.masks[branch], differences[branch])[row]
                scale = between if row == 2 else scales[branch]
                base = after.frame if row == 2 else frame
                page.picture(x, y, width, overlay(base, mask, view, scale))
    x = page.width - _MARGIN - bars
    policy = page.axes(x, 0.8, bars, 2 * height - 0.3)
    _bars(policy, action_names, before.probabilities, after.probabilities)
    policy.set_title("probability of each action", size=9, loc="left")
    policy.legend(
        fontsize=8, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0
    )
    value = page.axes(x, 0.8 + 2 * (height + _GAP) + 0.25, bars, 0.7)
    _bars(value, ["value"], [before.value], [after.value])
    change = after.value - before.value
    value.set_title(f"state value {before.value:.2f} → {after.value:.2f} ({change:+.2f})", size=9)
    y = page.height - 0.5 * (len(before.masks) + 1) + 0.05
    for name, scale in (*scales.items(), *([("difference of masks", between)] if between else [])):
        page.scale(_MARGIN, y, 2.2, scale, name if scale is between else f"{name} mask")
        y += 0.5
    return page.figure


def save(figure: Figure, stem: str | pathlib.Path) -> list[pathlib.Path]:
    """Writes stem.png (200 dots per inch) and stem.pdf (text as text) and returns their paths.

    Raises:
      UserError: a file cannot be written.
    """
    paths = [pathlib.Path(f"{stem}.png"), pathlib.Path(f"{stem}.pdf")]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(paths[0], dpi=200)
        with matplotlib.rc_context({"pdf.fonttype": 42}):
            figure.savefig(paths[1], dpi=300)  # of the joysticks; frames stay as they are
    except OSError as error:
        raise UserError(f"cannot write {stem}.png and .pdf: {error.strerror}") from error
    return paths


def _masked(recording: Recording, layer: Layer, t: int) -> np.ndarray:
    return overlay(recording.frames[t], layer.mask[t], recording.view, layer.scale)


def _letter(number: int) -> str:
    """0 is a, 25 is z, 26 is aa."""
    letter = chr(ord("a") + number % 26)
    return letter if number < 26 else _letter(number // 26 - 1) + letter


def _heading(page: _Page, recording: Recording, words: str) -> None:
    line = title(recording)
    fits = (page.width - 2 * _MARGIN) * 120 / len(line)  # bold letters are 0.6 of their size wide
    page.text(_MARGIN, 0.18, line, min(fits, 11), weight="bold")
    page.text(_MARGIN, 0.43, words, 9)


def _note(
    page: _Page, x: float, y: float, width: float, recording: Recording, frame: Chosen, letter: str
) -> None:
    """Under a frame: step, value, the action with its probability, and why it was chosen."""
    t = frame.index
    action = recording.action[t]
    name = recording.action_names[action]
    page.text(x, y, f"({letter}) step {t}", 8, weight="bold")
    page.text(x + width, y, f"value {recording.value[t]:.2f}", 8, ha="right")
    page.joystick(x, y + 0.19, 0.36, name)
    page.text(x + 0.44, y + 0.2, f"{name}, {recording.probabilities[t, action]:.0%}", 8)
    page.text(x, y + 0.45, textwrap.fill(frame.reason, 30), 7.5, style="italic")


def _value_curve(axes: Axes, recording: Recording, chosen: Sequence[Chosen]) -> None:
    value, bounds = recording.value, boundaries(recording)
    axes.plot(value, color="black", linewidth=0.7)
    for kind, starts, line in (
        ("a stage begins", bounds.stages, "--"),
        ("a life was lost", bounds.lives, ":"),
    ):
        for number, t in enumerate(starts):
            label = kind if number == 0 else None
            axes.axvline(t, color=_GREEN, linestyle=line, linewidth=1.1, label=label)
    low, high = float(value.min()), float(value.max())
    room = (high - low or 1) * 0.06
    for number, frame in enumerate(chosen):
        t = frame.index
        axes.plot(t, value[t], "o", color=_RED, markersize=4, clip_on=False, zorder=3)
        above = axes.get_xaxis_transform()  # steps across, the axes' height upwards
        style = {"ha": "center", "size": 9, "weight": "bold", "color": _RED}
        axes.text(t, 1.02, _letter(number), transform=above, **style)
    axes.set_xlim(0, max(len(recording) - 1, 1))
    axes.set_ylim(low - room, high + room)
    axes.set_xlabel("agent step", size=8)
    axes.set_ylabel("state value", size=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if bounds.stages or bounds.lives:
        place = {"loc": "upper right", "bbox_to_anchor": (1, -0.13), "ncols": 2}
        axes.legend(fontsize=8, frameon=False, borderaxespad=0, **place)


def _bar(axes: Axes, scale: Scale) -> None:
    """The scale's colours with its ends, over black (top) to white."""
    extent = (scale.low, scale.high, 0, 1)
    axes.imshow(scale_bar(scale, 256, 16), extent=extent, interpolation="none", aspect="auto")
    axes.set_yticks([])
    axes.set_xticks([scale.low, (scale.low + scale.high) / 2, scale.high])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    axes.tick_params(labelsize=7, length=2, pad=1)
    for label, side in zip(axes.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)


def _bars(
    axes: Axes, names: Sequence[str], before: Sequence[float], after: Sequence[float]
) -> None:
    """Horizontal bars: for each name, before over after."""
    rows = np.arange(len(names))
    axes.barh(rows - 0.2, before, 0.38, color="#8a8a8a", label="before")
    axes.barh(rows + 0.2, after, 0.38, color=_RED, label="after")
    axes.set_yticks(rows, names)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
