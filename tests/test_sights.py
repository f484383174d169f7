"""The legend of what masks look at, where the kinds of things are known."""

import numpy as np
import pytest
from recordings import made_up, things

from maskrl.explain import sights


def see(*games):
    return [sights.see(game, game.masks()) for game in games]


def test_known_things_are_the_kinds():
    game, kinds = things()
    seen = see(game)
    found, (label,) = sights.group(seen)
    assert len(found) == 4
    for kind in range(4):
        numbers = np.unique(label[kinds == kind])
        assert len(numbers) == 1
        assert (label == numbers[0]).sum() == (kinds == kind).sum()
        sight = found[numbers[0]]
        assert kinds[sight.step, sight.cell] == kind
    looked_at = [kinds[sight.step, sight.cell] for sight in found]
    assert set(looked_at[:2]) == {1, 2}  # they hold more of the mask than of the screen
    assert looked_at[3] == 0


def test_shares():
    """98 of 100 cells at 0.1, two at 0.9: 11.6 in all."""
    game, kinds = things()
    mask = game.policy_mask.reshape(60, 100)
    per_step = sights.shares(mask, kinds, 4)
    np.testing.assert_allclose(per_step, np.tile([9.6, 0.9, 0.9, 0.2], (60, 1)) / 11.6, 1e-5)
    summary = sights.summary(mask, kinds, 4)
    for kind, (sum_of, cells, steps) in enumerate(
        ((9.6, 96, 0), (0.9, 1, 1), (0.9, 1, 1), (0.2, 2, 0))
    ):
        share = summary[kind]
        assert share.mask == pytest.approx(sum_of / 11.6, rel=1e-5)
        assert share.screen == cells / 100
        assert share.steps == steps


def test_shares_sum_to_one():
    rng = np.random.default_rng(0)
    mask, label = rng.random((20, 100), np.float32), rng.integers(0, 7, (20, 100))
    shares = sights.shares(mask, label, 7)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    summary = sights.summary(mask, label, 7)
    for of in ("mask", "screen"):
        assert sum(getattr(share, of) for share in summary) == pytest.approx(1)
    assert not sights.shares(np.zeros((2, 100)), label[:2], 7).any()


def test_recordings_share_their_kinds():
    (one, kinds), (other, others) = things(), things(1)
    _, labels = sights.group(see(one, other))
    for kind in range(4):
        assert set(labels[0][kinds == kind]) == set(labels[1][others == kind])


def test_it_is_the_same_every_time():
    game, _ = things()
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, game.frames.shape, np.uint8)
    busy = made_up(60, frames=np.where(rng.random(noise.shape) < 0.1, noise, game.frames))
    first, second = (sights.group(see(busy)) for _ in range(2))
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1][0], second[1][0])
    assert len(first[0]) == sights.COUNT


def test_an_even_screen_is_one_kind():
    found, (label,) = sights.group(see(made_up(5, frames=np.full((5, 210, 160, 3), 9, np.uint8))))
    assert len(found) == 1
    assert not label.any()


def test_colours_that_were_not_sampled_are_one_more():
    """A flash in frame 5 alone: the sample of every tenth frame does not have its colour."""
    frames = np.zeros((20, 210, 160, 3), np.uint8)
    frames[5, :, :80] = (255, 0, 255)
    _, (label,) = sights.group(see(made_up(20, frames=frames)))
    flash = np.zeros((20, 10, 10), bool)
    flash[5, :, :5] = True
    assert len(np.unique(label[flash.reshape(20, 100)])) == 1
    assert set(label[flash.reshape(20, 100)]) != set(label[~flash.reshape(20, 100)])
