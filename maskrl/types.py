"""What the parts hand to each other, and the time rule.

**The time rule.** `reward[t]`, `discount[t]` and `is_first[t]` arrive *with* `frame[t]`; the action
`action[t]` is chosen on `frame[t]` and answered at t + 1. A row with `is_first` starts an episode:
the row before it was the last of the old episode, the action chosen on that row was ignored, and
the transition between the two carries no weight. Arrays are time-major, `[T, B, ...]`.
"""

from typing import Any

import chex
import flax.struct

Params = Any  # a pytree of float32 arrays


class TimeStep(flax.struct.PyTreeNode):
    """What the environments say, `[B, ...]`."""

    frame: chex.Array  # uint8 [B, 210, 160] luminance, or [B, 3, 210, 160] RGB
    reward: chex.Array  # float32 [B], unclipped, of the transition that led here
    discount: chex.Array  # float32 [B]: 0 if that transition ended the episode, else 1
    is_first: chex.Array  # bool [B]: this row starts an episode (after a lost life, too)


class Carry(flax.struct.PyTreeNode):
    """The ConvLSTM's state, `[B, 10, 10, 64]` each; zeros at the start of an episode."""

    hidden: chex.Array
    cell: chex.Array


class Normaliser(flax.struct.PyTreeNode):
    """Running statistics of an environment's pixels, float32 `[B]` each; never reset."""

    mean: chex.Array  # exponential average of the frames' means, not yet bias-corrected
    std: chex.Array  # exponential average of the frames' standard deviations, likewise
    count: chex.Array  # frames seen


class ActorState(flax.struct.PyTreeNode):
    """What an actor carries from one step to the next, `[B, ...]`."""

    carry: Carry
    normaliser: Normaliser
    actor: chex.Array  # int32 [B], the actor's number: its sampling key is folded from it
    step: chex.Array  # int32 [B], steps taken: folded into the key, so that none is used twice


class Trajectory(flax.struct.PyTreeNode):
    """An unroll of T transitions over T + 1 rows, `[T + 1, B, ...]`, and the carry it began with.

    The last row only bootstraps: its action is not part of the unroll.
    """

    observation: chex.Array  # float32 [T + 1, B, 80, 80, 1], the network's input
    action: chex.Array  # int32 [T, B]
    reward: chex.Array  # float32 [T + 1, B]
    discount: chex.Array  # float32 [T + 1, B]
    is_first: chex.Array  # bool [T + 1, B]
    initial_carry: Carry  # [B, ...], before row 0 (and before its reset, if row 0 is a first)
    saved: Any = None  # `NetworkOutput.saved` of acting [T, B, ...], where there is one


class Unroll(flax.struct.PyTreeNode):
    """What an actor group hands to the learner: T transitions, as acting left them.

    Lists are of T rows `[B, ...]`: they are stacked inside the compiled update.
    """

    initial_carry: Carry  # [B, ...], before row 0
    last_state: ActorState  # [B, ...], after row T - 1; the next unroll begins with it
    observations: list[chex.Array]  # float32 [B, 80, 80, 1]
    actions: list[chex.Array]  # int32 [B]
    saved: list[Any]  # `NetworkOutput.saved` [B, ...]
    timesteps: TimeStep  # [B, T + 1], without frames
    last_frame: chex.Array  # uint8 [B, 210, 160] or [B, 3, 210, 160], of row T


class Snapshot(flax.struct.PyTreeNode):
    """A group's copy of the shared parameters: A3C's thread-specific theta'."""

    params: Params
    updates: chex.Array  # int32, that the shared parameters had seen when it was taken
