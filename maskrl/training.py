"""The training loop: groups take turns to act, learn, log, evaluate, save."""

import dataclasses
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from maskrl import checkpoint, devices, evaluation, hosts, learner, run_state
from maskrl.actor import ActorGroup, Tally, make_act
from maskrl.agent import AgentSpec, make_agent
from maskrl.config import Config
from maskrl.devices import Devices
from maskrl.envs import Environments, environment_seed, num_actions
from maskrl.errors import Fault, UserError
from maskrl.loggers import Logger, Silence
from maskrl.metrics import Metrics, make_diagnose
from maskrl.run_state import RunState
from maskrl.types import Params

FIRST_SAVE = 60  # seconds of training until the first checkpoint: an early death costs little
EVALUATION_SEED = 1_000_000_000  # far from the seeds with which users evaluate


class NotFinite(UserError):
    """Parameters or gradients are no numbers any more: nothing of it may be saved."""


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
        self.config, self.run, self._log_seconds = config, run, log_seconds
        self.devices = Devices(device_count)
        self._first_host = hosts.is_first()
        self.checkpointer = checkpoint.Checkpointer(run) if self._first_host else None
        self._not_saved: checkpoint.SaveError | None = None  # why the newest save failed
        init_key, act_key = jax.random.split(jax.random.PRNGKey(config.seed))

        spec = AgentSpec(
            game=config.game,
            num_actions=num_actions(config.game),
            mask=config.mask,
            core=config.core,
            frames=config.frames,
        )
        self.agent = make_agent(spec, config.precision)
        how = evaluation.How(
            seed=EVALUATION_SEED + config.seed, max_episode_steps=config.eval_episode_steps
        )
        player = evaluation.Player(self.agent, config.eval_episodes, how)
        # Several hosts stop together, and the others wait: there an evaluation is not cut short.
        alone = jax.process_count() == 1
        self._evaluate = evaluate or (
            lambda params: player.play(params, stopped=lambda: alone and self._stop).scores
        )
        state = run_state.fresh(self.agent, config, init_key)
        if resume:
            state = hosts.from_first(lambda: self._restore(state))
        elif config.origin is not None:
            state = hosts.from_first(lambda: self._begin(state))
        self.counters = run_state.unpack(state.counters)
        self.counters.sessions += 1
        self._start = state.start

        replicate = self.devices.replicate
        self.state = replicate(state.learner)
        act = make_act(self.agent, self.devices)
        self._update = learner.make_update(self.agent, config, self.devices)
        self._diagnose = make_diagnose(config)
        self.groups = [
            ActorGroup(
                act,
                self.devices,
                self._environments(g),
                replicate(snapshot),
                self.devices.put(hosts.share(actors)),
                replicate(np.asarray(act_key)),
                config.unroll_length,
            )
            for g, (snapshot, actors) in enumerate(
                zip(state.snapshots, state.actors(self.agent), strict=True)
            )
        ]
        # Only now, when nothing can go wrong any more, is anything written.
        hosts.from_first(lambda: self.checkpointer.clean())
        self._metrics = Metrics()
        if self._first_host:
            self._metrics.go_on(state.recent)
        self._newest: dict[str, jax.Array] | None = None  # an update's metrics, not yet looked at
        # Several hosts agree once an unroll only: it is a round trip.
        self._ticks = 1 if jax.process_count() == 1 else config.unroll_length
        self._stop = False

    @property
    def params(self) -> Params:
        """The shared parameters, NumPy."""
        return self.devices.first(self.state.params)

    def train(self) -> None:
        """Trains until `config.steps`; saves at intervals and at the end, even when interrupted.

        Raises:
          NotFinite: a gradient or the parameters are no numbers any more; nothing was saved since.
          Fault: the environments failed, and what was learnt is saved; or the last save failed.
          KeyboardInterrupt: it was asked to stop; it has saved.
        """
        start, steps = self.counters.agent_steps, self.config.steps
        clock = _Clock(self.counters.seconds)
        will = (
            "train.py: error: this process or another one of the run has failed; go on with the "
            f"newest checkpoint, all processes: --resume {self.run}"
        )
        with hosts.ending_together(will):
            logger = Logger(self.run, start, steps) if self._first_host else Silence()
        finite, answering = True, True
        try:
            with hosts.ending_together(will):
                self._loop(logger, clock)
        except NotFinite:
            finite = False
            raise
        except Fault:
            answering = False
            raise
        finally:
            with hosts.ending_together(will):
                self.counters.seconds = clock.seconds
                if finite:
                    self._try_to_save(logger)
                if answering:
                    for group in self.groups:
                        group.send()
                        group.close()
            logger.close()
            hosts.from_first(self._check_saved)

    def stop(self) -> None:
        """Asks for a KeyboardInterrupt at the next tick that all hosts agree on."""
        self._stop = True

    def _loop(self, logger: Logger, clock: "_Clock") -> None:
        config, counters = self.config, self.counters
        logged_at, logged_steps, saved_at = clock.seconds, counters.agent_steps, clock.seconds
        save_after = min(FIRST_SAVE, config.save_every)
        previous: ActorGroup | None = None
        tick = 0
        # The stalest first.
        turns = sorted(self.groups, key=lambda g: int(self.devices.first(g.snapshot.updates)))
        while counters.agent_steps < config.steps:
            for number, group in enumerate(turns):
                # Staggered, so that updates come evenly and everyone's staleness is the same.
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
                self._first_host and clock.seconds - saved_at >= save_after,
                self._stop,
            )
            if stop:
                raise KeyboardInterrupt
            logger.advance(counters.agent_steps)
            if log:
                self._log(logger, clock, logged_at, logged_steps)
                logged_at, logged_steps = clock.seconds, counters.agent_steps
            if counters.agent_steps >= config.next_evaluation(counters.evaluated_steps):
                self._evaluate_and_keep(logger, clock)
            if save:
                counters.seconds = saved_at = clock.seconds
                save_after = config.save_every
                with clock.paused():
                    if not self._try_to_save(logger):
                        save_after = min(FIRST_SAVE, config.save_every)
        if counters.agent_steps > logged_steps:
            self._log(logger, clock, logged_at, logged_steps)
        if config.eval_every != 0 and counters.evaluated_steps < counters.agent_steps:
            self._evaluate_and_keep(logger, clock)

    def _learn(self, group: ActorGroup) -> None:
        """The updates by the group's gradients; the group copies the result at once."""
        self._look()
        self.state, self._newest = self._update(self.state, group.snapshot, group.collected())
        self.devices.settle(self.state)
        if group.unrolls % self.config.sync_every == 0:
            group.snapshot = self.state.snapshot()

    def _look(self) -> None:
        """Fetches the newest updates' metrics, and stops the run if they are no numbers.

        The next updates wait for them anyway, so this costs no time.
        """
        if self._newest is None:
            return
        numbers, self._newest = self.devices.first(self._newest), None
        for name in ("gradient_norm", "parameter_norm"):
            # NaN marks a gradient that was not there; then its staleness is NaN, too.
            there = ~np.isnan(numbers["staleness"]) if numbers[name].ndim else True
            if not np.isfinite(numbers[name][there]).all():
                raise NotFinite(
                    f"a {name.replace('_', ' ')} is no finite number any more, near step "
                    f"{self.counters.agent_steps}; nothing of it was saved: go on with the newest "
                    f"checkpoint (--resume {self.run}), or start anew with a lower --learning-rate"
                )
        self._metrics.update(numbers)

    def _count(self, *flags: bool) -> list[bool]:
        """Gathers what the groups of all hosts counted since the last call, and ors the flags."""
        tallies = [group.tally for group in self.groups]
        for group in self.groups:
            self._metrics.play(group.tally)
            group.tally = Tally()
        mine = [sum(t.agent_steps for t in tallies), sum(len(t.scores) for t in tallies)]
        steps, games, *votes = hosts.total([*mine, *flags]).tolist()
        self.counters.agent_steps += steps
        self.counters.games += games
        return [vote > 0 for vote in votes]

    def _log(self, logger: Logger, clock: "_Clock", since: float, since_steps: int) -> None:
        self._look()
        counters = self.counters
        counters.updates = int(self.devices.first(self.state.updates))
        row = {
            "agent_steps": counters.agent_steps,
            "updates": counters.updates,
            "seconds": clock.seconds,
            "steps_per_second": (counters.agent_steps - since_steps) / (clock.seconds - since),
            "games": counters.games,
            **self._metrics.row(),
        }
        if self._first_host:
            where = self._diagnose(self.devices.first(self.state), self._start)
            row |= {name: float(x) for name, x in jax.device_get(where).items()}
        logger.row(row)
        logger.show(
            life=f"{row.get('life_reward', float('nan')):.2f}",
            score=f"{row.get('score_mean', float('nan')):.1f}",
            entropy=f"{row.get('entropy', float('nan')):.2f}",
            explained=f"{row.get('explained_variance', float('nan')):.2f}",
        )

    def _evaluate_and_keep(self, logger: Logger, clock: "_Clock") -> None:
        """Greedy games with the shared parameters; `best/` is replaced by a better agent only."""
        counters = self.counters
        last, counters.evaluated_steps = counters.evaluated_steps, counters.agent_steps
        if not self._first_host:
            return
        with clock.paused():
            started = time.monotonic()
            try:
                score = float(np.mean(self._evaluate(self.params)))
            except BaseException:
                counters.evaluated_steps = last  # it is still due
                raise
            counters.evaluation_seconds += time.monotonic() - started
            logger.row(
                {
                    "agent_steps": counters.agent_steps,
                    "seconds": clock.seconds,
                    "eval_score_mean": score,
                    "eval_share": counters.evaluation_seconds
                    / (counters.evaluation_seconds + clock.seconds),
                }
            )
            logger.say(f"{counters.agent_steps} steps: greedy score {score:.1f}")
            best = checkpoint.score_of(self.run / checkpoint.BEST)
            if best is None or score > best:
                try:
                    folder = self.run / checkpoint.BEST
                    checkpoint.save_agent(folder, self.params, self._info(score))
                except checkpoint.SaveError as error:
                    logger.say(str(error))

    def _info(self, score: float | None = None) -> checkpoint.AgentInfo:
        origin = self.config.origin and pathlib.Path(self.config.origin).name
        return checkpoint.AgentInfo(
            **dataclasses.asdict(self.agent.spec),
            agent_steps=self.counters.agent_steps,
            source=f"maskrl, run {self.run.name}" + (f", from {origin}" if origin else ""),
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
            threads=devices.threads(max(config.groups - 1, 1)),  # one group's network computes
        )

    @property
    def newest(self) -> str:
        """What there is to go on with, in words."""
        if not self._first_host:
            return "the first host has it"
        try:
            step = self.checkpointer.newest
        except UserError as error:
            return str(error)
        return "there is no checkpoint" if step is None else f"the newest checkpoint is step {step}"

    def _try_to_save(self, logger: Logger) -> bool:
        """As `save`, but a disk that fails is only said."""
        try:
            self.save()
        except checkpoint.SaveError as error:
            self._not_saved = error
            logger.say(f"{error}; {self.newest}")
            return False
        self._not_saved = None
        return True

    def _check_saved(self) -> None:
        if self._not_saved is not None:
            raise checkpoint.SaveError(f"the last save failed: {self._not_saved}")

    def save(self) -> None:
        """Saves everything that going on needs; returns when it is on disk.

        Raises:
          NotFinite: there is nothing worth saving.
          SaveError: it cannot be written; everything else is as before.
        """
        self._count()
        self._look()
        state = self.run_state()
        if self._first_host:
            params, training = run_state.to_tree(state)
            self.checkpointer.save(self.counters.agent_steps, params, training, self._info())

    def run_state(self) -> RunState:
        """What the run goes on with, of all hosts; collective."""
        self.counters.updates = int(self.devices.first(self.state.updates))
        # The carries, by far the most of an actor's state, are not saved.
        actors = [self.devices.merge(group.state.replace(carry=None)) for group in self.groups]
        actors = hosts.gather(actors)
        return RunState(
            learner=self.devices.first(self.state),
            start=self._start,
            snapshots=[self.devices.first(group.snapshot) for group in self.groups],
            normalisers=[a.normaliser for a in actors],
            actor_steps=[a.step for a in actors],
            counters=run_state.pack(self.counters),
            recent=self._metrics.recent(),
        )

    def _begin(self, state: RunState) -> RunState:
        folder = pathlib.Path(self.config.origin)
        _, params, info = checkpoint.load_agent(folder)
        for name, wanted in dataclasses.asdict(self.agent.spec).items():
            if getattr(info, name) != wanted:
                raise UserError(
                    f"--from {folder}: its {name.replace('_', ' ')} is {getattr(info, name)}, the "
                    f"run's is {wanted}"
                )
        if info.agent_steps >= self.config.steps:
            raise UserError(
                f"--from {folder}: it has {info.agent_steps} agent steps already; --steps "
                f"{self.config.steps} counts them"
            )
        return run_state.begin_with(state, params, info.agent_steps)

    def _restore(self, like: RunState) -> RunState:
        saved = self.checkpointer.restore(*run_state.to_tree(like))
        if saved is None:
            print(f"{self.run} has no checkpoint yet: it begins at step 0")
            return self._begin(like) if self.config.origin is not None else like
        _, params, training = saved
        return run_state.from_tree(like, params, training)


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
