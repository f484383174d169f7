"""Network, loss, gradient and optimiser against NumPy in float64 (`reference`)."""

import functools

import jax
import numpy as np
import optax
import pytest
import reference
from samples import agent_with, random_trajectory, tiny_config

from maskrl import learner

VARIANTS = [
    ("both", "convlstm"),
    ("policy", "convlstm"),
    ("value", "convlstm"),
    ("none", "convlstm"),
    ("both", "none"),
]
CONFIG = tiny_config(gae_lambda=0.9, learning_rate=1e-2)


@functools.cache
def setting(mask, core):
    """(agent, parameters, trajectory); the policy's rows are made 100 times as long, so that the
    probabilities differ."""
    agent = agent_with(mask=mask, core=core)
    params = jax.tree.map(np.array, agent.init_params(jax.random.PRNGKey(1)))
    params["policy"]["kernel"] *= 100
    return agent, params, random_trajectory(np.random.default_rng(2), 3, 2, 4)


def reference_network(params, trajectory):
    carry = trajectory.initial_carry
    return reference.network(
        reference.float64(params),
        trajectory.observation.astype(np.float64),
        carry.hidden,
        carry.cell,
        trajectory.is_first,
    )


def constants(out, trajectory):
    """(advantage, target), which the gradient takes for constants."""
    rewards = np.clip(trajectory.reward, -1, 1).astype(np.float64)
    discounts = CONFIG.discount * trajectory.discount.astype(np.float64)
    values = np.array(out["value"])
    return (
        reference.advantages(rewards, discounts, trajectory.is_first, values, CONFIG.gae_lambda),
        reference.returns(rewards, discounts, trajectory.is_first, values),
    )


def reference_loss(out, trajectory, advantage, target):
    return reference.loss(
        out["logits"],
        out["value"],
        trajectory.action,
        trajectory.is_first,
        advantage,
        target,
        CONFIG.entropy_cost,
        CONFIG.value_cost,
    )


@pytest.mark.parametrize(("mask", "core"), VARIANTS)
def test_forward(mask, core):
    """Absolute errors below 1e-4, in float32, with an episode that ends on the way."""
    agent, params, trajectory = setting(mask, core)
    expected = reference_network(params, trajectory)
    ours, carry = jax.jit(agent.apply)(
        params, trajectory.observation, trajectory.initial_carry, trajectory.is_first
    )
    for name in ("logits", "value", "hidden", "policy_mask", "value_mask"):
        if expected[name][0] is None:
            assert getattr(ours, name) is None
        else:
            np.testing.assert_allclose(getattr(ours, name), expected[name], atol=1e-4)
    if core == "convlstm":
        np.testing.assert_allclose(carry.hidden, expected["hidden"][-1], atol=1e-4)
        np.testing.assert_allclose(carry.cell, expected["cell"], atol=1e-4)


@pytest.mark.parametrize(("mask", "core"), VARIANTS)
def test_loss_and_gradient(mask, core):
    """The loss to 1e-5; the gradient along a direction in every layer to 1e-3 of its size.

    The direction is half the gradient's own, half random, so that the slope is no accident of
    cancelling; the slope itself is a central difference of the float64 reference.
    """
    agent, params, trajectory = setting(mask, core)
    out = reference_network(params, trajectory)
    frozen = constants(out, trajectory)
    (total, _), gradient = jax.jit(
        jax.value_and_grad(lambda p: learner.loss(agent, CONFIG, p, trajectory), has_aux=True)
    )(params)
    np.testing.assert_allclose(total, reference_loss(out, trajectory, *frozen), rtol=1e-5)

    rng = np.random.default_rng(3)
    for layer in params:
        direction = jax.tree.map(
            lambda g: unit(np.asarray(g, np.float64)) + unit(rng.normal(size=g.shape)),
            gradient[layer],
        )
        slopes = jax.tree.map(lambda g, d: np.sum(np.float64(g) * d), gradient[layer], direction)
        ours = sum(jax.tree.leaves(slopes))
        ends = []
        for step in (1e-6, -1e-6):
            moved = jax.tree.map(lambda p, d, s=step: p + s * d, params[layer], direction)
            moved = reference_network(params | {layer: moved}, trajectory)
            ends.append(reference_loss(moved, trajectory, *frozen))
        np.testing.assert_allclose(ours, (ends[0] - ends[1]) / 2e-6, rtol=1e-3, err_msg=layer)


def unit(x):
    return x / max(np.linalg.norm(x), 1e-30)


def test_optimiser_steps():
    """Twelve steps, one of them a spike that the maximum remembers: to 1e-6 of the way gone."""
    rng = np.random.default_rng(4)
    gradients = rng.normal(size=(12, 50)) * 10.0 ** rng.integers(-4, 1, 50)
    gradients[2] *= 30
    start = np.zeros(50)
    expected = reference.amsgrad(start, gradients, 1e-2, 1e-3)

    optimiser = learner.amsgrad(1e-2, 1e-3)
    params, state = np.float32(start), optimiser.init(np.float32(start))
    for gradient in np.float32(gradients):
        change, state = optimiser.update(gradient, state)
        params = optax.apply_updates(params, change)
    np.testing.assert_allclose(params, expected, atol=1e-6 * np.abs(expected).max(), rtol=1e-5)


def test_optimiser_first_step_by_hand():
    """m = 0.1 g, v = 0.001 g^2, size = lr sqrt(0.001) / 0.1: with g = 2, lr = 0.1, eps = 0."""
    optimiser = learner.amsgrad(0.1, 0.0)
    change, _ = optimiser.update(np.float32(2), optimiser.init(np.float32(0)))
    np.testing.assert_allclose(change, -0.1, rtol=1e-5)


def test_optimiser_is_not_optax_amsgrad():
    """Optax corrects before it takes the maximum: after a spike, the two part."""
    gradients = np.float32([1, 0.01, 0.01, 0.01, 0.01])
    ours, theirs = learner.amsgrad(1.0, 1e-3), optax.amsgrad(1.0, eps=1e-3)
    states = [ours.init(np.float32(0)), theirs.init(np.float32(0))]
    for gradient in gradients:
        change, states[0] = ours.update(gradient, states[0])
        other, states[1] = theirs.update(gradient, states[1])
    assert abs(change) > 1.5 * abs(other)
