"""Whole games: how many, which scores, modes, recordings."""

import functools

import jax
import numpy as np
import pytest
from samples import agent_with, compilations

from maskrl import evaluation
from maskrl.envs import Environments
from maskrl.errors import UserError
from maskrl.evaluation import How
from maskrl.networks import Interventions


@functools.cache
def agent_and_params(mask="both", actions=4):
    """An untrained agent whose actions differ from frame to frame."""
    agent = agent_with(num_actions=actions, mask=mask, core="convlstm")
    params = jax.tree.map(np.array, agent.init_params(jax.random.PRNGKey(0)))
    params["policy"]["kernel"] *= 100
    if mask in ("policy", "both"):
        params["policy"]["mask"]["kernel"] *= 100  # a mask near 0.5 is its own inverse
    return agent, params


def replay(how, actor, games):
    """The scores and lengths of one environment's games, step by step, all by itself."""
    agent, params = agent_and_params()
    inverted = how.interventions(agent.spec)
    step = jax.jit(functools.partial(agent.step, greedy=not how.sample, interventions=inverted))
    seed = evaluation.environment_seed(how.seed) + actor
    envs = Environments("Breakout", 1, seed, max_episode_steps=how.max_episode_steps)
    state, row = agent.init_state(np.array([actor])), envs.reset()
    scores, lengths, score, length = [], [], float(row.timestep.reward[0]), 0
    while len(scores) < games:
        state, output = step(params, state, row.timestep, jax.random.PRNGKey(how.seed))
        envs.send(np.asarray(output.action))
        row = envs.recv()
        score += row.timestep.reward[0]
        length += not row.timestep.is_first[0]
        if row.game_over[0]:
            scores.append(score)
            lengths.append(length)
            score, length = 0.0, 0
    envs.close()
    return scores, lengths


def test_what_the_opening_brings_is_scored(monkeypatch):
    """Of the first game as of all later ones, in a recording, too."""
    agent, params = agent_and_params()
    how = How(seed=11, max_episode_steps=5)
    plain = evaluation.play(agent, params, 2, how).scores
    reset = Environments.reset

    def scored(self):
        row = reset(self)
        reward = row.timestep.reward + np.float32(7)
        return row._replace(timestep=row.timestep.replace(reward=reward))

    monkeypatch.setattr(Environments, "reset", scored)
    assert evaluation.play(agent, params, 2, how).scores.tolist() == (plain + 7).tolist()
    game = evaluation.record(agent, params, how, name="a", agent_steps=0)
    assert game.final_score == plain[0] + 7
    assert game.score[0] == 7  # before the first action, which is not what brought it
    assert game.reward.sum() == plain[0]


@pytest.mark.parametrize(
    ("sample", "mode"), [(False, "normal"), (True, "normal"), (True, "inverse")]
)
def test_exactly_n_games_as_if_alone(monkeypatch, sample, mode):
    """Five games in two environments: three and two, the same as each played by itself.

    Sampled games end when their lives are lost; greedy ones may go on, and are cut off.
    """
    monkeypatch.setattr(evaluation, "MAX_ENVIRONMENTS", 2)
    agent, params = agent_and_params()
    limit = 400 if sample else 50
    how = How(mode=mode, seed=11, sample=sample, max_episode_steps=limit)
    games = evaluation.play(agent, params, 5, how)
    assert games.scores.shape == games.lengths.shape == (5,)
    expected = [replay(how, i, n) for i, n in ((0, 3), (1, 2))]
    assert games.scores.tolist() == [s for scores, _ in expected for s in scores]
    assert games.lengths.tolist() == [n for _, lengths in expected for n in lengths]
    if sample:
        assert len(set(games.lengths.tolist())) > 1
        assert games.scores.any()


@pytest.mark.parametrize(("episodes", "most"), [(1, 100), (3, 100), (4, 3), (7, 3), (6, 3)])
def test_number_of_games(monkeypatch, episodes, most):
    """Whatever the number, also where environments drop out one by one (three, two, one)."""
    monkeypatch.setattr(evaluation, "MAX_ENVIRONMENTS", most)
    agent, params = agent_and_params()
    games = evaluation.play(agent, params, episodes, How(max_episode_steps=6))
    assert games.lengths.tolist() == [6] * episodes


def test_shares_are_fixed_before_the_start(monkeypatch):
    """No environment plays more than its share, however short its games are.

    Of four games in two environments, games 0 and 1 are the first environment's, also if the
    second one could play all four in that time.
    """
    monkeypatch.setattr(evaluation, "MAX_ENVIRONMENTS", 2)
    agent, params = agent_and_params()
    four = evaluation.play(agent, params, 4, How(sample=True, seed=2))
    two = evaluation.play(agent, params, 2, How(sample=True, seed=2))
    assert four.lengths[[0, 2]].tolist() == two.lengths.tolist()
    assert four.scores[[0, 2]].tolist() == two.scores.tolist()


def test_who_is_done_adds_nothing(monkeypatch):
    """Nine games in eight environments: still nine."""
    monkeypatch.setattr(evaluation, "MAX_ENVIRONMENTS", 8)
    agent, _ = agent_and_params()
    assert len(evaluation.play(agent, None, 9, How(mode="random", seed=1)).scores) == 9


def test_the_number_of_rows_in_a_pass_changes_nothing(monkeypatch):
    """Neither do the rows that fill the last pass, nor those that have played their share."""
    monkeypatch.setattr(evaluation, "MAX_ENVIRONMENTS", 3)
    agent, params = agent_and_params()
    play = functools.partial(evaluation.play, agent, params, 5, How(sample=True, seed=2))
    games = []
    for rows in (1, 2, 100):
        monkeypatch.setattr(evaluation, "CPU_ROWS", rows)
        games.append(play())
    assert len(games[0].scores) == 5
    for other in games[1:]:
        np.testing.assert_array_equal(games[0].lengths, other.lengths)
        np.testing.assert_array_equal(games[0].scores, other.scores)


def test_lengths_count_agent_steps_of_whole_games():
    """Rows that start an episode are not counted; a whole game has five lives."""
    agent, _ = agent_and_params()
    lengths = evaluation.play(agent, None, 2, How(mode="random", seed=1)).lengths
    assert np.all(lengths > 90)


def test_a_player_is_compiled_once():
    """It plays again, with other parameters and other seeds, too: nothing is compiled anew."""
    agent, params = agent_and_params()
    player = evaluation.Player(agent, 3, How(sample=True, max_episode_steps=100))
    first = player.play(params)
    with compilations() as compiled:
        again = player.play(params)
        player.play(jax.tree.map(np.zeros_like, params))
        other = player.play(params, seed=200)
    fresh = evaluation.play(agent, params, 3, How(sample=True, max_episode_steps=100, seed=200))
    assert first.scores.tolist() != other.scores.tolist() == fresh.scores.tolist()
    assert first.scores.tolist() == again.scores.tolist()
    assert again.lengths.tolist() == first.lengths.tolist()
    assert first.lengths.dtype == np.int64
    assert not compiled


@pytest.mark.parametrize("mode", ["normal", "random"])
def test_environments_end_with_the_games(monkeypatch, mode):
    """Also where something fails while they step; the next games are the same, from the start."""
    closed = []
    close = evaluation.Environments.close
    monkeypatch.setattr(
        evaluation.Environments, "close", lambda self: (closed.append(self), close(self))
    )
    agent, params = agent_and_params()
    how = How(sample=True, seed=3, max_episode_steps=20, mode=mode)
    player = evaluation.Player(agent, 3, how)
    first = player.play(params)
    assert len(set(closed)) == 2
    with monkeypatch.context() as broken:
        broken.setattr(evaluation._Table, "choose", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            player.play(params)
        assert len(set(closed)) == 4
        broken.setattr(evaluation.Environments, "send", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluation.record(agent, params, how, name="here", agent_steps=0)
    assert len(set(closed)) == 6
    again = player.play(params)
    assert (again.scores.tolist(), again.lengths.tolist()) == (
        first.scores.tolist(),
        first.lengths.tolist(),
    )


def test_random_mode():
    """Needs no parameters; the seed decides; it scores like random play (1.2 in the paper)."""
    agent = agent_with(mask="none", core="none")
    one, again, other = (
        evaluation.play(agent, None, 10, How(mode="random", seed=seed)) for seed in (1, 1, 200)
    )
    assert one.scores.tolist() == again.scores.tolist()
    assert one.lengths.tolist() != other.lengths.tolist()
    assert 0.3 < one.scores.mean() < 4


def test_inverse_is_another_policy():
    agent, params = agent_and_params()
    normal, inverse, both = (
        evaluation.record(
            agent, params, How(max_episode_steps=8, **changes), name="a", agent_steps=0
        )
        for changes in ({}, {"mode": "inverse"}, {"mode": "inverse", "branch": "both"})
    )
    for mask in ("policy_mask", "value_mask"):
        logits = getattr(normal, f"{mask}_logits")
        np.testing.assert_allclose(getattr(normal, mask), 1 / (1 + np.exp(-logits)), atol=1e-5)
    np.testing.assert_allclose(
        inverse.policy_mask, 1 / (1 + np.exp(inverse.policy_mask_logits)), atol=1e-5
    )
    np.testing.assert_allclose(both.value_mask, 1 / (1 + np.exp(both.value_mask_logits)), atol=1e-5)
    np.testing.assert_allclose(inverse.value_mask[0], normal.value_mask[0], atol=1e-5)
    assert np.abs(inverse.logits[0] - normal.logits[0]).max() > 1e-3
    np.testing.assert_allclose(inverse.value[0], normal.value[0], atol=1e-5)
    assert abs(both.value[0] - normal.value[0]) > 1e-3


@pytest.mark.parametrize(
    ("mask", "branch", "says"),
    [
        ("none", "policy", "no policy mask"),
        ("value", "policy", "no policy mask"),
        ("policy", "value", "no value mask"),
        ("policy", "both", "no value mask"),
        ("value", "both", "no policy mask"),
    ],
)
def test_inverse_without_mask(mask, branch, says):
    agent, params = agent_and_params(mask)
    with pytest.raises(UserError, match=says):
        evaluation.play(agent, params, 1, How(mode="inverse", branch=branch))


def test_another_games_agent():
    agent, params = agent_and_params("none", 6)
    with pytest.raises(UserError, match="6 actions, Breakout has 4"):
        evaluation.play(agent, params, 1)


@pytest.mark.parametrize("mode", ["normal", "random"])
def test_recording_is_the_game_that_play_plays(mode):
    """The same seed: the same score and length, sampled or random; frames and memory replay."""
    agent, params = agent_and_params()
    how = How(seed=5, mode=mode, sample=True, max_episode_steps=400)
    games = evaluation.play(agent, params, 1, how)
    r = evaluation.record(agent, params, how, name="here", agent_steps=7)
    assert r.final_score == games.scores[0]
    # One row more than steps; the rows after lost lives are no steps.
    assert len(r) - r.life_start.sum() == games.lengths[0]
    assert (r.game, r.agent, r.mask, r.mode, r.agent_steps) == ("Breakout", "here", "both", mode, 7)
    assert r.view == (34, 194)
    assert r.action_names == ("NOOP", "FIRE", "RIGHT", "LEFT")

    first = evaluation.environment_seed(5)
    envs = Environments("Breakout", 1, first, rgb=True, max_episode_steps=400)
    row = envs.reset()
    for t in range(len(r)):
        np.testing.assert_array_equal(r.frames[t], row.timestep.frame[0].transpose(1, 2, 0))
        np.testing.assert_array_equal(r.ram[t], row.ram[0])
        assert r.lives[t] == row.lives[0]
        assert r.life_start[t] == row.timestep.is_first[0]
        assert row.game_over[0] == (t == len(r) - 1)
        if t < len(r) - 1:
            envs.send(r.action[t : t + 1])
            row = envs.recv()
            assert r.reward[t] == row.timestep.reward[0]
    envs.close()
    assert r.reward[-1] == 0


def test_recording_of_what_would_be_with_other_masks():
    """Of the first frame, what an agent says whose masks are ones, inverted, or lack one cell."""
    agent, params = agent_and_params()
    how = How(max_episode_steps=4)
    r = evaluation.record(agent, params, how, name="a", agent_steps=0)
    assert r.cut_off
    envs = Environments("Breakout", 1, evaluation.environment_seed(0))
    timestep = envs.reset().timestep
    envs.close()
    one_off = r.policy_mask[0].copy()
    one_off[3, 6] = 0

    def said(**interventions):
        _, output = agent.step(
            *(params, agent.init_state(np.arange(1)), timestep, jax.random.PRNGKey(0)),
            interventions=Interventions(**interventions),
        )
        return np.asarray(output.network.logits[0, 0]), float(output.network.value[0, 0])

    close = {"rtol": 1e-4, "atol": 1e-4}
    logits, value = said(policy="ones", value="ones")
    np.testing.assert_allclose(r.unmasked_logits[0], logits, **close)
    np.testing.assert_allclose(r.unmasked_value[0], value, **close)
    logits, value = said(policy="invert", value="invert")
    np.testing.assert_allclose(r.inverted_logits[0], logits, **close)
    np.testing.assert_allclose(r.inverted_value[0], value, **close)
    assert np.abs(r.unmasked_logits - r.logits).max() > 0.01
    logits, value = said(policy="given", policy_map=one_off, value="given", value_map=one_off)
    np.testing.assert_allclose(r.logits[0] - r.cell_logits[0, 3, 6], logits, rtol=1e-2, atol=1e-3)
    logits, value = said(value="given", value_map=np.where(one_off == 0, 0, r.value_mask[0]))
    assert r.value[0] - r.cell_values[0, 3, 6] == pytest.approx(value, abs=1e-3)


def test_recording_of_an_agent_that_sees_rgb():
    _, params = agent_and_params()
    agent = agent_with(frames="rgb")
    r = evaluation.record(agent, params, How(max_episode_steps=5), name="a", agent_steps=0)
    assert len(r) == 6
    assert np.ptp(r.frames[:], axis=-1).max() > 0  # colours
