import numpy as np
import pytest
from recordings import made_up

from maskrl.errors import UserError
from maskrl.explain.frames import Chosen, boundaries, choose, parse, telling_stretch


def test_chosen_frames_are_spread_and_say_why():
    length = 600
    value = np.zeros(length, np.float32)
    value[300:] = 5
    reward = np.zeros(length, np.float32)
    reward[130] = 1
    logits = np.zeros((length, 6), np.float32)
    logits[:, 0] = 3
    logits[430] = 0
    once = np.arange(length) == 0
    game = made_up(length, value=value, reward=reward, logits=logits, life_start=once)
    assert choose(game, 3) == [
        Chosen(130, "just before +1 point"),
        Chosen(300, "the value jumps by +5.00"),
        Chosen(430, "undecided: entropy 1.79 of at most 1.79 nats"),
    ]


def test_danger_before_a_lost_life_is_chosen():
    length = 400
    value = np.zeros(length, np.float32)
    value[90:180], value[180:] = 5, 4
    logits = np.zeros((length, 6), np.float32)
    logits[:, 0] = 3
    logits[350] = 0
    quiet = np.zeros(length, np.float32)
    starts = np.isin(np.arange(length), [0, 200])
    game = made_up(length, value=value, logits=logits, reward=quiet, life_start=starts)
    chosen = choose(game, 4)
    assert Chosen(180, "the value changes by -1.00; a life is lost 20 steps later") in chosen


@pytest.mark.parametrize("length", [1, 3, 7, 50, 1000])
@pytest.mark.parametrize("count", [1, 4, 6])
def test_every_game_has_its_frames(length, count):
    chosen = [frame.index for frame in choose(made_up(length), count)]
    assert len(set(chosen)) == min(length, count)
    assert chosen == sorted(chosen)
    if length > count:
        np.testing.assert_array_equal(np.array(chosen) * count // length, np.arange(count))


def test_parse():
    game = made_up(40)
    assert [f.index for f in parse("7, 3,10-12,11", game)] == [3, 7, 10, 11, 12]
    assert [f.index for f in parse("39", game)] == [39]


@pytest.mark.parametrize("text", ["", "a", "3,", "-4", "5-", "1.5", "9-3", "40", "0-40", "3;4"])
def test_parse_refuses(text):
    with pytest.raises(UserError, match=r"^--frames "):
        parse(text, made_up(40))


def test_parse_refuses_more_than_fit():
    with pytest.raises(UserError, match="more than 60"):
        parse("0-99", made_up(100))


def test_lives():
    assert boundaries(made_up(40)).lives == (10, 20, 30)


@pytest.mark.parametrize(
    ("game", "address", "counts", "stages"),
    [
        ("SpaceInvaders", 17, [36, 35, 1, 0, 255, 254, 36, 35, 1, 36], (6, 9)),
        ("BeamRider", 84, [15, 14, 1, 0, 255, 255, 0, 15, 15, 14], (7,)),
        ("MsPacman", 119, [0, 1, 2, 153, 154, 0, 0, 1, 2, 3], (5,)),
        ("Seaquest", 62, [0, 5, 6, 6, 5, 4, 3, 2, 1, 0], (4,)),
        ("FishingDerby", 62, [0, 5, 6, 6, 5, 4, 3, 2, 1, 0], ()),
        ("Pong", 62, [0, 5, 6, 6, 5, 4, 3, 2, 1, 0], ()),
    ],
)
def test_stages_from_the_consoles_memory(game, address, counts, stages):
    ram = np.zeros((10, 128), np.uint8)
    ram[:, address] = counts
    once = np.arange(10) == 0
    assert boundaries(made_up(10, game=game, ram=ram, life_start=once)).stages == stages


def test_a_new_wall_is_a_stage():
    ram = np.zeros((6, 128), np.uint8)
    ram[[0, 1, 4, 5], :30] = 255
    ram[[1, 5], 3] = 15
    assert boundaries(made_up(6, game="Breakout", ram=ram)).stages == (4,)


def test_a_diver_lost_with_a_life_ends_no_dive():
    ram = np.zeros((10, 128), np.uint8)
    ram[:, 62] = [6, 6, 6, 6, 5, 5, 5, 5, 5, 5]
    starts = np.isin(np.arange(10), [0, 4])
    assert boundaries(made_up(10, game="Seaquest", ram=ram, life_start=starts)).stages == ()


def test_telling_stretch():
    reward = np.zeros(100, np.float32)
    reward[60:70] = 1
    once = np.arange(100) == 0
    start, stop = telling_stretch(made_up(100, reward=reward, life_start=once), 20)
    assert stop - start == 20
    assert set(range(60, 70)) <= set(range(start, stop))
    assert telling_stretch(made_up(10), 20) == (0, 10)
