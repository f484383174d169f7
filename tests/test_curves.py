"""Learning curves: what is drawn, found, refused."""

import dataclasses
import json

import pytest
from samples import tiny_config

from maskrl import config, curves


def write_run(folder, scores, **changes):
    """A run whose lives' rewards these are, and its greedy games ten times as good."""
    folder.mkdir()
    config.write(tiny_config(**changes), folder / "config.json", {})
    rows = [f"{1000 * n},{3600 * n},{score},2,{10 * score}" for n, score in enumerate(scores)]
    head = "agent_steps,seconds,life_reward,life_steps,eval_score_mean"
    (folder / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_curves_of_two_runs(tmp_path):
    """By steps and by hours; the original's up to the longer run's end; random play."""
    runs = [write_run(tmp_path / "a", [1, 2, 3])]
    runs.append(write_run(tmp_path / "b", [1, 5]))
    (tmp_path / "learning_curves.csv").write_text(
        "game,agent_steps,score\nBreakout,500,7\nPong,600,1\nBreakout,9000,8\n"
    )
    (tmp_path / "original_training_lives.csv").write_text(
        "game,from_step,to_step,clipped_reward_per_life,sem\n"
        "Breakout,0,1000,0.5,0.1\nPong,0,1000,9,1\nBreakout,5000,6000,2,0.1\n"
    )
    figure = curves.draw(runs, tmp_path)
    lives, by_hour, greedy, greedy_by_hour = figure.axes
    assert [line.get_ydata().tolist() for line in lives.lines[:2]] == [[1, 2, 3], [1, 5]]
    assert by_hour.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert greedy_by_hour.lines[0].get_ydata().tolist() == [10, 20, 30]
    assert "maskrl, a" in figure.legends[0].get_texts()[0].get_text()
    assert lives.lines[2].get_xydata().tolist() == [[0.0005, 0.5]]
    theirs = [x for x in greedy.lines if "original" in x.get_label()]
    assert theirs[0].get_xydata().tolist() == [[0.0005, 7]]
    assert greedy.lines[-1].get_ydata()[0] == 1.2


@pytest.mark.parametrize(
    ("second", "says"),
    [({"scores": [1], "game": "Pong"}, "several games"), ({"scores": []}, "ended no life yet")],
)
def test_curves_refuse(tmp_path, capsys, second, says):
    runs = [write_run(tmp_path / "a", [1, 2]), write_run(tmp_path / "b", **second)]
    with pytest.raises(SystemExit) as caught:
        curves.main([*map(str, runs), "--output", str(tmp_path / "f.png")])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "f.png").exists()


@pytest.mark.parametrize(
    ("picture", "says"),
    [("old.png", "exists"), ("f.xyz", "ends in one of"), ("file/f.png", "cannot write")],
)
def test_pictures_refused(tmp_path, capsys, picture, says):
    run = write_run(tmp_path / "a", [1, 2])
    for name in ("old.png", "file"):
        (tmp_path / name).write_text("old")
    with pytest.raises(SystemExit) as caught:
        curves.main([str(run), "--output", str(tmp_path / picture)])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
    assert (tmp_path / "old.png").read_text() == "old"


def test_a_picture_in_a_new_folder(tmp_path):
    """Of a run whose name is no mathematics, and whose log has rows that say nothing."""
    run = write_run(tmp_path / "a $_{$", [1, 2])
    with open(run / "metrics.csv", "a") as file:
        file.write("inf,1,3,2,30\n3000,1e400,3,2,30\n4000,nan,3,2,30\n")
    assert curves.main([str(run), "--output", str(tmp_path / "new" / "f.svg")]) == 0
    assert (tmp_path / "new" / "f.svg").read_text().startswith("<?xml")


def test_curves_that_there_are(tmp_path):
    """Runs, and agents that come with the project; nothing else, and nothing without a life."""
    write_run(tmp_path / "a", [1, 2])
    write_run(tmp_path / "b", [1, 2], game="Pong")
    write_run(tmp_path / "new", [])
    agent = write_run(tmp_path / "agent", [1, 2])
    settings = dataclasses.asdict(config.read(agent / "config.json"))
    (agent / "card.json").write_text(json.dumps({"config": settings, "hours": 1}))
    (agent / "config.json").unlink()
    (tmp_path / "a.log").write_text("")
    found = curves.by_game(sorted(tmp_path.glob("*")))
    assert found == {"Breakout": [tmp_path / "a", agent], "Pong": [tmp_path / "b"]}


def test_steps_to_a_threshold(tmp_path, capsys):
    """Of every run; of several seeds of the same settings the mean, if all came to it.

    The first lives are too few for it.
    """
    runs = [write_run(tmp_path / f"a{n}", [5, *[0.2] * (n - 1), 1.5], seed=n) for n in (2, 4)]
    runs.append(write_run(tmp_path / "b", [0.1, 0.2], groups=1))
    (tmp_path / "original_training_lives.csv").write_text(
        "game,from_step,to_step,clipped_reward_per_life,sem\n"
        "Breakout,0,1000,0.5,0.1\nBreakout,5000,6000,1.2,0.1\n"
    )
    flags = ["--threshold", "1", "--original", str(tmp_path)]
    assert curves.main([*map(str, runs), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a2", "2", "2,000", "2.00"]
    assert lines[2].split() == ["a4", "4", "4,000", "4.00"]
    assert lines[3].split() == ["b", "0", "not", "by", "1,000"]
    # Student's t with one degree of freedom: 12.706 standard errors of 1,000 steps.
    assert lines[4] == "a2 and 1 more: mean of 2 seeds: 3,000 [-9,706, 15,706] steps"
    assert lines[5:] == ["the original's one run: between 5,000 and 6,000 steps"]
    runs.append(write_run(tmp_path / "a5", [0.2], seed=5))
    curves.main([*map(str, runs), "--threshold", "1"])
    assert "a2 and 2 more: 2 of 3 seeds came to it" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        curves.main(list(map(str, runs)))
    runs.append(write_run(tmp_path / "c", [2.0], game="Pong"))
    with pytest.raises(SystemExit):
        curves.main([*map(str, runs), "--threshold", "1"])
    assert "several games" in capsys.readouterr().err


def test_how_runs_come_to_a_threshold(tmp_path):
    """A run is drawn until it is there; seeds of the same settings have one colour and one name."""
    runs = [write_run(tmp_path / "a0", [0.2, 1.5, 9], seed=0, save_every=100, eval_every=0)]
    runs.append(write_run(tmp_path / "b", [0.1, 0.2, 0.3], groups=1))
    runs.append(write_run(tmp_path / "a1", [0.2, 0.3, 1, 9], seed=1, steps=900))
    (tmp_path / "original_training_lives.csv").write_text(
        "game,from_step,to_step,clipped_reward_per_life,sem\n"
        "Breakout,0,1000,0.5,0.1\nBreakout,5000,6000,1.2,0.1\n"
    )
    (axes,) = curves.draw_approach(runs, 1.0, tmp_path).axes
    drawn = [list(line.get_ydata()) for line in axes.lines]
    assert drawn[:5] == [[0.2, 1.5], [1.5], [0.2, 0.3, 1], [1], [0.1, 0.2, 0.3]]
    assert axes.lines[0].get_color() == axes.lines[2].get_color() != axes.lines[4].get_color()
    named = axes.get_legend_handles_labels()[1]
    assert named == ["a0 and 1 more", "b", "the original's run"]
    assert drawn[-1] == [0.5]  # the original's, as far as ours go
    picture = tmp_path / "f.png"
    assert curves.main([*map(str, runs), "--threshold", "1", "--output", str(picture)]) == 0
    assert picture.exists()
