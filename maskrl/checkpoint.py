"""Checkpoints of runs and agents (Orbax).

A run's folder:

    config.json   metrics.csv   events.out.tfevents.*
    checkpoints/<agent steps>/   everything that going on needs; the newest two are kept
    best/                        an agent folder: the best by evaluation

An agent's folder is what `evaluate.py` takes: `agent.json` (`AgentInfo`) and `params/`.
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from maskrl import files
from maskrl.agent import Agent, AgentSpec, make_agent
from maskrl.config import CORES, FRAMES, MASKS
from maskrl.errors import UserError
from maskrl.types import Params

RUNS = pathlib.Path("runs")  # where runs are, unless told otherwise
CHECKPOINTS, BEST, CONFIG, AGENT = "checkpoints", "best", "config.json", "agent.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentInfo(AgentSpec):
    """What an agent is, and where it comes from."""

    agent_steps: int  # that it was trained for; 0 if unknown
    source: str  # where it comes from, for people
    score: float | None = None  # mean of the evaluation that chose it


def _first_host(name: str) -> ocp.options.MultiprocessingOptions:
    """Orbax without its barriers: the first host alone has everything, and reads and writes it."""
    return ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix=name
    )


class Checkpointer:
    """A run's checkpoints: written in the background, each whole or not at all.

    Of several hosts only the first has one.
    """

    def __init__(self, run: pathlib.Path):
        folder = (run / CHECKPOINTS).absolute()
        folder.mkdir(exist_ok=True)
        self._manager = ocp.CheckpointManager(
            folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2,
                create=False,
                enable_async_checkpointing=True,
                multiprocessing_options=_first_host("run"),
            ),
        )

    def save(self, agent_steps: int, params: Params, training: Any, info: AgentInfo) -> None:
        """Starts to save; `params` and `training` are trees of NumPy arrays."""
        if agent_steps in self._manager.all_steps():
            return
        self._manager.save(
            agent_steps,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(params),
                training=ocp.args.StandardSave(training),
                info=ocp.args.JsonSave(dataclasses.asdict(info)),
            ),
        )

    def restore(self, params: Params, training: Any) -> tuple[int, Params, Any]:
        """(agent steps, parameters, training state) of the newest checkpoint.

        Args:
          params, training: trees of the shapes to expect.

        Raises:
          UserError: there is none, or it has other shapes.
        """
        step = self._newest()
        saved = _restore(
            self._manager,
            step,
            params=ocp.args.StandardRestore(params),
            training=ocp.args.StandardRestore(training),
        )
        check_shapes(saved["params"], params, self._manager.directory)
        return step, saved["params"], saved["training"]

    def restore_agent(self, precision: str = "float32") -> tuple[Agent, Params, AgentInfo]:
        """Only what acting needs of the newest checkpoint; errors as in `restore`."""
        step = self._newest()
        saved = _restore(self._manager, step, info=ocp.args.JsonRestore())
        info = AgentInfo(**saved["info"])
        agent, expected = _blank(info, precision)
        saved = _restore(self._manager, step, params=ocp.args.StandardRestore(expected))
        check_shapes(saved["params"], expected, self._manager.directory)
        return agent, saved["params"], info

    def _newest(self) -> int:
        step = self._manager.latest_step()
        if step is None:
            raise UserError(f"{self._manager.directory} holds no checkpoint: train longer")
        return step

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _restore(manager: ocp.CheckpointManager, step: int, **items: Any) -> Any:
    try:
        return manager.restore(step, args=ocp.args.Composite(**items))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(f"{manager.directory}/{step}", error) from error


def check_shapes(saved: Params, expected: Params, path: Any) -> None:
    """Raises UserError unless both trees have the same names and shapes."""
    found, wanted = _shapes(saved), _shapes(expected)
    if found != wanted:
        name = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
        raise UserError(
            f"{path} holds an agent of another shape: {name} is {found.get(name, 'absent')}, "
            f"not {wanted.get(name, 'absent')}"
        )


def _shapes(tree: Any, prefix: str = "") -> dict[str, tuple[int, ...]]:
    if not isinstance(tree, dict):
        return {prefix: tuple(np.shape(tree))}
    return {k: v for n, t in tree.items() for k, v in _shapes(t, f"{prefix}/{n}").items()}


def save_agent(folder: pathlib.Path, params: Params, info: AgentInfo) -> None:
    """Writes an agent's folder; one that is there is replaced only once the new one is whole.

    Raises:
      UserError: the folder cannot be made.
    """
    folder = folder.absolute()
    with files.whole(folder) as partial:
        partial.mkdir()
        with ocp.StandardCheckpointer(multiprocessing_options=_first_host("agent")) as checkpointer:
            checkpointer.save(partial / "params", params)
        # Orbax's marker, which holds this machine's path; no reader asks for it, and agents travel.
        (partial / "params" / "commit_success.txt").unlink(missing_ok=True)
        (partial / AGENT).write_text(json.dumps(dataclasses.asdict(info), indent=2) + "\n")


def score_of(folder: pathlib.Path) -> float | None:
    """The score that chose the agent in this folder; None if there is none."""
    try:
        return float(json.loads((folder / AGENT).read_text())["score"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_agent(folder: pathlib.Path, precision: str = "float32") -> tuple[Agent, Params, AgentInfo]:
    """Reads an agent's folder, or a run's: its best agent, else its newest checkpoint.

    Args:
      precision: with which the agent computes, see `make_agent`.

    Raises:
      UserError: no agent there, damaged, or of another shape.
    """
    if (folder / CONFIG).exists():
        if not (folder / BEST).exists():
            checkpointer = Checkpointer(folder)
            try:
                return checkpointer.restore_agent(precision)
            finally:
                checkpointer.close()
        folder = folder / BEST
    try:
        info = AgentInfo(**json.loads((folder / AGENT).read_text()))
        _check_info(info)
    except FileNotFoundError as error:
        raise UserError(f"{folder} is neither a run nor an agent") from error
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder / AGENT} is damaged: {error}") from error
    agent, expected = _blank(info, precision)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.restore((folder / "params").absolute(), expected)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    check_shapes(saved, expected, folder)
    return agent, saved, info


def _check_info(info: AgentInfo) -> None:
    """Raises ValueError unless every field is of its type and among its choices."""
    types = {"num_actions": int, "agent_steps": int, "score": float | int | None}
    for name, value in dataclasses.asdict(info).items():
        if not isinstance(value, types.get(name, str)):
            raise ValueError(f"{name} is {value!r}")
    choices = {"mask": MASKS, "core": CORES, "frames": FRAMES}
    for name, allowed in choices.items():
        if getattr(info, name) not in allowed:
            raise ValueError(f"{name} is {getattr(info, name)!r}")


def newest_run(runs: pathlib.Path, game: str | None = None) -> pathlib.Path | None:
    """The run below `runs` that saved last (of this game, if one is named); None without any."""
    saved = [
        path.parent.parent
        for path in runs.glob(f"*/{CHECKPOINTS}/*")
        if path.name.isdigit() and (path.parent.parent / CONFIG).exists()
    ]
    if game is not None:
        saved = [run for run in saved if _game_of(run) == game]
    return max(saved, key=lambda run: (run / CHECKPOINTS).stat().st_mtime, default=None)


def _game_of(run: pathlib.Path) -> str | None:
    try:
        return json.loads((run / CONFIG).read_text())["config"]["game"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _blank(info: AgentInfo, precision: str = "float32") -> tuple[Agent, Params]:
    """The agent of this description, and zeros of its parameters' shapes."""
    agent = make_agent(info, precision)
    shapes = jax.eval_shape(agent.init_params, jax.random.PRNGKey(0))
    return agent, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def _damaged(path: object, error: Exception) -> UserError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(f"cannot restore {path} (damaged, or of another shape): {lines[0]}")
