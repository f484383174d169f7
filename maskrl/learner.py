"""The learner: shared parameters, and the updates by an actor group's stale gradients.

As in A3C, a gradient is taken at its group's own snapshot of the parameters and applied to the
newest shared ones, by an optimiser whose statistics are shared (Mnih et al. 2016, algorithm S3).
The actors of a group compute together, but their gradients stay apart: one actor's gradient is one
update, and a life's end ends an update, too.
"""

import functools
import math
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
from maskrl.types import Params, Snapshot, Trajectory, Unroll

ADAM_B1, ADAM_B2 = 0.9, 0.999
SHORTEST_CUT = 8  # transitions of an unroll of which short lives are computed apart
AT_ONCE = 32  # gradients that an accelerator computes at a time: what their rows take of its memory


class LearnerState(flax.struct.PyTreeNode):
    """What all groups share."""

    params: Params
    optimiser: optax.OptState
    updates: chex.Array  # int32, so far

    def snapshot(self) -> Snapshot:
        """What a group copies."""
        return Snapshot(params=self.params, updates=self.updates)


def amsgrad(
    learning_rate: float, eps: float, b1: float = ADAM_B1, b2: float = ADAM_B2
) -> optax.GradientTransformation:
    """AMSGrad as the original has it: the maximum is over the *uncorrected* second moment.

    p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(max v) + eps). `optax.amsgrad` corrects before it
    takes the maximum, so one early spike would shrink every later step.
    """

    def scale(count: chex.Array) -> chex.Array:
        return -learning_rate * jnp.sqrt(-jnp.expm1((count + 1) * math.log(b2)))

    return optax.chain(
        optax.scale_by_amsgrad(b1, b2, eps, bias_correction_nu=False),
        optax.scale_by_schedule(scale),
    )


def make_optimiser(config: Config) -> optax.GradientTransformation:
    """The run's optimiser: the paper's, scaled where b actors share an update.

    Learning rate sqrt(b), eps 1 / sqrt(b), betas to the power of b (Malladi et al. 2022, *On the
    SDEs and Scaling Rules for Adaptive Gradient Algorithms*, square-root rule): one step then moves
    as far as b steps by one actor's gradient each, *where noise rules the gradient*. Where a signal
    does, it moves less.
    """
    b, longest = config.actors_per_update, config.max_gradient_norm
    return optax.chain(
        optax.identity() if longest is None else optax.clip_by_global_norm(longest),
        amsgrad(
            config.learning_rate * math.sqrt(b),
            config.adam_eps / math.sqrt(b),
            ADAM_B1**b,
            ADAM_B2**b,
        ),
    )


def init(agent: Agent, config: Config, key: chex.PRNGKey) -> LearnerState:
    """Fresh parameters and optimiser statistics."""
    params = agent.init_params(key)
    return LearnerState(
        params=params,
        optimiser=make_optimiser(config).init(params),
        updates=jnp.zeros((), jnp.int32),
    )


def loss(
    agent: Agent,
    config: Config,
    params: Params,
    trajectory: Trajectory,
    counted: chex.Array | None = None,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The A3C loss of a trajectory, rewards clipped to [-1, 1]; see `losses.a3c_loss`.

    Args:
      counted: bool [T, B], the transitions to sum over; by default all but those that lead to a
        first row, which never count.

    Returns:
      The loss, and numbers that say how it stands: its parts, the means of the masks, and, over the
      counted transitions, their number and the sums of R, R^2, R - V and (R - V)^2 (for the
      explained variance).
    """
    output = agent.unroll(params, trajectory)
    first = trajectory.is_first
    rewards = jnp.clip(trajectory.reward, -1, 1)
    discounts = config.discount * trajectory.discount
    constant = jax.lax.stop_gradient(output.value)
    targets, mixed = (
        losses.lambda_returns(rewards, discounts, first, constant, lambda_)
        for lambda_ in (1.0, config.gae_lambda)
    )
    weight = jnp.where(first[1:], 0.0, 1.0)
    if counted is not None:
        weight = weight * counted
    total, parts = losses.a3c_loss(
        output.logits[:-1],
        output.value[:-1],
        trajectory.action,
        targets,
        mixed - constant[:-1],
        weight,
        entropy_cost=config.entropy_cost,
        value_cost=config.value_cost,
    )
    error = targets - constant[:-1]
    parts |= {
        "loss": total,
        "transitions": jnp.sum(weight),
        "return_sum": jnp.sum(weight * targets),
        "return_squares": jnp.sum(weight * targets**2),
        "error_sum": jnp.sum(weight * error),
        "error_squares": jnp.sum(weight * error**2),
    }
    for branch in ("policy", "value"):
        mask = getattr(output, f"{branch}_mask")
        if mask is not None:
            parts[f"{branch}_mask"] = jnp.mean(mask)
    return total, parts


def make_update(agent: Agent, config: Config, devices: Devices) -> Callable:
    """Compiles `update(state, snapshot, unroll) -> (state, metrics)`.

    The group's B actors make B / b gradients (b: `config.actors_per_update`), all at the snapshot;
    they are applied to the shared parameters one after the other, in the order of the actors'
    numbers. With b = 1 what follows the end of a life makes a gradient of its own, as in algorithm
    S3, applied when every actor's first one has been. On several devices all gradients are
    gathered, and every device applies all of them: where an actor lies changes nothing.

    `metrics` are, per gradient, float32 [T, B / b] and NaN where there was none: what `loss`
    returns, `gradient_norm`, and `staleness`, the updates between the snapshot and the parameters
    that it moved. And `parameter_norm`, a number: with a NaN or an infinity anywhere, so is it.
    """
    optimiser = make_optimiser(config)
    b = config.actors_per_update

    def apply(
        state: LearnerState, part: tuple[Params, chex.Array]
    ) -> tuple[LearnerState, chex.Array]:
        """One update, if there is a gradient; how many came before it."""
        gradient, present = part

        def move(state: LearnerState) -> LearnerState:
            changes, statistics = optimiser.update(gradient, state.optimiser)
            params = optax.apply_updates(state.params, changes)
            return LearnerState(params, statistics, state.updates + 1)

        return jax.lax.cond(present, move, lambda state: state, state), state.updates

    def update(
        state: LearnerState, snapshot: Snapshot, unroll: Unroll
    ) -> tuple[LearnerState, dict[str, chex.Array]]:
        trajectory = assemble(agent, unroll)
        steps, actors = trajectory.action.shape
        here = min(b, actors)  # of the b actors of an update, on this device
        parts = _by_actors(trajectory, here)
        first = parts.is_first[:, 1:]
        life = jnp.cumsum(first, axis=1) * (b == 1)
        sizes, at_once = [steps], min(AT_ONCE, len(first))
        if jax.default_backend() == "cpu":
            at_once = None  # one after the other: what a gradient takes stays in a core's cache
            # Of two lives in an unroll one is short: it costs half as many rows. (In unrolls that
            # are short themselves that is not worth its compilation.)
            sizes = [steps // 2, steps] if b == 1 and steps >= SHORTEST_CUT else sizes

        def gradient_of(part: tuple[Trajectory, chex.Array]):
            def over(rows: int, trajectory: Trajectory, counted: chex.Array):
                trajectory, counted = _window(trajectory, counted, rows)

                def of(params: Params):
                    return loss(agent, config, params, trajectory, counted)

                return jax.grad(of, has_aux=True)(snapshot.params)

            takes = [functools.partial(over, rows) for rows in sizes]

            def skip(*_: Any) -> tuple[Params, dict[str, chex.Array]]:
                gradient = jax.eval_shape(takes[-1], *part)
                return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), gradient)

            length = jnp.sum(jnp.any(part[1], axis=1))
            which = jnp.searchsorted(jnp.array([0, *sizes]), length)
            gradient, numbers = jax.lax.switch(which, [skip, *takes], *part)
            return gradient, numbers, length > 0

        def of_life(n: chex.Array, carried):
            state, metrics = carried
            parts_of_life = parts, (life == n) & ~first
            found = jax.lax.map(gradient_of, parts_of_life, batch_size=at_once)
            gathered = devices.gather(found)
            if b > here:
                gathered = jax.tree.map(
                    lambda x: x.reshape(-1, b // here, *x.shape[1:]).mean(axis=1), gathered
                )
            gradients, numbers, present = gathered
            numbers["gradient_norm"] = jax.vmap(optax.tree.norm)(gradients)
            state, before = jax.lax.scan(apply, state, (gradients, present > 0))
            numbers["staleness"] = (before - snapshot.updates).astype(jnp.float32)
            return state, {
                name: metrics[name].at[n].set(jnp.where(present > 0, x, jnp.nan))
                for name, x in numbers.items()
            }

        _, numbers, _ = jax.eval_shape(gradient_of, jax.tree.map(lambda x: x[0], (parts, first)))
        total = devices.actors(actors) // b
        metrics = {
            name: jnp.full((steps, total), jnp.nan)
            for name in (*numbers, "gradient_norm", "staleness")
        }
        lives = devices.most(life.max()) + 1
        state, metrics = jax.lax.fori_loop(0, lives, of_life, (state, metrics))
        return state, metrics | {"parameter_norm": optax.tree.norm(state.params)}

    return devices.compile(update)


def _window(
    trajectory: Trajectory, counted: chex.Array, rows: int
) -> tuple[Trajectory, chex.Array]:
    """The part of so many transitions in which a life's `counted` ones, at most so many, are.

    Its carry is arbitrary unless it is the trajectory's first part: the life begins inside then,
    where the carry is reset.
    """
    steps = len(counted)
    if rows == steps:
        return trajectory, counted
    start = jnp.minimum(jnp.argmax(jnp.any(counted, axis=1)), steps - rows)

    def cut(tree: Any, length: int) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, length), tree)

    window = Trajectory(
        observation=cut(trajectory.observation, rows + 1),
        action=cut(trajectory.action, rows),
        reward=cut(trajectory.reward, rows + 1),
        discount=cut(trajectory.discount, rows + 1),
        is_first=cut(trajectory.is_first, rows + 1),
        initial_carry=trajectory.initial_carry,
        saved=cut(trajectory.saved, rows),
    )
    return window, cut(counted, rows)


def _by_actors(trajectory: Trajectory, size: int) -> Trajectory:
    """[T + 1, B, ...] -> [B / s, T + 1, s, ...]; the carry [B, ...] -> [B / s, s, ...]; s: size."""

    def split(x: chex.Array, axis: int) -> chex.Array:
        shape = (*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
        return jnp.moveaxis(x.reshape(shape), axis, 0)

    carry = jax.tree.map(lambda x: split(x, 0), trajectory.initial_carry)
    rows = jax.tree.map(lambda x: split(x, 1), trajectory.replace(initial_carry=None))
    return rows.replace(initial_carry=carry)


def assemble(agent: Agent, unroll: Unroll) -> Trajectory:
    """Stacks what an actor group collected; runs inside the compiled update.

    The last row is observed here, and the normaliser that this moves is dropped: acting observes
    that row again as the first of the next unroll.
    """

    def stack(rows: list) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    _, last_observation = agent.observe(unroll.last_state, unroll.last_frame)
    rows = jax.tree.map(jnp.transpose, unroll.timesteps)
    return Trajectory(
        observation=stack([*unroll.observations, last_observation]),
        action=stack(unroll.actions),
        reward=rows.reward,
        discount=rows.discount,
        is_first=rows.is_first,
        initial_carry=unroll.initial_carry,
        saved=stack(unroll.saved) if jax.tree.leaves(unroll.saved) else None,
    )
