"""One actor group: its environments, its snapshot of the parameters, and the unroll in progress."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import numpy as np

from maskrl.agent import Agent
from maskrl.devices import Devices
from maskrl.envs import Environments, Row
from maskrl.types import ActorState, Params


def make_act(agent: Agent, devices: Devices) -> Callable:
    """Compiles `act(params, state, timestep, key) -> (state, action, observation, saved)`."""

    def act(params, state, timestep, key):
        state, output = agent.step(params, state, timestep, key)
        saved = output.network.saved
        return state, output.action, output.observation, jax.tree.map(lambda x: x[0], saved)

    return devices.compile(act)


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
        params: Params,
        version: int,
        state: ActorState,
        key: Any,
        unroll_length: int,
    ):
        self._act, self._devices, self._envs = act, devices, envs
        self._key, self._unroll_length = key, unroll_length
        self.state = state
        self.sync(params, version)
        self.unrolls = 0
        self.agent_steps = 0
        self.finished_scores: list[float] = []
        self._scores = np.zeros(envs.num_envs)
        self._to_send: chex.Array | None = None
        self._row: Row | None = None
        self._clear()

    def sync(self, params: Params, version: int) -> None:
        """Copies the shared parameters, which are the ones after update number `version`."""
        self.params, self.version = params, version

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
            self.agent_steps += int(np.sum(~row.timestep.is_first))
        self._scores += row.timestep.reward
        self.finished_scores += self._scores[row.game_over].tolist()
        self._scores[row.game_over] = 0
        self._row = row
        self._timesteps.append(row.timestep.replace(frame=None))

    def act(self) -> None:
        """Dispatches the choice of the next actions."""
        timestep = self._devices.split(self._row.timestep)
        if not self._observations:
            self._initial_carry = self.state.carry
        self.state, action, observation, saved = self._act(
            self.params, self.state, timestep, self._key
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

    def collected(self) -> tuple:
        """The finished unroll, as `learner.assemble` takes it; the next one begins."""
        frame = self._devices.split(self._row.timestep.frame)
        # Three arrays, actors first, reach the devices sooner than three times T + 1.
        timesteps = jax.tree.map(lambda *rows: np.stack(rows, axis=1), *self._timesteps)
        unroll = (
            self._initial_carry,
            self.state,
            self._observations,
            self._actions,
            self._saved,
            self._devices.split(timesteps),
            frame,
        )
        self._clear()
        self._timesteps.append(self._row.timestep.replace(frame=None))
        self.unrolls += 1
        return unroll

    def close(self) -> None:
        """Ends the environments, which must have answered all that was sent."""
        self._envs.close()

    def _clear(self) -> None:
        self._observations, self._actions, self._saved, self._timesteps = [], [], [], []
