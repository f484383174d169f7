import numpy as np
import pytest
from golden_pictures import TOLERANCE, difference
from recordings import made_up

from maskrl.errors import UserError
from maskrl.explain.overlay import (
    ABSOLUTE,
    HAZE,
    LIGHT,
    STRENGTH,
    STYLES,
    Drawn,
    Scale,
    colours,
    contrast_scale,
    layers,
    overlay,
    scale_bar,
)

VIEWS = [(34, 194), (8, 196), (2, 170), (20, 180), (30, 190)]


FRAME = np.random.default_rng(0).integers(0, 256, (210, 160, 3), np.uint8)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("cell", [(0, 0), (0, 9), (4, 5), (9, 0), (9, 9)])
def test_marked_cell_covers_its_pixels_and_no_others(view, cell):
    top, bottom = view
    mask = np.zeros((10, 10), np.float32)
    mask[cell] = 1

    marked = overlay(FRAME, [Drawn(mask, style="colours")], view, strength=1)

    lit = (marked == colours(np.ones(1), ABSOLUTE)).all(axis=-1)
    lit[:top], lit[bottom:] = False, False
    inside = rectangle(view, cell)
    np.testing.assert_array_equal(lit, inside)
    np.testing.assert_array_equal(marked[:top], FRAME[:top])
    np.testing.assert_array_equal(marked[bottom:], FRAME[bottom:])


def rectangle(view, cell) -> np.ndarray:
    """bool [210, 160]: the pixels whose centres lie in the cell."""
    top, bottom = view
    centres = (np.arange(210) + 0.5 - top) * 10 / (bottom - top)
    rows = (centres >= cell[0]) & (centres < cell[0] + 1) & (np.arange(210) < bottom)
    return rows[:, None] & (np.arange(160) // 16 == cell[1])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("cell", [(0, 0), (4, 5), (9, 9)])
def test_contours_stand_just_inside_the_marked_cell(view, cell):
    mask = np.zeros((10, 10), np.float32)
    mask[cell] = 0.6  # above half, below three quarters
    drawn = overlay(FRAME, [Drawn(mask, style="contours")], view)
    changed = (drawn != FRAME).any(axis=-1)
    inside = rectangle(view, cell)
    core = np.pad(inside, 1)
    core = inside & core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    assert not changed[~inside].any()
    assert not changed[core].any()
    assert (drawn[inside & ~core] == LIGHT["policy"]).all()


def test_spotlight_keeps_the_games_colours():
    """At the top of the scale the frame in a haze, at its end dimmed; nothing is turned grey."""
    mask = np.zeros((10, 10), np.float32)
    mask[5:] = 1
    frame = np.full((210, 160, 3), (200, 80, 40), np.uint8)
    drawn = overlay(frame, [Drawn(mask)], (34, 194)).astype(float)
    np.testing.assert_allclose(drawn[60, 80], (1 - STRENGTH) * np.array([200, 80, 40]), atol=0.51)
    haze = HAZE * np.array(LIGHT["policy"])
    want = np.array([200, 80, 40]) * (1 - haze / 255) + haze
    np.testing.assert_allclose(drawn[180, 80], want, atol=0.51)
    black = overlay(np.zeros_like(frame), [Drawn(mask)], (34, 194))
    assert black[180, 80].sum() > 150 > 0 == black[60, 80].sum()  # also seen on a black screen


def test_two_masks_where_their_lines_fall_together_take_turns():
    mask = np.zeros((10, 10), np.float32)
    mask[4, 4] = 1
    both = [Drawn(mask, style="contours", light=LIGHT[name]) for name in ("policy", "value")]
    frame = np.zeros((210, 160, 3), np.uint8)
    drawn = overlay(frame, both, (34, 194))[rectangle((34, 194), (4, 4))]
    shares = [np.mean((drawn == LIGHT[name]).all(axis=-1)) for name in ("policy", "value")]
    assert shares[0] == pytest.approx(shares[1], rel=0.3)
    assert min(shares) > 0.05


def test_colours_blend_with_the_grey_frame():
    frame = np.full((210, 160, 3), (90, 60, 30), np.uint8)
    drawn = [Drawn(np.full((10, 10), 0.5), style="colours")]
    np.testing.assert_array_equal(overlay(frame, drawn, (34, 194), strength=0)[40, 0], [60] * 3)
    half = overlay(frame, drawn, (34, 194), strength=0.5)[40, 0].astype(float)
    np.testing.assert_allclose(half, 30 + colours(drawn[0].mask, ABSOLUTE)[0, 0] / 2, atol=0.51)


def test_colours_are_lighter_for_larger_values():
    lightness = colours(np.linspace(0, 1, 50), ABSOLUTE) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()


def test_scales():
    mask = np.linspace(0.2, 0.4, 1000, dtype=np.float32).reshape(10, 10, 10)
    scale = contrast_scale(mask)
    assert scale.words == "contrast-stretched scale, 0.2 to 0.4"
    assert (scale.low, scale.high) == pytest.approx((0.202, 0.398))
    assert contrast_scale(np.full((5, 10, 10), 0.3)) == ABSOLUTE
    np.testing.assert_array_equal(
        colours(np.array([-9, 9]), scale), colours(np.arange(2), ABSOLUTE)
    )


@pytest.mark.parametrize("style", STYLES)
def test_scale_bar_shows_what_the_overlay_shows(style):
    view, scale = (34, 194), Scale(0.2, 0.6, "test")
    for shade, row in ((0, 0), (255, -1)):
        frame = np.full((210, 160, 3), shade, np.uint8)
        drawn = Drawn(np.full((10, 10), 0.36), scale, style)
        over = overlay(frame, [drawn], view)[100, 80].astype(int)
        bar = scale_bar(drawn, 101, 8)[row, 40].astype(int)
        assert np.abs(over - bar).max() <= 1


def test_plays_side_by_side_share_a_scale():
    game = made_up()
    inverted = made_up(mode="inverse", policy_mask=1 - game.policy_mask)
    one, other = (layers(r, beside=[game, inverted]) for r in (game, inverted))
    scale = one["policy"].scale
    assert scale == other["policy"].scale
    assert scale.low == contrast_scale(game.policy_mask).low
    assert scale.high == contrast_scale(inverted.policy_mask).high
    assert one["value"].scale == layers(game)["value"].scale


def test_layers_are_the_masks_that_there_are():
    assert list(layers(made_up())) == ["policy", "value"]
    assert list(layers(made_up(), "value")) == ["value"]
    assert layers(made_up(mask="none")) == {}
    assert layers(made_up(), contrast=False)["policy"].scale == ABSOLUTE
    with pytest.raises(UserError, match=r"has no policy mask \(its masks: value"):
        layers(made_up(mask="value"), "policy")


@pytest.mark.parametrize("name", ["overlay", "joystick"])
def test_golden(name):
    assert difference(name) <= TOLERANCE
