"""Returns and the A3C loss: one pure function per equation.

`T` transitions stand between `T + 1` rows; see the time rule in `maskrl.types`. Mnih et al. 2016,
*Asynchronous Methods for Deep RL* (A3C, section 4); Schulman et al. 2016 (GAE).
"""

import chex
import jax
import jax.numpy as jnp


def lambda_returns(
    rewards: chex.Array,
    discounts: chex.Array,
    is_first: chex.Array,
    values: chex.Array,
    lambda_: float,
) -> chex.Array:
    """The lambda-return `G[t]` of every transition; with lambda 1 the n-step return up to row T.

    G[T] = V[T];
    G[t] = V[t] where is_first[t + 1], else
           r[t + 1] + discount[t + 1] * ((1 - lambda) V[t + 1] + lambda G[t + 1]).

    So a step limit (a last row with discount 1) bootstraps from the value of the last row, and a
    lost life (discount 0) does not. `G - V` is GAE(lambda) (Schulman et al. 2016, eq. 16).

    Args:
      rewards: float32 [T + 1, B]. Row 0 belongs to the unroll before.
      discounts: float32 [T + 1, B], gamma included.
      is_first: bool [T + 1, B].
      values: float32 [T + 1, B].
      lambda_: from 0 (one step) to 1 (as far as the unroll goes).

    Returns:
      float32 [T, B].
    """
    chex.assert_rank([rewards, discounts, is_first, values], 2)
    chex.assert_equal_shape([rewards, discounts, is_first, values])

    def step(g: chex.Array, row: tuple[chex.Array, ...]) -> tuple[chex.Array, chex.Array]:
        reward, discount, first, value, next_value = row
        mixed = (1 - lambda_) * next_value + lambda_ * g
        g = jnp.where(first, value, reward + discount * mixed)
        return g, g

    rows = (rewards[1:], discounts[1:], is_first[1:], values[:-1], values[1:])
    _, returns = jax.lax.scan(step, values[-1], rows, reverse=True)
    return returns


def entropy(logits: chex.Array) -> chex.Array:
    """The policy's entropy in nats: logits [..., A] -> [...]."""
    log_pi = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_pi) * log_pi, axis=-1)


def log_probability(logits: chex.Array, action: chex.Array) -> chex.Array:
    """log pi(a): logits [..., A], action int [...] -> [...]."""
    log_pi = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_pi, action[..., None], axis=-1)[..., 0]


def a3c_loss(
    logits: chex.Array,
    values: chex.Array,
    action: chex.Array,
    targets: chex.Array,
    advantage: chex.Array,
    weight: chex.Array,
    *,
    entropy_cost: float,
    value_cost: float,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The A3C loss: a sum over the T transitions, a mean over the B actors.

    sum_t w[t] (-log pi(a[t]) A[t] - entropy_cost H[t] + value_cost (R[t] - V[t])^2 / 2)

    The advantage A and the value's target R are constants for the gradient. The mean divides by B
    even where weights are 0, so that averaging over devices is exact.

    Args:
      logits: float32 [T, B, A]. values: float32 [T, B]. action: int32 [T, B].
      targets, advantage: float32 [T, B]: R and A, from `lambda_returns`.
      weight: float32 [T, B]: 0 where the transition does not count, else 1.

    Returns:
      The loss, and its parts: `policy_loss` (with the entropy bonus), `value_loss` (without
      `value_cost`), `entropy` (mean per weighted transition).
    """
    chex.assert_rank(logits, 3)
    chex.assert_equal_shape([values, action, targets, advantage, weight])
    targets, advantage = jax.lax.stop_gradient((targets, advantage))
    entropies = entropy(logits)

    def reduce(x: chex.Array) -> chex.Array:
        return jnp.mean(jnp.sum(weight * x, axis=0))

    policy_loss = reduce(-log_probability(logits, action) * advantage - entropy_cost * entropies)
    value_loss = reduce(0.5 * jnp.square(targets - values))
    parts = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": jnp.sum(weight * entropies) / jnp.maximum(jnp.sum(weight), 1.0),
    }
    return policy_loss + value_cost * value_loss, parts
