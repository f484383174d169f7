"""The paper's figures, from recordings: as PNG, and as PDF with its text as text.

Every function returns a figure; `save` writes it. Places and sizes are in inches from the figure's
top left corner, so that nothing overlaps whatever the number of frames and the width of the page.
No text is smaller than LEAST points.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from maskrl import files
from maskrl.errors import UserError
from maskrl.explain.frames import Chosen, boundaries
from maskrl.explain.joystick import icon
from maskrl.explain.overlay import LIGHT, Drawn, Layer, Scale, difference_scale, overlay, scale_bar
from maskrl.explain.video import mask_name, title
from maskrl.recording import Recording

matplotlib.rcParams["text.parse_math"] = False  # a name with a $ is no mathematics

CONSECUTIVE = 15  # frames, as in the paper's Figures 13 to 18
LEAST = 6.0  # points: journals' smallest text
NARROWEST, WIDEST = 2.5, 40.0  # inches that a figure may be asked to be wide

_GAP = 0.12
_COLUMNS = 6  # frames side by side
_WIDTH = 1.6  # of a frame: two dots of the PNG for each of its pixels
_NARROW = 0.1  # of a gallery's frame: the least
_SHAPE = 210 / 160  # a frame's height by its width
_TICKS = 0.7  # left of a curve
_LINE = 1.36 / 72  # of text: its height in inches for each point of its size
_GREEN, _RED = "#1a8a3a", "#c0392b"


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a figure is laid out."""

    width: float | None = None  # inches; None gives frames their natural width
    title: bool = True  # whether it carries a heading; papers have captions

    @property
    def margin(self) -> float:
        return 0.25 if self.width is None else 0.06

    def columns(
        self,
        count: int,
        label: float = 0,
        natural: float = _WIDTH,
        least: float = 1.15,
        most: int = _COLUMNS,
    ) -> tuple[int, float, float]:
        """(frames side by side, a frame's width, the page's width) for `count` frames.

        Args:
          label: inches that are taken at the left.
          natural: a frame's width where the page's is not given.
          least: a frame's least width where the page's is given.
          most: frames side by side where the page's width is not given.
        """
        gap = _GAP * natural / _WIDTH
        around = 2 * self.margin + label - gap
        if self.width is None:
            columns = max(min(count, most), 3)  # room for the words
            return columns, natural, around + columns * (natural + gap)
        room = self.width - around
        columns = max(min(count, int(room / (least + gap))), 1)
        return columns, room / columns - gap, self.width


NATURAL = Layout()


class _Page:
    """A figure on which things are placed in inches from the top left corner."""

    def __init__(self, layout: Layout, width: float, height: float, heading: Sequence[str] = ()):
        """The heading's first line is bold; `top` is where the rest begins, below it."""
        self.margin, self.width = layout.margin, width
        inner = width - 2 * self.margin
        lines: list[tuple[str, float, str]] = []
        for number, words in enumerate(heading if layout.title else ()):
            size, weight = (11, "bold") if number == 0 else (9, "normal")
            size = min(size, max(size * inner / _measure(words, size, weight), 7))
            lines += [(line, size, weight) for line in _wrap(words, inner, size, weight)]
        self.top = self.margin + (sum(size * _LINE * 1.1 for _, size, _ in lines) + 0.1) * bool(
            lines
        )
        self.height = self.top + height + self.margin
        self.figure = Figure(figsize=(width, self.height))
        y = self.margin
        for line, size, weight in lines:
            self.text(self.margin, y, line, size, weight=weight)
            y += size * _LINE * 1.1

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

    def scale(self, x: float, y: float, layer: Layer | Drawn, of: str) -> None:
        """The scale's bar with its words: `_scale_height` inches high."""
        width = _bar_width(self.width)
        _bar(self.axes(x, y, width, 0.14), layer)
        lines = _scale_lines(self.width - 2 * self.margin, layer, of)
        self.text(x + width + 0.12, y - 0.02, "\n".join(lines), _SCALE_SIZE)


_SCALE_SIZE = 6.5  # points, of a scale's words


def _bar_width(page: float) -> float:
    return min(2.2, 0.4 * page)


def _scale_lines(inner: float, layer: Layer | Drawn, of: str) -> list[str]:
    """The scale's words beside its bar, on a page of this width between its margins."""
    words = (
        f"{of}: {layer.scale.words}",
        "bar: over black (top) to over white (bottom)",
        _STYLE_WORDS[layer.style],
    )
    room = inner - _bar_width(inner) - 0.2
    return [line for part in words for line in _wrap(part, room, _SCALE_SIZE)]


def _scale_height(layout: Layout, width: float, layer: Layer | Drawn, of: str) -> float:
    """The inches that a scale takes on a page of this width."""
    lines = _scale_lines(width - 2 * layout.margin, layer, of)
    return max(0.45, len(lines) * _SCALE_SIZE * _LINE + 0.12)


_STYLE_WORDS = {
    "spotlight": "dimmed: less seen; lit: more seen; the line: half of the scale",
    "contours": "lines: half and three quarters of the scale",
    "colours": "in the game's colours: what the agent does not see",
}


def policy_figure(
    recording: Recording, layer: Layer, chosen: Sequence[Chosen], layout: Layout = NATURAL
) -> Figure:
    """The paper's Figure 2: the policy mask and the action at chosen frames, and why these.

    Args:
      recording: the game.
      layer: the policy mask.
      chosen: the frames, of any number.
      layout: the page's width, and whether it has a heading.
    """
    of = mask_name(recording, "policy")
    page, grid = _framed(
        recording, chosen, layout, f"{of} and action at chosen frames", rows=2, scale=(layer, of)
    )
    for frame, (x, y) in zip(chosen, grid.places, strict=True):
        page.picture(x, y, grid.frame, recording.frames[frame.index])
        page.picture(x, y + grid.row, grid.frame, _masked(recording, layer, frame.index))
    page.scale(page.margin, grid.bottom + 0.1, layer, of)
    return page.figure


def value_figure(
    recording: Recording, layer: Layer | None, chosen: Sequence[Chosen], layout: Layout = NATURAL
) -> Figure:
    """The paper's Figure 3: chosen frames, their value masks, and the state value's curve.

    Green broken lines stand where a stage begins (dashed) and where a life was lost (dotted).

    Args:
      recording: the game.
      layer: the value mask; None, of an agent that has none, shows the bare frames.
      chosen: the frames, of any number; letters tie them to the curve.
      layout: the page's width, and whether it has a heading.
    """
    curve = 2.0 if layout.width is None else min(2.0, 0.3 * layout.width)
    of = mask_name(recording, "value")
    words = f"{of} at chosen frames" if layer else "chosen frames"
    page, grid = _framed(
        recording,
        chosen,
        layout,
        f"{words}, and the state value",
        rows=2 if layer else 1,
        below=0.2 + curve + 0.7,
        scale=(layer, of) if layer else None,
    )
    for frame, (x, y) in zip(chosen, grid.places, strict=True):
        page.picture(x, y, grid.frame, recording.frames[frame.index])
        if layer:
            page.picture(x, y + grid.row, grid.frame, _masked(recording, layer, frame.index))
    y = grid.bottom + 0.2
    width = page.width - page.margin - _TICKS
    _value_curve(page.axes(_TICKS, y, width, curve), recording, chosen, width, curve)
    if layer:
        page.scale(page.margin, y + curve + 0.8, layer, of)
    return page.figure


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Where chosen frames stand on a page, their notes below them."""

    frame: float  # a frame's width
    row: float  # from a frame to the one below it
    places: list[tuple[float, float]]  # of every chosen frame, its upper left corner
    bottom: float  # below the last note


def _framed(
    recording: Recording,
    chosen: Sequence[Chosen],
    layout: Layout,
    words: str,
    rows: int,
    below: float = 0.1,
    scale: tuple[Layer, str] | None = None,
) -> tuple[_Page, _Grid]:
    """A page with the notes of chosen frames, and room for `rows` pictures above each note.

    At the page's end there is room for the scale of this layer, and `below` inches above it.
    """
    columns, frame, width = layout.columns(len(chosen))
    notes = [_note(recording, moment, number, frame) for number, moment in enumerate(chosen)]
    note = max(sum(line.height for line in lines) for lines in notes)
    row = frame * _SHAPE + 0.05
    block = rows * row + note + 0.1
    lines = -(-len(chosen) // columns)
    if scale:
        below += _scale_height(layout, width, *scale)
    page = _Page(layout, width, lines * block + below, (title(recording), words))
    places = []
    for number, written in enumerate(notes):
        x = page.margin + number % columns * (frame + _GAP)
        y = page.top + number // columns * block
        places.append((x, y))
        y += rows * row
        for line in written:
            left = x
            if line.joystick:
                page.joystick(x, y, 0.3, line.joystick)
                left += 0.36
            page.text(left, y, line.words, line.size, weight=line.weight, style=line.style)
            y += line.height
    return page, _Grid(frame, row, places, page.top + lines * block)


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of a note."""

    words: str
    size: float
    weight: str = "normal"
    style: str = "normal"
    joystick: str = ""  # an action's name: its picture stands before the words

    @property
    def height(self) -> float:
        return max(self.size * _LINE, 0.19 if self.joystick else 0)


def _note(recording: Recording, moment: Chosen, number: int, width: float) -> list[_Line]:
    """Under a frame: step, value, the action with its probability, and why it was chosen."""
    t, size = moment.index, 8.0 if width >= 1.5 else 6.5
    action = recording.action[t]
    name = recording.action_names[action]
    played = _wrap(f"{name}, {recording.probabilities[t, action]:.0%}", width - 0.36, size)
    return [
        _Line(f"({_letter(number)}) step {t}", size, weight="bold"),
        _Line(f"value {recording.value[t]:.2f}", size),
        *(_Line(words, size, joystick="" if n else name) for n, words in enumerate(played)),
        *(
            _Line(words, size - 0.5, style="italic")
            for words in _wrap(moment.reason, width, size - 0.5, "normal", "italic")
        ),
    ]


def caption(recording: Recording, words: str, chosen: Sequence[Chosen]) -> str:
    """What a figure shows, as text: for a paper's caption, or for those who do not see it."""
    parts = []
    for number, moment in enumerate(chosen):
        t = moment.index
        action = recording.action[t]
        parts.append(
            f"({_letter(number)}) step {t}, value {recording.value[t]:.2f}, "
            f"{recording.action_names[action]} with probability "
            f"{recording.probabilities[t, action]:.2f}: {moment.reason}."
        )
    heading = f"{title(recording)}, score {recording.final_score:g}: {words}."
    return "\n".join([heading, *parts]) + "\n"


@dataclasses.dataclass(frozen=True)
class Row:
    """One game's row of a gallery: all that is kept of its recording."""

    title: str
    score: float
    drawn: Drawn  # one of its masks: for the scale
    pictures: list[np.ndarray]  # uint8 [210, 160, 3], the mask over the frame
    words: list[str]  # below each


def gallery_row(recording: Recording, layer: Layer, chosen: Sequence[Chosen]) -> Row:
    """The row of this game: the mask `layer` at the chosen frames."""
    return Row(
        title(recording),
        recording.final_score,
        layer.at(0),
        [_masked(recording, layer, frame.index) for frame in chosen],
        [f"step {frame.index}: {frame.reason}" for frame in chosen],
    )


def gallery_room(count: int, layout: Layout) -> tuple[float, float, float]:
    """(a label's width, a frame's, the page's) for a gallery of `count` frames in a row, inches.

    Raises:
      UserError: a page of this width has no room for them.
    """
    label = 1.45 if layout.width is None else 1.05
    # All of a game's frames stand in its row, however narrow; their words then below all of them.
    columns, frame, width = layout.columns(count, label, least=_NARROW, most=count)
    if columns < count:
        needed = 2 * layout.margin + label - _GAP + count * (_NARROW + _GAP)
        needed = math.ceil(10 * needed) / 10
        raise UserError(f"{count} frames in a row need a page of {needed} inches: --width")
    return label, frame, width


def gallery(rows: Sequence[Row], branch: str, layout: Layout = NATURAL) -> Figure:
    """The paper's Figures 4 to 12: one branch's mask, a row of frames for each game.

    Args:
      rows: the games.
      branch: the masks' name, policy or value.
      layout: the page's width, and whether it has a heading.

    Raises:
      UserError: more frames in a row than a page of this width has room for.
    """
    label, frame, width = gallery_room(max(len(row.pictures) for row in rows), layout)
    size = LEAST + 0.5
    notes = [
        [_wrap(words, max(frame, 0.6), size) for words in row.words]
        if frame >= 1.15
        else [_wrap("; ".join(row.words), width - label - 2 * layout.margin, size)]
        for row in rows
    ]
    labels = [_row_label(row, label - 0.15, size) for row in rows]
    below = [max(map(len, lines)) * size * _LINE + 0.15 for lines in notes]
    heights = [
        max(frame * _SHAPE + 0.05 + under, 0.22 + (len(lines) + 3) * size * _LINE + 0.35)
        for under, lines in zip(below, labels, strict=True)
    ]
    page = _Page(layout, width, sum(heights), (f"{branch} mask at chosen frames",))
    y = page.top
    for row, height, lines, written in zip(rows, heights, labels, notes, strict=True):
        name = row.title.split(" · ")[0]
        fitting = min(8, 8 * (label - 0.15) / _measure(name, 8, "bold"))
        page.text(page.margin, y, name, max(fitting, LEAST), weight="bold")
        page.text(page.margin, y + 0.18, "\n".join(lines), size)
        at = y + 0.25 + len(lines) * size * _LINE
        _bar(page.axes(page.margin, at, label - 0.3, 0.12), row.drawn)
        words = "\n".join(_wrap(row.drawn.scale.words, label - 0.15, size))
        page.text(page.margin, at + 0.28, words, size)
        for column, pixels in enumerate(row.pictures):
            x = page.margin + label + column * (frame + _GAP)
            page.picture(x, y, frame, pixels)
        for column, words in enumerate(written):
            x = page.margin + label + column * (frame + _GAP)
            page.text(x, y + frame * _SHAPE + 0.05, "\n".join(words), size)
        y += height
    return page.figure


def _row_label(row: Row, width: float, size: float) -> list[str]:
    parts = [*row.title.split(" · ")[1:], f"score {row.score:.0f}"]
    return [line for part in parts for line in _wrap(part, width, size)]


def consecutive(
    recording: Recording,
    layers: dict[str, Layer],
    start: int,
    chosen: Chosen | None = None,
    layout: Layout = NATURAL,
) -> Figure:
    """The paper's Figures 13 to 18: consecutive frames; rows for the image and for each mask.

    Args:
      recording: the game.
      layers: the masks.
      start: the first of CONSECUTIVE frames, fewer where the game ends.
      chosen: the frame for whose sake they are shown.
      layout: the page's width, and whether it has a heading.
    """
    label = 0.75
    frames = range(start, min(start + CONSECUTIVE, len(recording)))
    columns, frame, width = layout.columns(
        len(frames), label, natural=_WIDTH / 2, least=0.5, most=CONSECUTIVE
    )
    gap = _GAP / 2
    row = frame * _SHAPE + 0.04
    names = {t: recording.action_names[recording.action[t]] for t in frames}
    written = {t: _wrap(name, frame, LEAST) for t, name in names.items()}
    most = max(map(len, written.values()))
    note = most * LEAST * _LINE + 0.25 + 2 * 7 * _LINE
    block = 0.18 + (1 + len(layers)) * row + note + 0.1
    lines = -(-len(frames) // columns)
    words = f"{len(frames)} consecutive steps, {start} to {frames[-1]}"
    reason = f" (step {chosen.index}: {chosen.reason})" if chosen else ""
    scales = {
        name: _scale_height(layout, width, layer, mask_name(recording, name))
        for name, layer in layers.items()
    }
    below = sum(scales.values()) + 0.1
    page = _Page(layout, width, lines * block + below, (title(recording), words + reason))
    for line in range(lines):
        top = page.top + line * block + 0.18
        for number, name in enumerate(["image", *layers]):
            of = name if name == "image" else mask_name(recording, name)
            of = "\n".join(_wrap(of, label - 0.05, 8))
            page.text(page.margin, top + (number + 0.5) * row, of, 8, va="center")
        y = top + (1 + len(layers)) * row + 0.02
        page.text(page.margin, y, "action", 7)
        page.text(page.margin, y + note - 2 * 7 * _LINE, "value\nreward", 7)
        for column, t in enumerate(frames[line * columns : (line + 1) * columns]):
            x = page.margin + label + column * (frame + gap)
            page.text(x + frame / 2, top - 0.04, str(t), 7, va="bottom", ha="center")
            page.picture(x, top, frame, recording.frames[t])
            for number, layer in enumerate(layers.values(), 1):
                page.picture(x, top + number * row, frame, _masked(recording, layer, t))
            page.text(x, y, "\n".join(written[t]), LEAST)
            page.joystick(x, y + most * LEAST * _LINE + 0.02, 0.33, names[t])
            reward = f"{recording.reward[t]:+g}" if recording.reward[t] else "·"
            page.text(x, y + note - 2 * 7 * _LINE, f"{recording.value[t]:.2f}\n{reward}", 7)
    y = page.top + lines * block + 0.1
    for name, layer in layers.items():
        page.scale(page.margin, y, layer, mask_name(recording, name))
        y += scales[name]
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
    names = max(_measure(name, 8) for name in action_names) + 0.15
    height = width * _SHAPE
    columns = ["image", *before.masks]
    page = _Page(
        NATURAL,
        0.5 + label + len(columns) * (width + _GAP) + 0.2 + names + bars,
        0.35 + 3 * (height + _GAP) + 0.55 * (len(before.masks) + 1),
        (heading,),
    )
    top, left = page.top + 0.3, page.margin
    differences = {name: after.masks[name] - mask for name, mask in before.masks.items()}
    between = difference_scale(*differences.values()) if differences else None
    changed = (before.frame != after.frame).any(axis=-1)
    lit = np.where(changed[..., None], after.frame, after.frame // 4)
    for row, name in enumerate(("before", "after", "difference")):
        y = top + row * (height + _GAP)
        words = name if row < 2 else "difference\n(the image's\nchange is lit)"
        page.text(left, y + height / 2, words, 9, va="center")
        frame = (before.frame, after.frame, lit)[row]
        for column, branch in enumerate(columns):
            x = left + label + column * (width + _GAP)
            if row == 0:
                words = branch if branch == "image" else f"{branch} mask"
                page.text(x + width / 2, y - 0.05, words, 9, va="bottom", ha="center")
            if branch == "image":
                page.picture(x, y, width, frame)
            elif row == 2:
                drawn = Drawn(differences[branch], between, "colours")
                page.picture(x, y, width, overlay(after.frame, [drawn], view))
            else:
                mask = (before, after)[row].masks[branch]
                drawn = Drawn(mask, scales[branch], light=LIGHT[branch])
                page.picture(x, y, width, overlay(frame, [drawn], view))
    x = page.width - page.margin - bars
    policy = page.axes(x, top, bars, 2 * height - 0.3)
    _bars(policy, action_names, before.probabilities, after.probabilities)
    policy.set_title("probability of each action", size=9, loc="left")
    policy.legend(
        fontsize=8, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderpad=0
    )
    value = page.axes(x, top + 2 * (height + _GAP) + 0.25, bars, 0.7)
    _bars(value, ["value"], [before.value], [after.value])
    change = after.value - before.value
    value.set_title(f"state value {before.value:.2f} → {after.value:.2f} ({change:+.2f})", size=9)
    y = top + 3 * (height + _GAP)
    for name, mask in before.masks.items():
        page.scale(left, y, Drawn(mask, scales[name], light=LIGHT[name]), f"{name} mask")
        y += 0.55
    if between:
        page.scale(left, y, Drawn(before.frame, between, "colours"), "difference of masks")
    return page.figure


def save(figure: Figure, stem: str | pathlib.Path, caption: str = "") -> list[pathlib.Path]:
    """Writes stem.png (200 dots per inch), stem.pdf (text as text) and, if there is one, the
    caption as stem.txt; returns their paths.

    Raises:
      UserError: a file cannot be written.
    """
    paths = [pathlib.Path(f"{stem}.png"), pathlib.Path(f"{stem}.pdf")]
    with files.whole(paths[0]) as partial:
        figure.savefig(partial, dpi=200, format="png")
    with files.whole(paths[1]) as partial, matplotlib.rc_context({"pdf.fonttype": 42}):
        # The dots are those of the joysticks; frames stay as they are.
        figure.savefig(partial, dpi=300, format="pdf")
    if caption:
        paths.append(pathlib.Path(f"{stem}.txt"))
        files.write(paths[-1], caption)
    return paths


def _masked(recording: Recording, layer: Layer, t: int) -> np.ndarray:
    return overlay(recording.frames[t], [layer.at(t)], recording.view)


def _measure(words: str, size: float, weight: str = "normal", style: str = "normal") -> float:
    """The words' width in inches; on a screen, where letters begin at whole dots, a little less."""
    return 1.04 * sum(_letter_width(letter, weight, style) for letter in words) * size / 72


@functools.cache
def _letter_width(letter: str, weight: str, style: str) -> float:
    """Of a letter of size 1."""
    font = FontProperties(size=100, weight=weight, style=style)
    return text_to_path.get_text_width_height_descent(letter, font, ismath=False)[0] / 100


def _wrap(
    words: str, width: float, size: float, weight: str = "normal", style: str = "normal"
) -> list[str]:
    """The words in lines of at most `width` inches; a word that is wider is broken."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if _measure(longer, size, weight, style) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and _measure(lines[-1] + letter, size, weight, style) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _letter(number: int) -> str:
    """0 is a, 25 is z, 26 is aa."""
    letter = chr(ord("a") + number % 26)
    return letter if number < 26 else _letter(number // 26 - 1) + letter


def _apart(places: Sequence[float], gap: float, most: float) -> list[float]:
    """The places, moved as little as keeps them `gap` apart and, if there is room, up to `most`."""
    order = np.argsort(places, kind="stable")
    moved = list(places)
    for before, this in itertools.pairwise(order):
        moved[this] = max(moved[this], moved[before] + gap)
    after = most + gap
    for this in reversed(order):
        after = moved[this] = min(moved[this], after - gap)
    return moved


def _value_curve(
    axes: Axes, recording: Recording, chosen: Sequence[Chosen], width: float, height: float
) -> None:
    """The curve on axes of this size, in inches; its words take 0.75 inches below it."""
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
    last = max(len(recording) - 1, 1)
    letters = [_letter(number) for number in range(len(chosen))]
    gap = max(_measure(letter, 9, "bold") for letter in letters) + 0.03
    places = _apart([frame.index / last * width for frame in chosen], gap, width)
    for frame, letter, place in zip(chosen, letters, places, strict=True):
        t = frame.index
        axes.plot(t, value[t], "o", color=_RED, markersize=4, clip_on=False, zorder=3)
        style = {"ha": "center", "size": 9, "weight": "bold", "color": _RED}
        axes.text(place / width, 1.02, letter, transform=axes.transAxes, **style)
    axes.set_xlim(0, last)
    axes.set_ylim(low - room, high + room)
    axes.set_xlabel("agent step", size=8)
    axes.set_ylabel("state value", size=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if bounds.stages or bounds.lives:
        place = {"loc": "upper left", "bbox_to_anchor": (0, -0.42 / height)}
        place["ncols"] = 2 if width > 2.6 else 1
        axes.legend(fontsize=8, frameon=False, borderaxespad=0, **place)


def _bar(axes: Axes, layer: Layer | Drawn) -> None:
    """The scale as it is drawn, with its ends, over black (top) to white."""
    scale = layer.scale
    extent = (scale.low, scale.high, 0, 1)
    axes.imshow(scale_bar(layer, 256, 16), extent=extent, interpolation="none", aspect="auto")
    axes.set_yticks([])
    axes.set_xticks([scale.low, (scale.low + scale.high) / 2, scale.high])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.2f}")
    axes.tick_params(labelsize=LEAST, length=2, pad=1)
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
