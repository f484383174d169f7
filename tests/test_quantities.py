"""The explorer's numbers, against cases worked out by hand."""

import dataclasses

import numpy as np
import pytest
from recordings import made_up

from maskrl.explain import quantities


def game(value, reward, first, **fields):
    """A short game with these values, rewards and first frames of lives."""
    length = len(value)
    return made_up(
        length,
        value=np.float32(value),
        reward=np.float32(reward),
        life_start=np.isin(np.arange(length), first),
        **fields,
    )


def test_advantage():
    """discount 1/2, lambda 1/2; frame 3 ends a life, frame 6 the game."""
    r = game([1, 2, 4, 9, 8, 2, 7], [0, 30, -1, 5, 0, 0.5, 0], [0, 4])
    # t = 5: reward 0.5, then the end:             0.5 - 2         = -1.5
    # t = 4: 0 + 0.5 * 2 - 8 = -7,                 -7 + 0.25 * -1.5 = -7.375
    # t = 3 ends a life: nothing is decided.
    # t = 2: reward -1, then the life's end:       -1 - 4          = -5
    # t = 1: 30 counts 1: 1 + 0.5 * 4 - 2 = 1,     1 + 0.25 * -5   = -0.25
    # t = 0: 0 + 0.5 * 2 - 1 = 0,                  0 + 0.25 * -0.25 = -0.0625
    want = [-0.0625, -0.25, -5, 0, -7.375, -1.5, 0]
    np.testing.assert_allclose(quantities.advantage(r, 0.5, 0.5), want)


def test_advantage_of_a_game_that_was_cut_off():
    r = game([1, 2, 4], [0, 1, 0], [0], cut_off=True)
    # t = 1: 1 + 0.5 * 4 - 2 = 1; t = 0: 0 + 0.5 * 2 - 1 = 0, and 0.25 * 1.
    np.testing.assert_allclose(quantities.advantage(r, 0.5, 0.5), [0.25, 1, 0])


def test_advantage_sums_the_errors():
    """With lambda 1 it is the discounted return less the value."""
    rng = np.random.default_rng(0)
    value, reward = rng.normal(size=30), rng.uniform(-1, 1, 30)
    r = game(value, reward, [0])
    returns = [sum(0.99 ** (k - t) * reward[k] for k in range(t, 29)) for t in range(29)]
    want = np.append(np.array(returns) - value[:29], 0)
    np.testing.assert_allclose(quantities.advantage(r, 0.99, 1.0), want, atol=1e-5)


def test_divergence():
    half, quarter = np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]])
    want = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    np.testing.assert_allclose(quantities.divergence(half, quarter), [want], rtol=1e-6)
    np.testing.assert_allclose(quantities.divergence(half, half + 7), [0], atol=1e-7)
    rng = np.random.default_rng(0)
    assert (quantities.divergence(*rng.normal(size=(2, 500, 18))) >= 0).all()


def test_mean_and_change():
    mask = np.zeros((3, 10, 10), np.float32)
    mask[1] = 0.5
    mask[2] = 0.5
    mask[2, 0, :5] = 0  # five cells of a hundred, by a half each
    np.testing.assert_allclose(quantities.mean(mask), [0, 0.5, 0.475], rtol=1e-6)
    np.testing.assert_allclose(quantities.change(mask), [0, 0.5, 0.025], rtol=1e-6)


def test_concentration():
    """Even: a tenth. Ten cells with everything: 1. Half in one cell, half in the 99 others."""
    mask = np.zeros((4, 10, 10), np.float32)
    mask[0] = 0.3
    mask[1, 4] = 0.7
    mask[2] = 0.5 / 99
    mask[2, 3, 3] = 0.5
    want = [0.1, 1, 0.5 + 9 * 0.5 / 99, 0.1]
    np.testing.assert_allclose(quantities.concentration(mask), want, rtol=1e-6)


def test_highest():
    mask = np.zeros((100, 10, 10), np.float32)
    mask[[20, 25, 60, 90], 0, 1] = [0.9, 0.8, 0.7, 0.6]
    steps = quantities.highest(mask, 3, 10)
    assert steps.shape == (100, 3)
    assert steps[1].tolist() == [20, 60, 90]  # 25 is too close to 20
    assert quantities.highest(mask[:5], 3, 10)[1].tolist() == [0, 0, 0]


def test_one_cell_off():
    """A cell that adds ln 3 to the first of two equal actions: 3/4 become 1/2."""
    cells = np.zeros((2, 10, 10, 2), np.float16)
    cells[1, 2, 3] = [np.log(3), 0]
    logits = np.float32([[0, 0], [np.log(3), 0]])
    r = made_up(
        2, logits=logits, cell_logits=cells, action_names=("NOOP", "FIRE"), action=np.int32([0, 0])
    )
    off = quantities.cells_off(r, 1)
    assert off.shape == (100, 2)
    np.testing.assert_allclose(off[23], [0, 0], atol=1e-3)
    np.testing.assert_array_equal(off[0], logits[1])
    first, second = quantities.cells_hang(r)
    assert not first.any()
    want = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert second[23] == pytest.approx(want, abs=1e-3)
    assert np.flatnonzero(second).tolist() == [23]


def test_clipping_is_the_learners():
    plain = game([0, 0, 0], [7, 0, 0], [0])
    clipped = dataclasses.replace(plain, reward=np.float32([1, 0, 0]))
    np.testing.assert_array_equal(quantities.advantage(plain), quantities.advantage(clipped))
