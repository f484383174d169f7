"""Folders of agents and runs: what is written, found, refused."""

import json
import os

import jax
import numpy as np
import pytest
from samples import agent_with

from maskrl import checkpoint, files
from maskrl.agent import make_agent
from maskrl.checkpoint import AgentInfo
from maskrl.errors import UserError


def info(**changes):
    fields = {
        "game": "Breakout",
        "num_actions": 4,
        "mask": "policy",
        "core": "none",
        "frames": "luminance",
        "agent_steps": 12,
        "source": "a test",
    }
    return AgentInfo(**fields | changes)


def params_of(i=None, seed=0):
    i = i or info()
    agent = make_agent(i)
    return jax.tree.map(np.asarray, agent.init_params(jax.random.PRNGKey(seed)))


def error(folder):
    """The message, one line, of the UserError that loading must raise."""
    with pytest.raises(UserError) as caught:
        checkpoint.load_agent(folder)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(("mask", "core"), [("both", "convlstm"), ("none", "none")])
def test_round_trip(tmp_path, mask, core):
    i = info(mask=mask, core=core, score=3.5)
    checkpoint.save_agent(tmp_path / "agent", params_of(i), i)
    agent, params, read = checkpoint.load_agent(tmp_path / "agent")
    assert read == i
    assert agent == agent_with(mask=mask, core=core)
    jax.tree.map(np.testing.assert_array_equal, params, params_of(i))
    assert os.listdir(tmp_path) == ["agent"]


def test_an_agent_is_replaced_whole(tmp_path):
    checkpoint.save_agent(tmp_path / "agent", params_of(seed=0), info())
    checkpoint.save_agent(tmp_path / "agent", params_of(seed=1), info(agent_steps=99))
    _, params, read = checkpoint.load_agent(tmp_path / "agent")
    assert read.agent_steps == 99
    jax.tree.map(np.testing.assert_array_equal, params, params_of(seed=1))
    assert os.listdir(tmp_path) == ["agent"]


def test_an_agent_does_not_say_where_it_was_made(tmp_path):
    checkpoint.save_agent(tmp_path / "agent", params_of(), info())
    files = [path for path in (tmp_path / "agent").rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mask": "both"}, "shape"),
        ({"mask": "none"}, "shape"),
        ({"core": "convlstm"}, "shape"),
        ({"num_actions": 6}, "shape"),
    ],
)
def test_another_variant(tmp_path, changes, says):
    """The description says one thing, the parameters are another's."""
    checkpoint.save_agent(tmp_path / "agent", params_of(), info(**changes))
    assert says in error(tmp_path / "agent")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "3", "{}", '{"game": "Breakout"}', '{"nonsense": 1}'],
)
def test_damaged_description(tmp_path, text):
    checkpoint.save_agent(tmp_path / "agent", params_of(), info())
    (tmp_path / "agent" / "agent.json").write_text(text)
    assert "agent.json" in error(tmp_path / "agent")


@pytest.mark.parametrize(
    ("field", "value"), [("mask", "some"), ("core", "gru"), ("num_actions", "four"), ("game", 3)]
)
def test_description_of_no_agent(tmp_path, field, value):
    checkpoint.save_agent(tmp_path / "agent", params_of(), info())
    path = tmp_path / "agent" / "agent.json"
    content = json.loads(path.read_text()) | {field: value}
    del content["sha256"]
    path.write_text(checkpoint.sealed(content))
    assert field in error(tmp_path / "agent")


def test_no_agent(tmp_path):
    assert "neither a run nor an agent" in error(tmp_path)
    assert "neither a run nor an agent" in error(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    error(tmp_path / "file")


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "agent.json")


def test_cut_off_parameters(tmp_path):
    """Every file of the parameters in its turn, emptied and halved: an error, or untouched data.

    Files that hold nothing which is read may be cut; the parameters are then the saved ones.
    """
    expected, messages = params_of(), []
    checkpoint.save_agent(tmp_path / "agent", expected, info())
    for path in files_of(tmp_path / "agent"):
        whole = path.read_bytes()
        for part in (b"", whole[: len(whole) // 2]):
            path.write_bytes(part)
            try:
                _, params, _ = checkpoint.load_agent(tmp_path / "agent")
            except UserError as error:
                messages.append(str(error))
            else:
                jax.tree.map(np.testing.assert_array_equal, params, expected)
        path.write_bytes(whole)
    assert len(messages) >= 4
    assert all(len(message.splitlines()) == 1 for message in messages)


def test_missing_parameters(tmp_path):
    expected = params_of()
    checkpoint.save_agent(tmp_path / "agent", expected, info())
    (tmp_path / "agent" / "params").rename(tmp_path / "elsewhere")
    error(tmp_path / "agent")


def make_run(folder, game, seconds):
    """A run's folder, as far as looking for the newest one goes."""
    (folder / "checkpoints" / "100" / "params").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": {"game": game}}))
    os.utime(folder / "checkpoints", (seconds, seconds))


def test_newest_run(tmp_path):
    """The one that saved last; of a game; only runs that saved at all."""
    make_run(tmp_path / "a", "Breakout", 300)
    make_run(tmp_path / "b", "Pong", 200)
    make_run(tmp_path / "c", "Breakout", 100)
    make_run(tmp_path / "d", "Breakout", 400)
    (tmp_path / "d" / "checkpoints" / "100").rename(tmp_path / "d" / "checkpoints" / "100.partial")
    os.utime(tmp_path / "d" / "checkpoints", (400, 400))
    make_run(tmp_path / "e", "Breakout", 500)
    (tmp_path / "e" / "config.json").unlink()
    assert checkpoint.newest_run(tmp_path) == tmp_path / "a"
    assert checkpoint.newest_run(tmp_path, "Pong") == tmp_path / "b"
    assert checkpoint.newest_run(tmp_path, "Seaquest") is None
    assert checkpoint.newest_run(tmp_path / "absent") is None


def test_run_without_a_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert "holds no checkpoint" in error(tmp_path)


def test_a_checkpoint_that_was_being_replaced_is_not_lost(tmp_path, monkeypatch):
    """Saved again at the same step: at every moment there is the old one or the new one, whole."""
    saver, params = checkpoint.Checkpointer(tmp_path), params_of()
    saver.clean()
    saver.save(12, params, {"evaluated": np.array(0)}, info())
    write, seen = files.write, []

    def found():
        return int(saver.restore(params, {"evaluated": np.array(0)})[2]["evaluated"])

    def watched(path, text):
        seen.append(found())
        write(path, text)
        seen.append(found())

    monkeypatch.setattr(checkpoint.files, "write", watched)
    saver.save(12, params, {"evaluated": np.array(1)}, info())
    assert seen == [0, 1]
    assert found() == 1

    def killed(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.files, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        saver.save(12, params, {"evaluated": np.array(2)}, info())
    assert found() == 1
    assert os.listdir(saver.folder) == ["12"]
