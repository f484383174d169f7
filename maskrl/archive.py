"""What a run keeps in its folder, beside its log: checkpoints, and its best agent."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import flax.serialization

from maskrl import checkpoint, run_state
from maskrl.agent import AgentSpec
from maskrl.checkpoint import AgentInfo, Checkpointer, SaveError
from maskrl.config import BEGAN_WITH, RUN, Config
from maskrl.errors import UserError
from maskrl.run_state import RunState
from maskrl.types import Params

Say = Callable[[str], None]


class Archive:
    """A run's folder. A disk that fails costs no training: it is said, and tried again.

    Of several hosts only the first has one.
    """

    def __init__(self, run: pathlib.Path, config: Config, spec: AgentSpec):
        self._run, self._config, self._spec = run, config, spec
        self._checkpointer = Checkpointer(run)
        self._failed: SaveError | None = None  # why the newest save failed
        self._best: float | None = None  # the best agent's score, once it has been asked for
        self._unwritten: tuple[Params, AgentInfo] | None = None  # the best agent, if not on disk

    def prepare(self) -> None:
        """Makes the folder of the checkpoints, or removes what interrupted saves left in it."""
        self._checkpointer.clean()

    def begin(self, fresh: RunState, *, resume: bool) -> RunState:
        """What the run begins or goes on with.

        Args:
          fresh: the state of a new run.
          resume: whether to go on from the newest checkpoint, if there is one.

        Raises:
          UserError: what is there does not fit, or is damaged.
        """
        if resume:
            saved = self._checkpointer.restore(*to_tree(fresh))
            if saved is not None:
                return from_tree(fresh, *saved[1:])
            origin = self._config.origin
            begins = "at step 0" if origin is None else f"again with {origin}"
            print(f"{self._run} has no checkpoint yet: it begins {begins}")
        return fresh if self._config.origin is None else self._begin_with_an_agent(fresh)

    @property
    def newest(self) -> str:
        """What there is to go on with, in words."""
        try:
            step = self._checkpointer.newest
        except UserError as error:
            return str(error)
        return "there is no checkpoint" if step is None else f"the newest checkpoint is step {step}"

    def save(self, state: RunState, say: Say) -> bool:
        """Returns whether everything is on disk, the best agent, too; if not, that is said."""
        self._write_best(say)
        params, training = to_tree(state)
        agent_steps = int(state.counters["agent_steps"])
        try:
            self._checkpointer.save(agent_steps, params, training, self._info(agent_steps))
        except SaveError as error:
            self._failed = error
            say(f"{error}; {self.newest}")
            return False
        self._failed = None
        return self._unwritten is None

    def check(self) -> None:
        """Raises SaveError if the newest save failed, or the best agent is not on disk."""
        if self._failed is not None:
            raise SaveError(f"the last save failed: {self._failed}")
        if self._unwritten is not None:
            raise SaveError("the last save failed: the best agent could not be written")

    def keep_best(self, params: Params, agent_steps: int, score: float, say: Say) -> None:
        """Replaces the best agent, if this one's score is better; `save` tries again."""
        if self._best is None:
            self._best = checkpoint.score_of(self._run / checkpoint.BEST)
        if self._best is None or score > self._best:
            self._best, self._unwritten = score, (params, self._info(agent_steps, score))
            self._write_best(say)

    def _write_best(self, say: Say) -> None:
        if self._unwritten is None:
            return
        try:
            checkpoint.save_agent(self._run / checkpoint.BEST, *self._unwritten)
        except SaveError as error:
            say(str(error))
        else:
            self._unwritten = None

    def _info(self, agent_steps: int, score: float | None = None) -> AgentInfo:
        origin = self._config.origin and name_of(pathlib.Path(self._config.origin))
        return AgentInfo(
            **dataclasses.asdict(self._spec),
            agent_steps=agent_steps,
            source=f"{RUN}{self._run.name}" + (f"{BEGAN_WITH}{origin}" if origin else ""),
            score=score,
        )

    def _begin_with_an_agent(self, fresh: RunState) -> RunState:
        folder = pathlib.Path(self._config.origin)
        _, params, info = checkpoint.load_agent(folder)
        for name, wanted in dataclasses.asdict(self._spec).items():
            if getattr(info, name) != wanted:
                raise UserError(
                    f"--from {folder}: its {name.replace('_', ' ')} is {getattr(info, name)}, the "
                    f"run's is {wanted}"
                )
        if info.agent_steps >= self._config.steps:
            raise UserError(
                f"--from {folder}: it has {info.agent_steps} agent steps already; --steps "
                f"{self._config.steps} counts them"
            )
        return run_state.begin_with(fresh, params, info.agent_steps)


def name_of(folder: pathlib.Path) -> str:
    """What an agent is called: its folder, or the run whose `best` or `checkpoints/N` it is."""
    folder = folder.absolute()
    if folder.name == checkpoint.BEST:
        folder = folder.parent
    elif folder.parent.name == checkpoint.CHECKPOINTS:
        folder = folder.parent.parent
    return folder.name


def to_tree(state: RunState) -> tuple[Params, dict[str, Any]]:
    """(parameters, all else): plain dicts of arrays, as a checkpoint holds them."""
    tree = flax.serialization.to_state_dict(state)
    return tree["learner"].pop("params"), tree


def from_tree(like: RunState, params: Params, tree: dict[str, Any]) -> RunState:
    """The inverse of `to_tree`; `like` has the structure."""
    tree = tree | {"learner": tree["learner"] | {"params": params}}
    return flax.serialization.from_state_dict(like, tree)
