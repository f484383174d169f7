import numpy as np
import pytest
from golden_pictures import TOLERANCE, difference
from recordings import made_up

from maskrl.errors import UserError
from maskrl.explain.overlay import (
    ABSOLUTE,
    Scale,
    colours,
    contrast_scale,
    layers,
    overlay,
    scale_bar,
)

VIEWS = [(34, 194), (8, 196), (2, 170), (20, 180), (30, 190)]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("cell", [(0, 0), (0, 9), (4, 5), (9, 0), (9, 9)])
def test_marked_cell_covers_its_pixels_and_no_others(view, cell):
    top, bottom = view
    row, column = cell
    mask = np.zeros((10, 10), np.float32)
    mask[cell] = 1
    frame = np.random.default_rng(0).integers(0, 256, (210, 160, 3), np.uint8)

    marked = overlay(frame, mask, view, opacity=1)

    lit = (marked == colours(np.ones(1), ABSOLUTE)).all(axis=-1)
    lit[:top], lit[bottom:] = False, False
    centres = (np.arange(210) + 0.5 - top) * 10 / (bottom - top)
    rows = (centres >= row) & (centres < row + 1) & (np.arange(210) < bottom)
    columns = np.arange(160) // 16 == column
    np.testing.assert_array_equal(lit, rows[:, None] & columns)
    np.testing.assert_array_equal(marked[:top], frame[:top])
    np.testing.assert_array_equal(marked[bottom:], frame[bottom:])


def test_opacity_blends_with_the_grey_frame():
    frame = np.full((210, 160, 3), (90, 60, 30), np.uint8)
    mask = np.full((10, 10), 0.5)
    np.testing.assert_array_equal(overlay(frame, mask, (34, 194), opacity=0)[40, 0], [60] * 3)
    half = overlay(frame, mask, (34, 194), opacity=0.5)[40, 0].astype(float)
    np.testing.assert_allclose(half, 30 + colours(mask, ABSOLUTE)[0, 0] / 2, atol=0.51)


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


def test_scale_bar_shows_what_the_overlay_shows():
    view, scale = (34, 194), Scale(0.2, 0.6, "test")
    for shade, row in ((0, 0), (255, -1)):
        frame = np.full((210, 160, 3), shade, np.uint8)
        over = overlay(frame, np.full((10, 10), 0.4), view, scale)[100, 80].astype(int)
        bar = scale_bar(scale, 101, 8)[row, 50].astype(int)
        assert np.abs(over - bar).max() <= 1


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
