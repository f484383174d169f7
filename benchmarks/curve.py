"""Draws runs' learning curves, if asked beside the original's at the same agent steps.

    python -m benchmarks.curve runs/Breakout-both-0 [--original learning_curves.csv] --output F.png

Several runs are of one game; each is labelled with its folder's name and its precision.
The original's file has the columns game, agent_steps, episode_steps and score: greedy games.
"""

import argparse
import csv
import itertools
import pathlib
import sys

import numpy as np
from matplotlib.figure import Figure

from maskrl import checkpoint, config
from maskrl.errors import UserError, exit_on_user_error
from maskrl.tables import GAMES, PAPER_RANDOM

COLORS = ("#c0392b", "#2471a3", "#1e8449", "#9a7d0a")
WINDOW = 15  # of the original's games in the running mean


def read_columns(path: pathlib.Path, *names: str, **where: str) -> list[np.ndarray]:
    """Columns of a CSV file as floats, of the rows that have all of them and match `where`."""
    try:
        with open(path, newline="") as file:
            rows = [
                row
                for row in csv.DictReader(file)
                if all(row[n] for n in names) and all(row[k] == v for k, v in where.items())
            ]
    except (OSError, KeyError) as error:
        raise UserError(f"cannot read {', '.join(names)} from {path}: {error}") from error
    return [np.array([float(row[name]) for row in rows]) for name in names]


def draw(runs: list[pathlib.Path], original: pathlib.Path | None) -> Figure:
    """The mean score of the last 100 games by agent step; random play; the original's games."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    settings = [config.read(run / checkpoint.CONFIG) for run in runs]
    games = {s.game for s in settings}
    if len(games) > 1:
        raise UserError(f"these runs are of several games: {', '.join(sorted(games))}")
    (game,) = games
    end = 0.0
    for run, s, color in zip(runs, settings, itertools.cycle(COLORS), strict=False):
        steps, scores = read_columns(run / "metrics.csv", "agent_steps", "score_mean")
        if not len(steps):
            raise UserError(f"{run} has no score yet: train longer")
        end = max(end, steps[-1])
        label = f"maskrl, {run.name}, {s.precision}: sampled, last 100 games"
        axes.plot(steps, scores, color=color, label=label)
    if original:
        theirs, their_scores = read_columns(original, "agent_steps", "score", game=game)
        within = theirs <= end
        axes.plot(
            theirs[within],
            their_scores[within],
            ".",
            color="#7f8c8d",
            markersize=4,
            label="the original's training: single greedy games",
        )
        if within.sum() >= WINDOW:
            mean = np.convolve(their_scores[within], np.ones(WINDOW) / WINDOW, mode="valid")
            middle = np.convolve(theirs[within], np.ones(WINDOW) / WINDOW, mode="valid")
            axes.plot(
                middle, mean, color="#7f8c8d", label=f"the original's, mean of {WINDOW} games"
            )
    if game in GAMES:
        random = PAPER_RANDOM[GAMES.index(game)][1]
        axes.axhline(random, color="black", linestyle=":", label=f"random play ({random:g})")
    axes.set(title=game, xlabel="agent steps (4 frames each)", ylabel="score of a whole game")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.curve", description=__doc__)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN")
    parser.add_argument("--original", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    args = parser.parse_args(argv)
    with exit_on_user_error("benchmarks.curve"):
        draw(args.runs, args.original).savefig(args.output, dpi=150)
    return 0


if __name__ == "__main__":
    sys.exit(main())
