"""The paper's tables, and ours beside them."""

import csv
import io
import json
import math

import pytest

from maskrl import tables
from maskrl.config import EPISODE_STEPS
from maskrl.errors import UserError
from maskrl.tables import GAMES, NONE


def result(mode, mean, **changes):
    """A result as evaluate.py writes it: Breakout, both masks."""
    base = {
        "game": "Breakout",
        "mask": "both",
        "mode": mode,
        "branch": "policy",
        "source": "a run",
        "episodes": 2,
        "max": mean + 5,
        "mean": mean,
        "std": 1.0,
        "median": mean,
        "scores": [mean - 5, mean + 5],
        "lengths": [10, 20],
        "agent_steps": 1_000_000,
        "seed": 0,
        "sample": False,
        "max_episode_steps": EPISODE_STEPS,
    }
    return base | changes


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("mask", ["policy", "both"])
def test_decreases_of_the_paper(mask, game):
    """Table 3 from Tables 1 and 2; the paper cuts off after two decimals instead of rounding.

    One cell of 24 does not follow: 1 - 420.2 / 19212.5 is 97.81 %, printed is 97.80.
    """
    place = GAMES.index(game)
    normal, inverse = (t[mask][place] for t in (tables.PAPER_NORMAL, tables.PAPER_INVERSE))
    for column, a, b, printed in zip(
        ("max", "mean"), normal, inverse, tables.PAPER_DECREASE[mask][place], strict=True
    ):
        if (mask, game, column) == ("both", "SpaceInvaders", "mean"):
            assert printed == 97.80
            printed = 97.81
        ours = math.floor(100 * tables.decrease(game, a, b)) / 100
        assert ours == pytest.approx(printed, abs=1e-9), column


def test_decrease_by_hand():
    assert tables.decrease("Breakout", 400, 100) == 75
    assert tables.decrease("FishingDerby", 40, -59) == 99
    assert tables.decrease("FishingDerby", 0, 0) == 0
    # A control may do better than normal play, and other games' scores may be below 0, too.
    assert tables.decrease("FishingDerby", 41, 42) is None
    assert tables.decrease("Pong", -15, -21) is None
    assert tables.decrease("Pong", 15, -21) is None
    assert tables.decrease("Breakout", 100, 150) == -50


def line(results, table, row, game="Breakout", limit=EPISODE_STEPS, original=None):
    """The one cell that stands there."""
    (found,) = [
        x
        for x in tables.lines(results, limit, original)
        if (x.table, x.row, x.game) == (table, row, game)
    ]
    return found


def test_controls_stand_below_inversion():
    """Table 3's missing controls: of the policy's mask, against the same agent's normal games."""
    results = [result("normal", 400), result("ones", 300), result("noise", 100, branch="value")]
    found = line(results, 3, "Mask A3C: ones")
    assert found.ours == (pytest.approx(100 * (1 - 305 / 405)), 25)
    assert found.paper == NONE
    assert not any("noise" in x.row for x in tables.lines(results, EPISODE_STEPS))
    assert "Mask A3C: ones" in tables.text(results)


def test_the_best_trial_counts():
    """The best mean of the game, variant and mode; not another's, not the value branch's."""
    results = [
        result("normal", 100.0, source="first", agent_steps=1),
        result("normal", 300.0, source="second", agent_steps=2),
        result("normal", 200.0, source="third", max=999.0),
        result("normal", 500.0, mask="policy"),
        result("normal", 600.0, game="MsPacman"),
        result("normal", 700.0, sample=True, source="second", agent_steps=2),
        result("inverse", 30.0, source="second", agent_steps=2),
        result("inverse", 90.0, source="second", agent_steps=2, branch="value", episodes=9),
        result("random", 1.0, mask="none", source="uniform"),
    ]
    best = line(results, 1, "Mask A3C")
    assert (best.ours, best.source, best.agent_steps) == ((305.0, 300.0), "second", 2)
    assert (best.trials, best.games) == (3, 2)
    assert line(results, 1, "A3C").ours == NONE
    assert line(results, 2, "Mask A3C inverse").ours == (35.0, 30.0)
    assert line(results, 2, "random").ours == (6.0, 1.0)
    decrease = line(results, 3, "Mask A3C").ours
    assert decrease == pytest.approx((100 * (1 - 35 / 305), 90))
    assert line(results, 3, "Mask A3C", "MsPacman").ours == NONE  # no inverse result


def test_an_agent_that_goes_on_from_another_is_no_second_trial():
    results = [
        result("normal", 100.0, source="maskrl, run a", agent_steps=1),
        result("normal", 90.0, source="maskrl, run b, from a", agent_steps=2),
    ]
    best = line(results, 1, "Mask A3C")
    assert (best.trials, best.agent_steps, best.ours[1]) == (1, 2, 90)
    for n, (run, origin) in enumerate(("cb", "dc", "ed"), 3):
        source = f"maskrl, run {run}, from {origin}"
        results.append(result("normal", 80.0, source=source, agent_steps=n))
    best = line(results, 1, "Mask A3C")
    assert (best.trials, best.agent_steps, best.ours[1]) == (1, 5, 80)
    results.append(result("normal", 70.0, source="maskrl, run a, from e", agent_steps=6))
    assert line(results, 1, "Mask A3C").trials >= 1  # a name that was used twice: no endless walk


def test_a_run_is_a_trial_beside_the_agent_whose_run_had_the_same_name():
    """Every user's first run of a game has the name that those of the project's agents had."""
    name = "maskrl, run Breakout-both-0"
    for source in (name, f"{name}, from Breakout-both"):
        shipped = result("normal", 90.0, source=source, agent_steps=2)
        results = [
            result("normal", 100.0, source=name, agent_steps=1),
            shipped,  # another evaluation of it
            shipped | {tables.AGENT: "Breakout-both"},
            result("normal", 80.0, source="maskrl, run c, from Breakout-both", agent_steps=3),
        ]
        best = line(results, 1, "Mask A3C")
        assert (best.trials, best.ours[1]) == (2, 100)


def test_normal_and_inverse_are_of_one_agent():
    """The best agent has no inverted games: Tables 2 and 3 take the best of those that have."""
    results = [
        result("normal", 300.0, source="better"),
        result("normal", 200.0, source="worse"),
        result("inverse", 20.0, source="worse"),
    ]
    assert line(results, 1, "Mask A3C").ours[1] == 300
    assert line(results, 2, "Mask A3C normal").ours[1] == 200
    assert line(results, 3, "Mask A3C").ours[1] == pytest.approx(90)
    results[2]["source"] = "of no normal game"
    assert line(results, 2, "Mask A3C inverse").ours == NONE


def test_trials_are_runs_and_not_seeds():
    """Other seeds of an agent's games are no trials, and no choice: the most games count.

    Nor is an earlier agent of the same run.
    """
    results = [
        result("normal", 300.0, seed=1),
        result("normal", 100.0, seed=2, episodes=100),
        result("normal", 900.0, seed=2, episodes=100, agent_steps=7),
        result("normal", 200.0, agent_steps=5, source="another run"),
    ]
    best = line(results, 1, "Mask A3C")
    assert (best.trials, best.ours[1]) == (2, 200.0)
    assert best.all_mean == 150
    assert best.all_error == pytest.approx(12.706 * 50, rel=1e-3)  # t(1), 95 %; standard error 50
    assert line(results[:2], 1, "Mask A3C").all_mean is None


def test_unlike_step_limits_share_no_table():
    """Games that were cut off early stand apart, and no number of the paper's beside them."""
    results = [
        result("normal", 300.0),
        result("normal", 900.0, source="short", max_episode_steps=400),
    ]
    assert line(results, 1, "Mask A3C").ours[1] == 300
    short = line(results, 1, "Mask A3C", limit=400)
    assert (short.ours[1], short.paper) == (900, NONE)
    headings = [heading for heading, _ in tables.sections(results)]
    assert len(headings) == 6
    assert "up to 10,000 agent steps, as the paper's" in headings[0]
    assert "up to 400 agent steps, not to be compared" in headings[3]


def test_the_original_at_equal_steps(tmp_path):
    path = tmp_path / "learning_curves.csv"
    path.write_text(
        "game,agent_steps,score\n"
        "Breakout,700000,1\nBreakout,900000,40\nBreakout,1100000,60\nBreakout,1300000,1\n"
        "Pong,1000000,7\n"
    )
    results = [result("normal", 300.0), result("normal", 5.0, mask="none")]
    assert line(results, 1, "Mask A3C", original=path).original == 50
    assert line(results, 1, "A3C", original=path).original is None  # its curve is of both masks
    assert line(results, 1, "Mask A3C").original is None
    assert tables.original_score(path, "Breakout", 10_000_000) is None
    with pytest.raises(UserError, match="cannot read"):
        tables.original_score(tmp_path / "none.csv", "Breakout", 1)


def test_a_normal_score_of_nothing_has_no_decrease():
    results = [result("normal", 0.0), result("inverse", 0.0)]
    assert line(results, 3, "Mask A3C").ours == (pytest.approx(0), None)


def test_text_fits_a_terminal():
    """The longest numbers and names; no empty cells or columns; what is the best of several."""
    results = [
        result(mode, 19212.5, game="SpaceInvaders", source=source, agent_steps=100_000_000)
        for mode in ("normal", "inverse")
        for source in ("a", "b")
    ]
    printed = tables.text(results).splitlines()
    assert max(map(len, printed)) <= 80
    assert "SpaceInvaders Mask A3C 100.00M     2 19218 / 19212 19810 / 19212" in printed
    assert not any("original" in x for x in printed)
    percent = tables.text([result("normal", 368.29), result("inverse", 15.66)])
    assert "94.47 / 95.75 99.42 / 99.71\n" in percent
    assert "SpaceInvaders, Mask A3C: best of 2; mean of all 19212 \u00b1 0 (95 %)" in printed
    assert not any("Seaquest" in x for x in printed)


def test_markdown():
    """Three tables of all cells; ours beside the paper's."""
    text = tables.markdown([result("normal", 123.4)])
    assert text.count("###") == 3
    row = "| Breakout | Mask A3C | 1.00M | 2 | 128.4 / 123.4 | 864 / 640 |  | a run |"
    assert row in text.splitlines()
    assert "| MsPacman | Mask A3C |  |  | - | 6610 / 5314.1 |  |  |" in text
    assert "99.42 / 99.71" in text


def test_csv():
    """One row per cell; the same numbers."""
    text = tables.comma_separated([result("normal", 123.4)])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == (4 + 5 + 2) * len(GAMES)
    row = next(r for r in rows if r["row"] == "Mask A3C" and r["game"] == "Breakout")
    assert (row["table"], row["max"], row["mean"], row["games"]) == ("1", "128.4", "123.4", "2")
    assert (row["paper_max"], row["paper_mean"]) == ("864", "640.0")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"game": "Breakout"}', "\x00\xff"])
def test_no_result(tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="is not a result"):
        tables.read_results([path])


@pytest.mark.parametrize(
    ("key", "value"), [("source", 3), ("sample", 0), ("max_episode_steps", "many"), ("mean", True)]
)
def test_wrong_types(tmp_path, key, value):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(result("normal", 1.0) | {key: value}))
    with pytest.raises(UserError, match=f"{key} is of the wrong type"):
        tables.read_results([path])


def test_results_are_read(tmp_path):
    path = tmp_path / "good.json"
    path.write_text(json.dumps(result("normal", 1.0)))
    assert tables.read_results([path])[0]["mean"] == 1.0
