"""Pictures that must not change silently.

`python tests/golden_pictures.py` writes them anew to tests/golden, but for the explorer's: one that
is missing is written by its test. Look at them before committing.
Tolerance: the mean difference to the golden picture is at most 2 of 255 levels. Figures are
compared at a quarter of their size, since fonts are drawn a little differently by every version.
"""

import io
import pathlib

import numpy as np
from PIL import Image
from recordings import made_up

from maskrl.explain import figures
from maskrl.explain.frames import choose
from maskrl.explain.joystick import icon
from maskrl.explain.overlay import STYLES, layers, overlay
from maskrl.explain.video import still

FOLDER = pathlib.Path(__file__).parent / "golden"
TOLERANCE = 2.0


def overlay_picture() -> Image.Image:
    game = made_up()
    masks = ("policy", "value")
    pictures = [
        overlay(
            game.frames[7], [layers(game, style=style)[name].at(7) for name in shown], game.view
        )
        for style in STYLES
        for shown in (masks[:1], masks)
    ]
    return Image.fromarray(np.hstack(pictures))


def joystick_picture() -> Image.Image:
    picture = Image.new("RGB", (210, 30), "white")
    for column, name in enumerate(("NOOP", "FIRE", "LEFT", "UPRIGHT", "DOWNLEFTFIRE")):
        picture.paste(stick := icon(name, 24, (0, 0, 0)), (42 * column, 3), stick)
    return picture


def video_picture() -> Image.Image:
    game = made_up()
    return still(game, layers(game), 7)


def policy_picture() -> Image.Image:
    game = made_up()
    return _quarter(figures.policy_figure(game, layers(game)["policy"], choose(game, 4)))


def value_picture() -> Image.Image:
    game = made_up()
    return _quarter(figures.value_figure(game, layers(game)["value"], choose(game, 4)))


def gallery_picture() -> Image.Image:
    game = made_up()
    row = figures.gallery_row(game, layers(game)["policy"], choose(game, 4))
    return _quarter(figures.gallery([row, row], "policy"))


def consecutive_picture() -> Image.Image:
    game = made_up()
    return _quarter(figures.consecutive(game, layers(game), 3))


def narrow_picture() -> Image.Image:
    game = made_up()
    layout = figures.Layout(3.5, title=False)
    return _quarter(figures.value_figure(game, layers(game)["value"], choose(game, 4), layout))


def reaction_picture() -> Image.Image:
    game = made_up()
    scales = {name: layer.scale for name, layer in layers(game).items()}
    before, after = (moment(game, t) for t in (7, 9))
    names = game.action_names
    return _quarter(figures.reaction(before, after, game.view, names, "A changed state", scales))


def moment(game, t: int) -> figures.Moment:
    masks = {name: mask[t] for name, mask in game.masks().items()}
    return figures.Moment(game.frames[t], masks, game.probabilities[t], float(game.value[t]))


PICTURES = {
    "overlay": overlay_picture,
    "joystick": joystick_picture,
    "video": video_picture,
    "policy": policy_picture,
    "value": value_picture,
    "gallery": gallery_picture,
    "consecutive": consecutive_picture,
    "narrow": narrow_picture,
    "reaction": reaction_picture,
}


def difference(name: str, now: Image.Image | None = None) -> float:
    """The mean difference, in levels, of the picture as it is drawn now to the golden one."""
    now = now or PICTURES[name]()
    with Image.open(FOLDER / f"{name}.png") as golden:
        assert golden.size == now.size
        return float(np.abs(np.asarray(golden, float) - np.asarray(now, float)).mean())


def most_different(name: str, now: Image.Image, tiles: int = 8) -> float:
    """The same of the most different one of so many by so many tiles."""
    with Image.open(FOLDER / f"{name}.png") as golden:
        assert golden.size == now.size
        apart = np.abs(np.asarray(golden, float) - np.asarray(now, float)).mean(axis=-1)
    rows = np.array_split(apart, tiles)
    return max(tile.mean() for row in rows for tile in np.array_split(row, tiles, axis=1))


def _quarter(figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, dpi=200)
    with Image.open(file) as picture:
        return picture.convert("RGB").reduce(4)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        draw().save(FOLDER / f"{name}.png", optimize=True)
