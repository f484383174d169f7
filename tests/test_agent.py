"""The agent: acting step by step is the learner's unroll; sampling; the normaliser."""

import functools

import jax
import numpy as np
import pytest
from samples import agent_with, random_timestep, tiny_config

from maskrl import learner, preprocess
from maskrl.actor import ActorGroup, make_act
from maskrl.devices import Devices
from maskrl.envs import Environments, Row
from maskrl.types import Snapshot, TimeStep, Unroll


@functools.cache
def agent_and_params(core="convlstm", precision="float32"):
    """An agent with a policy that has something to say."""
    agent = agent_with(precision, mask="both", core=core)
    params = jax.tree.map(np.array, agent.init_params(jax.random.PRNGKey(0)))
    params["policy"]["kernel"] *= 100
    return agent, params


@functools.cache
def step_of(agent, greedy=False):
    return jax.jit(functools.partial(agent.step, greedy=greedy))


KEY = jax.random.PRNGKey(7)


def act(agent, params, state, timesteps):
    """Steps through all timesteps; the states after each, and the outputs."""
    states, outputs = [], []
    for timestep in timesteps:
        state, output = step_of(agent)(params, state, timestep, KEY)
        states.append(state)
        outputs.append(output)
    return states, outputs


def assembled(agent, before, after, outputs, timesteps):
    """The learner's trajectory of T outputs and T + 1 timesteps, between two states of the actors.

    An `Unroll` has timesteps with actors first, and without frames.
    """
    rows = [t.replace(frame=None) for t in timesteps]
    unroll = Unroll(
        initial_carry=before.carry,
        last_state=after,
        observations=[o.observation for o in outputs],
        actions=[o.action for o in outputs],
        saved=[jax.tree.map(lambda x: x[0], o.network.saved) for o in outputs],
        timesteps=jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *rows),
        last_frame=timesteps[-1].frame,
    )
    return learner.assemble(agent, unroll)


def noise(steps, batch, resets):
    """Timesteps of noise, first rows where `resets` {step: actors} says so."""
    rng = np.random.default_rng(0)
    timesteps = [random_timestep(rng, batch, first=t == 0) for t in range(steps)]
    for t, actors in resets.items():
        timesteps[t].is_first[actors] = True
    return timesteps


def check_unroll(agent, params, timesteps, start, length):
    """The learner's unroll of the rows from `start` is what acting computed there.

    Whether the learner computes it again or takes what acting saved; and so are the gradients.
    """
    # Rounded to bfloat16, a last digit that differs grows to a thousandth.
    tolerance = {"float32": 1e-4, "bfloat16": 3e-2}[agent.network.kernels]
    batch = len(timesteps[0].reward)
    states, outputs = act(agent, params, agent.init_state(np.arange(batch)), timesteps)
    before = states[start - 1] if start else agent.init_state(np.arange(batch))
    end = start + length
    rows = slice(start, end + 1)
    trajectory = assembled(agent, before, states[end - 1], outputs[start:end], timesteps[rows])
    again = trajectory.replace(saved=None)
    for unrolled in (jax.jit(agent.unroll)(params, t) for t in (trajectory, again)):
        for name in ("logits", "value", "policy_mask", "value_mask", "hidden"):
            acted = np.stack([getattr(o.network, name)[0] for o in outputs[start : end + 1]])
            np.testing.assert_allclose(getattr(unrolled, name), acted, atol=tolerance, err_msg=name)

    def loss(params, trajectory):
        return learner.loss(agent, tiny_config(), params, trajectory)[0]

    gradients = (jax.jit(jax.grad(loss))(params, t) for t in (trajectory, again))
    for saved, computed in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert np.abs(computed).max() > 0
        np.testing.assert_allclose(saved, computed, atol=tolerance * np.abs(computed).max())
    np.testing.assert_allclose(
        trajectory.observation[-1], outputs[end].observation, atol=1e-5, err_msg="last row"
    )


@pytest.mark.parametrize(
    ("core", "precision"),
    [
        ("convlstm", "float32"),
        ("none", "float32"),
        pytest.param("convlstm", "bfloat16", marks=pytest.mark.slow),
    ],
)
def test_acting_is_the_learners_unroll(core, precision):
    """Over two unrolls; episodes start inside, in the first and in the last row of an unroll."""
    agent, params = agent_and_params(core, precision)
    timesteps = noise(9, 3, {2: [0], 4: [1], 8: [2, 0]})
    check_unroll(agent, params, timesteps, 0, 4)
    check_unroll(agent, params, timesteps, 4, 4)


def test_acting_is_the_learners_unroll_in_real_games():
    """Breakout cut off after 4 steps: resets, with EnvPool's own first rows."""
    agent, params = agent_and_params()
    envs = Environments("Breakout", 3, 5, max_episode_steps=4)
    timesteps = [envs.reset().timestep]
    for t in range(8):
        envs.send(np.full(3, t % 4))
        timesteps.append(envs.recv().timestep)
    envs.close()
    assert np.any([t.is_first for t in timesteps[5:]])
    check_unroll(agent, params, timesteps, 4, 4)


def test_normaliser_lives_on_over_episodes():
    """Its statistics count every frame, whether an episode starts or not; the carry does not."""
    agent, params = agent_and_params()
    whole = noise(6, 2, {3: [0, 1]})
    states, _ = act(agent, params, agent.init_state(np.arange(2)), whole)
    normaliser = preprocess.init_normaliser(2)
    for timestep in whole:
        pixels = preprocess.resize(timestep.frame, agent.crop)
        normaliser, _ = preprocess.normalise(normaliser, pixels)
    assert states[-1].normaliser.count.tolist() == [6, 6]
    np.testing.assert_allclose(states[-1].normaliser.mean, normaliser.mean, rtol=1e-5)
    np.testing.assert_allclose(states[-1].normaliser.std, normaliser.std, rtol=1e-5)


def test_bootstrap_row_advances_nothing():
    """Acting goes on from the same state whether the learner has looked at the row or not.

    `assemble` observes the last row with a copy of the statistics: the state it is given stays.
    """
    agent, params = agent_and_params()
    timesteps = noise(5, 2, {})
    states, outputs = act(agent, params, agent.init_state(np.arange(2)), timesteps[:4])
    before = jax.tree.map(np.array, states[-1])
    trajectory = assembled(agent, agent.init_state(np.arange(2)), states[-1], outputs, timesteps)
    jax.block_until_ready(jax.jit(agent.unroll)(params, trajectory))
    jax.tree.map(np.testing.assert_array_equal, states[-1], before)
    after, _ = act(agent, params, states[-1], timesteps[4:])
    assert after[-1].normaliser.count.tolist() == [5, 5]
    assert after[-1].step.tolist() == [5, 5]


class Watched(Environments):
    """Environments that keep what went in and out."""

    def reset(self):
        self.rows, self.sent = [super().reset()], []
        return self.rows[0]

    def send(self, action, *who):
        if not who:  # the opening sends, too
            self.sent.append(np.array(action))
        super().send(action, *who)

    def recv(self):
        self.rows.append(super().recv())
        return self.rows[-1]


def test_an_actor_group_hands_over_what_it_did():
    """Two unrolls of three steps, in which games end: the learner's rows are those of the games."""
    agent, params = agent_and_params()
    envs, devices = Watched("Breakout", 2, 0, max_episode_steps=4), Devices(1)
    start, snapshot = agent.init_state(np.arange(2)), Snapshot(params=params, updates=0)
    group = ActorGroup(make_act(agent, devices), devices, envs, snapshot, start, KEY, 3)
    trajectories = []
    while len(trajectories) < 2:
        group.receive()
        if group.full:
            trajectories.append(learner.assemble(agent, group.collected()))
        group.act()
    group.send()
    group.close()
    timesteps = [row.timestep for row in envs.rows]
    states, outputs = act(agent, params, start, timesteps)
    for first, trajectory in zip((0, 3), trajectories, strict=True):
        for t in range(4):
            at, expected = timesteps[first + t], outputs[first + t]
            np.testing.assert_array_equal(trajectory.reward[t], at.reward)
            np.testing.assert_array_equal(trajectory.discount[t], at.discount)
            np.testing.assert_array_equal(trajectory.is_first[t], at.is_first)
            np.testing.assert_allclose(trajectory.observation[t], expected.observation, atol=1e-5)
            if t < 3:
                np.testing.assert_array_equal(trajectory.action[t], envs.sent[first + t])
                np.testing.assert_array_equal(trajectory.action[t], expected.action)
        carry = (states[first - 1] if first else start).carry
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, atol=1e-5),
            *(trajectory.initial_carry, carry),
        )
    assert sum(t.is_first.any() for t in timesteps) > 1


class Scripted:
    """One environment that comes with these rows: (reward, is first, done, game over)."""

    num_envs = 1

    def __init__(self, *rows):
        self._rows = iter(rows)

    def reset(self):
        reward, *flags = map(np.atleast_1d, next(self._rows))
        first, done, over = (flag.astype(bool) for flag in flags)
        frame = np.zeros((1, 210, 160), np.uint8)
        timestep = TimeStep(frame=frame, reward=reward, discount=~done * 1.0, is_first=first)
        return Row(timestep, done, over, np.ones(1, int), np.zeros((1, 128), np.uint8))

    recv = reset


def test_what_is_counted():
    """Clipped rewards and steps of lives; whole games' scores, with what an opening brings."""
    rows = (
        *((0, 1, 0, 0), (7, 0, 0, 0), (-3, 0, 0, 0), (2, 0, 1, 0)),
        *((5, 1, 0, 0), (4, 0, 1, 1), (1, 1, 0, 0), (1, 0, 1, 0)),
    )
    envs = Scripted(*rows)
    group = ActorGroup(None, Devices(1), envs, None, None, None, 100)
    for _ in rows:
        group.receive()
    assert group.tally.agent_steps == 5
    assert group.tally.scores == [7 - 3 + 2 + 5 + 4]
    assert group.tally.lives == [[1 - 1 + 1, 3], [1, 1], [1, 1]]


def test_sampling_does_not_depend_on_the_batch():
    """Four actors in one batch, in two, and alone choose the same actions."""
    agent, params = agent_and_params()
    timesteps = noise(6, 4, {3: [1]})

    def actions(groups):
        chosen = []
        for ids in groups:
            ids = np.array(ids)
            part = [jax.tree.map(lambda x, ids=ids: x[ids], t) for t in timesteps]
            _, outputs = act(agent, params, agent.init_state(ids), part)
            chosen.append([o.action for o in outputs])
        return np.concatenate(chosen, axis=1)

    together = actions([[0, 1, 2, 3]])
    np.testing.assert_array_equal(together, actions([[0, 1], [2, 3]]))
    np.testing.assert_array_equal(together, actions([[0], [1], [2], [3]]))
    assert len({tuple(column) for column in together.T}) > 1


def test_sampling_follows_the_policy():
    """2,000 actors on one frame: frequencies within 4 standard errors of the probabilities."""
    agent, params = agent_and_params("none")
    logits = np.log([0.1, 0.2, 0.3, 0.4]).astype(np.float32)
    params = params | {
        "policy": params["policy"]
        | {"kernel": np.zeros_like(params["policy"]["kernel"]), "bias": logits}
    }
    frame = random_timestep(np.random.default_rng(1), 1)
    counts = np.zeros(4)
    for n in range(10):
        state = agent.init_state(np.arange(200 * n, 200 * (n + 1)))
        timestep = jax.tree.map(lambda x: np.repeat(x, 200, axis=0), frame)
        _, output = step_of(agent)(params, state, timestep, KEY)
        counts += np.bincount(output.action, minlength=4)
    p = np.exp(logits)
    assert np.all(np.abs(counts / 2000 - p) < 4 * np.sqrt(p * (1 - p) / 2000))


def test_actors_and_steps_sample_apart():
    """The same frame and policy: an actor's draws differ from step to step and from others'."""
    agent, params = agent_and_params("none")
    params = params | {"policy": jax.tree.map(np.zeros_like, params["policy"])}
    timestep = random_timestep(np.random.default_rng(1), 16)
    _, outputs = act(agent, params, agent.init_state(np.arange(16)), [timestep] * 8)
    actions = np.array([o.action for o in outputs])
    assert len({tuple(row) for row in actions}) == 8
    assert len({tuple(column) for column in actions.T}) == 16


def test_greedy_is_the_most_probable():
    agent, params = agent_and_params()
    state = agent.init_state(np.arange(4))
    timestep = noise(1, 4, {})[0]
    _, output = step_of(agent, greedy=True)(params, state, timestep, KEY)
    np.testing.assert_array_equal(output.action, output.network.logits[0].argmax(-1))
    _, again = step_of(agent, greedy=True)(params, state, timestep, jax.random.PRNGKey(8))
    np.testing.assert_array_equal(output.action, again.action)


def test_rgb_frames_are_seen_as_their_mean():
    agent, params = agent_and_params("none")
    timestep = random_timestep(np.random.default_rng(2), 2, rgb=True)
    _, output = agent.step(params, agent.init_state(np.arange(2)), timestep, KEY)
    pixels = preprocess.resize(timestep.frame.mean(axis=1).astype(np.uint8), agent.crop)
    _, expected = preprocess.normalise(preprocess.init_normaliser(2), pixels)
    # Up to the rounding of the mean to whole numbers here.
    np.testing.assert_allclose(output.observation[..., 0], expected, atol=0.15)


def test_a_precision_that_is_not_taken_is_said(monkeypatch, capsys):
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert agent_with("float32").network.kernels == "float32"
    assert capsys.readouterr().err == ""
    assert agent_with("bfloat16").network.kernels == "float32"
    assert "--precision bfloat16 is for CPUs" in capsys.readouterr().err
