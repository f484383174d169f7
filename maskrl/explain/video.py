"""A game as MP4 and as GIF: game frame | policy mask over it | value mask over it.

Under the panels stand the score, the step and the lives; the action as the joystick and button it
is, with its probability; the value, with its curve over the whole game; and the masks' scales. A
panel whose mask the agent lacks is left out, and its text moves under the game.
"""

import contextlib
import functools
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskrl import files
from maskrl.cli import progress
from maskrl.explain.frames import telling_stretch
from maskrl.explain.joystick import PRESSED, icon
from maskrl.explain.overlay import Layer, overlay, scale_bar
from maskrl.recording import Recording

FPS = 15  # real time: the console draws 60 frames a second, the agent sees every fourth
GIF_FRAMES = 150  # ten seconds; a GIF takes some 20 kB a frame
ZOOM = 2  # every pixel of the game is ZOOM x ZOOM in the video, with sharp edges

_PANEL = (160 * ZOOM, 210 * ZOOM)  # width, height
_GAP = 8
_TITLE = 54  # height of the two title lines
_NUMBERS, _SCALE = 62, 42  # heights of a text block's numbers and of its mask's scale
_BACK, _INK, _FAINT = (24, 24, 28), (240, 240, 240), (165, 165, 170)
_NOW = (90, 220, 120)  # the cursor on the value's curve
_FONT = {size: ImageFont.load_default(size) for size in (13, 15, 20)}

_ENCODING = {
    "-crf": "29",  # the edges stay sharp; 22 takes nearly twice the bytes
    "-g": "300",  # a frame of its own every 20 seconds, to jump to
    # Two of the slower presets' means give the fastest one their size: 60 % of their work.
    "-preset": "ultrafast",
    "-x264-params": "cabac=1:mbtree=1:rc-lookahead=5:weightp=0",
    "-threads": "1",  # several wait for each other, and drawing needs a core
    # Pixels are doubled: colours at half the resolution are exact without smoothing.
    "-vf": "scale=out_color_matrix=bt709:out_range=tv:flags=neighbor",
    # Players guess the colours' matrix where the file does not say it.
    "-colorspace": "bt709",
    "-color_primaries": "bt709",
    "-color_trc": "bt709",
    "-movflags": "+faststart",  # plays before it is loaded
    "-f": "mp4",  # whatever the file's name
}


def write_mp4(
    recording: Recording, layers: dict[str, Layer], path: str | pathlib.Path
) -> pathlib.Path:
    """Writes the whole game as H.264 in yuv420p, which every browser and player shows.

    One frame is in memory at a time.

    Raises:
      UserError: the file cannot be written.
    """
    import imageio_ffmpeg  # figures and the explorer, which need this module's words, do without

    path = pathlib.Path(path)
    screen = _Screen(recording, layers)
    images = _progress(screen.images(range(len(recording))), len(recording), path)
    with files.whole(path) as partial:
        partial.touch()  # a clearer error than the encoder's
        writer = imageio_ffmpeg.write_frames(
            str(partial),
            screen.size,
            fps=FPS,
            codec="libx264",
            macro_block_size=2,  # what yuv420p needs; all sizes here are even
            quality=None,
            output_params=[word for option in _ENCODING.items() for word in option],
        )
        with contextlib.closing(writer):
            writer.send(None)
            for image in images:
                writer.send(image)
    return path


def write_gif(
    recording: Recording,
    layers: dict[str, Layer],
    path: str | pathlib.Path,
    stretch: tuple[int, int] | None = None,
) -> pathlib.Path:
    """Writes an excerpt of the game as an animated GIF, in nearly real time, and says so on it.

    Args:
      recording: the game.
      layers: the masks.
      path: the file to write.
      stretch: frames [start, stop) to show; if not given, the GIF_FRAMES in which most happens.

    Raises:
      UserError: the file cannot be written.
    """
    path = pathlib.Path(path)
    start, stop = stretch or telling_stretch(recording, GIF_FRAMES)
    whole = stop - start == len(recording)
    note = "" if whole else f"excerpt: steps {start} to {stop - 1} of {len(recording)}"
    screen = _Screen(recording, layers, note)
    # One palette for all frames, without dithering: colours that flicker would look like news.
    palette = _palette(screen, np.linspace(start, stop - 1, 8).astype(int), recording.frames)
    images = (
        Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE)
        for image in _progress(screen.images(range(start, stop)), stop - start, path)
    )
    with files.whole(path) as partial:
        next(images).save(
            partial,
            "GIF",
            save_all=True,
            append_images=images,
            duration=round(100 / FPS) * 10,
            loop=0,
        )
    return path


def still(recording: Recording, layers: dict[str, Layer], t: int) -> Image.Image:
    """One frame of the video."""
    return Image.fromarray(next(_Screen(recording, layers).images([t])))


@functools.lru_cache(512)
def _text(words: str, colour: tuple[int, int, int], size: int) -> np.ndarray:
    """Words over the background. Most stand there for many frames, and letters are slow to draw."""
    _, _, right, bottom = _FONT[size].getbbox(words)
    image = Image.new("RGB", (int(right), int(bottom)), _BACK)
    ImageDraw.Draw(image).text((0, 0), words, colour, _FONT[size])
    return np.asarray(image)


@functools.cache
def _stick(action: str) -> np.ndarray:
    """The action's joystick over the background."""
    stick = icon(action, 44)
    image = Image.new("RGB", stick.size, _BACK)
    image.paste(stick, (0, 0), stick)
    return np.asarray(image)


def _put(image: np.ndarray, part: np.ndarray, x: int, y: int) -> None:
    """Copies a part into the image, as far as there is room."""
    room = image[y : y + len(part), x : x + part.shape[1]]
    room[:] = part[: len(room), : room.shape[1]]


class _Screen:
    """The video's picture: what never changes is drawn once, the rest for every frame."""

    def __init__(self, recording: Recording, layers: dict[str, Layer], note: str = ""):
        self._recording, self._layers = recording, layers
        self._chosen = recording.probabilities[np.arange(len(recording)), recording.action]
        self._score = recording.score
        columns = ["game", *layers]
        # Each text block stands under its own panel, or under the game's where there is none.
        self._block, bottom = {}, dict.fromkeys(columns, _TITLE + _PANEL[1])
        for block in ("game", "policy", "value"):
            column = block if block in columns else "game"
            self._block[block] = (columns.index(column) * (_PANEL[0] + _GAP), bottom[column])
            bottom[column] += _NUMBERS + (_SCALE if block in layers else 0)
        x, y = self._block["value"]
        self._curve = (x + 130, y + 8, 182, 44)  # left, top, width, height
        self._panel = {name: self._block[name][0] for name in columns}
        self.size = (len(columns) * (_PANEL[0] + _GAP) - _GAP, max(bottom.values()))
        self._still = self._draw_still(note)

    def images(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The pictures of these frames, uint8 [height, width, 3], RGB."""
        for t in indices:
            image = self._still.copy()
            self._draw_panels(image, t)
            self._draw_numbers(image, t)
            yield image

    def _draw_still(self, note: str) -> np.ndarray:
        """Titles, names of the panels, scales, and the value's curve."""
        image = Image.new("RGB", self.size, _BACK)
        draw = ImageDraw.Draw(image)
        width = self.size[0]
        if note:
            draw.text((width - 6, 5), note, _FAINT, _FONT[15], anchor="ra")
            width -= round(draw.textlength(note, _FONT[15])) + 12
        _fit(draw, (6, 5), title(self._recording), width - 12)
        for name, x in self._panel.items():
            words = "game" if name == "game" else mask_name(self._recording, name)
            draw.text((x + 6, 30), words, _INK, _FONT[15])
        for name, layer in self._layers.items():
            x, y = self._block[name]
            bar = Image.fromarray(scale_bar(layer, _PANEL[0] - 12, 14))
            image.paste(bar, (x + 6, y + 62))
            draw.text((x + 6, y + 80), layer.scale.words, _FAINT, _FONT[13])
        value = self._recording.value
        low, high = value.min(), value.max()
        left, top, width, height = self._curve
        rows = top + (high - value) / (high - low or 1) * (height - 1)
        columns = left + np.linspace(0, width - 1, len(value))
        draw.line(list(zip(columns.tolist(), rows.tolist(), strict=True)), _FAINT)
        return np.asarray(image)

    def _draw_panels(self, image: np.ndarray, t: int) -> None:
        frame = self._recording.frames[t]
        for name, x in self._panel.items():
            if name != "game":
                layer = self._layers[name]
                panel = overlay(frame, [layer.at(t)], self._recording.view)
            else:
                panel = frame
            _put(image, panel.repeat(ZOOM, axis=1).repeat(ZOOM, axis=0), x, _TITLE)

    def _draw_numbers(self, image: np.ndarray, t: int) -> None:
        r = self._recording
        x, y = self._block["game"]
        _put(image, _text(f"score {self._score[t]:.0f}", _INK, 20), x + 6, y + 8)
        lives = f"   lives {r.lives[t]}" if r.lives.any() else ""  # Fishing Derby has none
        _put(image, _text(f"step {t} of {len(r)}{lives}", _FAINT, 15), x + 6, y + 36)

        x, y = self._block["policy"]
        action = r.action_names[r.action[t]]
        _put(image, _stick(action), x + 6, y + 8)
        _put(image, _text(action, _INK, 20), x + 96, y + 8)
        _put(image, _text(f"probability {self._chosen[t]:.2f}", _FAINT, 15), x + 96, y + 36)

        x, y = self._block["value"]
        _put(image, _text(f"{r.value[t]:.2f}", _INK, 20), x + 6, y + 8)
        _put(image, _text("state value", _FAINT, 15), x + 6, y + 36)
        left, top, width, height = self._curve
        now = left + t * (width - 1) // max(len(r) - 1, 1)
        image[top : top + height, now] = _NOW


def title(recording: Recording) -> str:
    """The line over every picture: game, agent, variant, and how it was played."""
    parts = [recording.game, variant(recording), how_played(recording), recording.agent]
    return " · ".join(part for part in parts if part)


def variant(recording: Recording) -> str:
    """Which masks the agent has."""
    words = {
        "both": "Mask A3C (policy and value mask)",
        "policy": "Mask A3C (policy mask)",
        "value": "Mask A3C (value mask)",
        "none": "A3C (no mask)",
    }
    return words.get(recording.mask, recording.mask)


def how_played(recording: Recording) -> str:
    """Normal, with what mask inverted, or at random; and whether actions were sampled."""
    words = {"inverse": f"{recording.branch} mask inverted", "random": "random play"}
    return words.get(recording.mode, "normal play") + ", sampled" * recording.sample


def mask_name(recording: Recording, branch: str) -> str:
    """What a drawn mask is called: in inverted play it is 1 - M, as it was applied."""
    inverted = recording.mode == "inverse" and recording.branch in (branch, "both")
    return f"{branch} mask" + (" (1 - M)" if inverted else "")


def _palette(screen: _Screen, sample: np.ndarray, frames: np.ndarray) -> Image.Image:
    """256 colours: the text's and the game's commonest as they are, the rest by median cut."""
    colours, counts = np.unique(frames[sample].reshape(-1, 3), axis=0, return_counts=True)
    exact = [_BACK, _INK, _FAINT, _NOW, PRESSED, *colours[np.argsort(-counts)[:40]].tolist()]
    width, height = screen.size
    sheet = Image.new("RGB", (width, height * len(sample)))
    for row, image in enumerate(screen.images(sample)):
        sheet.paste(Image.fromarray(image), (0, row * height))
    rest = sheet.quantize(256 - len(exact)).getpalette()
    palette = Image.new("P", (1, 1))
    palette.putpalette([*np.ravel(exact).tolist(), *rest])
    return palette


def _fit(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int) -> None:
    """Draws the text, smaller or even cut off with dots where it is wider than `width`."""
    font = _FONT[15] if draw.textlength(text, _FONT[15]) <= width else _FONT[13]
    while draw.textlength(text, font) > width:
        text = text.removesuffix("…")[:-1] + "…"
    draw.text(at, text, _INK, font)


def _progress(images: Iterator[np.ndarray], total: int, path: pathlib.Path) -> Iterable:
    return progress(images, total=total, desc=path.name, unit=" frames", leave=False)
