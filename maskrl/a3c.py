"""The algorithm: actor groups take turns to act and to learn. It knows no clock, log or disk."""

from collections.abc import Callable

import jax
import numpy as np

from maskrl import hosts, learner
from maskrl.actor import ActorGroup, Tally, make_act
from maskrl.agent import Agent
from maskrl.config import Config
from maskrl.devices import Devices
from maskrl.envs import Environments
from maskrl.metrics import make_diagnose
from maskrl.run_state import Counters, RunState, pack
from maskrl.types import Params


class A3C:
    """Algorithm S3 of Mnih et al. 2016, groups of actors in the place of threads.

    Args:
      agent, config: what learns, and how.
      state: what to go on with, of all hosts.
      key: of the actors' choices.
      devices: where it is computed.
      environments: group -> the environments of this host's share of its actors.
    """

    def __init__(
        self,
        agent: Agent,
        config: Config,
        state: RunState,
        key: jax.Array,
        devices: Devices,
        environments: Callable[[int], Environments],
    ):
        self._config, self._devices, self._start = config, devices, state.start
        self._update = learner.make_update(agent, config, devices)
        self._diagnose = make_diagnose(config)
        self.state = devices.replicate(state.learner)
        act, key = make_act(agent, devices), devices.replicate(np.asarray(key))
        self.groups = [
            ActorGroup(
                act,
                devices,
                environments(number),
                devices.replicate(snapshot),
                devices.put(hosts.share(actors)),
                key,
                config.unroll_length,
                int(actors.step[0]) // config.unroll_length,
            )
            for number, (snapshot, actors) in enumerate(
                zip(state.snapshots, state.actors(agent), strict=True)
            )
        ]
        # The stalest first.
        self._turns = sorted(self.groups, key=lambda g: int(devices.first(g.snapshot.updates)))
        self._tick = 0
        self._previous: ActorGroup | None = None
        self._newest: dict[str, jax.Array] | None = None  # an update's metrics, not yet fetched

    @property
    def params(self) -> Params:
        """The shared parameters, NumPy."""
        return self._devices.first(self.state.params)

    @property
    def updates(self) -> int:
        """So far."""
        return int(self._devices.first(self.state.updates))

    def tick(self) -> list[dict[str, np.ndarray]]:
        """A step of every group's actors, and the updates by the unrolls that are full.

        Returns:
          The metrics of the updates before these; see `learner.make_update`.
        """
        seen = []
        for number, group in enumerate(self._turns):
            # Staggered, so that updates come evenly and everyone's staleness is the same.
            if self._tick < number * self._config.unroll_length // self._config.groups:
                continue
            group.receive()
            if group.full:
                # These updates wait for the ones before anyway, so to look at those costs no time.
                seen += self.look()
                self._learn(group)
            group.act()
            if self._previous is not None:
                self._previous.send()
            self._previous = group
        self._tick += 1
        return seen

    def _learn(self, group: ActorGroup) -> None:
        """The updates by the group's gradients; the group copies the result at once."""
        self.state, self._newest = self._update(self.state, group.snapshot, group.collected())
        self._devices.settle(self.state)
        if group.unrolls % self._config.sync_every == 0:
            group.snapshot = self.state.snapshot()

    def look(self) -> list[dict[str, np.ndarray]]:
        """Waits for the newest updates' metrics, if they have not been given yet."""
        if self._newest is None:
            return []
        numbers, self._newest = self._devices.first(self._newest), None
        return [numbers]

    def tallies(self) -> list[Tally]:
        """What happened in the environments of this host since the last call."""
        tallies = [group.tally for group in self.groups]
        for group in self.groups:
            group.tally = Tally()
        return tallies

    def glance(self) -> tuple[np.ndarray, dict[str, np.ndarray]] | None:
        """What an actor saw last, and where its masks were; see `ActorGroup.glance`."""
        return self._turns[0].glance()

    def diagnosis(self) -> dict[str, float]:
        """Where the parameters are; see `metrics.make_diagnose`."""
        return self._diagnose(self._devices.first(self.state), self._start)

    def run_state(self, counters: Counters, recent: dict[str, np.ndarray]) -> RunState:
        """What the run goes on with, of all hosts; collective."""
        first = self._devices.first
        # The carries, by far the most of an actor's state, are not saved.
        actors = [self._devices.merge(group.state.replace(carry=None)) for group in self.groups]
        actors = hosts.gather(actors)
        return RunState(
            learner=first(self.state),
            start=self._start,
            snapshots=[first(group.snapshot) for group in self.groups],
            normalisers=[a.normaliser for a in actors],
            actor_steps=[a.step for a in actors],
            counters=pack(counters),
            recent=recent,
        )

    def close(self) -> None:
        """Ends the environments."""
        for group in self.groups:
            group.send()
            group.close()
