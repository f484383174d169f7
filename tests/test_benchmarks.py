"""Speed and learning curves: what is measured, drawn, refused."""

import json

import pytest
from samples import tiny_config

from benchmarks import __main__ as benchmarks
from benchmarks import curve
from benchmarks.reliability import __main__ as reliability
from benchmarks.reliability import soak
from maskrl import config


def write_run(folder, scores, **changes):
    """A run whose lives' rewards these are, and its greedy games ten times as good."""
    folder.mkdir()
    config.write(tiny_config(**changes), folder / "config.json", {})
    rows = [f"{1000 * n},{3600 * n},{score},{10 * score}" for n, score in enumerate(scores)]
    head = "agent_steps,seconds,life_reward,eval_score_mean"
    (folder / "metrics.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


def test_curves_of_two_runs(tmp_path):
    """By steps and by hours; the original's up to the longer run's end; random play."""
    runs = [write_run(tmp_path / "a", [1, 2, 3], precision="float32")]
    runs.append(write_run(tmp_path / "b", [1, 5]))
    (tmp_path / "learning_curves.csv").write_text(
        "game,agent_steps,score\nBreakout,500,7\nPong,600,1\nBreakout,9000,8\n"
    )
    (tmp_path / "original_training_lives.csv").write_text(
        "game,from_step,to_step,clipped_reward_per_life,sem\n"
        "Breakout,0,1000,0.5,0.1\nPong,0,1000,9,1\nBreakout,5000,6000,2,0.1\n"
    )
    lives, by_hour, greedy, greedy_by_hour = curve.draw(runs, tmp_path).axes
    assert [line.get_ydata().tolist() for line in lives.lines[:2]] == [[1, 2, 3], [1, 5]]
    assert by_hour.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert greedy_by_hour.lines[0].get_ydata().tolist() == [10, 20, 30]
    assert "a, float32" in lives.get_legend().get_texts()[0].get_text()
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
        curve.main([*map(str, runs), "--output", str(tmp_path / "f.png")])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "f.png").exists()


def test_floors(monkeypatch):
    """On a CPU times add; beside an accelerator the slower side is the floor."""
    median = {"matrix_product": 342e9, "environments": 1000.0}
    assert benchmarks.floors(median)["training"] == pytest.approx(500)
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    floors = benchmarks.floors(median)
    assert floors["training"] == pytest.approx(1000)
    assert floors["updating"] == pytest.approx(1500)


@pytest.mark.slow
def test_benchmarks(tmp_path, monkeypatch):
    """Every part, with its floor; a sweep; a profile: as a user calls them, but shorter."""
    monkeypatch.setattr(benchmarks, "SECONDS", 0.05)
    flags = ["--game", "Breakout", "--rounds", "1", "--output"]
    benchmarks.main([*flags, str(tmp_path / "parts.json"), "--actors-per-group", "2"])
    parts = json.loads((tmp_path / "parts.json").read_text())
    assert set(parts["floors"]) == {"acting", "updating", "training", "evaluation"}
    assert all(value > 0 for value in parts["median"].values())
    assert parts["machine"]["jax"]
    sweep = ["--groups", "1", "2", "--actors-per-group", "2"]
    benchmarks.main([*flags, str(tmp_path / "sweep.json"), *sweep])
    rows = json.loads((tmp_path / "sweep.json").read_text())["sweep"]
    assert [row["groups"] for row in rows] == [1, 2]
    assert all(row["training"] > 0 for row in rows)
    benchmarks.main(["--game", "Breakout", "--profile", str(tmp_path / "trace")])
    assert list((tmp_path / "trace").rglob("perfetto_trace.json.gz"))


def test_attacks_are_counted():
    """A row per thing that was attacked, and one for all."""
    cases = [
        {"what": "a", "failed": "", "outcome": "refused"},
        {"what": "a", "failed": "why", "outcome": "broken"},
        {"what": "b", "failed": "", "seconds": 2.0},
    ]
    rows = [line.split() for line in reliability.table(cases).splitlines()]
    assert rows[1][:3] == ["a", "2", "1"]
    assert rows[2] == ["b", "1", "0", "seconds", "median", "2.0,", "most", "2.0"]
    assert rows[3][:3] == ["all", "3", "1"]


def test_a_soak_is_drawn(tmp_path):
    """Memory, files and threads over time."""
    sample = {"memory": 500, "files": 30, "threads": 40, "saves": 9, "evaluations": 3}
    samples = [sample | {"minutes": n, "memory": 500 + n} for n in range(5)]
    soak.draw(samples, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 5000
