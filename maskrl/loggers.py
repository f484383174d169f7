"""Where a run's numbers go: the progress line, `metrics.csv`, TensorBoard."""

import contextlib
import csv
import io
import math
import pathlib
import shutil
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import image, scalar, text

from maskrl import files
from maskrl.cli import progress
from maskrl.errors import UserError

# The columns of `metrics.csv`, and the group of each in TensorBoard.
COLUMNS = {
    "agent_steps": "run",
    "updates": "run",
    "seconds": "run",  # of training: evaluation and saving are not counted
    "steps_per_second": "run",  # of the interval since the row before
    "games": "play",  # finished since the run began
    "score_mean": "play",  # of the last 100 games of every host, sampled actions; empty before one
    "score_max": "play",
    "life_reward": "play",  # of the last 500 lives of every host: sum of clipped rewards, mean
    "life_steps": "play",
    "staleness_mean": "staleness",  # updates between a gradient's parameters and what it moved
    "staleness_min": "staleness",
    "staleness_max": "staleness",
    "loss": "loss",  # means over the gradients since the row before
    "policy_loss": "loss",
    "value_loss": "loss",
    "entropy": "network",
    "policy_mask": "network",
    "value_mask": "network",
    "explained_variance": "network",  # of the value, over the transitions since the row before
    "gradient_norm_median": "gradients",  # before long ones are cut
    "gradient_norm_90": "gradients",
    "gradient_norm_max": "gradients",
    "below_eps": "gradients",  # share of parameters whose sqrt(max v) is below the optimiser's eps
    "moved_torso": "moved",  # distance from where the run started
    "moved_core": "moved",
    "moved_policy": "moved",
    "moved_value": "moved",
    "eval_score_mean": "evaluation",  # greedy; empty where there was no evaluation
    "eval_seconds": "evaluation",  # that it took
    "eval_share": "evaluation",  # of all evaluations so far, in the time of the run
}

# Of these, what stands in the progress line, and how.
SHOWN = {
    "life": ("life_reward", ".2f"),
    "score": ("score_mean", ".1f"),
    "entropy": ("entropy", ".2f"),
    "explained": ("explained_variance", ".2f"),
}


class Logger:
    """A run's log. On resume the rows after `agent_steps` are dropped: they will come again.

    A disk that fails costs no training: it is said, and the rows are written once it works again.

    Args:
      folder: the run's.
      start, target: agent steps, for the progress line.
      settings: of the run, as text for TensorBoard.

    Raises:
      UserError: `metrics.csv` cannot be read or written.
    """

    def __init__(self, folder: pathlib.Path, start: int, target: int, settings: str = ""):
        self._path = folder / "metrics.csv"
        kept, damaged = read_rows(self._path, start)
        stream = io.StringIO(newline="")
        rows = csv.DictWriter(stream, COLUMNS)
        rows.writeheader()
        rows.writerows(kept)
        self._waiting: list[dict[str, object]] = []  # rows that are not on disk
        self._failing = False
        try:
            if damaged:
                copy = files.free_name(folder / "metrics.damaged.csv")
                shutil.copyfile(self._path, copy)
                print(f"{self._path}: {damaged} damaged rows are dropped ({copy} has them)")
            elif not kept and self._path.exists() and self._path.read_bytes().count(b"\n") > 1:
                copy = files.free_name(folder / "metrics.before.csv")
                shutil.copyfile(self._path, copy)
                print(f"{self._path} begins anew ({copy} has what was in it)")
            files.write(self._path, stream.getvalue())
            self._size = self._path.stat().st_size  # bytes, of whole rows
            # Not tensorboardX's `SummaryWriter`: its queue blocks for ever once its thread has
            # failed.
            self._events = EventsWriter(str(folder / "events"))
            # What a session before logged from here on, TensorBoard forgets.
            start_of_session = SessionLog(status=SessionLog.START)
            self._events.write_event(Event(step=start, session_log=start_of_session))
            described = text("settings", textwrap.indent(settings, "    "))
            self._events.write_event(Event(step=start, summary=described))
        except OSError as error:
            raise UserError(f"cannot write in {folder}: {error.strerror}") from error
        self._progress = progress(total=target, initial=start, unit=" steps", unit_scale=True)

    def advance(self, agent_steps: int) -> None:
        """Moves the progress line."""
        self._progress.update(agent_steps - self._progress.n)

    def show(self, row: Mapping[str, float]) -> None:
        """Puts the row's `SHOWN` at the end of the progress line; what is not known is left out."""
        numbers = {
            name: f"{row[key]:{form}}"
            for name, (key, form) in SHOWN.items()
            if not math.isnan(row.get(key, math.nan))
        }
        self._progress.set_postfix(numbers, refresh=False)

    def say(self, text: str) -> None:
        """Prints a line above the progress line."""
        self._progress.write(text)

    def row(self, values: Mapping[str, float]) -> None:
        """Writes a row of `COLUMNS`; what is absent stays empty."""
        self._waiting.append(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()}
        )
        with self._said():
            self._append()
            known = {k: v for k, v in values.items() if k != "agent_steps" and math.isfinite(v)}
            points = (scalar(f"{COLUMNS[k]}/{k}", v) for k, v in known.items())
            self._event(values["agent_steps"], *points)

    def pictures(self, agent_steps: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Shows the masks over frames, uint8 [H, W, 3] RGB, by branch, in TensorBoard."""
        with self._said():
            self._event(
                agent_steps,
                *(image(f"masks/{k}", v, dataformats="HWC") for k, v in pictures.items()),
            )

    def _event(self, agent_steps: int, *summaries: Summary) -> None:
        for summary in summaries:
            event = Event(wall_time=time.time(), summary=summary)
            event.step = agent_steps
            self._events.write_event(event)
        self._events.flush()

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Says, once, that the disk fails."""
        try:
            yield
        except OSError as error:
            if not self._failing:
                self.say(f"cannot write {self._path.parent}: {error.strerror}")
            self._failing = True
        else:
            self._failing = False

    def _append(self) -> None:
        """Adds the rows that wait to `metrics.csv`, over what a failed attempt has left there."""
        with open(self._path, "r+", newline="") as file:
            file.truncate(self._size)
            file.seek(self._size)
            csv.DictWriter(file, COLUMNS).writerows(self._waiting)
        self._size = self._path.stat().st_size
        self._waiting.clear()

    def close(self) -> None:
        """Flushes everything."""
        self._progress.close()
        with contextlib.suppress(OSError):
            self._events.close()


def read_rows(path: pathlib.Path, last: int) -> tuple[list[dict[str, str]], int]:
    """(the rows up to `last` agent steps, how many others are no rows): torn, or not of numbers."""
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    kept: list[dict[str, str]] = []
    damaged, columns, newest = 0, list(COLUMNS), -1
    for number, line in enumerate(lines):
        cells = line.split(",")
        if number == 0 and set(cells) & set(COLUMNS):
            columns = cells
            continue
        row = dict(zip(columns, cells, strict=False))
        try:
            steps = int(row["agent_steps"])
            numbers = [float(cell) for cell in row.values() if cell]
        except (KeyError, ValueError):
            numbers = []
        if not numbers or len(cells) != len(columns) or steps < newest:
            damaged += 1
        elif steps <= last:
            newest = steps
            kept.append({name: cell for name, cell in row.items() if name in COLUMNS})
    return kept, damaged


class Silence:
    """The log of the hosts whose numbers the first one writes."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        getattr(Logger, name)  # a misspelt method fails here, too
        return lambda *args, **kwargs: None
