"""A run: the loop around the algorithm, and what comes due in it: to log, to evaluate, to save."""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from maskrl import devices, evaluation, hosts, run_state
from maskrl.a3c import A3C
from maskrl.agent import Agent, agent_of
from maskrl.archive import Archive
from maskrl.config import Config
from maskrl.devices import Devices
from maskrl.envs import Environments, environment_seed
from maskrl.errors import Fault
from maskrl.explain.overlay import LIGHT, Drawn, contrast_scale, overlay
from maskrl.loggers import Logger, Silence
from maskrl.metrics import Metrics, NotFinite
from maskrl.schedule import Clock, Every
from maskrl.types import Params

FIRST_SAVE = 60  # seconds of training until the first checkpoint: an early death costs little
EVALUATION_SEED = 1_000_000_000  # far from the seeds with which users evaluate


class Trainer:
    """A run: `train` goes on until `config.steps`.

    Args:
      config: its settings.
      run: its folder, which exists.
      device_count: of every host's devices to use; all of them together must divide
        `config.actors_per_group`.
      resume: whether to go on from the newest checkpoint in the folder.
      evaluate: `params -> scores`; by default greedy games of the config's number and length, from
        start states that no reported evaluation plays.
      log_seconds: of training between two rows of `metrics.csv`.
    """

    def __init__(
        self,
        config: Config,
        run: pathlib.Path,
        *,
        device_count: int,
        resume: bool,
        evaluate: Callable[[Params], np.ndarray] | None = None,
        log_seconds: float = 10.0,
    ):
        self.config, self.run = config, run
        self._log_seconds, self._stop = log_seconds, False
        self._first_host = hosts.is_first()
        self.agent = agent_of(config)
        self.archive = Archive(run, config, self.agent.spec) if self._first_host else None
        # Several hosts stop together, and the others wait: there an evaluation is not cut short.
        alone = jax.process_count() == 1
        self._evaluate = evaluate or evaluation_of(self.agent, config, lambda: alone and self._stop)
        init_key, act_key = jax.random.split(jax.random.PRNGKey(config.seed))
        state = run_state.fresh(self.agent, config, init_key)
        if resume or config.origin is not None:
            state = hosts.from_first(lambda: self.archive.begin(state, resume=resume))
        self.counters = run_state.unpack(state.counters)
        self.counters.sessions += 1
        environments = functools.partial(environments_of, config, self.counters.sessions)
        self.a3c = A3C(self.agent, config, state, act_key, Devices(device_count), environments)
        # Only now, when nothing can go wrong any more, is anything written.
        hosts.from_first(lambda: self.archive.prepare())
        self._metrics = Metrics()
        if self._first_host:
            self._metrics.go_on(state.recent)
        # Several hosts agree once an unroll only: it is a round trip.
        self._ticks = 1 if alone else config.unroll_length

    def train(self) -> None:
        """Trains until `config.steps`; saves at intervals and at the end, even when interrupted.

        Raises:
          NotFinite: the loss, a gradient or the parameters are no numbers any more; nothing was
            saved since.
          Fault: the environments failed, and what was learnt is saved; or the last save failed.
          KeyboardInterrupt: it was asked to stop; it has saved.
        """
        start, steps = self.counters.agent_steps, self.config.steps
        clock = Clock(self.counters.seconds)
        if_one_fails = (
            "train.py: error: this process or another one of the run has failed; go on with the "
            f"newest checkpoint, all processes: --resume {self.run}"
        )
        with hosts.ending_together(if_one_fails):
            settings = json.dumps(dataclasses.asdict(self.config), indent=2)
            logger = Logger(self.run, start, steps, settings) if self._first_host else Silence()
        finite, answering = True, True
        try:
            with hosts.ending_together(if_one_fails):
                self._loop(logger, clock)
        except NotFinite:
            finite = False
            raise
        except Fault:
            answering = False
            raise
        finally:
            with hosts.ending_together(if_one_fails):
                if finite:
                    self._save(logger, clock)
                if answering:
                    self.a3c.close()
            logger.close()
            if finite:  # else that is what is to be said
                hosts.from_first(lambda: self.archive.check())

    def stop(self) -> None:
        """Asks for a KeyboardInterrupt at the next tick that all hosts agree on."""
        self._stop = True

    @property
    def newest(self) -> str:
        """What there is to go on with, in words."""
        return self.archive.newest if self._first_host else "the first host has the checkpoints"

    def _loop(self, logger: Logger, clock: Clock) -> None:
        config, counters = self.config, self.counters
        first_save, evaluated = min(FIRST_SAVE, config.save_every), counters.evaluated_steps
        log, save = Every(self._log_seconds, clock.seconds), Every(first_save, clock.seconds)
        evaluate = Every(config.evaluation_interval(evaluated), evaluated)
        logged_steps, tick = counters.agent_steps, 0
        while counters.agent_steps < config.steps:
            self._take(self.a3c.tick())
            tick += 1
            now = clock.seconds  # every tick: of a long gap it takes a part
            if tick % self._ticks:
                continue
            # The first host's clock, and everybody's steps and signals: all hosts decide alike.
            to_log, to_save, stop = self._count(
                self._first_host and log.due(now),
                self._first_host and save.due(now),
                self._stop,
            )
            if stop:
                raise KeyboardInterrupt
            logger.advance(counters.agent_steps)
            if to_log and counters.agent_steps > logged_steps:
                self._log(logger, clock, log.last, logged_steps)
                log.done(clock.seconds)
                logged_steps = counters.agent_steps
            if evaluate.due(steps := counters.agent_steps):
                self._evaluate_and_keep(logger, clock)
                evaluate.done(steps, config.evaluation_interval(steps))
            if to_save:
                with clock.paused():
                    saved = self._save(logger, clock)
                save.done(clock.seconds, config.save_every if saved else first_save)
        if counters.agent_steps > logged_steps:
            self._log(logger, clock, log.last, logged_steps)
        if config.eval_every != 0 and counters.evaluated_steps < counters.agent_steps:
            self._evaluate_and_keep(logger, clock)

    def _take(self, updates: list[dict[str, np.ndarray]]) -> None:
        """Takes the metrics of updates; ends the run if they are no numbers any more."""
        for numbers in updates:
            self._metrics.update(numbers, self.counters.agent_steps)

    def _count(self, *flags: bool) -> list[bool]:
        """Gathers what the groups of all hosts counted since the last call, and ors the flags."""
        tallies = self.a3c.tallies()
        for tally in tallies:
            self._metrics.play(tally)
        mine = [sum(t.agent_steps for t in tallies), sum(len(t.scores) for t in tallies)]
        steps, games, *votes = hosts.total([*mine, *flags]).tolist()
        self.counters.agent_steps += steps
        self.counters.games += games
        return [vote > 0 for vote in votes]

    def _log(self, logger: Logger, clock: Clock, since: float, since_steps: int) -> None:
        self._take(self.a3c.look())
        counters = self.counters
        row = {
            "agent_steps": counters.agent_steps,
            "updates": self.a3c.updates,
            "seconds": clock.seconds,
            "steps_per_second": (counters.agent_steps - since_steps) / (clock.seconds - since),
            "games": counters.games,
            **self._metrics.row(),
        }
        if self._first_host:
            row |= self.a3c.diagnosis()
        logger.row(row)
        logger.show(row)

    def _evaluate_and_keep(self, logger: Logger, clock: Clock) -> None:
        """Greedy games with the shared parameters; `best/` is replaced by a better agent only."""
        self._take(self.a3c.look())
        counters = self.counters
        last, counters.evaluated_steps = counters.evaluated_steps, counters.agent_steps
        if not self._first_host:
            return
        with clock.paused():
            started, params = time.monotonic(), self.a3c.params
            try:
                score = float(np.mean(self._evaluate(params)))
            except BaseException:
                counters.evaluated_steps = last  # it is still due
                raise
            seconds = time.monotonic() - started
            counters.evaluation_seconds += seconds
            total = counters.evaluation_seconds + clock.seconds
            row = {"agent_steps": counters.agent_steps, "seconds": clock.seconds}
            row |= {"eval_score_mean": score, "eval_seconds": seconds}
            logger.row(row | {"eval_share": counters.evaluation_seconds / total})
            logger.say(f"{counters.agent_steps} steps: greedy score {score:.1f}")
            self.archive.keep_best(params, counters.agent_steps, score, logger.say)
            if (seen := self.a3c.glance()) is not None:
                logger.pictures(counters.agent_steps, pictures_of(self.agent, *seen))

    def _save(self, logger: Logger, clock: Clock) -> bool:
        """Saves everything that going on needs; returns whether it is on disk.

        Raises:
          NotFinite: there is nothing worth saving.
        """
        self._count()
        self._take(self.a3c.look())
        self.counters.seconds, self.counters.updates = clock.seconds, self.a3c.updates
        state = self.a3c.run_state(self.counters, self._metrics.recent())
        return not self._first_host or self.archive.save(state, logger.say)


def pictures_of(
    agent: Agent, frame: np.ndarray, masks: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Masks [10, 10] over the frame that an actor saw, uint8 [630, 480, 3], by branch."""
    shown = frame.transpose(1, 2, 0) if frame.ndim == 3 else np.stack([frame] * 3, axis=-1)
    view = (agent.crop.top, agent.crop.bottom)
    return {
        branch: overlay(shown, [Drawn(mask, contrast_scale(mask), light=LIGHT[branch])], view)
        .repeat(3, axis=0)
        .repeat(3, axis=1)
        for branch, mask in masks.items()
    }


def environments_of(config: Config, session: int, group: int) -> Environments:
    """This host's share of a group's environments, with seeds of their own in every session."""
    return Environments(
        config.game,
        config.actors_per_group // jax.process_count(),
        environment_seed(config.seed, session, jax.process_index(), group),
        rgb=config.frames == "rgb",
        max_episode_steps=config.max_episode_steps,
        threads=devices.threads(max(config.groups - 1, 1)),  # one group's network computes
    )


def evaluation_of(
    agent: Agent, config: Config, stopped: Callable[[], bool]
) -> Callable[[Params], np.ndarray]:
    """`params -> scores` of the run's evaluations: the same games every time, compiled once."""
    how = evaluation.How(
        seed=EVALUATION_SEED + config.seed, max_episode_steps=config.eval_episode_steps
    )
    player = evaluation.Player(agent, config.eval_episodes, how)
    return lambda params: player.play(params, stopped=stopped).scores
