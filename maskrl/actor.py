"""One actor group: its environments, its snapshot of the parameters, and the unroll in progress."""

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np

from maskrl.agent import Agent
from maskrl.devices import Devices
from maskrl.envs import Environments, Row
from maskrl.types import ActorState, Snapshot, TimeStep, Unroll


def make_act(agent: Agent, devices: Devices) -> Callable:
    """Compiles `act(params, state, timestep, key) -> (state, action, observation, saved, masks)`.

    The masks are those that there are, by branch: [B, 10, 10].
    """

    def act(params, state, timestep, key):
        state, output = agent.step(params, state, timestep, key)
        network = output.network
        masks = {"policy": network.policy_mask, "value": network.value_mask}
        saved, masks = jax.tree.map(lambda x: x[0], (network.saved, masks))
        return state, output.action, output.observation, saved, masks

    return devices.compile(act)


@dataclasses.dataclass
class Tally:
    """What happened in a group's environments since the tally was taken."""

    agent_steps: int = 0  # transitions that count
    scores: list[float] = dataclasses.field(default_factory=list)  # of whole games, unclipped
    # Of lives, the learner's episodes: the sum of clipped rewards, and agent steps.
    lives: list[tuple[float, float]] = dataclasses.field(default_factory=list)


class ActorGroup:
    """Acts in the background: `receive`, then `act`, then `send`, T times an unroll.

    `act` only dispatches to the accelerator; `send` waits for its actions and starts the
    environments. Calling another group's `act` in between keeps both busy.
    """

    def __init__(
        self,
        act: Callable,
        devices: Devices,
        envs: Environments,
        snapshot: Snapshot,
        state: ActorState,
        key: Any,
        unroll_length: int,
        unrolls: int = 0,
    ):
        self._act, self._devices, self._envs = act, devices, envs
        self._key, self._unroll_length = key, unroll_length
        self.state, self.snapshot = state, snapshot
        self.unrolls = unrolls  # over all sessions of the run
        self.tally = Tally()
        self._score, self._life_reward, self._life_steps = np.zeros((3, envs.num_envs))
        self._to_send: chex.Array | None = None
        self._row: Row | None = None
        self._seen: TimeStep | None = None  # what acting needs of the row, on the devices
        self._masks: dict[str, chex.Array | None] = {}  # of the last step
        self._clear()

    @property
    def full(self) -> bool:
        """Whether T transitions, and the row they end in, are there."""
        return len(self._timesteps) > self._unroll_length

    def receive(self) -> None:
        """Waits for the environments' next row."""
        if self._row is None:
            row = self._envs.reset()
        else:
            self.send()
            row = self._envs.recv()
        self._count(row)
        self._row = row
        self._seen = self._devices.put(row.timestep.replace(reward=None, discount=None))
        self._timesteps.append(row.timestep.replace(frame=None))

    def act(self) -> None:
        """Dispatches the choice of the next actions."""
        if not self._observations:
            self._initial_carry = self.state.carry
        self.state, action, observation, saved, self._masks = self._act(
            self.snapshot.params, self.state, self._seen, self._key
        )
        self._actions.append(action)
        self._observations.append(observation)
        self._saved.append(saved)
        self._to_send = action

    def send(self) -> None:
        """Sends the actions that `act` chose to the environments, if it has not been done."""
        if self._to_send is not None:
            self._envs.send(self._devices.merge(self._to_send))
            self._to_send = None

    def collected(self) -> Unroll:
        """The finished unroll; the next one begins."""
        # Three arrays, actors first, reach the devices sooner than three times T + 1.
        timesteps = jax.tree.map(lambda *rows: np.stack(rows, axis=1), *self._timesteps)
        unroll = Unroll(
            initial_carry=self._initial_carry,
            last_state=self.state,
            observations=self._observations,
            actions=self._actions,
            saved=self._saved,
            timesteps=self._devices.put(timesteps),
            last_frame=self._seen.frame,
        )
        self._clear()
        self._timesteps.append(self._row.timestep.replace(frame=None))
        self.unrolls += 1
        return unroll

    def glance(self) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
        """The frame that its first actor acted on last, and the masks [10, 10], by branch.

        None before its first step.
        """
        if self._row is None:
            return None
        masks = self._devices.merge({k: v for k, v in self._masks.items() if v is not None})
        return self._row.timestep.frame[0], {branch: mask[0] for branch, mask in masks.items()}

    def close(self) -> None:
        """Ends the environments, which must have answered all that was sent."""
        self._envs.close()

    def _count(self, row: Row) -> None:
        """Takes a row into the tally; the reward of a first row is no transition's."""
        reward, counted = row.timestep.reward, ~row.timestep.is_first
        self.tally.agent_steps += int(counted.sum())
        self._score += reward
        self._life_reward += np.where(counted, np.clip(reward, -1, 1), 0)
        self._life_steps += counted
        self.tally.scores += self._score[row.game_over].tolist()
        lives = np.stack([self._life_reward, self._life_steps], axis=1)[row.done]
        self.tally.lives += lives.tolist()
        self._score[row.game_over] = 0
        self._life_reward[row.done] = self._life_steps[row.done] = 0

    def _clear(self) -> None:
        self._observations, self._actions, self._saved, self._timesteps = [], [], [], []
