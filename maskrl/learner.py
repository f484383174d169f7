"""The learner: shared parameters, and the update by an actor group's stale gradient.

As in A3C, the gradient is taken at the group's own snapshot of the parameters and applied to the
newest shared ones, by an optimiser whose statistics are shared (Mnih et al. 2016, algorithm S3).
"""

from collections.abc import Callable
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from maskrl import losses
from maskrl.agent import Agent
from maskrl.config import Config
from maskrl.devices import Devices
from maskrl.networks import Saved
from maskrl.types import Params, TimeStep, Trajectory

ADAM_B1, ADAM_B2 = 0.9, 0.999


class LearnerState(flax.struct.PyTreeNode):
    """What all groups share."""

    params: Params
    optimiser: optax.OptState


def amsgrad(learning_rate: float, eps: float) -> optax.GradientTransformation:
    """AMSGrad as the original has it: the maximum is over the *uncorrected* second moment.

    p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(max v) + eps). `optax.amsgrad` corrects before it
    takes the maximum, so one early spike would shrink every later step.
    """

    def scale(count: chex.Array) -> chex.Array:
        return -learning_rate * jnp.sqrt(-jnp.expm1((count + 1) * jnp.log(ADAM_B2)))

    return optax.chain(
        optax.scale_by_amsgrad(ADAM_B1, ADAM_B2, eps, bias_correction_nu=False),
        optax.scale_by_schedule(scale),
    )


def make_optimiser(config: Config) -> optax.GradientTransformation:
    """The run's optimiser."""
    return amsgrad(*config.optimiser_scale)


def init(agent: Agent, config: Config, key: chex.PRNGKey) -> LearnerState:
    """Fresh parameters and optimiser statistics."""
    params = agent.init_params(key)
    return LearnerState(params=params, optimiser=make_optimiser(config).init(params))


def loss(
    agent: Agent, config: Config, params: Params, trajectory: Trajectory
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The A3C loss of a trajectory, rewards clipped to [-1, 1]; see `losses.a3c_loss`."""
    output = agent.unroll(params, trajectory)
    return losses.a3c_loss(
        output.logits[:-1],
        output.value,
        trajectory.action,
        jnp.clip(trajectory.reward, -1, 1),
        config.discount * trajectory.discount,
        trajectory.is_first,
        gae_lambda=config.gae_lambda,
        entropy_cost=config.entropy_cost,
        value_cost=config.value_cost,
    )


def make_update(agent: Agent, config: Config, devices: Devices) -> Callable:
    """Compiles `update(state, snapshot, trajectory) -> (state, metrics)`.

    `trajectory` is a `Trajectory` of lists as the actor collects them (see `assemble`).
    """
    optimiser = make_optimiser(config)

    def update(
        state: LearnerState, snapshot: Params, *collected
    ) -> tuple[LearnerState, dict[str, chex.Array]]:
        trajectory = assemble(agent, *collected)
        gradient_of = jax.value_and_grad(lambda p: loss(agent, config, p, trajectory), has_aux=True)
        (total, metrics), gradient = gradient_of(snapshot)
        metrics = metrics | {"loss": total}
        gradient, metrics = devices.mean((gradient, metrics))
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        changes, statistics = optimiser.update(gradient, state.optimiser)
        params = optax.apply_updates(state.params, changes)
        return LearnerState(params=params, optimiser=statistics), metrics

    return devices.compile(update)


def assemble(
    agent: Agent,
    initial_carry,
    last_state,
    observations: list[chex.Array],
    actions: list[chex.Array],
    saved: list[Saved],
    timesteps: TimeStep,
    last_frame: chex.Array,
) -> Trajectory:
    """Stacks what an actor group collected; runs inside the compiled update.

    Lists are of T rows `[B, ...]`; `timesteps`, without frames, is `[B, T + 1]`.

    The last row is observed here, and the normaliser that this moves is dropped: acting observes
    that row again as the first of the next unroll.
    """

    def stack(rows: list) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    _, last_observation = agent.observe(last_state, last_frame)
    rows = jax.tree.map(jnp.transpose, timesteps)
    return Trajectory(
        observation=stack([*observations, last_observation]),
        action=stack(actions),
        reward=rows.reward,
        discount=rows.discount,
        is_first=rows.is_first,
        initial_carry=initial_carry,
        saved=stack(saved) if jax.tree.leaves(saved) else None,
    )
