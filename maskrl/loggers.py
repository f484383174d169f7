"""Where a run's numbers go: the progress line, `metrics.csv`, TensorBoard."""

import csv
import pathlib
from collections.abc import Callable, Mapping

from tensorboardX import SummaryWriter
from tqdm import tqdm

from maskrl import files

COLUMNS = (
    "agent_steps",
    "updates",
    "seconds",  # of training: evaluation and saving are not counted
    "steps_per_second",  # of the interval since the row before
    "games",  # finished since the run began
    "score_mean",  # of the last 100 games of every host, sampled actions; empty before the first
    "score_max",
    "life_reward",  # of the last 500 lives of every host: sum of clipped rewards, mean
    "life_steps",
    "staleness_mean",  # updates between a gradient's parameters and the ones it moved
    "staleness_min",
    "staleness_max",
    "loss",  # means over the gradients since the row before
    "policy_loss",
    "value_loss",
    "entropy",
    "policy_mask",
    "value_mask",
    "explained_variance",  # of the value, over the transitions since the row before
    "gradient_norm_median",
    "gradient_norm_90",
    "gradient_norm_max",
    "below_eps",  # share of parameters whose sqrt(max v) is below the optimiser's eps
    "moved_torso",  # distance from where the run started
    "moved_core",
    "moved_policy",
    "moved_value",
    "eval_score_mean",  # greedy; empty where there was no evaluation
    "eval_share",  # of evaluations in the time of the run
)


class Logger:
    """A run's log. On resume the rows after `agent_steps` are dropped: they will come again.

    Args:
      folder: the run's.
      start, target: agent steps, for the progress line.
    """

    def __init__(self, folder: pathlib.Path, start: int, target: int):
        path = folder / "metrics.csv"
        kept: list[dict[str, str]] = []
        if path.exists():
            with open(path, newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["agent_steps"]) <= start]
        with files.whole(path) as partial, open(partial, "w", newline="") as file:
            rows = csv.DictWriter(file, COLUMNS)
            rows.writeheader()
            rows.writerows(kept)
        self._file = open(path, "a", newline="")  # noqa: SIM115, closed in `close`
        self._csv = csv.DictWriter(self._file, COLUMNS)
        self._events = SummaryWriter(str(folder), purge_step=start if kept else None)
        self._progress = tqdm(
            total=target, initial=start, unit=" steps", unit_scale=True, dynamic_ncols=True
        )

    def advance(self, agent_steps: int) -> None:
        """Moves the progress line."""
        self._progress.update(agent_steps - self._progress.n)

    def show(self, **numbers: str) -> None:
        """What stands at the end of the progress line."""
        self._progress.set_postfix(numbers, refresh=False)

    def say(self, text: str) -> None:
        """Prints a line above the progress line."""
        self._progress.write(text)

    def row(self, values: Mapping[str, float]) -> None:
        """Writes a row of `COLUMNS`; what is absent stays empty."""
        self._csv.writerow(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in values.items()}
        )
        self._file.flush()
        for name, value in values.items():
            if name != "agent_steps":
                self._events.add_scalar(name, value, values["agent_steps"])

    def close(self) -> None:
        """Flushes everything."""
        self._progress.close()
        self._events.close()
        self._file.close()


class Silence:
    """The log of the hosts whose numbers the first one writes."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        getattr(Logger, name)  # a misspelt method fails here, too
        return lambda *args, **kwargs: None
