"""Speed: what is measured."""

import json

import pytest

from benchmarks import __main__ as benchmarks


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
    assert {"passes", "loop", "blur", "gradient"} <= set(parts["maps"]["median"])
    assert parts["machine"]["jax"]
    sweep = ["--groups", "1", "2", "--actors-per-group", "2"]
    benchmarks.main([*flags, str(tmp_path / "sweep.json"), *sweep])
    rows = json.loads((tmp_path / "sweep.json").read_text())["sweep"]
    assert [row["groups"] for row in rows] == [1, 2]
    assert all(row["training"] > 0 for row in rows)
    benchmarks.main(["--game", "Breakout", "--profile", str(tmp_path / "trace")])
    assert list((tmp_path / "trace").rglob("perfetto_trace.json.gz"))
