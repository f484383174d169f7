"""Checkpoints of runs and agents (Orbax), checked whenever they are read.

A run's folder:

    config.json   metrics.csv   events.out.tfevents.*   run.lock
    checkpoints/<agent steps>/   everything that going on needs; the newest two are kept
    best/                        an agent's folder: the best by evaluation

An agent's folder is what `evaluate.py` takes: `agent.json` and `params/`, which Orbax writes.
`agent.json` has the fields of `AgentInfo`, the name and two SHA-256 of every part (`params`; in a
checkpoint, which is an agent's folder too, also `training`), and a SHA-256 of all this. It is
written last, when everything else is on disk: what it names is whole. Orbax itself checks nothing
of what it reads: most flipped bits would become other numbers. So a part's files are checked before
Orbax sees them, and its arrays afterwards.

    python -m maskrl.checkpoint FOLDER...    adds checksums to what earlier versions wrote
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from maskrl import files
from maskrl.agent import Agent, AgentSpec, make_agent
from maskrl.cli import Parser
from maskrl.config import CORES, FRAMES, MASKS
from maskrl.errors import Fault, UserError, exit_on_user_error
from maskrl.types import Params

RUNS = pathlib.Path("runs")  # where runs are, unless told otherwise
CHECKPOINTS, BEST, CONFIG, AGENT, LOCK = (
    *("checkpoints", "best", "config.json", "agent.json"),
    "run.lock",
)
PARAMS, TRAINING = "params", "training"  # the parts
_PADDED = "/recent/"  # of training: means of games and lives, padded with NaN
KEEP = 2  # checkpoints
_REMOVALS = 100  # of what a failed save left, 50 ms apart
_DAMAGED = ".damaged"  # the end of a checkpoint's name once it was found damaged


# What Orbax raises it also logs, with many tracebacks; here it is said in one line. And its
# threads, after a failure, report to an event loop that has ended: Python would print that, too.
logging.getLogger("absl").setLevel(logging.CRITICAL)
_unraisable = sys.unraisablehook


def _unraisable_but_orbax(what: Any) -> None:
    if str(what.exc_value) != "Event loop is closed":
        _unraisable(what)


sys.unraisablehook = _unraisable_but_orbax


class Damaged(UserError):
    """Something that was saved is not whole, or not what was saved."""


class InUse(UserError):
    """Another process trains the run."""


class SaveError(Fault):
    """Something could not be saved."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentInfo(AgentSpec):
    """What an agent is, and where it comes from."""

    agent_steps: int  # that it was trained for; 0 if unknown
    source: str  # where it comes from, for people
    score: float | None = None  # mean of the evaluation that chose it


class Checkpointer:
    """A run's checkpoints; each is there whole or not at all.

    Of several hosts only the first has one.
    """

    def __init__(self, run: pathlib.Path):
        self.folder = (run / CHECKPOINTS).absolute()

    def clean(self) -> None:
        """Makes the folder, and removes what interrupted saves left in it.

        Raises:
          UserError: it cannot be made.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            for path in self.folder.iterdir():
                if path.suffix in (".part", ".old") or ".orbax-checkpoint-tmp" in path.name:
                    shutil.rmtree(path)
        except OSError as error:
            raise UserError(f"cannot use {self.folder}: {error.strerror}") from error

    def save(self, agent_steps: int, params: Params, training: Any, info: AgentInfo) -> None:
        """Returns when everything is on disk; then older checkpoints but the newest go.

        One of the same step is replaced in one instant: an evaluation may have been made since.

        Args:
          params, training: trees of NumPy arrays.

        Raises:
          SaveError: it cannot be written, or has numbers that are not finite; what was there
            still is.
        """
        folder, parts = self.folder / str(agent_steps), {PARAMS: params, TRAINING: training}
        with _said(folder):
            if (folder / AGENT).exists():
                _write(folder, info, parts)
            else:
                with files.whole(folder) as partial:
                    partial.mkdir()
                    _write(partial, info, parts)
            for step in self._complete()[:-KEEP]:
                shutil.rmtree(self.folder / str(step), ignore_errors=True)

    @property
    def newest(self) -> int | None:
        """The agent steps of the newest checkpoint that was written whole; None without any."""
        return max(self._complete(), default=None)

    def _complete(self) -> list[int]:
        return [step for step in self.steps() if (self.folder / str(step) / AGENT).exists()]

    def steps(self) -> list[int]:
        """The agent steps of all checkpoints, damaged ones too, in order.

        Raises:
          UserError: the folder cannot be read.
        """
        try:
            return sorted(
                int(path.name)
                for path in self.folder.iterdir()
                if path.name.isascii() and path.name.isdigit() and path.is_dir() and _any(path)
            )
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {self.folder}: {_first_line(error)}") from error

    def restore(self, params: Params, training: Any) -> tuple[int, Params, Any] | None:
        """(agent steps, parameters, training state) of the newest whole checkpoint.

        Newer ones, which are damaged, are renamed: they shall not count among the newest.

        Args:
          params, training: trees of the shapes to expect.

        Returns:
          None if nothing was saved yet.

        Raises:
          UserError: all are damaged, or of other shapes.
        """
        if not self.steps():
            return None
        step, saved = self._newest_whole(
            lambda folder: _read(folder, {PARAMS: params, TRAINING: training})[1]
        )
        for newer in self.steps():
            if newer > step:
                aside = self.folder / f"{newer}{_DAMAGED}"
                shutil.rmtree(aside, ignore_errors=True)
                try:
                    (self.folder / str(newer)).rename(aside)
                except OSError as error:
                    raise UserError(f"cannot use {self.folder}: {error.strerror}") from error
        return step, saved[PARAMS], saved[TRAINING]

    def restore_agent(self, precision: str = "float32") -> tuple[Agent, Params, AgentInfo]:
        """Only what acting needs of the newest whole checkpoint.

        Raises:
          UserError: there is none, or none that is whole.
        """
        if not self.steps():
            raise UserError(f"{self.folder} holds no checkpoint: train longer")
        return self._newest_whole(lambda folder: _load(folder, precision))[1]

    def _newest_whole(self, read: Any) -> tuple[int, Any]:
        """(agent steps, what `read(folder)` returns) of the newest that it can read."""
        damaged: list[UserError] = []
        for step in reversed(self.steps()):
            try:
                content = read(self.folder / str(step))
            except UserError as error:
                damaged.append(error)
                continue
            for error in damaged:
                print(f"{error}: taking the checkpoint of step {step}", file=sys.stderr)
            return step, content
        raise damaged[0]


@contextlib.contextmanager
def locked(run: pathlib.Path) -> Iterator[None]:
    """Holds the run: nobody else trains it inside. The system lets go, however a process ends.

    Raises:
      InUse: somebody else does.
      UserError: the folder cannot be written.
    """
    with files.locked(run / LOCK) as held:
        if not held:
            raise InUse(f"another process is training {run}")
        yield


def check_shapes(saved: Params, expected: Params, path: Any) -> None:
    """Raises Damaged unless both trees have the same names and shapes."""
    found, wanted = ({n: x.shape for n, x in _arrays(t).items()} for t in (saved, expected))
    if found != wanted:
        name = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
        raise Damaged(
            f"{path} holds an agent of another shape: {name} is {found.get(name, 'absent')}, "
            f"not {wanted.get(name, 'absent')}"
        )


def save_agent(folder: pathlib.Path, params: Params, info: AgentInfo) -> None:
    """Writes an agent's folder; one that is there is replaced in one instant.

    Raises:
      SaveError: it cannot be written, or has numbers that are not finite; what was there still is.
    """
    folder = folder.absolute()
    with _said(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, info, {PARAMS: params})


def score_of(folder: pathlib.Path) -> float | None:
    """The score that chose the agent in this folder; None if there is none that is whole."""
    try:
        return _load(folder, "float32")[2].score
    except UserError:
        return None


def load_agent(folder: pathlib.Path, precision: str = "float32") -> tuple[Agent, Params, AgentInfo]:
    """Reads an agent's folder, or a run's: its best agent, else its newest whole checkpoint.

    Args:
      precision: with which the agent computes, see `make_agent`.

    Raises:
      UserError: no agent there, damaged, or of another shape.
    """
    if files.exists(folder / CONFIG):
        if not files.exists(folder / BEST / AGENT):
            return Checkpointer(folder).restore_agent(precision)
        folder = folder / BEST
    try:
        return _load(folder, precision)
    except Damaged:
        # A run may have replaced its best agent meanwhile, and only then.
        return _load(folder, precision)


def newest_run(
    runs: pathlib.Path, game: str | None = None, *, saved: bool = True
) -> pathlib.Path | None:
    """The run below `runs` that saved last (of this game, if one is named); None without any.

    Args:
      saved: whether only runs with a checkpoint count; of others, their start does.
    """
    times = {}
    for path in runs.glob(f"*/{CONFIG}"):
        folder = path.parent / CHECKPOINTS
        with contextlib.suppress(OSError, UserError):
            if Checkpointer(path.parent).steps():
                times[path.parent] = folder.stat().st_mtime
            elif not saved:
                times[path.parent] = path.stat().st_mtime
    found = [run for run in times if game is None or _game_of(run) == game]
    return max(found, key=times.__getitem__, default=None)


def _game_of(run: pathlib.Path) -> str | None:
    try:
        return files.read_json(run / CONFIG)["config"]["game"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _load(folder: pathlib.Path, precision: str) -> tuple[Agent, Params, AgentInfo]:
    """An agent's folder, or a checkpoint's."""
    info, _ = describe(folder)
    try:
        agent = make_agent(info, precision)
        shapes = jax.eval_shape(lambda: agent.init_params(jax.random.PRNGKey(0)))
    except (ValueError, TypeError, OverflowError) as error:
        raise _damaged(folder, error) from error
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    info, saved = _read(folder, {PARAMS: blank})
    return agent, saved[PARAMS], info


def _write(folder: pathlib.Path, info: AgentInfo, parts: dict[str, Any]) -> None:
    """Writes the parts, then `agent.json`, and removes what it does not name any more."""
    content = dataclasses.asdict(info) | {"parts": {}}
    try:
        for name, tree in parts.items():
            part = {"sha256": _digest(tree)}
            names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
            path = next(folder / n for n in names if not (folder / n).exists())
            with files.whole(path) as partial:
                with ocp.StandardCheckpointer(multiprocessing_options=_alone(name)) as orbax:
                    orbax.save(partial, tree)
                # Orbax's marker, which holds this machine's path; no reader asks for it, and
                # agents travel.
                (partial / "commit_success.txt").unlink(missing_ok=True)
                part["files"] = _digest_of_files(partial)
            content["parts"][name] = {"folder": path.name} | part
        files.write(folder / AGENT, sealed(content))
        keep = {part["folder"] for part in content["parts"].values()}
    except BaseException:
        keep = _named(folder)
        raise
    finally:
        # More than once: after an error Orbax's other writers may still be making files.
        for _ in range(_REMOVALS):
            rest = [path for path in folder.iterdir() if path.is_dir() and path.name not in keep]
            if not rest:
                break
            for path in rest:
                shutil.rmtree(path, ignore_errors=True)
            time.sleep(0.05)


def _named(folder: pathlib.Path) -> set[str]:
    """The parts' folders that `agent.json` names."""
    try:
        return {part["folder"] for part in describe(folder)[1].values()}
    except UserError:
        return set()


def sealed(content: dict[str, Any]) -> str:
    """The text of `agent.json`: the content, and its SHA-256."""
    return json.dumps(content | {"sha256": _digest_of_json(content)}, indent=2) + "\n"


def _digest_of_json(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def describe(folder: pathlib.Path) -> tuple[AgentInfo, dict[str, dict[str, str]]]:
    """(description, parts) in `agent.json`, checked.

    Raises:
      UserError: it is missing, or damaged.
    """
    path = folder / AGENT
    try:
        content = files.read_json(path)
        if not isinstance(content, dict):
            raise ValueError("no description of an agent")
        if "sha256" not in content:
            raise Damaged(
                f"{path} has no checksums; if it is an earlier version's, and not damaged: "
                f"python -m maskrl.checkpoint {folder}"
            )
        if content.pop("sha256") != _digest_of_json(content):
            raise ValueError("it does not agree with its checksum")
        parts = content.pop("parts")
        info = AgentInfo(**content)
        _check_info(info)
        names = os.listdir(folder)
        for part in parts.values():
            if part["folder"] not in names:
                raise ValueError(f"{part['folder']!r} is not in its folder")
    except (FileNotFoundError, NotADirectoryError) as error:
        if files.exists(folder / "info" / "metadata"):
            raise Damaged(
                f"{folder} has no checksums; if it is an earlier version's, and not damaged: "
                f"python -m maskrl.checkpoint {folder.parent.parent}"
            ) from error
        if folder.parent.name == CHECKPOINTS:
            raise Damaged(f"cannot restore {folder} (no {AGENT})") from error
        raise UserError(f"{folder} is neither a run nor an agent") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Damaged(f"{path} is damaged: {_first_line(error)}") from error
    return info, parts


def _read(folder: pathlib.Path, expected: dict[str, Any]) -> tuple[AgentInfo, dict[str, Any]]:
    """(description, trees) of the expected parts and shapes, checked.

    Raises:
      UserError: something is missing, damaged, or of another shape.
    """
    info, parts = describe(folder)
    saved = {}
    for name, tree in expected.items():
        try:
            part = parts[name]
            path = folder / part["folder"]
            # Earlier versions did not look at files.
            if part.get("files") not in (None, _digest_of_files(path)):
                raise ValueError(f"the files of {name} do not agree with their checksum")
            with ocp.StandardCheckpointer(multiprocessing_options=_alone(name)) as orbax:
                saved[name] = orbax.restore(path.absolute(), tree)
            check_shapes(saved[name], tree, folder)
            if _digest(saved[name]) != part["sha256"]:
                raise ValueError(f"{name} do not agree with their checksum")
        except UserError:
            raise
        except Exception as error:  # what Orbax raises for damage is any kind
            raise _damaged(folder, error) from error
    return info, saved


def _arrays(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of nested dicts, by path; shapes alone (`jax.eval_shape`) stay what they are."""
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        return {prefix: tree if isinstance(tree, jax.ShapeDtypeStruct) else np.asarray(tree)}
    return {k: v for n, t in tree.items() for k, v in _arrays(t, f"{prefix}/{n}").items()}


def _digest(tree: Any) -> str:
    """SHA-256 of every array's path, type, shape and bytes.

    Raises:
      ValueError: a number is not finite.
    """
    digest = hashlib.sha256()
    for name, array in sorted(_arrays(tree).items()):
        if not (np.all(np.isfinite(array)) or name.startswith(_PADDED)):
            raise ValueError(f"{name} has numbers that are not finite")
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _digest_of_files(folder: pathlib.Path) -> str:
    """SHA-256 of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()


def _check_info(info: AgentInfo) -> None:
    """Raises ValueError unless every field is of its type and among its choices."""
    types = {"num_actions": int, "agent_steps": int, "score": float | int | None}
    for name, value in dataclasses.asdict(info).items():
        if not isinstance(value, types.get(name, str)) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}")
    if not (0 < info.num_actions <= 18 and 0 <= info.agent_steps < 2**63):
        raise ValueError(f"{info.num_actions} actions, {info.agent_steps} agent steps")
    choices = {"mask": MASKS, "core": CORES, "frames": FRAMES}
    for name, allowed in choices.items():
        if getattr(info, name) not in allowed:
            raise ValueError(f"{name} is {getattr(info, name)!r}")


def _alone(name: str) -> ocp.options.MultiprocessingOptions:
    """Orbax without its barriers: the first host alone has everything, and reads and writes it."""
    return ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix=name
    )


@contextlib.contextmanager
def _said(folder: pathlib.Path) -> Iterator[None]:
    """Whatever saving raises, as a SaveError."""
    try:
        yield
    except Exception as error:  # what Orbax raises for a full disk is any kind
        raise SaveError(f"cannot save {folder}: {_first_line(error)}") from error


def _damaged(path: object, error: Exception) -> Damaged:
    return Damaged(f"cannot restore {path} (damaged, or of another shape): {_first_line(error)}")


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def _any(folder: pathlib.Path) -> bool:
    try:
        return next(folder.iterdir(), None) is not None
    except FileNotFoundError:  # an old checkpoint, which is being removed
        return False


def seal(folder: pathlib.Path) -> None:
    """Adds checksums to an agent or a checkpoint of an earlier version, as it is now.

    Raises:
      UserError: it is none, or cannot be read or written.
    """
    path = folder / AGENT
    try:
        content = files.read_json(path if files.exists(path) else folder / "info" / "metadata")
        if "sha256" in content:
            raise ValueError("it has checksums, which do not agree")
        info = AgentInfo(**content)
        _check_info(info)
        content = dataclasses.asdict(info) | {"parts": {}}
        for name in (PARAMS, TRAINING):
            if name == TRAINING and not (folder / name).exists():
                continue
            with ocp.StandardCheckpointer(multiprocessing_options=_alone(name)) as orbax:
                tree = orbax.restore((folder / name).absolute())
            sums = {"sha256": _digest(tree), "files": _digest_of_files(folder / name)}
            content["parts"][name] = {"folder": name} | sums
        files.write(path, sealed(content))
    except Exception as error:
        raise UserError(f"cannot read {folder}: {_first_line(error)}") from error
    print(f"{folder}: sealed")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("python -m maskrl.checkpoint", "Adds checksums to what earlier versions wrote.")
    parser.add_argument("folder", type=pathlib.Path, nargs="+", help="an agent's or a run's")
    with exit_on_user_error("maskrl.checkpoint"):
        for folder in parser.parse_args(argv).folder:
            steps = Checkpointer(folder).steps() if files.exists(folder / CONFIG) else []
            parts = [folder / CHECKPOINTS / str(step) for step in steps]
            parts += [folder / BEST] * files.exists(folder / BEST / AGENT)
            for part in parts or [folder]:
                try:
                    describe(part)
                except UserError:
                    seal(part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
