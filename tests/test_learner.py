"""The update: stale gradients, one per actor and life, move the newest parameters in order."""

import dataclasses

import jax
import jax.flatten_util
import numpy as np
import optax
import pytest
import reference
from samples import agent_with, learner_state, random_unroll, tiny_config

from maskrl import learner, metrics
from maskrl.devices import Devices
from maskrl.errors import UserError
from maskrl.types import Snapshot

CONFIG = tiny_config(learning_rate=1e-3, adam_eps=1e-4, max_gradient_norm=0.0)
AGENT = agent_with()


def flat(tree):
    return np.asarray(jax.flatten_util.ravel_pytree(tree)[0], np.float64)


@pytest.fixture(scope="module")
def update():
    return learner.make_update(AGENT, CONFIG, Devices(1))


def params_of(seed):
    return AGENT.init_params(jax.random.PRNGKey(seed))


def snapshot_of(params):
    return Snapshot(params=params, updates=np.int32(0))


@jax.jit
def gradient_of(params, trajectory, counted):
    """The loss's gradient at these parameters over these transitions, outside the update."""

    def loss(params):
        return learner.loss(AGENT, CONFIG, params, trajectory, counted)[0]

    return jax.grad(loss)(params)


def gradients_at(params, unroll):
    """Those that the update takes of a `random_unroll` of two actors, by hand, in its order.

    Both actors' lives end at row 1, and rows 2 are firsts: transition 0 is the first life's,
    transition 1 nobody's, transition 2 the second's. Both first lives come before both second ones.
    """
    trajectory = learner.assemble(AGENT, unroll)
    gradients = []
    for transition in (0, 2):
        for actor in (0, 1):
            counted = np.zeros((3, 2))
            counted[transition, actor] = 1
            # The loss is a mean over the two actors; an actor's own is twice that.
            gradients.append(2 * flat(gradient_of(params, trajectory, counted)))
    return gradients


def test_stale_gradients_move_the_newest_parameters(update):
    """Two unrolls by two snapshots, neither of them the shared parameters: eight updates.

    The result is the reference's AMSGrad from the shared parameters along the gradients at the
    snapshots, to 1e-3 of the way gone; gradients at the shared parameters would end elsewhere, and
    so would the mean of the actors' gradients.
    """
    rng = np.random.default_rng(0)
    unrolls = [random_unroll(AGENT, rng, 3, 2) for _ in range(2)]
    shared, snapshots = params_of(0), [params_of(1), params_of(2)]
    state = learner_state(CONFIG, shared)
    for params, unroll in zip(snapshots, unrolls, strict=True):
        state, numbers = update(state, snapshot_of(params), unroll)

    def expected(at):
        gradients = [g for p, u in zip(at, unrolls, strict=True) for g in gradients_at(p, u)]
        return reference.amsgrad(flat(shared), gradients, 1e-3, 1e-4), gradients

    end, gradients = expected(snapshots)
    way = np.linalg.norm(end - flat(shared))
    assert np.linalg.norm(flat(state.params) - end) < 1e-3 * way
    assert np.linalg.norm(flat(state.params) - expected([shared, shared])[0]) > 0.1 * way
    means = [np.mean(gradients[:4], axis=0), np.mean(gradients[4:], axis=0)]
    mean = reference.amsgrad(flat(shared), means, 1e-3, 1e-4)
    assert np.linalg.norm(flat(state.params) - mean) > 0.1 * way

    norms = np.asarray(numbers["gradient_norm"])
    np.testing.assert_allclose(
        norms[:2].ravel(), [np.linalg.norm(g) for g in gradients[4:]], rtol=1e-3
    )
    assert np.isnan(norms[2]).all()  # nobody lived a third life
    # Four updates came before; the snapshot was taken before the first.
    assert np.asarray(numbers["staleness"])[:2].ravel().tolist() == [4, 5, 6, 7]
    assert int(state.updates) == 8
    counts = [int(x) for x in jax.tree.leaves(state.optimiser) if x.ndim == 0]
    assert counts == [8, 8]


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_lives_of_any_length(monkeypatch, backend):
    """Lives of 2 and 5, of 1, 3 and 2, and of 8 transitions: six updates, by what acting saved.

    One gradient after the other, two rows at a time; and as on an accelerator: whole unrolls, two
    of the three actors' at once.
    """
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    monkeypatch.setattr(learner, "STRETCH", 3)  # 2 divides 8
    monkeypatch.setattr(learner, "AT_ONCE", 2)
    unroll = random_unroll(AGENT, np.random.default_rng(0), 8, 3)
    is_first = np.zeros((3, 9), bool)
    is_first[0, 3] = is_first[1, 2] = is_first[1, 6] = True
    discount = 1 - np.roll(is_first, -1, axis=1).astype(np.float32)
    reward = np.where(is_first, 0, unroll.timesteps.reward)
    unroll = unroll.replace(
        timesteps=unroll.timesteps.replace(is_first=is_first, discount=discount, reward=reward)
    )
    params, shared = params_of(1), params_of(0)
    trajectory = learner.assemble(AGENT, unroll)
    rows = trajectory.observation[:-1], trajectory.initial_carry, trajectory.is_first[:-1]
    saved = AGENT.apply(params, *rows)[0].saved
    unroll = unroll.replace(saved=[jax.tree.map(lambda x, t=t: x[t], saved) for t in range(8)])
    state, numbers = learner.make_update(AGENT, CONFIG, Devices(1))(
        learner_state(CONFIG, shared), snapshot_of(params), unroll
    )
    lives = [(0, 0, 2), (1, 0, 1), (2, 0, 8), (0, 3, 8), (1, 2, 5), (1, 6, 8)]
    gradients = []
    for actor, start, end in lives:
        counted = np.zeros((8, 3))
        counted[start:end, actor] = 1
        gradients.append(3 * flat(gradient_of(params, trajectory, counted)))
    norms = np.asarray(numbers["gradient_norm"])
    expected = [np.linalg.norm(g) for g in gradients]
    np.testing.assert_allclose(norms[~np.isnan(norms)], expected, rtol=1e-3)
    end = reference.amsgrad(flat(shared), gradients, 1e-3, 1e-4)
    way = np.linalg.norm(end - flat(shared))
    assert np.linalg.norm(flat(state.params) - end) < 1e-3 * way
    assert np.nansum(numbers["transitions"]) == sum(end - start for _, start, end in lives)


def test_actors_that_share_an_update():
    """b = B = 2: one step along the mean gradient of whole unrolls, with the scaled optimiser."""
    config = dataclasses.replace(CONFIG, actors_per_update=2)
    update = learner.make_update(AGENT, config, Devices(1))
    unroll, shared = random_unroll(AGENT, np.random.default_rng(0), 3, 2), params_of(0)
    state, numbers = update(learner_state(config, shared), snapshot_of(params_of(1)), unroll)
    mean = np.sum(gradients_at(params_of(1), unroll), axis=0) / 2
    np.testing.assert_allclose(numbers["gradient_norm"][0, 0], np.linalg.norm(mean), rtol=1e-3)
    # The first step of AMSGrad: m / (1 - b1) = g, and sqrt(v / (1 - b2)) = |g|.
    b2 = 0.999**2
    eps = 1e-4 / np.sqrt(2) / np.sqrt(1 - b2)
    step = 1e-3 * np.sqrt(2) * mean / (np.abs(mean) + eps)
    moved = flat(state.params) - flat(shared)
    assert np.linalg.norm(moved + step) < 1e-3 * np.linalg.norm(step)
    assert int(state.updates) == 1


def test_long_gradients_are_cut():
    """Each to the longest that is allowed, before AMSGrad sees it; its length is logged uncut."""
    unroll, shared = random_unroll(AGENT, np.random.default_rng(0), 3, 2), params_of(0)
    gradients = gradients_at(params_of(1), unroll)
    lengths = np.array([np.linalg.norm(g) for g in gradients])
    longest = float(np.median(lengths))
    config = dataclasses.replace(CONFIG, max_gradient_norm=longest)
    update = learner.make_update(AGENT, config, Devices(1))
    state, numbers = update(learner_state(config, shared), snapshot_of(params_of(1)), unroll)
    np.testing.assert_allclose(numbers["gradient_norm"][:2].ravel(), lengths, rtol=1e-3)
    cut = [g * min(1, longest / n) for g, n in zip(gradients, lengths, strict=True)]
    ends = [reference.amsgrad(flat(shared), all_of, 1e-3, 1e-4) for all_of in (cut, gradients)]
    way = np.linalg.norm(ends[0] - flat(shared))
    assert np.linalg.norm(flat(state.params) - ends[0]) < 1e-3 * way
    assert np.linalg.norm(flat(state.params) - ends[1]) > 0.01 * way


def test_gradients_are_never_cut():
    """By 0, as in the paper's preset."""
    optimiser = learner.make_optimiser(tiny_config(max_gradient_norm=0))
    gradients = {"w": np.full(4, 1e6, np.float32)}
    _, state = optimiser.update(gradients, optimiser.init(gradients), gradients)
    mean = optax.tree.get(state, "mu")["w"]
    np.testing.assert_allclose(mean, (1 - learner.ADAM_B1) * gradients["w"], rtol=1e-5)


def test_nothing_is_donated(update):
    """Snapshots alias the shared parameters: both must outlive an update."""
    params = params_of(0)
    state = learner_state(CONFIG, params)
    before = flat(params)
    unroll = random_unroll(AGENT, np.random.default_rng(0), 3, 2)
    new, _ = update(state, state.snapshot(), unroll)
    np.testing.assert_array_equal(flat(params), before)
    np.testing.assert_array_equal(flat(state.params), before)
    assert np.any(flat(new.params) != before)


def test_numbers(update):
    """The parts add up to the loss; the explained variance is that of the transitions."""
    params = params_of(0)
    state = learner_state(CONFIG, params)
    unroll = random_unroll(AGENT, np.random.default_rng(0), 3, 2)
    _, m = update(state, state.snapshot(), unroll)
    collected = metrics.Metrics()
    collected.update({name: np.asarray(x) for name, x in m.items()}, agent_steps=6)
    row = collected.row()
    np.testing.assert_allclose(row["loss"], row["policy_loss"] + 0.5 * row["value_loss"], rtol=1e-5)
    assert 1.3 < row["entropy"] <= np.log(4) + 1e-6
    assert 0 < row["policy_mask"] < 1
    assert (row["staleness_min"], row["staleness_max"]) == (0, 3)
    assert row["gradient_norm_median"] <= row["gradient_norm_90"] <= row["gradient_norm_max"]
    assert np.isfinite(row["explained_variance"])


def test_explained_variance_by_hand():
    """Returns 1, 2, 3 (variance 2/3) less values 1, 2, 4: errors 0, 0, -1 (variance 2/9)."""
    moments = np.mean([1, 2, 3]), np.mean([1, 4, 9]), np.mean([0, 0, -1]), np.mean([0, 0, 1])
    assert metrics.explained_variance(*moments) == pytest.approx(1 - (2 / 9) / (2 / 3))
    assert np.isnan(metrics.explained_variance(2.0, 4.0, 0.0, 0.0))


def test_settings_of_the_optimiser():
    """The paper's literal numbers for one actor, whatever B; b must divide B."""
    config = tiny_config(actors_per_group=7)
    assert (config.actors_per_update, config.learning_rate, config.adam_eps) == (1, 1e-4, 1e-3)
    with pytest.raises(UserError, match="--actors-per-group 7 does not divide by"):
        tiny_config(actors_per_group=7, actors_per_update=2)
