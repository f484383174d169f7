"""The training loop: groups take turns to act, learn, log, evaluate, save."""

import collections
import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import flax.serialization
import jax
import numpy as np

from maskrl import checkpoint, devices, learner
from maskrl.actor import ActorGroup, make_act
from maskrl.agent import Agent, make_agent
from maskrl.config import Config
from maskrl.devices import Devices
from maskrl.envs import Environments, environment_seed
from maskrl.loggers import Logger, Silence
from maskrl.types import Params

SCORES = 100  # games of every host in the running mean


@dataclasses.dataclass
class Counters:
    """Where the run stands, over all its sessions."""

    agent_steps: int = 0
    updates: int = 0
    games: int = 0
    seconds: float = 0.0  # of training
    sessions: int = 0  # how often it was started: part of the environments' seeds
    best_score: float = -np.inf


class Trainer:
    """A run: `train` goes on until `config.steps`.

    Args:
      config: its settings.
      run: its folder, which exists.
      device_count: of every host's devices to use; all of them together must divide
        `config.actors_per_group`.
      resume: whether to go on from the newest checkpoint in the folder.
      evaluate: `(agent, params) -> scores`, greedy games of the config's number and length.
      log_seconds: of training between two rows of `metrics.csv`.
    """

    def __init__(
        self,
        config: Config,
        run: pathlib.Path,
        *,
        device_count: int,
        resume: bool,
        evaluate: Callable[[Agent, Params], np.ndarray],
        log_seconds: float = 10.0,
    ):
        self.config, self.run, self._evaluate = config, run, evaluate
        self._log_seconds = log_seconds
        self.devices = Devices(device_count)
        self.counters = Counters()
        self._first_host = devices.is_first_host()
        self.checkpointer = checkpoint.Checkpointer(run) if self._first_host else None
        init_key, self._act_key = jax.random.split(jax.random.PRNGKey(config.seed))

        probe = Environments(config.game, 1, 0)
        num_actions = probe.num_actions
        probe.close()
        self.agent = make_agent(
            config.game, num_actions, config.mask, config.core, config.precision
        )
        state = jax.tree.map(np.asarray, learner.init(self.agent, config, init_key))
        snapshots = [state.params] * config.groups
        versions = np.zeros(config.groups, np.int32)
        actors = np.arange(config.groups * config.actors_per_group, dtype=np.int32)
        actor_states = [
            jax.tree.map(np.asarray, self.agent.init_state(ids))
            for ids in np.split(actors, config.groups)
        ]
        if resume:
            state, snapshots, versions, actor_states = self._restore(
                state, snapshots, versions, actor_states
            )
        self.counters.sessions += 1

        replicate = self.devices.replicate
        self.state = replicate(state)
        act = make_act(self.agent, self.devices)
        self._update = learner.make_update(self.agent, config, self.devices)
        self.groups = [
            ActorGroup(
                act,
                self.devices,
                self._environments(g),
                replicate(snapshots[g]),
                int(versions[g]),
                self.devices.put(devices.share(actor_states[g])),
                replicate(np.asarray(self._act_key)),
                config.unroll_length,
            )
            for g in range(config.groups)
        ]
        self._scores: collections.deque[float] = collections.deque(maxlen=SCORES)
        self._staleness: list[int] = []
        # Several hosts agree once an unroll only: it is a round trip.
        self._ticks = 1 if jax.process_count() == 1 else config.unroll_length
        self._metrics: list[dict[str, jax.Array]] = []
        self._stop = False

    @property
    def params(self) -> Params:
        """The shared parameters, NumPy."""
        return self.devices.first(self.state.params)

    def train(self) -> None:
        """Trains until `config.steps`; saves at intervals and at the end, even when interrupted."""
        start, steps = self.counters.agent_steps, self.config.steps
        logger = Logger(self.run, start, steps) if self._first_host else Silence()
        clock = _Clock(self.counters.seconds)
        will = (
            "train.py: error: this process or another one of the run has failed; go on with the "
            f"newest checkpoint, all processes: --resume {self.run}"
        )
        try:
            with devices.last_will(will):
                self._loop(logger, clock)
        finally:
            with devices.last_will(will):
                self.counters.seconds = clock.seconds
                self.save()
                for group in self.groups:
                    group.send()
                    group.close()
                if self._first_host:
                    self.checkpointer.close()
            logger.close()

    def stop(self) -> None:
        """Asks for a KeyboardInterrupt at the next tick that all hosts agree on."""
        self._stop = True

    def _loop(self, logger: Logger, clock: "_Clock") -> None:
        config, counters = self.config, self.counters
        logged_at, saved_at = clock.seconds, clock.seconds
        logged_steps = last_eval = counters.agent_steps
        evaluating = 0 < config.eval_every <= config.steps
        previous: ActorGroup | None = None
        tick = 0
        turns = sorted(self.groups, key=lambda group: group.version)  # the stalest first
        while counters.agent_steps < config.steps:
            for number, group in enumerate(turns):
                # Staggered, so that updates come evenly and everyone's staleness is G - 1.
                if tick < number * config.unroll_length // config.groups:
                    continue
                group.receive()
                if group.full:
                    self._learn(group)
                group.act()
                if previous is not None:
                    previous.send()
                previous = group
            tick += 1
            if tick % self._ticks:
                continue
            # The first host's clock, and everybody's steps and signals: all hosts decide alike.
            log, save, stop = self._count(
                self._first_host and clock.seconds - logged_at >= self._log_seconds,
                self._first_host and clock.seconds - saved_at >= config.save_every,
                self._stop,
            )
            if stop:
                raise KeyboardInterrupt
            logger.advance(counters.agent_steps)
            if log:
                self._log(logger, clock, logged_at, logged_steps)
                logged_at, logged_steps = clock.seconds, counters.agent_steps
            if evaluating and counters.agent_steps - last_eval >= config.eval_every:
                last_eval = counters.agent_steps
                if self._first_host:
                    with clock.paused():
                        self._evaluate_and_keep(logger, clock)
            if save:
                counters.seconds = saved_at = clock.seconds
                with clock.paused():
                    self.save()
        jax.block_until_ready(self.state)
        if counters.agent_steps > logged_steps:
            self._log(logger, clock, logged_at, logged_steps)

    def _learn(self, group: ActorGroup) -> None:
        """One update by the group's gradient; the group copies the result at once."""
        self._staleness.append(self.counters.updates - group.version)
        self.state, metrics = self._update(self.state, group.params, *group.collected())
        self.devices.settle(self.state)
        self._metrics.append(metrics)
        self.counters.updates += 1
        if group.unrolls % self.config.sync_every == 0:
            group.sync(self.state.params, self.counters.updates)

    def _count(self, *flags: bool) -> list[bool]:
        """Gathers what the groups of all hosts counted since the last call, and ors the flags."""
        steps = sum(group.agent_steps for group in self.groups)
        scores = [score for group in self.groups for score in group.finished_scores]
        steps, games, *votes = devices.total([steps, len(scores), *flags]).tolist()
        self.counters.agent_steps += steps
        self.counters.games += games
        self._scores.extend(scores)
        for group in self.groups:
            group.agent_steps, group.finished_scores = 0, []
        return [vote > 0 for vote in votes]

    def _log(self, logger: Logger, clock: "_Clock", since: float, since_steps: int) -> None:
        counters = self.counters
        row: dict[str, Any] = {
            "agent_steps": counters.agent_steps,
            "updates": counters.updates,
            "seconds": clock.seconds,
            "steps_per_second": (counters.agent_steps - since_steps) / (clock.seconds - since),
            "games": counters.games,
        }
        scores = np.full(SCORES, np.nan, np.float32)
        scores[: len(self._scores)] = self._scores
        scores = devices.gather(scores)
        scores = scores[~np.isnan(scores)]
        if len(scores):
            row |= {"score_mean": float(np.mean(scores)), "score_max": float(np.max(scores))}
        if self._metrics:
            fetched = [self.devices.first(m) for m in self._metrics]
            row |= {k: float(np.mean([m[k] for m in fetched])) for k in fetched[0]}
            row["staleness_mean"] = float(np.mean(self._staleness))
            row["staleness_max"] = max(self._staleness)
        logger.row(row)
        logger.show(
            score=f"{row.get('score_mean', float('nan')):.1f}",
            staleness=f"{row.get('staleness_mean', float('nan')):.1f}",
            policy=f"{row.get('policy_loss', float('nan')):.3f}",
            value=f"{row.get('value_loss', float('nan')):.3f}",
            entropy=f"{row.get('entropy', float('nan')):.2f}",
        )
        self._metrics.clear()
        self._staleness.clear()

    def _evaluate_and_keep(self, logger: Logger, clock: "_Clock") -> None:
        """Greedy games with the shared parameters; the best agent so far is kept."""
        score = float(np.mean(self._evaluate(self.agent, self.params)))
        steps = self.counters.agent_steps
        logger.row({"agent_steps": steps, "seconds": clock.seconds, "eval_score_mean": score})
        logger.say(f"{steps} steps: greedy score {score:.1f}")
        if score > self.counters.best_score:
            self.counters.best_score = score
            checkpoint.save_agent(self.run / checkpoint.BEST, self.params, self._info(score))

    def _info(self, score: float | None = None) -> checkpoint.AgentInfo:
        config = self.config
        return checkpoint.AgentInfo(
            game=config.game,
            num_actions=self.agent.network.num_actions,
            mask=config.mask,
            core=config.core,
            frames=config.frames,
            agent_steps=self.counters.agent_steps,
            source=f"maskrl, run {self.run.name}",
            score=score,
        )

    def _environments(self, group: int) -> Environments:
        """A group's environments, with seeds of their own in every session of the run."""
        config = self.config
        return Environments(
            config.game,
            config.actors_per_group // jax.process_count(),
            environment_seed(config.seed, self.counters.sessions, jax.process_index(), group),
            rgb=config.frames == "rgb",
            max_episode_steps=config.max_episode_steps,
        )

    def save(self) -> None:
        """Starts to save everything that going on needs."""
        self._count()
        # The carries, by far the most of an actor's state, are not saved.
        actors = [self.devices.merge(group.state.replace(carry=None)) for group in self.groups]
        actors = devices.gather(actors)
        if not self._first_host:
            return
        training = self._training_tree(
            self.devices.first(self.state.optimiser),
            [self.devices.first(group.params) for group in self.groups],
            np.array([group.version for group in self.groups], np.int32),
            actors,
            self.counters,
        )
        self.checkpointer.save(self.counters.agent_steps, self.params, training, self._info())

    def _training_tree(self, optimiser, snapshots, versions, actor_states, counters) -> dict:
        """The saved tree beside the parameters; the carry is left out: games start anew."""
        return {
            "optimiser": flax.serialization.to_state_dict(optimiser),
            "snapshots": {str(g): snapshot for g, snapshot in enumerate(snapshots)},
            "versions": versions,
            "normalisers": {
                str(g): flax.serialization.to_state_dict(s.normaliser)
                for g, s in enumerate(actor_states)
            },
            "actor_steps": np.stack([s.step for s in actor_states]),
            "counters": {
                k: np.asarray(v, np.float64 if isinstance(v, float) else np.int64)
                for k, v in dataclasses.asdict(counters).items()
            },
        }

    def _restore(self, state, snapshots, versions, actor_states):
        """Reads the newest checkpoint into trees like these."""
        like = self._training_tree(
            state.optimiser, snapshots, versions, actor_states, self.counters
        )
        _, params, saved = devices.from_first_host(
            lambda: self.checkpointer.restore(state.params, like)
        )
        types = {f.name: f.type for f in dataclasses.fields(Counters)}
        self.counters = Counters(**{k: types[k](v.item()) for k, v in saved["counters"].items()})
        state = learner.LearnerState(
            params=params,
            optimiser=flax.serialization.from_state_dict(state.optimiser, saved["optimiser"]),
        )
        order = [str(g) for g in range(len(snapshots))]
        actor_states = [
            old.replace(
                normaliser=flax.serialization.from_state_dict(
                    old.normaliser, saved["normalisers"][g]
                ),
                step=saved["actor_steps"][n],
            )
            for n, (g, old) in enumerate(zip(order, actor_states, strict=True))
        ]
        return state, [saved["snapshots"][g] for g in order], saved["versions"], actor_states


class _Clock:
    """Seconds of training: stands still inside `paused`."""

    def __init__(self, seconds: float):
        self._start = time.monotonic() - seconds
        self._stopped: float | None = None

    @property
    def seconds(self) -> float:
        now = time.monotonic() if self._stopped is None else self._stopped
        return now - self._start

    def paused(self) -> "_Clock":
        return self

    def __enter__(self) -> None:
        self._stopped = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._start += time.monotonic() - self._stopped
        self._stopped = None
