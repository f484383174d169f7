"""What a run goes on with: one tree, which checkpoints hold."""

import dataclasses

import chex
import flax.struct
import jax
import numpy as np

from maskrl import learner
from maskrl.agent import Agent
from maskrl.config import Config
from maskrl.learner import LearnerState
from maskrl.metrics import Metrics
from maskrl.types import ActorState, Normaliser, Params, Snapshot


@dataclasses.dataclass
class Counters:
    """Where the run stands, over all its sessions."""

    agent_steps: int = 0
    updates: int = 0
    games: int = 0
    seconds: float = 0.0  # of training
    evaluation_seconds: float = 0.0
    evaluated_steps: int = 0  # agent steps at the newest evaluation
    sessions: int = 0  # how often it was started: part of the environments' seeds


class RunState(flax.struct.PyTreeNode):
    """NumPy arrays of all hosts. The actors' carries are not kept: their games start anew."""

    learner: LearnerState
    start: Params  # what the run began with: how far it has come is measured from there
    snapshots: list[Snapshot]  # of every group
    normalisers: list[Normaliser]  # of every group's actors, [B] each
    actor_steps: list[chex.Array]  # int32 [B] each
    counters: dict[str, chex.Array]
    recent: dict[str, chex.Array]  # of the first host: what `Metrics.recent` gives

    def actors(self, agent: Agent) -> list[ActorState]:
        """Every group's actors [B, ...], at the start of their games."""
        groups, states = len(self.actor_steps), []
        ids = np.arange(sum(map(len, self.actor_steps)), dtype=np.int32)
        for part, normaliser, step in zip(
            np.split(ids, groups), self.normalisers, self.actor_steps, strict=True
        ):
            state = jax.tree.map(np.asarray, agent.init_state(part))
            states.append(state.replace(normaliser=normaliser, step=step))
        return states


def fresh(agent: Agent, config: Config, key: chex.PRNGKey) -> RunState:
    """The state of a new run."""
    state = jax.tree.map(np.asarray, learner.init(agent, config, key))
    actors = jax.tree.map(np.asarray, agent.init_state(np.arange(config.actors_per_group)))
    return RunState(
        learner=state,
        start=state.params,
        snapshots=[state.snapshot()] * config.groups,
        normalisers=[actors.normaliser] * config.groups,
        actor_steps=[actors.step] * config.groups,
        counters=pack(Counters()),
        recent=Metrics().recent(),
    )


def begin_with(state: RunState, params: Params, agent_steps: int) -> RunState:
    """A fresh state whose parameters, and count of agent steps, are an agent's."""
    snapshot = state.snapshots[0].replace(params=params)
    return state.replace(
        learner=state.learner.replace(params=params),
        start=params,
        snapshots=[snapshot] * len(state.snapshots),
        counters=pack(Counters(agent_steps=agent_steps, evaluated_steps=agent_steps)),
    )


def pack(counters: Counters) -> dict[str, chex.Array]:
    """Counters as arrays of 64 bits."""
    return {
        name: np.asarray(value, np.float64 if isinstance(value, float) else np.int64)
        for name, value in dataclasses.asdict(counters).items()
    }


def unpack(arrays: dict[str, chex.Array]) -> Counters:
    """The inverse of `pack`."""
    return Counters(**{name: value.item() for name, value in arrays.items()})
