"""Draws runs' learning curves, if asked beside the original's at the same agent steps.

    python -m maskrl.curves runs/Breakout-both-0 [--original FOLDER] --output F.png
    python -m maskrl.curves runs/Breakout-both-* [--original FOLDER] --threshold 1.0

Above: the sum of clipped rewards of a life (sampled actions, mean of the last 500 lives), what the
original logged of its training. Below: greedy whole games. Left by agent steps, right by hours of
training. Several runs are of one game; an agent that comes with the project (`agents/`) has its
curve with it. The original's folder holds `original_training_lives.csv` (game, from_step, to_step,
clipped_reward_per_life, sem) and `learning_curves.csv` (game, agent_steps, score: single greedy
games).

`--threshold` prints when the clipped reward of a life first came to a level: one run's word is
little, so of runs that differ by nothing but their seed also the mean, with its interval. With
`--output` it draws how they came there, and nothing else.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Iterable

import matplotlib
import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maskrl import checkpoint, config, files, metrics
from maskrl.cli import Parser
from maskrl.errors import UserError, exit_on_user_error
from maskrl.tables import GAMES, PAPER_RANDOM

matplotlib.rcParams["text.parse_math"] = False  # a name with a $ is no mathematics

COLORS = ("#c0392b", "#2471a3", "#1e8449", "#9a7d0a", "#8e44ad", "#16a0a0", "#000000", "#d35400")
GREY = "#7f8c8d"
WINDOW = 15  # of the original's games in the running mean
METRICS, CARD = "metrics.csv", "card.json"  # of a run; of an agent that comes with the project
LIFE = "life_reward"  # clipped; a column of metrics
LIVES, GREEDY = "original_training_lives.csv", "learning_curves.csv"
# Settings in which repetitions of a run may differ: chance, length, what is reported and saved.
BESIDE = ("seed", "steps", "eval_every", "eval_episodes", "eval_episode_steps", "save_every")


def settings(folder: pathlib.Path) -> config.Config:
    """How the run, or the agent that comes with the project, was trained.

    Raises:
      UserError: it is neither.
    """
    card = folder / CARD
    return config.read(card if files.exists(card) else folder / checkpoint.CONFIG)


def by_game(folders: Iterable[pathlib.Path]) -> dict[str, list[pathlib.Path]]:
    """Those of these folders that have a curve, by their games."""
    found: dict[str, list[pathlib.Path]] = {}
    for folder in folders:
        with contextlib.suppress(UserError):
            if len(files.read_columns(folder / METRICS, "agent_steps", LIFE)[0]):
                found.setdefault(settings(folder).game, []).append(folder)
    return found


def draw(runs: list[pathlib.Path], original: pathlib.Path | None) -> Figure:
    """Lives above, greedy games below; by agent steps on the left, by hours on the right."""
    _, game = _of_one_game(runs)
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    (lives, lives_by_hour), (greedy, greedy_by_hour) = figure.subplots(
        2, 2, sharex="col", sharey="row"
    )
    end = 0.0
    for run, color in zip(runs, itertools.cycle(COLORS), strict=False):
        steps, hours, rewards = _curve(run, LIFE)
        if not len(steps):
            raise UserError(f"{run} has ended no life yet: train longer")
        end = max(end, steps[-1])
        label = f"maskrl, {run.name}"
        lives.plot(steps, rewards, color=color, label=label)
        lives_by_hour.plot(hours, rewards, color=color)
        steps, hours, scores = _curve(run, "eval_score_mean")
        greedy.plot(steps, scores, "o-", color=color, markersize=4)
        greedy_by_hour.plot(hours, scores, "o-", color=color, markersize=4)
    if original:
        _draw_original(lives, greedy, original, game, end)
    if game in GAMES:
        random = PAPER_RANDOM[GAMES.index(game)][1]
        for axes in (greedy, greedy_by_hour):
            axes.axhline(random, color="black", linestyle=":", label=f"random play ({random:g})")
    lives.set(ylabel="clipped reward per life, sampled")
    greedy.set(
        xlabel="millions of agent steps (4 frames each)", ylabel="score of a whole game, greedy"
    )
    greedy_by_hour.set(xlabel="hours of training")
    lives.set_xlim(0, 1.02 * end)
    lives_by_hour.set_xlim(left=0)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    named = [line for axes in (lives, greedy) for line in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=named, frameon=False, loc="outside lower center", ncols=3)
    figure.suptitle(game)
    return figure


def thresholds(runs: list[pathlib.Path], level: float, original: pathlib.Path | None) -> str:
    """When the clipped reward of a life (mean of 500 lives) first came to a level: a table.

    Of settings with several seeds that all came to it, the mean and the 95 % interval of Student's
    t, by steps.
    """
    trained, game = _of_one_game(runs)
    lines = [f"{'run':32}{'seed':>6}{'steps':>12}{'hours':>8}"]
    when: dict[pathlib.Path, float | None] = {}
    for run, s in zip(runs, trained, strict=True):
        columns = ("agent_steps", "seconds", LIFE, "life_steps")
        steps, seconds, rewards, length = files.read_columns(run / METRICS, *columns)
        first = _first(_of_many_lives(steps, rewards, length), level)
        when[run] = None if first is None else float(steps[first])
        end = f"not by {steps[-1]:,.0f}" if len(steps) else "no steps"
        there = None if first is None else f"{steps[first]:12,.0f}{seconds[first] / 3600:8.2f}"
        lines.append(f"{run.name:32}{s.seed:6}{there or f'  {end}'}")
    for repeated in _repetitions(runs, trained):
        came = [when[run] for run in repeated if when[run]]
        if len(repeated) > 1 and len(came) == len(repeated):
            half = float(scipy.stats.sem(came) * scipy.stats.t.ppf(0.975, len(came) - 1))
            mean = float(np.mean(came))
            words = f"{mean:,.0f} [{mean - half:,.0f}, {mean + half:,.0f}]"
            lines.append(f"{_label(repeated)}: mean of {len(came)} seeds: {words} steps")
        elif len(repeated) > 1:
            lines.append(f"{_label(repeated)}: {len(came)} of {len(repeated)} seeds came to it")
    if original:
        columns = ("from_step", "to_step", "clipped_reward_per_life")
        start, stop, rewards = files.read_columns(original / LIVES, *columns, game=game)
        first = _first(rewards, level)
        if first is not None:
            between = f"between {start[first]:,.0f} and {stop[first]:,.0f} steps"
            lines.append(f"the original's one run: {between}")
    return "\n".join(lines)


def draw_approach(runs: list[pathlib.Path], level: float, original: pathlib.Path | None) -> Figure:
    """Clipped rewards of lives up to a level, one colour for all seeds of the same settings.

    A run that came to the level ends there, in a dot.
    """
    trained, game = _of_one_game(runs)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    end = 0.0
    for repeated, color in zip(_repetitions(runs, trained), itertools.cycle(COLORS), strict=False):
        for n, run in enumerate(repeated):
            columns = ("agent_steps", LIFE, "life_steps")
            steps, rewards, length = files.read_columns(run / METRICS, *columns)
            first = _first(_of_many_lives(steps, rewards, length), level)
            steps = steps / 1e6
            stop = len(steps) if first is None else first + 1
            label = None if n else _label(repeated)
            axes.plot(steps[:stop], rewards[:stop], color=color, linewidth=1.2, label=label)
            if first is not None:
                axes.plot(steps[first], rewards[first], "o", color=color)
            end = max([end, *steps[:stop]])
    axes.axhline(level, color="black", linestyle=":")
    if original:
        _draw_lives(axes, original, game, end)
    axes.set(
        title=f"{game}: up to {level:g}",
        xlabel="millions of agent steps (4 frames each)",
        ylabel="clipped reward per life, sampled",
    )
    axes.set_xlim(0, 1.02 * end or 1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure


def _first(rewards: np.ndarray, level: float) -> int | None:
    """Where they first come to the level."""
    there = np.flatnonzero(rewards >= level)
    return int(there[0]) if len(there) else None


def _of_many_lives(steps: np.ndarray, rewards: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The rewards of lives; -inf where fewer have ended, by their length, than a mean is of."""
    return np.where(steps - steps[:1] >= metrics.LIVES * length, rewards, -np.inf)


def _repetitions(
    runs: list[pathlib.Path], trained: list[config.Config]
) -> list[list[pathlib.Path]]:
    """The runs, those together that repeat the same settings."""
    beside = {name: getattr(config.Config, name) for name in BESIDE}
    found: dict[config.Config, list[pathlib.Path]] = {}
    for run, s in zip(runs, trained, strict=True):
        found.setdefault(dataclasses.replace(s, **beside), []).append(run)
    return list(found.values())


def _label(repeated: list[pathlib.Path]) -> str:
    """What runs of the same settings are called."""
    first, *more = repeated
    return f"{first.name} and {len(more)} more" if more else first.name


def _of_one_game(runs: list[pathlib.Path]) -> tuple[list[config.Config], str]:
    """(how each of these runs was trained, the game of all of them)."""
    trained = [settings(run) for run in runs]
    games = {s.game for s in trained}
    if len(games) > 1:
        raise UserError(f"these runs are of several games: {', '.join(sorted(games))}")
    return trained, games.pop()


def _curve(run: pathlib.Path, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(millions of agent steps, hours of training, values) of a column of the run's metrics."""
    steps, seconds, values = files.read_columns(run / METRICS, "agent_steps", "seconds", column)
    return steps / 1e6, seconds / 3600, values


def _draw_original(lives: Axes, greedy: Axes, folder: pathlib.Path, game: str, end: float) -> None:
    """The original's one run of this game, as far as ours go."""
    _draw_lives(lives, folder, game, end)
    steps, scores = files.read_columns(folder / GREEDY, "agent_steps", "score", game=game)
    within = steps <= 1e6 * end
    steps, scores = steps[within] / 1e6, scores[within]
    greedy.plot(steps, scores, ".", color=GREY, markersize=3, label="the original's single games")
    if len(steps) >= WINDOW:
        kernel = np.ones(WINDOW) / WINDOW
        means = [np.convolve(x, kernel, mode="valid") for x in (steps, scores)]
        greedy.plot(*means, color=GREY, label=f"their mean over {WINDOW} games")


def _draw_lives(axes: Axes, folder: pathlib.Path, game: str, end: float) -> None:
    """The lives of the original's run, if it logged this game's, up to so many million steps."""
    columns = ("from_step", "to_step", "clipped_reward_per_life", "sem")
    start, stop, reward, error = files.read_columns(folder / LIVES, *columns, game=game)
    middle = (start + stop) / 2e6
    within = middle <= end
    if within.any():
        mean, width = reward[within], 1.96 * error[within]
        axes.errorbar(middle[within], mean, width, color=GREY, label="the original's run")


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure, whole or not at all; the suffix says in which format.

    Raises:
      UserError: there is no such format, or the file cannot be written.
    """
    form = path.suffix[1:]
    if form not in (known := figure.canvas.get_supported_filetypes()):
        raise UserError(f"{path}: a picture's name ends in one of {', '.join(sorted(known))}")
    with files.whole(path) as partial:
        figure.savefig(partial, format=form, dpi=150)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("python -m maskrl.curves", __doc__)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN")
    parser.add_argument("--original", type=pathlib.Path, metavar="FOLDER")
    parser.add_argument("--output", type=pathlib.Path, help="picture to write")
    parser.add_argument("--threshold", type=float, help="clipped reward of a life")
    with exit_on_user_error("maskrl.curves"):
        args = parser.parse_args(argv)
        if args.output is None and args.threshold is None:
            raise UserError(
                "--output or --threshold: draw the curves, or print when they came there"
            )
        files.check_new(args.output)
        if args.threshold is not None:
            print(thresholds(args.runs, args.threshold, args.original))
        if args.output is not None:
            figure = (
                draw(args.runs, args.original)
                if args.threshold is None
                else draw_approach(args.runs, args.threshold, args.original)
            )
            save(figure, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
