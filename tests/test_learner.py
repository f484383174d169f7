"""The update: a stale gradient moves the newest parameters, by the shared optimiser."""

import jax
import jax.flatten_util
import numpy as np
import pytest
import reference
from samples import random_collected, tiny_config

from maskrl import learner
from maskrl.agent import make_agent
from maskrl.devices import Devices

CONFIG = tiny_config(learning_rate=1e-3, adam_eps=1e-4)
AGENT = make_agent("Breakout", 4, "both", "convlstm")


def flat(tree):
    return np.asarray(jax.flatten_util.ravel_pytree(tree)[0], np.float64)


@pytest.fixture(scope="module")
def update():
    return learner.make_update(AGENT, CONFIG, Devices(1))


def params_of(seed):
    return AGENT.init_params(jax.random.PRNGKey(seed))


def gradient_at(params, collected):
    """The loss's gradient, taken outside the update."""
    trajectory = learner.assemble(AGENT, *collected)
    return jax.jit(jax.grad(lambda p: learner.loss(AGENT, CONFIG, p, trajectory)[0]))(params)


def test_stale_gradient_moves_the_newest_parameters(update):
    """Two updates by two snapshots, neither of them the shared parameters.

    The result is the reference's AMSGrad from the shared parameters along the gradients at the
    snapshots, to 1e-3 of the way gone; gradients at the shared parameters would end elsewhere.
    """
    rng = np.random.default_rng(0)
    unrolls = [random_collected(AGENT, rng, 3, 2) for _ in range(2)]
    shared, snapshots = params_of(0), [params_of(1), params_of(2)]
    state = learner.LearnerState(shared, learner.make_optimiser(CONFIG).init(shared))
    for snapshot, collected in zip(snapshots, unrolls, strict=True):
        state, metrics = update(state, snapshot, *collected)

    def expected(at):
        gradients = [flat(gradient_at(p, c)) for p, c in zip(at, unrolls, strict=True)]
        return reference.amsgrad(flat(shared), gradients, 1e-3, 1e-4), gradients

    end, gradients = expected(snapshots)
    way = np.linalg.norm(end - flat(shared))
    assert np.linalg.norm(flat(state.params) - end) < 1e-3 * way
    assert np.linalg.norm(flat(state.params) - expected([shared, shared])[0]) > 0.1 * way
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradients[1]), rtol=1e-3)


def test_nothing_is_donated(update):
    """Snapshots alias the shared parameters: both must outlive an update."""
    params = params_of(0)
    state = learner.LearnerState(params, learner.make_optimiser(CONFIG).init(params))
    collected = random_collected(AGENT, np.random.default_rng(0), 3, 2)
    before = flat(params)
    new, _ = update(state, params, *collected)
    np.testing.assert_array_equal(flat(params), before)
    np.testing.assert_array_equal(flat(state.params), before)
    assert np.any(flat(new.params) != before)


def test_metrics(update):
    """The parts add up to the loss."""
    params = params_of(0)
    state = learner.LearnerState(params, learner.make_optimiser(CONFIG).init(params))
    _, m = update(state, params, *random_collected(AGENT, np.random.default_rng(0), 3, 2))
    np.testing.assert_allclose(m["loss"], m["policy_loss"] + 0.5 * m["value_loss"], rtol=1e-5)
    assert 1.3 < m["entropy"] <= np.log(4) + 1e-6


def test_optimiser_scale():
    """Unset: the paper's for one actor, and the square-root rule for B that share an update."""
    assert tiny_config(actors_per_group=1).optimiser_scale == (1e-4, 1e-3)
    assert tiny_config(actors_per_group=4).optimiser_scale == (2e-4, 0.5e-3)
    given = tiny_config(actors_per_group=4, learning_rate=0.1, adam_eps=0.5)
    assert given.optimiser_scale == (0.1, 0.5)
