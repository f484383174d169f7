"""Crops, resizes, the running normaliser."""

import jax
import numpy as np
import pytest
from PIL import Image

from maskrl import preprocess
from maskrl.preprocess import Crop


def test_bilinear_by_hand():
    """Half-pixel centres: 2 -> 4 looks at -1/4, 1/4, 3/4, 5/4; the edge repeats."""
    np.testing.assert_allclose(
        preprocess.bilinear_matrix(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    )
    # No antialiasing: 4 -> 2 looks at 1/2 and 5/2, 6 -> 2 at 1 and 4 alone.
    np.testing.assert_allclose(
        preprocess.bilinear_matrix(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    )
    np.testing.assert_allclose(
        preprocess.bilinear_matrix(6, 2), [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    )
    np.testing.assert_allclose(preprocess.bilinear_matrix(80, 80), np.eye(80))


@pytest.mark.parametrize(("rows_in", "rows_out"), [(188, 94), (94, 80), (168, 84), (84, 80)])
def test_bilinear_against_numpy_interp(rows_in, rows_out):
    column = np.random.default_rng(0).random(rows_in)
    where = (np.arange(rows_out) + 0.5) * rows_in / rows_out - 0.5
    expected = np.interp(where, np.arange(rows_in), column)
    np.testing.assert_allclose(preprocess.bilinear_matrix(rows_in, rows_out) @ column, expected)


def test_bilinear_against_jax_image():
    image = np.random.default_rng(0).random((188, 160), np.float32)
    expected = jax.image.resize(image, (94, 80), "bilinear", antialias=False)
    rows, columns = preprocess.bilinear_matrix(188, 94), preprocess.bilinear_matrix(160, 80)
    np.testing.assert_allclose(rows @ image @ columns.T, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("game", "top", "bottom", "resized_rows"),
    [
        ("Breakout", 34, 194, 80),
        ("FishingDerby", 34, 194, 80),
        ("BeamRider", 20, 180, 80),
        ("MsPacman", 2, 170, 84),
        ("Seaquest", 30, 190, 80),
        ("SpaceInvaders", 8, 196, 94),
        ("Pong", 34, 194, 80),
    ],
)
def test_crops(game, top, bottom, resized_rows):
    """The paper's (crop1, crop2 + 160, dim2)."""
    assert preprocess.crop_of(game) == Crop(top, bottom, resized_rows)


@pytest.mark.parametrize("game", ["Breakout", "MsPacman", "SpaceInvaders"])
def test_resize_takes_both_steps(game):
    """Crop -> (dim2, 80) -> (80, 80), each step with `jax.image` in its turn."""
    crop = preprocess.crop_of(game)
    frame = np.random.default_rng(1).integers(256, size=(210, 160), dtype=np.uint8)
    image = frame[crop.top : crop.bottom].astype(np.float32) / 255
    for rows in (crop.resized_rows, 80):
        image = jax.image.resize(image, (rows, 80), "bilinear", antialias=False)
    np.testing.assert_allclose(preprocess.resize(frame[None], crop)[0], image, atol=1e-5)


def test_resize_is_no_antialiased_one():
    """Pillow's bilinear averages over all rows where it shrinks: another picture."""
    crop = Crop()
    frame = np.random.default_rng(1).integers(256, size=(210, 160), dtype=np.uint8)
    image = Image.fromarray(frame[crop.top : crop.bottom])
    other = np.asarray(image.resize((80, 80), Image.Resampling.BILINEAR)) / 255
    assert np.abs(preprocess.resize(frame[None], crop)[0] - other).max() > 0.05


def test_nothing_outside_the_crop_is_seen():
    crop = preprocess.crop_of("SpaceInvaders")
    frame = np.full((2, 210, 160), 77, np.uint8)
    frame[:, : crop.top] = 255
    frame[:, crop.bottom :] = 255
    np.testing.assert_allclose(preprocess.resize(frame, crop), 77 / 255, rtol=1e-6)


def test_rgb_is_the_mean_of_the_channels():
    rgb = np.random.default_rng(2).integers(256, size=(2, 3, 210, 160), dtype=np.uint8)
    thirds = [preprocess.resize(rgb[:, n], Crop()) for n in range(3)]
    np.testing.assert_allclose(preprocess.resize(rgb, Crop()), sum(thirds) / 3, atol=1e-6)


def test_three_grey_frames_are_no_rgb():
    """A batch of three luminance frames stays three frames."""
    grey = np.random.default_rng(2).integers(256, size=(3, 210, 160), dtype=np.uint8)
    together = preprocess.resize(grey, Crop())
    for n in range(3):
        np.testing.assert_array_equal(together[n], preprocess.resize(grey[n : n + 1], Crop())[0])


def normalise_all(pixels):
    """The observations of frames [N, B, 80, 80], one after the other."""
    step = jax.jit(preprocess.normalise)
    state, observations = preprocess.init_normaliser(pixels.shape[1]), []
    for frame in pixels:
        state, observation = step(state, frame)
        observations.append(observation)
    return state, np.array(observations)


def test_normaliser_against_float64():
    """Over 300 frames of two environments whose light changes; absolute errors below 1e-4."""
    rng = np.random.default_rng(3)
    light = rng.random((300, 2, 1, 1))
    pixels = (0.5 * light + 0.3 * rng.random((300, 2, 80, 80))).astype(np.float32)
    state, observations = normalise_all(pixels)
    mean = std = np.zeros(2)
    for n, frame in enumerate(np.float64(pixels), start=1):
        mean = 0.9999 * mean + (1 - 0.9999) * frame.mean(axis=(1, 2))
        std = 0.9999 * std + (1 - 0.9999) * frame.std(axis=(1, 2))
        correction = 1 - 0.9999**n
        scale = (std / correction + 1e-8)[:, None, None]
        expected = (frame - (mean / correction)[:, None, None]) / scale
        np.testing.assert_allclose(observations[n - 1], expected, atol=1e-4)
    np.testing.assert_allclose(state.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(state.std, std, rtol=1e-5)
    assert state.count.tolist() == [300, 300]


def test_first_frame_is_normalised_by_itself():
    """The bias correction of count 1: `1 - 0.9999**1` in float32 would be wrong by 1.7e-4.

    A frame far from 0 shows it: its mean is 20 of its standard deviations.
    """
    pixels = 0.8 + 0.04 * np.random.default_rng(4).standard_normal((1, 1, 80, 80))
    _, observation = normalise_all(pixels.astype(np.float32))
    assert abs(observation.mean()) < 1e-4
    assert abs(observation.std() - 1) < 1e-4


def test_normaliser_of_black_frames():
    """Standard deviation 0: zeros, no NaN."""
    _, observations = normalise_all(np.zeros((3, 1, 80, 80), np.float32))
    assert not observations.any()
