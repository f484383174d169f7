import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from golden_pictures import TOLERANCE, difference
from PIL import Image
from recordings import made_up

from maskrl.errors import UserError
from maskrl.explain.joystick import icon, position
from maskrl.explain.overlay import layers, overlay
from maskrl.explain.video import still, title, write_gif, write_mp4

POLICY, TOP = 328, 54  # where the policy panel begins in the picture; two pixels for each


def planted():
    """A game whose policy mask is 1 in one cell, which moves, and 0 elsewhere."""
    mask = np.zeros((12, 10, 10), np.float32)
    mask[np.arange(12), 3, np.arange(12) % 10] = 1
    game = made_up(12, policy_mask=mask)
    return game, layers(game, contrast=False, style="colours")


def decode(path, width: int, height: int) -> tuple[str, np.ndarray]:
    """What the decoder says of the file, and its pictures, uint8 [T, height, width, 3]."""
    decoder = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path]
    done = subprocess.run(
        [*decoder, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    )
    return done.stderr.decode(), np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def panel(picture: np.ndarray) -> np.ndarray:
    return picture[TOP : TOP + 420 : 2, POLICY : POLICY + 320 : 2].astype(int)


def test_mp4_decodes_to_what_was_drawn(tmp_path):
    game, shown = planted()
    facts, pictures = decode(write_mp4(game, shown, tmp_path / "new" / "game.mp4"), 976, 578)
    assert len(pictures) == 12
    assert all(fact in facts for fact in ("Video: h264", "yuv420p", "976x578", "15 fps"))
    for t, picture in enumerate(pictures):
        expected = overlay(game.frames[t], [shown["policy"].at(t)], game.view).astype(int)
        assert np.abs(panel(picture) - expected).mean() < 4
        cells = panel(picture)[8:196].sum(axis=-1)[9::19, 8::16]  # one pixel in each cell
        assert np.unravel_index(cells.argmax(), cells.shape) == (3, t % 10)


def test_gif_shows_the_whole_short_game(tmp_path):
    game, shown = planted()
    with Image.open(write_gif(game, shown, tmp_path / "game.gif")) as gif:
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (12, (976, 578), 70)
        for t in range(12):
            gif.seek(t)
            drawn = panel(np.asarray(gif.convert("RGB")))
            expected = overlay(game.frames[t], [shown["policy"].at(t)], game.view)
            assert np.abs(drawn - expected).mean() < 4


def test_gif_of_a_long_game_is_an_excerpt_that_says_so(tmp_path):
    game = made_up(200, mask="none")
    with Image.open(write_gif(game, {}, tmp_path / "game.gif", stretch=(20, 25))) as gif:
        assert gif.n_frames == 5
        first = np.asarray(gif.convert("RGB")).astype(int)
    plain = np.asarray(still(game, {}, 20)).astype(int)
    assert np.abs(first - plain)[:26].max() > 100  # the title line says which steps
    assert np.abs(first - plain)[TOP : TOP + 420].mean() < 2


@pytest.mark.parametrize(
    ("mask", "size"), [("both", (976, 578)), ("policy", (648, 598)), ("none", (320, 660))]
)
def test_panels_that_there_are(mask, size):
    game = made_up(mask=mask)
    picture = still(game, layers(game), 5)
    assert picture.size == size
    assert all(length % 2 == 0 for length in size)
    np.testing.assert_array_equal(np.asarray(picture)[54:474:2, 0:320:2], game.frames[5])


def test_title():
    assert title(made_up()) == (
        "SpaceInvaders · Mask A3C (policy and value mask) · normal play · made up"
    )
    assert "value mask inverted" in title(made_up(mode="inverse", branch="value"))
    assert "A3C (no mask)" in title(made_up(mask="none"))


def test_joystick():
    assert position("UPRIGHTFIRE") == (1, -1, True)
    assert position("DOWNLEFT") == (-1, 1, False)
    assert position("NOOP") == (0, 0, False)
    for name in ("JUMP", "", "UPDOWN", "FIREUP"):
        with pytest.raises(UserError, match="no action of the console"):
            icon(name, 24)


def test_unwritable(tmp_path):
    (tmp_path / "file").touch()
    game, shown = planted()
    for write, name in ((write_mp4, "game.mp4"), (write_gif, "game.gif")):
        with pytest.raises(UserError, match=f"cannot write .*{name}: "):
            write(game, shown, tmp_path / "file" / name)


def test_an_interrupted_video_leaves_no_file(tmp_path):
    game = made_up(12, action_names=("NOOP", "FIRE", "UP", "LEFT", "RIGHT", "JUMP"))
    for write, name in ((write_mp4, "game.mp4"), (write_gif, "game.gif")):
        with pytest.raises(UserError, match="JUMP"):
            write(game, {}, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_golden():
    assert difference("video") <= TOLERANCE
