"""Speed and learning curves: what is measured, drawn, refused."""

import json

import pytest
from samples import tiny_config

from benchmarks import __main__ as benchmarks
from benchmarks import curve
from maskrl import config


def write_run(folder, scores, **changes):
    folder.mkdir()
    config.write(tiny_config(**changes), folder / "config.json", {})
    lines = [f"{1000 * n},{score}" for n, score in enumerate(scores)]
    (folder / "metrics.csv").write_text("\n".join(["agent_steps,score_mean", *lines]) + "\n")
    return folder


def test_curves_of_two_runs(tmp_path):
    """Each run's scores at its steps, the original's up to the longer run's end, random play."""
    runs = [write_run(tmp_path / "a", [1, 2, 3], precision="float32")]
    runs.append(write_run(tmp_path / "b", [1, 5]))
    original = tmp_path / "original.csv"
    original.write_text("game,agent_steps,score\nBreakout,500,7\nPong,600,1\nBreakout,9000,8\n")
    (axes,) = curve.draw(runs, original).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [[1, 2, 3], [1, 5]]
    assert any("a, float32" in label for label in lines)
    theirs = next(line for label, line in lines.items() if "original" in label)
    assert (theirs.get_xdata().tolist(), theirs.get_ydata().tolist()) == ([500], [7])


@pytest.mark.parametrize(
    ("second", "says"),
    [({"scores": [1], "game": "Pong"}, "several games"), ({"scores": []}, "no score yet")],
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
