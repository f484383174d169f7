"""EnvPool's rows: resets, lost lives, the step limit, names of games."""

import numpy as np
import pytest
from envpool.atari.registration import atari_game_list

from maskrl.envs import Environments, action_names, game_name, num_actions
from maskrl.errors import UserError
from maskrl.explain import joystick


@pytest.mark.parametrize(
    ("name", "game"),
    [
        ("SpaceInvaders", "SpaceInvaders"),
        ("SpaceInvaders-v5", "SpaceInvaders"),
        ("ALE/SpaceInvaders-v5", "SpaceInvaders"),
        ("space_invaders", "SpaceInvaders"),
        ("space invaders", "SpaceInvaders"),
        ("SpaceInvadersNoFrameskip-v4", "SpaceInvaders"),
        ("MSPACMAN", "MsPacman"),
        ("beam-rider", "BeamRider"),
        ("fishing_derby", "FishingDerby"),
    ],
)
def test_game_name(name, game):
    assert game_name(name) == game


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SpaceInvader", "SpaceInvaders"),
        ("brekout", "Breakout"),
        ("MissPacman", "MsPacman"),
        ("", "e.g. Breakout"),
        ("xyzzyxyzzy", "e.g. Breakout"),
    ],
)
def test_unknown_game(name, hint):
    with pytest.raises(UserError, match=hint):
        game_name(name)


@pytest.mark.parametrize(
    ("game", "actions"), [("Breakout", 4), ("SpaceInvaders", 6), ("MsPacman", 9), ("Seaquest", 18)]
)
def test_number_of_actions(game, actions):
    envs = Environments(game, 1, 0)
    assert envs.num_actions == num_actions(game) == actions
    envs.close()


def test_every_game_has_names_for_its_actions():
    """As many as EnvPool says, all of them the joystick's."""
    for game in map(game_name, atari_game_list):
        names = action_names(game, num_actions(game))
        assert len({joystick.position(name) for name in names}) == len(names)
        assert not any(name.startswith("ACTION") for name in names)
    assert action_names("Breakout", 4) == ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert action_names("BeamRider", 9)[4:7] == ("LEFT", "UPRIGHT", "UPLEFT")


def test_actions_without_a_name_can_be_drawn():
    names = action_names("Pong", 3)
    assert names == ("ACTION_0", "ACTION_1", "ACTION_2")
    assert joystick.position(names[2]) == joystick.position("NOOP")


def play(envs, steps, action=0):
    """The rows of the reset and of so many steps."""
    rows = [envs.reset()]
    for _ in range(steps):
        envs.send(np.full(envs.num_envs, action))
        rows.append(envs.recv())
    envs.close()
    return rows


def column(rows, of):
    """[T, B] of a field."""
    return np.array([of(row) for row in rows])


def test_rows_around_lost_lives_and_games():
    """Breakout without moving: five lives lost, then the next game, in two environments."""
    rows = play(Environments("Breakout", 2, 3), 700)
    done = column(rows, lambda r: r.done)
    over = column(rows, lambda r: r.game_over)
    first = column(rows, lambda r: r.timestep.is_first)
    discount = column(rows, lambda r: r.timestep.discount)
    reward = column(rows, lambda r: r.timestep.reward)
    lives = column(rows, lambda r: r.lives)

    assert first[0].all()
    np.testing.assert_array_equal(first[1:], done[:-1])  # a first right after a last, only there
    assert np.all(reward[first] == 0)
    assert np.all(discount[first] == 1)
    np.testing.assert_array_equal(discount == 0, done)  # no step limit here
    assert np.all(over.sum(axis=0) >= 1)
    assert np.all(done.sum(axis=0) >= 5)
    lost = done & ~over
    assert np.all(lives[lost] > 0)  # a life is lost, the game goes on
    assert np.all(lives[over] == 0)
    assert np.all(lives[1:][over[:-1]] == 5)  # a new game
    frame = rows[0].timestep.frame
    assert frame.shape == (2, 210, 160)
    assert frame.dtype == np.uint8
    assert rows[0].ram.shape == (2, 128)


def test_step_limit():
    """Cut off after 10 steps: game over with discount 1, and then a first row."""
    rows = play(Environments("Breakout", 2, 0, max_episode_steps=10), 22, action=1)
    over = column(rows, lambda r: r.game_over)
    first = column(rows, lambda r: r.timestep.is_first)
    discount = column(rows, lambda r: r.timestep.discount)
    lives = column(rows, lambda r: r.lives)
    np.testing.assert_array_equal(np.flatnonzero(over[:, 0]), [10, 21])
    np.testing.assert_array_equal(np.flatnonzero(first[:, 0]), [0, 11, 22])
    assert np.all(discount[over] == 1)
    assert np.all(lives[over] > 0)


def test_the_action_on_a_last_row_is_ignored():
    """Two twins, other actions on the last rows only: the same game."""

    def game(on_last):
        envs = Environments("Breakout", 1, 9)
        row, rams, firsts = envs.reset(), [], 0
        for _ in range(400):
            envs.send(np.array([on_last if row.done[0] else 1]))
            row = envs.recv()
            rams.append(row.ram[0])
            firsts += int(row.timestep.is_first[0])
        envs.close()
        assert firsts > 3
        return np.array(rams)

    np.testing.assert_array_equal(game(0), game(3))


def test_score_is_unclipped():
    """Ms. Pac-Man's pellets are worth 10."""
    rows = play(Environments("MsPacman", 1, 0), 200, action=3)
    assert max(row.timestep.reward[0] for row in rows) >= 10


def test_partial_send_keeps_order():
    """Rows come back in the order of the ids; who was left out stands still."""
    envs = Environments("Breakout", 4, 0)
    twin = Environments("Breakout", 4, 0)
    envs.reset()
    twin.reset()
    ids = np.array([3, 0])
    for _ in range(30):
        envs.send(np.array([2, 3]), ids)
        part = envs.recv()
        twin.send(np.array([3, 0, 0, 2]))
        whole = twin.recv()
        np.testing.assert_array_equal(part.ram, whole.ram[ids])
        np.testing.assert_array_equal(part.timestep.frame, whole.timestep.frame[ids])
        np.testing.assert_array_equal(part.timestep.is_first, whole.timestep.is_first[ids])
    assert np.any(part.ram[0] != part.ram[1])
    envs.close()
    twin.close()


def test_rgb_twin_plays_the_same_game():
    """The same seed and actions: the same memory, lives and rewards; only the frames differ."""
    grey, colour = (Environments("SpaceInvaders", 2, 4, rgb=rgb) for rgb in (False, True))
    rows = [(grey.reset(), colour.reset())]
    for t in range(60):
        for envs in (grey, colour):
            envs.send(np.array([t % 6, 1]))
        rows.append((grey.recv(), colour.recv()))
    for a, b in rows:
        np.testing.assert_array_equal(a.ram, b.ram)
        np.testing.assert_array_equal(a.timestep.reward, b.timestep.reward)
        np.testing.assert_array_equal(a.done, b.done)
        assert b.timestep.frame.shape == (2, 3, 210, 160)
    # Luminance of the same picture: close to the mean of its colours, black where it is black.
    a, b = rows[-1]
    mean = b.timestep.frame.mean(axis=1)
    assert np.abs(a.timestep.frame - mean).mean() < 10
    assert not a.timestep.frame[mean == 0].any()
    grey.close()
    colour.close()


def test_seeds():
    """The same seed gives the same start, another one another; environments differ."""

    def start(seed):
        return play(Environments("Breakout", 3, seed), 20, action=1)[-1].ram

    np.testing.assert_array_equal(start(1), start(1))
    assert np.any(start(1) != start(100))
    assert np.any(start(1)[0] != start(1)[1])
