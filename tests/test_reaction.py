"""Edited states: the agent's reaction to a patch on the screen, and to a byte of the memory."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from samples import agent_with

from maskrl import checkpoint, evaluation, reaction, recording
from maskrl.errors import UserError
from maskrl.explain import figures

BRICKS = (57, 8, 75, 152)  # the three upper rows of Breakout's wall


@functools.cache
def untrained(rgb=True):
    agent = agent_with(frames="rgb" if rgb else "luminance")
    return agent, jax.tree.map(np.array, agent.init_params(jax.random.PRNGKey(0)))


@functools.cache
def played(rgb):
    """A sampled game of the untrained agent, some 200 steps with five lives."""
    how = evaluation.How(sample=True)
    return evaluation.record(*untrained(rgb), how, name="here", agent_steps=0)


@pytest.mark.parametrize("rgb", [True, False])
def test_without_an_edit_it_is_the_recorded_moment(rgb):
    """The replay reaches the recording's state, over lost lives, from colours alone."""
    game = played(rgb)
    index = int(np.flatnonzero(game.life_start)[2]) + 5
    same = reaction.edit_screen(*untrained(rgb), game, index, index, BRICKS, BRICKS[:2], name="me")
    tolerance = 1e-5 if rgb else 1e-2  # luminance from colours differs where two frames are merged
    for moment in (same.before, same.after):
        np.testing.assert_allclose(moment.value, game.value[index], atol=tolerance)
        for branch, mask in game.masks().items():
            np.testing.assert_allclose(moment.masks[branch], mask[index], atol=tolerance)
        np.testing.assert_allclose(moment.probabilities, game.probabilities[index], atol=tolerance)


def test_a_patch_lands_where_it_was_sent_and_is_reacted_to():
    game = played(True)
    edited = reaction.edit_screen(*untrained(), game, 50, 0, BRICKS, (100, 8), name="me")
    top, left, bottom, right = BRICKS
    changed = game.frames[50].copy()
    changed[100 : 100 + bottom - top, left:right] = game.frames[0][top:bottom, left:right]
    np.testing.assert_array_equal(edited.after.frame, changed)
    np.testing.assert_array_equal(edited.before.frame, game.frames[50])
    assert edited.after.value != edited.before.value
    difference = np.abs(edited.after.masks["policy"] - edited.before.masks["policy"])
    assert difference[4:6].max() > 10 * difference[8:].max()  # rows 98 to 130, and far below


def test_refusals():
    game = played(True)
    edit = functools.partial(reaction.edit_screen, *untrained(), game, name="me")
    for arguments, message in (
        ((99_999, 0, BRICKS, (57, 8)), "no frame 99999"),
        ((5, 0, (57, 8, 75, 1520), (57, 8)), "not within"),
        ((5, 0, (-3, 8, 75, 20), (57, 8)), "not within"),
        ((5, 0, (75, 8, 57, 20), (57, 8)), "not within"),
        ((5, 0, BRICKS, (200, 8)), "does not fit"),
    ):
        with pytest.raises(UserError, match=message):
            edit(*arguments)
    agent, params = agent_with(num_actions=6, frames="rgb"), untrained()[1]
    with pytest.raises(UserError, match="6 actions, Breakout has 4"):
        reaction.edit_screen(agent, params, game, 5, 0, BRICKS, (57, 8), name="me")
    with pytest.raises(UserError, match="6 actions, Breakout has 4"):
        reaction.edit_memory(agent, params, 5, 5, 0)


def test_a_byte_of_the_memory(monkeypatch):
    """A row of bricks is half gone; the agent has seen every screen up to then."""
    pytest.importorskip("ale_py")
    edit, seen, timestep = (
        functools.partial(reaction.edit_memory, *untrained()),
        [],
        reaction._timestep,
    )
    monkeypatch.setattr(reaction, "_timestep", lambda *a: seen.append(a[1]) or timestep(*a))
    moved = edit(20, "bricks-right-1", 0)
    assert len(seen) == 21 + 2
    np.testing.assert_array_equal(seen[21], moved.before.frame)
    differ = np.argwhere((moved.before.frame != moved.after.frame).any(axis=-1))
    assert len(differ) >= 40
    assert differ[:, 0].min() >= 57  # the top row of bricks
    assert differ[:, 0].max() < 63
    assert differ[:, 1].min() >= 80
    assert moved.before.value != moved.after.value
    for byte, value in (("nonsense", 1), (128, 1), (5, 256)):
        with pytest.raises(UserError, match="an address from 0 to 127"):
            edit(20, byte, value)
    with pytest.raises(UserError, match="step -5: from 0 on"):
        edit(-5, 5, 0)
    with pytest.raises(UserError, match="game was over"):
        edit(5_000, 5, 0)


def test_the_command(tmp_path, capsys, monkeypatch):
    original = figures.reaction
    _, params = untrained()
    info = checkpoint.AgentInfo(
        game="Breakout",
        num_actions=4,
        mask="both",
        core="convlstm",
        frames="rgb",
        agent_steps=0,
        source="a test",
    )
    checkpoint.save_agent(tmp_path / "agent", params, info)
    recording.write(played(True), tmp_path / "game.npz")
    command = ["screen", str(tmp_path / "game.npz"), "--agent", str(tmp_path / "agent")]
    command += ["--source", "0", "--box", "57,8,75,152", "--output", str(tmp_path / "out")]
    drawn = []
    monkeypatch.setattr(figures, "reaction", lambda *args: drawn.append(args) or original(*args))
    assert reaction.main([*command, "--frame", "60"]) == 0
    assert drawn[0][4] == "Breakout · a test · frame 60, with a patch of frame 0"  # who is asked
    assert (tmp_path / "out.png").exists()
    assert (tmp_path / "out.pdf").exists()
    with pytest.raises(SystemExit) as exit:
        reaction.main([*command, "--frame", "60"])
    assert exit.value.code == 2
    assert "out.png exists" in capsys.readouterr().err
    command[-1] = str(tmp_path / "new")
    with pytest.raises(SystemExit) as exit:
        reaction.main([*command, "--frame", "99999"])
    assert exit.value.code == 2
    assert "no frame 99999" in capsys.readouterr().err
    assert not list(tmp_path.glob("new*"))


def test_the_command_of_the_memory(tmp_path, capsys):
    pytest.importorskip("ale_py")
    agent, params = untrained()
    info = checkpoint.AgentInfo(**dataclasses.asdict(agent.spec), agent_steps=0, source="a test")
    checkpoint.save_agent(tmp_path / "agent", params, info)
    command = ["memory", "--agent", str(tmp_path / "agent"), "--output", str(tmp_path / "out")]
    command += ["--step", "5", "--value", "0", "--byte"]
    with pytest.raises(SystemExit, match="2"):
        reaction.main([*command, "\u00b2"])  # a digit, and no number
    assert "an address from 0 to 127" in capsys.readouterr().err
    assert reaction.main([*command, "bricks-right-1"]) == 0
    assert (tmp_path / "out.png").exists()


def test_a_console_with_more_rows():
    """The agent is shown the first 210, as by EnvPool."""
    pytest.importorskip("ale_py")
    assert reaction._Console("Pacman", 0).screen().shape == (210, 160, 3)
