"""The configuration file; wrong files and values are in test_scripts."""

import dataclasses
import json

import pytest

from maskrl import config
from maskrl.config import Config
from maskrl.errors import UserError


def test_round_trip(tmp_path):
    """What is read is what was written; every session is remembered."""
    path = tmp_path / "config.json"
    settings = Config(game="Pong", groups=3, learning_rate=1e-3)
    config.write(settings, path, {"command": ["first"]})
    config.write(settings, path, {"command": ["second"]})
    assert config.read(path) == settings
    sessions = json.loads(path.read_text())["sessions"]
    assert [session["command"] for session in sessions] == [["first"], ["second"]]


def test_a_file_without_sessions(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": {"game": "Pong"}}))
    config.write(config.read(path), path, {"command": ["first"]})
    assert len(json.loads(path.read_text())["sessions"]) == 1


def test_defaults_are_the_papers():
    """But for the number of actors, and that long gradients are cut; the preset's are the rest."""
    c, paper = Config(), Config(**config.PRESETS["paper"])
    assert dataclasses.replace(c, groups=5, max_gradient_norm=0.0) == paper
    assert (c.actors_per_update, c.learning_rate, c.adam_eps) == (1, 1e-4, 1e-3)
    assert paper.groups * paper.actors_per_group == 35
    assert (c.unroll_length, c.discount, c.gae_lambda) == (20, 0.99, 1.0)
    assert (c.entropy_cost, c.value_cost) == (0.01, 0.5)
    assert (c.steps, c.max_episode_steps, c.seed) == (100_000_000, 10_000, 0)
    assert paper.unroll_steps == 700
    assert c.run_name == "SpaceInvaders-both-0"


def test_a_run_that_says_null_never_cuts(tmp_path):
    """So older versions wrote what the flag calls 0."""
    path = tmp_path / "config.json"
    path.write_text('{"config": {"game": "Pong", "max_gradient_norm": null}}')
    assert config.read(path) == Config(game="Pong", max_gradient_norm=0.0)


def test_whole_numbers_are_numbers():
    assert Config(max_gradient_norm=40, learning_rate=1).max_gradient_norm == 40
    with pytest.raises(UserError, match="--max-gradient-norm True"):
        Config(max_gradient_norm=True)
