"""Returns and the loss: cases computed by hand, and properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from samples import agent_with, random_trajectory, tiny_config

from maskrl import learner, losses


def column(*numbers):
    """One actor's numbers, [T + 1, 1]."""
    return np.array(numbers, np.float32)[:, None]


def returns(rewards, discounts, firsts, values, lambda_=1.0):
    """`losses.lambda_returns` of one actor, as a list."""
    firsts = np.array(firsts, bool)[:, None]
    columns = (column(*rewards), column(*discounts), firsts, column(*values))
    return losses.lambda_returns(*columns, lambda_)[:, 0].tolist()


def random_rows(seed, steps=12, batch=5):
    """Rewards, discounts, is_first, values of games with many ends, some of them cut off."""
    rng = np.random.default_rng(seed)
    done = rng.random((steps + 1, batch)) < 0.25
    is_first = np.zeros_like(done)
    for t in range(steps):
        done[t + 1] &= ~done[t]  # the first row of an episode is not its last
        is_first[t + 1] = done[t]
    cut_off = rng.random(done.shape) < 0.5
    discounts = np.where(done & ~cut_off, 0.0, 0.99)
    rewards = rng.normal(size=done.shape) * ~is_first
    values = rng.normal(size=done.shape)
    arrays = (rewards, discounts, is_first, values)
    return tuple(a if a.dtype == bool else a.astype(np.float32) for a in arrays)


def test_return_by_hand():
    """R1 = 2 + 0.5 * 10 = 7, R0 = 1 + 0.5 * 7 = 4.5; row 0's reward is not used."""
    assert returns([99, 1, 2], [0.5, 0.5, 0.5], [0, 0, 0], [3, 4, 10]) == [4.5, 7]


def test_lambda_return_by_hand():
    """G1 = 2 + 0.5 * 10 = 7; G0 = 1 + 0.5 * (0.75 * 4 + 0.25 * 7) = 3.375."""
    assert returns([0, 1, 2], [0.5] * 3, [0, 0, 0], [3, 4, 10], 0.25) == [3.375, 7]


def test_lost_life_ends_the_return():
    """Row 1 is terminal (discount 0): R0 = 1. Row 2 is a first: no transition 1, so R1 = V1."""
    assert returns([0, 1, 0, 2], [0.5, 0, 0.5, 0.5], [0, 0, 1, 0], [3, 4, 5, 10]) == [1, 4, 7]


def test_step_limit_bootstraps():
    """The same with discount 0.5 in row 1: R0 = 1 + 0.5 * V1 = 3."""
    assert returns([0, 1, 0, 2], [0.5] * 4, [0, 0, 1, 0], [3, 4, 5, 10]) == [3, 4, 7]


def test_step_limit_bootstraps_at_any_lambda():
    """What is after the cut is never mixed in: with lambda 0.5, too, R0 = 1 + 0.5 * V1."""
    assert returns([0, 1, 0, 2], [0.5] * 4, [0, 0, 1, 0], [3, 4, 5, 10], 0.5)[0] == 3


def test_first_in_the_last_row():
    """Row 1 was terminal and the unroll's last row is a first: nothing of it is used."""
    assert returns([0, 1, 0], [0.5, 0, 0.5], [0, 0, 1], [3, 4, 100]) == [1, 4]


def test_first_in_row_zero_is_an_ordinary_start():
    assert returns([0, 1, 2], [0.5] * 3, [1, 0, 0], [3, 4, 10]) == [4.5, 7]


@pytest.mark.parametrize("seed", range(3))
def test_n_step_is_lambda_return_at_one(seed):
    rows = random_rows(seed)
    np.testing.assert_allclose(
        losses.lambda_returns(*rows, 1.0), reference.returns(*rows), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 0.95, 1.0])
def test_advantage_is_the_sum_of_gae(lambda_):
    rows = random_rows(3)
    ours = losses.lambda_returns(*rows, lambda_) - rows[3][:-1]
    np.testing.assert_allclose(ours, reference.advantages(*rows, lambda_), rtol=1e-4, atol=1e-5)


def test_entropy_and_log_probability():
    """ln 4 for four equal logits; logits ln 1, ln 3 have the probabilities 1/4 and 3/4."""
    np.testing.assert_allclose(losses.entropy(jnp.zeros(4)), np.log(4), rtol=1e-6)
    logits = jnp.log(jnp.array([1.0, 3.0])) + 50
    np.testing.assert_allclose(losses.log_probability(logits, jnp.array(1)), np.log(0.75), 1e-4)
    np.testing.assert_allclose(
        losses.entropy(logits), -0.25 * np.log(0.25) - 0.75 * np.log(0.75), 1e-4
    )


def a3c_loss(logits, values, action, rewards, discounts, is_first):
    """The loss as the learner puts it together, lambda 1: returns, advantages, weights."""
    constant = jax.lax.stop_gradient(values)
    targets = losses.lambda_returns(rewards, discounts, is_first, constant, 1.0)
    return losses.a3c_loss(
        logits,
        values[:-1],
        action,
        targets,
        targets - constant[:-1],
        1.0 - is_first[1:],
        entropy_cost=0.01,
        value_cost=0.5,
    )


def test_loss_by_hand():
    """Two steps, two actions of equal probability: log pi = -ln 2, H = ln 2.

    R = [4.5, 7], A = R - V = [1.5, 3]; policy: 4.5 ln 2 - 0.02 ln 2; value: (2.25 + 9) / 2.
    """
    total, parts = a3c_loss(
        jnp.zeros((2, 1, 2)),
        column(3, 4, 10),
        np.array([[0], [1]]),
        column(0, 1, 2),
        column(0.5, 0.5, 0.5),
        np.zeros((3, 1), bool),
    )
    policy, value = 4.48 * np.log(2), 5.625
    np.testing.assert_allclose(parts["policy_loss"], policy, rtol=1e-6)
    np.testing.assert_allclose(parts["value_loss"], value, rtol=1e-6)
    np.testing.assert_allclose(parts["entropy"], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(total, policy + 0.5 * value, rtol=1e-6)


def test_loss_of_an_ignored_row_by_hand():
    """Row 1 is terminal, transition 1 weighs nothing: A0 = 1 - 3 = -2, and that is all."""
    total, parts = a3c_loss(
        jnp.zeros((2, 1, 2)),
        column(3, 4, 10),
        np.array([[0], [1]]),
        column(0, 1, 2),
        column(0.5, 0, 0.5),
        np.array([[0], [0], [1]], bool),
    )
    np.testing.assert_allclose(parts["policy_loss"], -2 * np.log(2) - 0.01 * np.log(2), 1e-6)
    np.testing.assert_allclose(total, -2.01 * np.log(2) + 0.5 * 2, rtol=1e-6)


def random_loss(logits, values, rows, action):
    rewards, discounts, is_first, _ = rows
    return a3c_loss(logits, values, action, rewards, discounts, is_first)[0]


def test_rows_after_done_have_no_gradient():
    """Exactly none: of the logits on a last row, and of its value as a prediction."""
    rows = random_rows(5)
    is_first, values = rows[2], rows[3]
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(12, 5, 3)).astype(np.float32)
    action = rng.integers(3, size=(12, 5))
    by_logits, by_values = jax.grad(random_loss, (0, 1))(logits, values, rows, action)
    ignored = is_first[1:]
    assert ignored.any()
    assert not np.any(np.asarray(by_logits)[ignored])
    assert not np.any(np.asarray(by_values)[:-1][ignored])
    assert np.all(np.abs(by_logits)[~ignored].sum(-1) > 0)
    assert np.all(np.asarray(by_values)[:-1][~ignored] != 0)
    assert not np.any(by_values[-1])  # it only bootstraps


def test_advantage_and_target_are_constants():
    """d loss / d V[t] = value_cost (V[t] - R[t]) / B, and nothing through the bootstraps."""
    rows = random_rows(7)
    values = rows[3]
    rng = np.random.default_rng(8)
    logits = rng.normal(size=(12, 5, 3)).astype(np.float32)
    action = rng.integers(3, size=(12, 5))
    gradient = jax.grad(random_loss, 1)(logits, values, rows, action)
    expected = 0.5 * (values[:-1] - reference.returns(*rows)) * ~rows[2][1:] / 5
    np.testing.assert_allclose(gradient[:-1], expected, atol=1e-5)


def test_loss_is_a_mean_over_actors():
    """Every actor twice: the same loss, whatever rows are ignored."""
    rows = random_rows(9)
    rng = np.random.default_rng(10)
    logits = rng.normal(size=(12, 5, 3)).astype(np.float32)
    action = rng.integers(3, size=(12, 5))
    once = random_loss(logits, rows[3], rows, action)
    args = jax.tree.map(lambda x: np.repeat(x, 2, axis=1), (logits, rows[3], rows, action))
    np.testing.assert_allclose(random_loss(*args), once, rtol=1e-5)


def test_learner_clips_rewards():
    """`learner.loss` does not tell a reward of 5 from one of 1."""
    agent = agent_with(mask="none", core="none")
    params = agent.init_params(jax.random.PRNGKey(0))
    trajectory = random_trajectory(np.random.default_rng(11), 3, 2, 4)
    config = tiny_config()
    ones, fives, none = (
        float(
            jax.jit(lambda t: learner.loss(agent, config, params, t)[0])(
                trajectory.replace(reward=np.full((4, 2), r, np.float32))
            )
        )
        for r in (1, 5, 0)
    )
    assert ones == fives != none
