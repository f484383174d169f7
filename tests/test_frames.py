import dataclasses

import numpy as np
import pytest
from recordings import made_up

from maskrl.errors import UserError
from maskrl.explain.frames import boundaries, choose, parse, telling_stretch


def quiet(length: int, lives=(0,), **fields):
    """A game in which nothing happens, but what the fields say."""
    still = {
        "value": np.zeros(length, np.float32),
        "reward": np.zeros(length, np.float32),
        "logits": np.tile(np.float32([3, 0, 0, 0, 0, 0]), (length, 1)),
        "life_start": np.isin(np.arange(length), lives),
        "lives": np.zeros(length, np.int32),
    }
    return made_up(length, **(still | fields))


def told(game, count: int) -> list[tuple[int, str]]:
    return [(frame.index, frame.reason) for frame in choose(game, count)]


def hill(length: int, at: int, height: float, width: int = 40) -> np.ndarray:
    return (height * np.maximum(1 - np.abs(np.arange(length) - at) / width, 0)).astype(np.float32)


def test_peaks_and_troughs_come_before_the_undecided():
    length = 800
    value = 1 + hill(length, 300, 5) - hill(length, 500, 2) + hill(length, 650, 1)
    logits = np.tile(np.float32([3, 0, 0, 0, 0, 0]), (length, 1))
    logits[400] = 0
    game = quiet(length, value=value, logits=logits)
    kinds = {frame.index: frame.kind for frame in choose(game, 8)}
    assert kinds[300] == "peak"
    assert kinds[500] == "trough"
    assert (300, "a peak of the value, 6.00") in told(game, 8)
    assert "undecided" not in [frame.kind for frame in choose(game, 2)]


def test_every_lost_life_and_stage_is_told():
    length = 2000
    ram = np.zeros((length, 128), np.uint8)
    ram[[0, 700, 1500], 17] = 36
    value = np.full(length, 3, np.float32)
    value[380:] = 1
    lives = np.full(length, 2, np.int32)
    lives[-1] = 0
    game = quiet(length, lives=(0, 400), value=value, ram=ram)
    game = dataclasses.replace(game, lives=lives)
    found = told(game, 16)
    assert (380, "the value falls by 2.00; a life is lost 19 steps later") in found
    assert (700, "stage 2 begins") in found
    assert (1500, "stage 3 begins") in found
    assert any("a life is lost" in words for t, words in found if t > length - 50)


def test_a_life_lost_in_its_own_opening():
    """Its only frame is the first of the next life, too: it is lost at once."""
    found = told(quiet(400, lives=(0, 200, 201)), 16)
    assert (200, "a life is lost 0 steps later") in found


def test_the_blow_and_not_what_the_game_shows_of_it():
    """As in Beam Rider: hit at 640, the ship burns for four seconds, and a life is lost."""
    length = 1000
    value = np.where(np.arange(length) < 640, 0.8, 0.0).astype(np.float32)
    value[600] = 0.2  # noise: a steep fall, and back
    value[680] = -0.3  # the lowest of all, when nothing can be done
    found = [(f.index, f.kind) for f in choose(quiet(length, lives=(0, 700), value=value), 6)]
    assert (640, "life") in found
    assert not any(640 < index <= 700 for index, _ in found)


def test_a_loop_at_the_end_tells_nothing():
    """The last point falls at 300; what follows to the limit is no story, a lost life is."""
    length = 2000
    reward = np.zeros(length, np.float32)
    reward[[100, 300]] = 1
    value = sum(hill(length, at, 2 + at / 1000) for at in range(50, length, 100))
    game = quiet(length, reward=reward, value=value)
    assert all(t < 400 for t, _ in told(game, 6))
    assert len(told(game, 6)) == 6
    lives = np.full(length, 1, np.int32)
    lives[-1] = 0
    lost = dataclasses.replace(game, lives=lives)
    assert any(400 < t < 1900 for t, _ in told(lost, 6))


def test_lives_share_a_small_figure():
    """Of many lives at most half of the frames; the first and the last are among them."""
    game = quiet(4000, lives=range(0, 4000, 200))
    kinds = [frame.kind for frame in choose(game, 6)]
    assert kinds.count("life") == 3
    assert choose(game, 6)[0].index < 200


def test_advantages_both_ways():
    length = 1000
    value = np.zeros(length, np.float32)
    value[300:] = 5  # so much better than foretold,
    value[700:] = 2  # and so much worse
    found = {frame.kind: frame for frame in choose(quiet(length, value=value, cut_off=True), 6)}
    assert found["better"].index == 299
    assert found["worse"].index == 699
    assert found["worse"].before < 699 < found["worse"].after


def test_where_the_mask_decides():
    length = 600
    logits = np.tile(np.float32([3, 0, 0, 0, 0, 0]), (length, 1))
    without = logits.copy()
    without[222] = [0, 3, 0, 0, 0, 0]
    game = quiet(length, logits=logits, unmasked_logits=without)
    assert 222 in [frame.index for frame in choose(game, 4) if frame.kind == "mask"]


@pytest.mark.parametrize("length", [1, 3, 7, 50, 1000])
@pytest.mark.parametrize("count", [1, 4, 6])
def test_every_game_has_its_frames(length, count):
    chosen = [frame.index for frame in choose(made_up(length), count)]
    assert len(set(chosen)) == min(length, count)
    assert chosen == sorted(chosen)
    for frame in choose(made_up(length), count):
        assert 0 <= frame.before <= frame.index
        assert frame.index <= frame.after < length or frame.after == length - 1


def test_frames_asked_for_carry_their_values():
    game = made_up(40)
    (frame,) = parse("7", game)
    assert frame.reason == f"value {game.value[7]:.2f}, entropy {game.entropy[7]:.2f} nats"


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
