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
from jax.flatten_util import ravel_pytree

from maskrl import losses
from maskrl.agent import Agent
from maskrl.config import Config
from maskrl.devices import Devices
from maskrl.networks import NOTHING_SAVED
from maskrl.types import Carry, Params, Snapshot, Trajectory, Unroll

ADAM_B1, ADAM_B2 = 0.9, 0.999
STRETCH = 10  # rows of an unroll that a CPU takes at a time, at most
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
        optax.clip_by_global_norm(longest) if longest else optax.identity(),
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
    rows, masks = judge(agent, config, params, trajectory)
    weight = jnp.where(trajectory.is_first[1:], 0.0, 1.0)
    if counted is not None:
        weight = weight * counted
    total, numbers = loss_of_rows(config, rows, weight)
    return total, numbers | {name: jnp.mean(mask) for name, mask in masks.items()}


class Judged(flax.struct.PyTreeNode):
    """What the loss of transitions is made of, [T, B, ...]."""

    logits: chex.Array
    value: chex.Array
    action: chex.Array
    target: chex.Array  # R, a constant
    advantage: chex.Array  # A, a constant


def judge(
    agent: Agent, config: Config, params: Params, trajectory: Trajectory
) -> tuple[Judged, dict[str, chex.Array]]:
    """The network over a trajectory, and its returns; the masks' means over cells [T + 1, B]."""
    output = agent.unroll(params, trajectory)
    rewards = jnp.clip(trajectory.reward, -1, 1)
    discounts = config.discount * trajectory.discount
    constant = jax.lax.stop_gradient(output.value)
    targets, mixed = (
        losses.lambda_returns(rewards, discounts, trajectory.is_first, constant, lambda_)
        for lambda_ in (1.0, config.gae_lambda)
    )
    rows = Judged(
        logits=output.logits[:-1],
        value=output.value[:-1],
        action=trajectory.action,
        target=targets,
        advantage=mixed - constant[:-1],
    )
    masks = {"policy_mask": output.policy_mask, "value_mask": output.value_mask}
    return rows, {
        name: jnp.mean(mask, axis=(2, 3)) for name, mask in masks.items() if mask is not None
    }


def loss_of_rows(
    config: Config, rows: Judged, weight: chex.Array
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The loss of transitions [T, B] with these weights; and its numbers, see `loss`."""
    total, numbers = losses.a3c_loss(
        rows.logits,
        rows.value,
        rows.action,
        rows.target,
        rows.advantage,
        weight,
        entropy_cost=config.entropy_cost,
        value_cost=config.value_cost,
    )
    error = rows.target - jax.lax.stop_gradient(rows.value)
    return total, numbers | {
        "loss": total,
        "transitions": jnp.sum(weight),
        "return_sum": jnp.sum(weight * rows.target),
        "return_squares": jnp.sum(weight * rows.target**2),
        "error_sum": jnp.sum(weight * error),
        "error_squares": jnp.sum(weight * error**2),
    }


def make_update(agent: Agent, config: Config, devices: Devices) -> Callable:
    """Compiles `update(state, snapshot, unroll) -> (state, metrics)`.

    The group's B actors make B / b gradients (b: `config.actors_per_update`), all at the snapshot;
    they are applied to the shared parameters one after the other, in the order of the actors'
    numbers. With b = 1 what follows the end of a life makes a gradient of its own, as in algorithm
    S3, applied when every actor's first one has been. On several devices all gradients are
    gathered, and every device applies all of them: where an actor lies changes nothing. Gradients,
    parameters and the optimiser's moments are vectors for that: one kernel instead of one a layer.

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
        first = trajectory.is_first[1:]
        life = jnp.cumsum(first, axis=0) * (b == 1)
        rows, masks = judge(agent, config, snapshot.params, trajectory)
        # An accelerator takes whole unrolls, of many actors at a time; a CPU one after the other,
        # whose rows stay in a core's cache, and in stretches, so that of two lives in an unroll the
        # short one costs half.
        stretch, at_once = steps, min(max(AT_ONCE // here, 1), actors // here)
        if jax.default_backend() == "cpu":
            at_once = None
            if trajectory.saved is not None:  # else nobody knows the carry in between
                stretch = max(n for n in range(1, STRETCH + 1) if steps % n == 0)

        def of_actors(index: chex.Array, counted: chex.Array):
            """The gradient of update `index`'s actors, its numbers, and whether there is one."""
            first_actor = index * here
            weight, judged = _block((counted, rows), (0, steps), (first_actor, here))
            _, numbers = loss_of_rows(config, judged, weight)
            numbers |= jax.tree.map(jnp.mean, _block(masks, (0, steps + 1), (first_actor, here)))
            gradient = _gradient(
                agent, config, snapshot.params, trajectory, rows, first_actor, weight, stretch
            )
            return ravel_pytree(gradient)[0], numbers, jnp.any(weight > 0)

        def of_life(n: chex.Array, carried):
            state, metrics = carried
            counted = jnp.where((life == n) & ~first, 1.0, 0.0)
            found = jax.lax.map(
                lambda index: of_actors(index, counted),
                jnp.arange(actors // here),
                batch_size=at_once,
            )
            gathered = devices.gather(found)
            if b > here:
                gathered = jax.tree.map(
                    lambda x: x.reshape(-1, b // here, *x.shape[1:]).mean(axis=1), gathered
                )
            gradients, numbers, present = gathered
            numbers["gradient_norm"] = jnp.linalg.norm(gradients, axis=1)
            state, before = jax.lax.scan(apply, state, (gradients, present > 0))
            numbers["staleness"] = (before - snapshot.updates).astype(jnp.float32)
            return state, {
                name: metrics[name].at[n].set(jnp.where(present > 0, x, jnp.nan))
                for name, x in numbers.items()
            }

        _, numbers, _ = jax.eval_shape(of_actors, jnp.int32(0), rows.value)
        total = devices.actors(actors) // b
        metrics = {
            name: jnp.full((steps, total), jnp.nan)
            for name in (*numbers, "gradient_norm", "staleness")
        }
        lives = devices.most(life.max()) + 1
        vectors, metrics = jax.lax.fori_loop(0, lives, of_life, (_flat(state), metrics))
        norm = jnp.linalg.norm(vectors.params)
        return _unflat(vectors, state), metrics | {"parameter_norm": norm}

    return devices.compile(update)


def _flat(state: LearnerState) -> LearnerState:
    """The same with vectors for the parameters and for all that is shaped like them."""
    like_params = _like(state.params)
    return jax.tree.map(
        lambda x: ravel_pytree(x)[0] if like_params(x) else x, state, is_leaf=like_params
    )


def _unflat(vectors: LearnerState, state: LearnerState) -> LearnerState:
    """The inverse of `_flat`; `state` has the shapes."""
    like_params, (_, unravel) = _like(state.params), ravel_pytree(state.params)
    return jax.tree.map(
        lambda x, y: unravel(y) if like_params(x) else y, state, vectors, is_leaf=like_params
    )


def _like(params: Params) -> Callable[[Any], bool]:
    structure = jax.tree.structure(params)
    return lambda tree: jax.tree.structure(tree) == structure


def _gradient(
    agent: Agent,
    config: Config,
    params: Params,
    trajectory: Trajectory,
    rows: Judged,
    actor: chex.Array,
    weight: chex.Array,
    stretch: int,
) -> Params:
    """The loss's gradient by some neighbouring actors' transitions.

    Backwards through time, by stretches from the last one with a weight to the first: where a life
    begins the carry is reset, and its gradient ends.

    Args:
      rows: returns of the whole trajectory.
      actor: the first of them.
      weight: float32 [T, actors].
      stretch: rows of a stretch; they divide T. If fewer than T, `trajectory.saved` is there.
    """
    steps, actors = weight.shape
    saved = NOTHING_SAVED if trajectory.saved is None else trajectory.saved
    begin = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, actor, actors), trajectory.initial_carry
    )
    counts = jnp.any(weight.reshape(steps // stretch, -1) > 0, axis=1)
    first, last = jnp.argmax(counts), len(counts) - 1 - jnp.argmax(counts[::-1])

    def of_stretch(n: chex.Array, carried: tuple[Params, Carry]) -> tuple[Params, Carry]:
        start = (last - n) * stretch if stretch < steps else 0
        here = functools.partial(_block, rows=(start, stretch), actors=(actor, actors))
        carry = begin
        if (core := saved[-1]) is not None and stretch < steps:
            row = jnp.maximum(start - 1, 0), 1
            before = jax.tree.map(lambda x: x[0], _block((core.h, core.c), row, (actor, actors)))
            carry = jax.tree.map(
                lambda begin, before: jnp.where(start == 0, begin, before), begin, Carry(*before)
            )
        observation, is_first = here((trajectory.observation, trajectory.is_first))
        judged, known = here((rows, saved))
        counted = jax.lax.dynamic_slice_in_dim(weight, start, stretch)

        def total(params: Params, carry: Carry):
            output, carry = agent.apply(params, observation, carry, is_first, saved=known)
            again = judged.replace(logits=output.logits, value=output.value)
            return loss_of_rows(config, again, counted)[0], carry

        gradient, after = carried
        _, pull = jax.vjp(total, params, carry)
        more, to_carry = pull((jnp.float32(1), after))
        return jax.tree.map(jnp.add, gradient, more), to_carry

    nothing = jax.tree.map(jnp.zeros_like, (params, begin))
    stretches = jnp.where(jnp.any(counts), last - first + 1, 0)
    return jax.lax.fori_loop(0, stretches, of_stretch, nothing)[0]


def _block(tree: Any, rows: tuple[chex.Array, int], actors: tuple[chex.Array, int]) -> Any:
    """Of arrays [T, B, ...] some rows and some actors: the first of them, and how many."""
    (row, height), (actor, width) = rows, actors

    def cut(x: chex.Array) -> chex.Array:
        rest = x.shape[2:]
        return jax.lax.dynamic_slice(x, (row, actor, *(0 for _ in rest)), (height, width, *rest))

    return jax.tree.map(cut, tree)


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
