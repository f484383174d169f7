"""Speed: what is measured."""

import json

import numpy as np
import pytest
from conftest import CHECKOUT

from benchmarks import __main__ as benchmarks
from benchmarks import noise
from benchmarks.reliability import __main__ as reliability
from benchmarks.reliability import soak


def test_floors(monkeypatch):
    """On a CPU times add; beside an accelerator the slower side is the floor."""
    median = {"matrix_product": 342e9, "environments": 1000.0}
    assert benchmarks.floors(median)["training"] == pytest.approx(500)
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    floors = benchmarks.floors(median)
    assert floors["training"] == pytest.approx(1000)
    assert floors["updating"] == pytest.approx(1500)


def test_the_loop_alone(monkeypatch):
    """It acts and learns, a step of every actor at a time."""
    monkeypatch.setattr(benchmarks, "SECONDS", 0.02)
    assert benchmarks.loop_alone(2) > 0


def test_noise_and_errors_of_gradients():
    """Of vectors whose noise and error are known."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=50)
    spread = 3 * rng.normal(size=(4000, 50))
    found = noise.numbers(mean + spread, 1.02 * mean + spread)
    assert found["noise_scale"] == pytest.approx(9 * 50 / (mean @ mean), rel=0.1)
    assert found["error_of_mean"] == pytest.approx(0.02, rel=0.1)
    # Errors without a mean are there in every gradient, and not in their mean.
    exact = np.tile(mean, (4000, 1))
    found = noise.numbers(exact, exact + 0.1 * rng.normal(size=exact.shape))
    assert found["error"] == pytest.approx(0.1 * np.sqrt(50 / (mean @ mean)), rel=0.1)
    assert found["error_of_mean"] < 0.01


@pytest.mark.slow
def test_noise(capsys):
    """Of one of the project's agents; of one gradient there is none."""
    agent = str(CHECKOUT / "agents" / "Breakout-both")
    assert noise.main([agent, "--gradients", "3"]) == 0
    assert "Breakout-both: 3 gradients of 140 agent steps" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        noise.main([agent, "--gradients", "1"])


@pytest.mark.slow
def test_benchmarks(tmp_path, monkeypatch):
    """Every part, with its floor; a sweep; a profile: as a user calls them, but shorter."""
    monkeypatch.setattr(benchmarks, "SECONDS", 0.05)
    flags = ["--game", "Breakout", "--rounds", "1", "--output"]
    benchmarks.main([*flags, str(tmp_path / "parts.json"), "--actors-per-group", "2"])
    parts = json.loads((tmp_path / "parts.json").read_text())
    assert set(parts["floors"]) == {"acting", "updating", "training", "evaluation"}
    assert all(value > 0 for value in parts["median"].values())
    assert {"passes", "loop", "blur", "gradient"} <= set(parts["maps"]["median"])
    assert parts["machine"]["jax"]
    sweep = ["--groups", "1", "2", "--actors-per-group", "2"]
    benchmarks.main([*flags, str(tmp_path / "sweep.json"), *sweep])
    rows = json.loads((tmp_path / "sweep.json").read_text())["sweep"]
    assert [row["groups"] for row in rows] == [1, 2]
    assert all(row["training"] > 0 for row in rows)
    benchmarks.main(["--game", "Breakout", "--profile", str(tmp_path / "trace")])
    assert list((tmp_path / "trace").rglob("perfetto_trace.json.gz"))


def test_wrong_flags_are_one_line(tmp_path, capsys):
    """Before anything is measured."""
    (tmp_path / "old.json").touch()
    for flags, says in (
        (["--act", "8"], "unrecognized arguments: --act 8"),
        (["--output", str(tmp_path / "old.json")], "old.json exists: name another"),
        (["--output", str(tmp_path / "old.json" / "new")], "cannot write"),
        (["--rounds", "0"], "--devices and --rounds must be at least 1"),
        (["--loop", "--groups", "5"], "--groups: says nothing beside --loop"),
        (["--profile", "trace", "--loop"], "says nothing beside --"),
    ):
        with pytest.raises(SystemExit, match="2"):
            benchmarks.main(flags)
        error = capsys.readouterr().err
        assert error.startswith("benchmarks: error: ")
        assert says in error
        assert error.count("\n") == 1


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
