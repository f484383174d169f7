"""The episode explorer: one HTML file, opened from disk, in which a person walks through a game.

The page is explorer.html with explorer.css, explorer.js and the data inlined; it fetches nothing.
Its data are text/plain scripts, each a zlib stream in base64: the numbers and masks of every
recording as little-endian arrays, and its frames in chunks of CHUNK. In a chunk every pixel is an
index into the recording's palette (of a recording with more than 256 colours, the colour itself),
and every frame but the first is the exclusive or with the one before it, which is mostly zeros.
The frames are kept exactly; the masks to 1/65535.
"""

import base64
import contextlib
import html
import json
import pathlib
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from maskrl.errors import UserError
from maskrl.explain.frames import boundaries, choose
from maskrl.explain.overlay import ABSOLUTE, OPACITY, Layer, Scale, colours, contrast_scale, layers
from maskrl.explain.video import FPS, title
from maskrl.recording import MASK_CELLS, Recording

CHUNK = 64  # frames that the page decodes at a time, some 10 ms of work

_TELLING = 16  # telling frames that are listed of a long game,
_STRETCH = 40  # of a short one as many as it has stretches of so many steps
_HERE = pathlib.Path(__file__).parent


def write_explorer(
    recordings: Sequence[Recording],
    path: str | pathlib.Path,
    branch: str = "both",
    contrast: bool = True,
) -> pathlib.Path:
    """Writes the explorer of one game, or of two that are played side by side, step by step.

    Args:
      recordings: one recording, or two of the same game, such as normal and inverted play.
      path: the HTML file to write; it appears whole or not at all.
      branch: which masks to show: policy, value, or both (those that the agent has).
      contrast: open with the masks' colours stretched over each recording, or from 0 to 1; the
        page can switch.

    Returns:
      The path.

    Raises:
      UserError: not one or two recordings, recordings of different games, a mask that the agent
        lacks, or a file that cannot be written.
    """
    if len(recordings) not in (1, 2):
        raise UserError(f"an explorer shows one recording or two, not {len(recordings)}")
    games = {recording.game for recording in recordings}
    if len(games) > 1:
        raise UserError(f"an explorer shows one game, not {' and '.join(sorted(games))}")
    shown = [layers(recording, branch, contrast=False) for recording in recordings]

    path = pathlib.Path(path)
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8") as file:
            before, after = _template(_title(recordings)).split("{{data}}")
            file.write(before)
            described = []
            for number, (recording, masks) in enumerate(zip(recordings, shown, strict=True)):
                palette = _palette(recording.frames)
                described.append(_describe(recording, masks, palette))
                for name, array in _arrays(recording, masks, palette):
                    file.write(_script(f"{number}-{name}", array))
            header = {
                "chunk": CHUNK,
                "cells": MASK_CELLS,
                "fps": FPS,
                "opacity": OPACITY,
                "contrast": contrast,
                "colours": colours(np.linspace(0, 1, 256), ABSOLUTE).tolist(),
                "recordings": described,
            }
            text = json.dumps(header).replace("<", "\\u003c")  # no "</script>" in it
            file.write(f'<script type="application/json" id="header">{text}</script>\n')
            file.write(after)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return path


def _title(recordings: Sequence[Recording]) -> str:
    beside = "".join(f" · beside {_mode(recording)}" for recording in recordings[1:])
    return title(recordings[0]) + beside


def _mode(recording: Recording) -> str:
    words = {"inverse": f"{recording.branch} mask inverted", "random": "random play"}
    return words.get(recording.mode, "normal play")


def _template(name: str) -> str:
    page = (_HERE / "explorer.html").read_text(encoding="utf-8")
    page = page.replace("{{title}}", html.escape(name))
    for part in ("css", "js"):
        text = (_HERE / f"explorer.{part}").read_text(encoding="utf-8")
        page = page.replace("{{" + part + "}}", text)
    return page


def _describe(recording: Recording, masks: dict[str, Layer], palette: np.ndarray | None) -> dict:
    """What the page needs to know of a recording, for JSON."""
    bounds = boundaries(recording)
    telling = choose(recording, min(_TELLING, max(len(recording) // _STRETCH, 1)))
    return {
        "name": _mode(recording),
        "seed": recording.seed,
        "length": len(recording),
        "finalScore": recording.final_score,
        "actions": list(recording.action_names),
        "view": list(recording.view),
        "lifeStarts": list(bounds.lives),
        "stageStarts": list(bounds.stages),
        "telling": [{"step": frame.index, "reason": frame.reason} for frame in telling],
        "palette": None if palette is None else palette.tolist(),
        "scales": {
            name: {"contrast": _scale(contrast_scale(layer.mask)), "absolute": _scale(ABSOLUTE)}
            for name, layer in masks.items()
        },
    }


def _scale(scale: Scale) -> dict:
    return {"low": scale.low, "high": scale.high, "words": scale.words}


def _arrays(
    recording: Recording, masks: dict[str, Layer], palette: np.ndarray | None
) -> Iterator[tuple[str, np.ndarray]]:
    """The recording's arrays as the page reads them."""
    for name in ("value", "score", "reward", "entropy", "probabilities"):
        yield name, getattr(recording, name).astype("<f4")
    for name in ("action", "lives"):
        yield name, getattr(recording, name).astype("<i4")
    for name, layer in masks.items():
        yield f"{name}-mask", np.round(layer.mask * 65535).astype("<u2")
    for number, start in enumerate(range(0, len(recording), CHUNK)):
        pixels = _packed(recording.frames[start : start + CHUNK])
        if palette is not None:
            pixels = np.searchsorted(palette, pixels).astype("u1")
        pixels[1:] ^= pixels[:-1].copy()
        yield f"frames-{number}", pixels


def _packed(frames: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] RGB as one little-endian number for each pixel, uint32 [...]: 0xBBGGRR."""
    return frames @ np.array([1, 1 << 8, 1 << 16], "<u4")


def _palette(frames: np.ndarray) -> np.ndarray | None:
    """The frames' colours, uint32 in ascending order; None if a byte cannot number them."""
    found = np.array([], "<u4")
    for start in range(0, len(frames), CHUNK):
        pixels = _packed(frames[start : start + CHUNK])
        found = np.union1d(found, pixels[~np.isin(pixels, found)])
        if len(found) > 256:
            return None
    return found


def _script(name: str, array: np.ndarray) -> str:
    text = base64.b64encode(zlib.compress(array.tobytes(), 6)).decode("ascii")
    return f'<script type="text/plain" id="{name}">{text}</script>\n'
