"""The episode explorer: one HTML file, opened from disk, in which a person walks through games.

The page is page/explorer.html with page/explorer.css, the scripts of SCRIPTS and the data inlined;
it fetches nothing. Its data are text/plain scripts, each a zlib stream in base64: the numbers and
masks of every recording as little-endian arrays, and its frames in chunks of CHUNK. In a chunk
every pixel is an index into the recording's palette (of a recording with more than 256 colours, the
colour itself), and every frame but the first is the exclusive or with the one before it, which is
mostly zeros. The frames are kept exactly; the masks to 1/65535.
"""

import base64
import dataclasses
import html
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from maskrl import files
from maskrl.config import branches
from maskrl.errors import UserError
from maskrl.explain import quantities, sights
from maskrl.explain.frames import KINDS, Chosen, boundaries, choose
from maskrl.explain.joystick import position
from maskrl.explain.overlay import (
    ABSOLUTE,
    CONTOURS,
    HAZE,
    LIGHT,
    STRENGTH,
    STYLES,
    Layer,
    Scale,
    colours,
    contrast_scale,
    layers,
)
from maskrl.explain.video import FPS, how_played, variant
from maskrl.recording import MASK_CELLS, Frames, Recording, softmax

CHUNK = 64  # frames that the page decodes at a time, some 10 ms of work
SCRIPTS = ("data", "pictures", "facts", "timeline", "moments", "sights", "export", "app")

_TELLING = 20  # moments that are listed of a long game besides its lives and stages,
_STRETCH = 25  # of a short one as many as it has stretches of so many steps
_HIGHEST, _APART = 5, 30  # times at which a cell is highest, and the steps between them
_HANGS_UNIT = 1e-4  # nats
_PAGE = pathlib.Path(__file__).parent / "page"

# The time line's curves: the array's name (of a mask: after the branch's), and its words.
_CURVES = (
    {"name": "value", "words": "state value"},
    {"name": "advantage", "words": "advantage"},
    {"name": "score", "words": "score"},
    {"name": "entropy", "words": "entropy (nats)"},
    {"name": "hangs", "words": "KL to no mask"},
    {"name": "cells", "words": "cells by time", "of": "mask"},
    {"name": "sights", "words": "looked at", "of": "mask"},
    {"name": "mean", "words": "mask: mean", "of": "mask"},
    {"name": "change", "words": "mask: change", "of": "mask"},
    {"name": "concentration", "words": "concentration", "of": "mask"},
)


def write_explorer(
    recordings: Iterable[Recording],
    path: str | pathlib.Path,
    branch: str = "both",
    contrast: bool = True,
    style: str = STYLES[0],
) -> pathlib.Path:
    """Writes the explorer of one game, or of several plays of it, any two of them side by side.

    The page opens with the first recording and, if it comes next and has the same seed, the second:
    normal and inverted play. One recording is in memory at a time, if they are read one by one.

    Args:
      recordings: of one game.
      path: the HTML file to write; it appears whole or not at all.
      branch: which masks to show: policy, value, or both (those that the agent has).
      contrast: open with the masks' scales stretched over the recordings, or from 0 to 1; the page
        can switch.
      style: how masks are drawn at first, one of `overlay.STYLES`.

    Returns:
      The path.

    Raises:
      UserError: no recording, recordings of different games, a mask that the agent lacks, or a file
        that cannot be written.
    """
    path = pathlib.Path(path)
    with files.whole(path) as partial, open(partial, "w", encoding="utf-8") as file:
        described: list[dict] = []
        seen: list[sights.Seen] = []
        for number, recording in enumerate(recordings):
            if number == 0:
                before, after = _template(recording.game).split("{{data}}")
                file.write(before)
                game = recording.game
            elif recording.game != game:
                raise UserError(f"an explorer shows one game, not {game} and {recording.game}")
            masks = layers(recording, branch, contrast=False)
            described.append(_write_recording(file, number, recording, masks))
            seen.append(sights.see(recording, {name: m.mask for name, m in masks.items()}))
            del recording  # before the next one is read
        if not described:
            raise UserError("an explorer shows at least one recording")
        header = {
            "chunk": CHUNK,
            "cells": MASK_CELLS,
            "fps": FPS,
            "style": style,
            "strength": STRENGTH,
            "haze": HAZE,
            "light": LIGHT,
            "contours": CONTOURS,
            "contrast": contrast,
            "colours": colours(np.linspace(0, 1, 256), ABSOLUTE).tolist(),
            "curves": _CURVES,
            "kinds": KINDS,
            "title": " · ".join([game, *_shared(described)]),
            "opens": _opens(described),
            "sights": _write_sights(file, seen, described),
            "recordings": described,
        }
        text = json.dumps(header).replace("<", "\\u003c")  # no "</script>" in it
        file.write(f'<script type="application/json" id="header">{text}</script>\n')
        file.write(after)
    return path


def _shared(described: Sequence[dict]) -> list[str]:
    """The variant and the agent, if they are all recordings'; else they join the plays' names.

    So do the steps of agents of one name: checkpoints of one run have its name. There they come
    first: where there is no room for a name, its end is cut. Plays that still have one name are
    told apart by their seeds.
    """
    agents = {one["agent"] for one in described}
    if len({(one["agent"], one["trained"]) for one in described}) > len(agents):
        for one in described:
            one["name"] = " · ".join(filter(None, (one["trained"], one["name"])))
    shared = []
    for part in ("variant", "agent"):
        if len({one[part] for one in described}) > 1:
            for one in described:
                one["name"] = f"{one[part]} · {one['name']}"
        else:
            shared.append(described[0][part])
    names = [one["name"] for one in described]
    for one in described:
        if names.count(one["name"]) > 1:
            one["name"] += f", seed {one['seed']}"
    return [part for part in shared if part]


def _opens(described: Sequence[dict]) -> list[int]:
    pair = len(described) > 1 and described[0]["seed"] == described[1]["seed"]
    return [0, 1] if pair else [0]


def _write_sights(file, seen: Sequence[sights.Seen], described: Sequence[dict]) -> list[dict]:
    """Writes where and when each sight is seen; returns the sights, for JSON.

    How much each recording's masks look at them is added to what describes the recording.
    """
    if not any(one.masks for one in seen):
        return []
    found, labels = sights.group(seen)
    for number, (one, label, of) in enumerate(zip(seen, labels, described, strict=True)):
        arrays, of["lookedAt"] = {"sights": label}, {}
        for name, mask in one.masks.items():
            shares = sights.shares(mask, label, len(found))
            arrays[f"{name}-sights"] = np.round(shares * 65535).astype("<u2")
            highest = [
                sorted({step for step in steps if shares[step, k] > 0})
                for k, steps in enumerate(quantities.highest(shares, _HIGHEST, _APART).tolist())
            ]
            summary = sights.summary(mask, label, len(found))
            of["lookedAt"][name] = [
                dataclasses.asdict(share) | {"most": float(most), "highest": steps}
                for share, most, steps in zip(summary, shares.max(axis=0), highest, strict=True)
            ]
        for name, array in arrays.items():
            file.write(_script(f"{number}-{name}", array))
            of["arrays"][name] = array.dtype.str[1:]
    return [dataclasses.asdict(sight) for sight in found]


def _write_recording(file, number: int, recording: Recording, masks: dict[str, Layer]) -> dict:
    """Writes a recording's data; returns what the page needs to know of it, for JSON."""
    bounds = boundaries(recording)
    boundary = len(bounds.lives) + len(bounds.stages) + 1
    telling = choose(
        recording, min(2 * boundary + _TELLING, max(len(recording) // _STRETCH, 2 * boundary, 1))
    )
    palette = _palette(recording.frames)
    kinds = {}
    for name, array in _arrays(recording, masks, telling, palette):
        file.write(_script(f"{number}-{name}", array))
        if not name.startswith("frames-"):
            kinds[name] = array.dtype.str[1:]
    return {
        "name": how_played(recording),
        "variant": variant(recording),
        "agent": recording.agent,
        "trained": f"step {recording.agent_steps:,}" if recording.agent_steps else "",
        "seed": recording.seed,
        "length": len(recording),
        "finalScore": recording.final_score,
        "end": "Cut off" if recording.cut_off else "Game over",
        "actions": [_action(name) for name in recording.action_names],
        "view": list(recording.view),
        "inverted": list(branches(recording.branch)) if recording.mode == "inverse" else [],
        "lifeStarts": list(bounds.lives),
        "stageStarts": list(bounds.stages),
        "telling": [
            {
                "step": moment.index,
                "kind": moment.kind,
                "reason": moment.reason,
                "before": moment.before,
                "after": moment.after,
            }
            for moment in telling
        ],
        "palette": None if palette is None else palette.tolist(),
        "arrays": kinds,
        "cellHangsUnit": _HANGS_UNIT,
        "scales": {
            name: {"contrast": _scale(contrast_scale(layer.mask)), "absolute": _scale(ABSOLUTE)}
            for name, layer in masks.items()
        },
    }


def _action(name: str) -> dict:
    x, y, fire = position(name)
    return {"name": name, "x": x, "y": y, "fire": fire}


def _template(name: str) -> str:
    page = (_PAGE / "explorer.html").read_text(encoding="utf-8")
    page = page.replace("{{title}}", html.escape(name))
    style = (_PAGE / "explorer.css").read_text(encoding="utf-8")
    scripts = ((_PAGE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    return page.replace("{{css}}", style).replace("{{js}}", "\n".join(scripts))


def _scale(scale: Scale) -> dict:
    return {"low": scale.low, "high": scale.high}


def _arrays(
    recording: Recording,
    masks: dict[str, Layer],
    telling: Sequence[Chosen],
    palette: np.ndarray | None,
) -> Iterator[tuple[str, np.ndarray]]:
    """The recording's arrays as the page reads them."""
    for name in ("value", "score", "entropy", "probabilities"):
        yield name, getattr(recording, name).astype("<f4")
    yield "advantage", quantities.advantage(recording).astype("<f4")
    for name in ("action", "lives"):
        yield name, getattr(recording, name).astype("<i4")
    for name, layer in masks.items():
        mask = layer.mask
        yield f"{name}-mask", np.round(mask * 65535).astype("<u2")
        for quantity in ("mean", "change", "concentration"):
            yield f"{name}-{quantity}", getattr(quantities, quantity)(mask).astype("<f4")
        yield f"{name}-highest", quantities.highest(mask, _HIGHEST, _APART).astype("<i4")
    yield from _what_ifs(recording, telling)
    for number, pixels in enumerate(_pixels(recording.frames, palette)):
        pixels[1:] ^= pixels[:-1].copy()
        yield f"frames-{number}", pixels


def _what_ifs(recording: Recording, telling: Sequence[Chosen]) -> Iterator[tuple[str, np.ndarray]]:
    """What would be at the same state without the mask, with 1 - M, and with one cell off."""
    for kind in ("unmasked", "inverted"):
        logits, value = (getattr(recording, f"{kind}_{of}") for of in ("logits", "value"))
        if logits is not None:
            yield f"{kind}-probabilities", softmax(logits).astype("<f4")
        if value is not None:
            yield f"{kind}-value", value.astype("<f4")
    if recording.unmasked_logits is not None:
        hangs = quantities.divergence(recording.logits, recording.unmasked_logits)
        yield "hangs", hangs.astype("<f4")
    if recording.cell_logits is not None:
        hangs = np.stack(list(quantities.cells_hang(recording)))
        yield "cell-hangs", np.round(np.minimum(hangs / _HANGS_UNIT, 65535)).astype("<u2")
        off = softmax(
            np.stack([quantities.cells_off(recording, moment.index) for moment in telling])
        )
        yield "cell-off", np.round(off * 65535).astype("<u2")
    if recording.cell_values is not None:
        at = [moment.index for moment in telling]
        off = recording.value[at, None] - recording.cell_values[at].reshape(len(at), -1)
        yield "cell-off-value", off.astype("<f4")


def _packed(frames: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] RGB as one little-endian number for each pixel, uint32 [...]: 0xBBGGRR."""
    padded = np.zeros((*frames.shape[:-1], 4), np.uint8)
    padded[..., :3] = frames
    return padded.view("<u4")[..., 0]


def _palette(frames: np.ndarray | Frames) -> np.ndarray | None:
    """The frames' colours, uint32 [P]; None if a byte cannot number them."""
    if isinstance(frames, Frames):
        palette = _packed(frames.palette)
    else:
        found = np.zeros(1 << 24, bool)  # by colour: quicker than sorting every pixel
        for start in range(0, len(frames), CHUNK):
            found[_packed(frames[start : start + CHUNK])] = True
        palette = np.flatnonzero(found).astype("<u4")
    return palette if len(palette) <= 256 else None


def _pixels(frames: np.ndarray | Frames, palette: np.ndarray | None) -> Iterator[np.ndarray]:
    """Frames by the chunk, [CHUNK, 210, 160]: rows of the palette, or colours if there is none."""
    parts = [slice(start, start + CHUNK) for start in range(0, len(frames), CHUNK)]
    if palette is None:
        yield from (_packed(frames[part]) for part in parts)
    elif isinstance(frames, Frames):
        yield from (frames.pixels[part].astype(np.uint8) for part in parts)
    else:
        index = np.zeros(1 << 24, np.uint8)
        index[palette] = np.arange(len(palette))
        yield from (index[_packed(frames[part])] for part in parts)


def _script(name: str, array: np.ndarray) -> str:
    text = base64.b64encode(zlib.compress(np.ascontiguousarray(array), 6)).decode("ascii")
    return f'<script type="text/plain" id="{name}">{text}</script>\n'
