"""Random inputs of the right shapes, and settings that train in seconds."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from maskrl import config, learner
from maskrl.agent import Agent, AgentSpec, make_agent
from maskrl.config import Config
from maskrl.training import Trainer
from maskrl.types import Carry, Normaliser, Snapshot, TimeStep, Trajectory, Unroll

# The settings of every test that trains: 4 actors in 2 groups, 3 steps an unroll.
TINY = {
    "game": "Breakout",
    "groups": 2,
    "actors_per_group": 2,
    "unroll_length": 3,
    "steps": 120,
    "eval_every": 0,
}
TINY_FLAGS = [f"--{k.replace('_', '-')}={v}" for k, v in TINY.items()]


def agent_with(precision: str = "float32", **changes) -> Agent:
    """Breakout's agent with both masks, with changes of its `AgentSpec`."""
    return make_agent(AgentSpec(**{"game": "Breakout", "num_actions": 4} | changes), precision)


def tiny_config(**changes) -> Config:
    """The settings `TINY`, with changes."""
    return Config(**(TINY | changes))


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """A list that grows by whatever is compiled inside."""
    seen: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: seen.append(name) if "backend_compile" in name else None
    )
    try:
        yield seen
    finally:
        jax.monitoring.clear_event_listeners()


def random_trajectory(rng, steps: int, batch: int, num_actions: int) -> Trajectory:
    """Normal numbers, with ends of episodes: actor 0 dies at row 1, actor 1 is cut off there."""
    is_first = np.zeros((steps + 1, batch), bool)
    discount = np.ones((steps + 1, batch), np.float32)
    is_first[2, :2] = True
    discount[1, 0] = 0
    reward = rng.integers(-2, 3, (steps + 1, batch)).astype(np.float32)
    reward[is_first] = 0
    carry = rng.normal(size=(2, batch, 10, 10, 64)).astype(np.float32)
    return Trajectory(
        observation=rng.normal(size=(steps + 1, batch, 80, 80, 1)).astype(np.float32),
        action=rng.integers(num_actions, size=(steps, batch)).astype(np.int32),
        reward=reward,
        discount=discount,
        is_first=is_first,
        initial_carry=Carry(hidden=np.tanh(carry[0]), cell=carry[1]),
    )


def random_timestep(rng, batch: int, first: bool = False, rgb: bool = False) -> TimeStep:
    """Frames of noise over a random grey."""
    shape = (batch, 3, 210, 160) if rgb else (batch, 210, 160)
    grey = rng.integers(0, 200, (batch,) + (1,) * (len(shape) - 1))
    return TimeStep(
        frame=(grey + rng.integers(0, 56, shape)).astype(np.uint8),
        reward=rng.integers(-1, 2, batch).astype(np.float32),
        discount=np.ones(batch, np.float32),
        is_first=np.full(batch, first),
    )


def random_unroll(agent, rng, steps: int, batch: int) -> Unroll:
    """An unroll of noise, as an actor group collects it."""
    trajectory = random_trajectory(rng, steps, batch, agent.spec.num_actions)
    timesteps = TimeStep(
        frame=None,
        reward=trajectory.reward.T,
        discount=trajectory.discount.T,
        is_first=trajectory.is_first.T,
    )
    last = jax.tree.map(np.asarray, agent.init_state(np.arange(batch)))
    normaliser = Normaliser(
        mean=np.full(batch, 4e-5, np.float32),
        std=np.full(batch, 2e-5, np.float32),
        count=np.ones(batch, np.float32),
    )
    return Unroll(
        initial_carry=trajectory.initial_carry,
        last_state=last.replace(normaliser=normaliser),
        observations=list(trajectory.observation[:-1]),
        actions=list(trajectory.action),
        saved=[None] * steps,
        timesteps=timesteps,
        last_frame=random_timestep(rng, batch).frame,
    )


def learner_state(config, params) -> learner.LearnerState:
    """These parameters, with a fresh optimiser."""
    optimiser = learner.make_optimiser(config).init(params)
    return learner.LearnerState(params=params, optimiser=optimiser, updates=np.int32(0))


def random_state(agent, config) -> tuple[learner.LearnerState, Snapshot]:
    """Shared parameters with a fresh optimiser, and a snapshot of other ones; NumPy."""
    shared, other = (agent.init_params(jax.random.PRNGKey(seed)) for seed in (0, 1))
    state = learner_state(config, shared), Snapshot(params=other, updates=np.int32(0))
    return jax.tree.map(np.asarray, state)


def train_tiny(
    run, resume=False, evaluate=None, device_count=1, log_seconds=10.0, **changes
) -> Trainer:
    """Trains with the settings `TINY` in the folder `run`; the trainer that did it."""
    run.mkdir(exist_ok=True)
    settings = tiny_config(**changes)
    config.write(settings, run / "config.json", {})
    trainer = Trainer(
        settings,
        run,
        device_count=device_count,
        resume=resume,
        evaluate=evaluate or (lambda params: np.zeros(1)),
        log_seconds=log_seconds,
    )
    trainer.train()
    return trainer
