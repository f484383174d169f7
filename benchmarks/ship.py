"""Makes an agent of a run one that comes with the project, with a card that says what it is.

    python -m benchmarks.ship runs/Breakout-both-* [--original learning_curves.csv]
    python -m benchmarks.ship --cards

Of several runs of a game and mask, the one whose best agent did best in its own evaluations is
taken. Copies that agent to `agents/<Game>-<mask>/`, plays 100 whole games with it on seeds that
were not used to choose it (greedy, sampled, the policy mask inverted, uniform actions), and writes
their scores to `results/`, where the agent comes from to `card.json`, and the run's learning curve,
thinned, to `metrics.csv`: after that of what the run began with (`--from`), if that is still there,
and in hours of both. `agents/README.md` is the table of all cards; `--cards` writes only that.

The original's file (game, agent_steps, score: single greedy games) gives the card the score to
compare with, the mean of its games between 0.8 and 1.2 times the agent's steps.
"""

import collections
import csv
import dataclasses
import heapq
import json
import math
import pathlib
import subprocess
from typing import Any

import numpy as np

from benchmarks.__main__ import machine
from maskrl import checkpoint, config, curves, devices, evaluation, files, tables
from maskrl.cli import Parser, run_program
from maskrl.config import EPISODE_STEPS
from maskrl.errors import UserError, exit_on_user_error
from maskrl.evaluation import How

AGENTS, RESULTS = pathlib.Path("agents"), "results"
EPISODES, SEED = 100, 1000  # seed: neither the training's nor `evaluate.py`'s default
ROWS, SPIKES = 300, 10  # of a log that comes with an agent
PLAYS = {
    "greedy": How(seed=SEED),
    "sampled": How(seed=SEED, sample=True),
    "inverse": How(seed=SEED, mode="inverse"),
    "random": How(seed=SEED, mode="random"),
}


def ship(runs: list[pathlib.Path], original: pathlib.Path | None) -> pathlib.Path:
    """Writes the folder of the best agent of some runs of one game and mask; returns it.

    Args:
      original: the original's file of scores, which are of agents with both masks.

    Raises:
      UserError: no run or no agent there.
    """
    scores = {run: checkpoint.score_of(run / checkpoint.BEST) for run in runs}
    run = max(runs, key=lambda run: -math.inf if scores[run] is None else scores[run])
    settings = curves.settings(run)
    if not (run / checkpoint.CONFIG).exists():
        raise UserError(f"{run} is an agent, not the run that it comes from")
    agent, params, info = checkpoint.load_agent(run, settings.precision)
    rows = log_of(run)
    if not rows:
        raise UserError(f"{run / curves.METRICS} has no rows: train on (train.py --resume {run})")
    steps, seconds = ([float(row[name]) for row in rows] for name in ("agent_steps", "seconds"))
    plays = {
        name: how for name, how in PLAYS.items() if how.mode != "inverse" or info.has_mask("policy")
    }
    folder = AGENTS / f"{info.game}-{info.mask}"
    before = checkpoint.score_of(folder)
    if before is not None and (info.score is None or before > info.score):
        print(f"note: {folder} did better in its own run's evaluations: {before} ({info.score})")
    theirs = None
    if original is not None and info.mask == "both":
        theirs = tables.original_score(original, info.game, info.agent_steps)
    chosen = (
        "the run's newest checkpoint"
        if info.score is None
        else f"the best of the run's evaluations, {settings.eval_episodes} greedy games each"
    )
    card = {
        "config": dataclasses.asdict(settings),
        "hours": float(np.interp(info.agent_steps, steps, seconds)) / 3600,
        "machine": machine()["processor"],
        "commit": _git("rev-parse", "--short", "HEAD") or "unknown",
        "before": origin_of(run),
        "changes": changes_of(run),
        "chosen": chosen,
        "original": theirs,
        "runs": {run.name: score for run, score in scores.items()},
    }
    results = {}
    for name, how in plays.items():
        print(f"{info.game}, {name}")
        games = evaluation.play(agent, params, EPISODES, how, progress=True)
        results[name] = evaluation.result(info, how, games) | {"precision": settings.precision}
    checkpoint.save_agent(folder, params, info)
    for name, result in results.items():
        files.write(folder / RESULTS / f"{name}.json", json.dumps(result) + "\n")
    files.write(folder / curves.CARD, json.dumps(card, indent=2) + "\n")
    thin(rows, folder / curves.METRICS)
    return folder


def origin_of(run: pathlib.Path) -> str | None:
    """What a run began with, in words, if that was an agent."""
    origin, sessions = curves.settings(run).origin, config.sessions(run / checkpoint.CONFIG)
    # By its steps, for another may have followed under its name since.
    steps = sessions[0].get("agent_steps") if sessions else None
    if origin is None or steps is None:  # steps: an earlier version's
        return origin
    folder, number = str(pathlib.Path(origin).absolute()), f'"agent_steps": {steps},'
    commits = _git("-C", folder, "log", "--format=%h", f"-S{number}", "--", checkpoint.AGENT)
    brought = f" (commit {commits.split()[-1]})" if commits else ""
    return f"{origin} of {steps:,} steps{brought}"


def changes_of(run: pathlib.Path) -> dict[str, list[tuple[int, Any]]]:
    """What differed between a run's sessions: every value, with the steps where it began."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for session in config.sessions(run / checkpoint.CONFIG):
        for name in ("learning_rate", "precision"):
            values = found.setdefault(name, [])
            if name in session and (not values or values[-1][1] != session[name]):
                values.append((session["agent_steps"], session[name]))
    return {name: values for name, values in found.items() if len(values) > 1}


def log_of(run: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a run's metrics, after those of what it began with, whose seconds count, too."""
    rows = files.read_rows(run / curves.METRICS, "agent_steps", "seconds")
    origin = curves.settings(run).origin
    joined = (run / curves.CARD).exists()  # an agent's log has been
    if joined or not rows or origin is None:
        return rows
    # A run, an agent, or what a run has saved: `best`, or one of `checkpoints`.
    folders = [pathlib.Path(origin), *pathlib.Path(origin).absolute().parents[:2]]
    logged = next((f for f in folders if (f / curves.METRICS).exists()), None)
    if logged is None:
        return rows
    start = float(rows[0]["agent_steps"])
    earlier = [row for row in log_of(logged) if float(row["agent_steps"]) < start]
    before = float(earlier[-1]["seconds"]) if earlier else 0.0
    return earlier + [row | {"seconds": str(before + float(row["seconds"]))} for row in rows]


def thin(rows: list[dict[str, str]], target: pathlib.Path) -> None:
    """Writes metrics: every evaluation, and of the others one in each of `ROWS` stretches of steps.

    Not one of so many rows: the part that an agent before has thinned already would vanish. And the
    `SPIKES` rows with the longest gradients, which are what one looks for where learning falters.
    """
    spikes = heapq.nlargest(SPIKES, rows, lambda row: float(row.get("gradient_norm_max") or 0))
    first, last = (float(rows[n]["agent_steps"]) for n in (0, -1))
    kept, reached = [], -1
    for row in rows:
        stretch = int((float(row["agent_steps"]) - first) / max(1, last - first) * ROWS)
        if row["eval_score_mean"] or row in spikes:
            kept.append(row)
        elif stretch > reached:
            kept.append(row)
            reached = stretch
    with files.whole(target) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[-1], extrasaction="ignore")  # an origin's may differ
        writer.writeheader()
        writer.writerows(kept)


def cards() -> str:
    """The table of all cards, Markdown.

    Raises:
      UserError: an agent whose card or results are not whole.
    """
    lines = [
        "# Agents that come with the project",
        "",
        f"Made by `python -m benchmarks.ship`. Means over {EPISODES} whole games of up to "
        f"{EPISODE_STEPS:,} agent steps, on seeds that were not used to choose the agent; "
        "`evaluate.py --agent agents/NAME` plays them. The original: the mean of its single greedy "
        "games at about the same agent steps (one run). The paper: the best of five agents after "
        "100 million. Hours: in those of logs from before commit ba8a103 a process that stood "
        "still counts, too.",
        "",
        "| agent | steps | hours | greedy, mean (median, std, max) | sampled | inverse | random "
        "| original | paper | of the paper's |",
        "|" + " --- |" * 10,
    ]
    folders = [path.parent for path in sorted(AGENTS.glob(f"*/{curves.CARD}"))]
    rows, origins = [], []
    for folder in folders:
        try:
            rows.append(_line(folder))
            origins.append(_origin(folder))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{folder}: its card or results are not whole: {error!r}") from error
    return "\n".join([*lines, *rows, "", "Where each comes from:", "", *origins]) + "\n"


def _origin(folder: pathlib.Path) -> str:
    """How an agent was trained and chosen, a line of the list below the table."""
    card = files.read_json(folder / curves.CARD)
    settings = curves.settings(folder)
    changes = card.get("changes", {})
    first = {name: values[0][1] for name, values in changes.items()}
    settings = dataclasses.replace(settings, **first)  # the config has the last
    command = " ".join(["python train.py", *_flags(settings)])
    before = f", which began with {card['before']}" if card.get("before") else ""
    changed = "".join(
        f", {name.replace('_', ' ')} {value} from {steps:,} steps on"
        for name, (_, *later) in changes.items()
        for steps, value in later
    )
    return (
        f"- {folder.name}: `{command}`{before}{changed}; {card['chosen']}; runs: "
        f"{_runs(card['runs'])}; shipped on {card['machine']} at commit {card['commit']}"
    )


def _runs(scores: dict[str, float | None]) -> str:
    """How many there were, and the best evaluation of each."""
    said = {k: "not evaluated" if v is None else f"{v:.5g}" for k, v in scores.items()}
    return f"{len(scores)} ({', '.join(f'{run}: {score}' for run, score in said.items())})"


def _line(folder: pathlib.Path) -> str:
    info = checkpoint.load_agent(folder)[2]
    card = files.read_json(folder / curves.CARD)
    paths = {name: folder / RESULTS / f"{name}.json" for name in PLAYS}
    results = {n: tables.read_results([p])[0] for n, p in paths.items() if p.exists()}
    greedy = results["greedy"]
    means = [
        f"{results[name]['mean']:.5g}" if name in results else ""
        for name in ("sampled", "inverse", "random")
    ]
    theirs = card.get("original")
    paper = share = behind = ""
    if info.game in tables.GAMES:
        paper = tables.PAPER_NORMAL[info.mask][tables.GAMES.index(info.game)][1]
        share = f"{100 * greedy['mean'] / paper:.0f} %" if paper > 0 else ""
    if (
        theirs
        and greedy["mean"] - results["random"]["mean"] < (theirs - results["random"]["mean"]) / 2
    ):
        behind = " (**below half of the original at equal steps, random play taken off**)"
    cells = [
        folder.name + behind,
        f"{info.agent_steps:,}",
        f"{card['hours']:.1f}",
        f"{greedy['mean']:.5g} ({greedy['median']:.5g}, {greedy['std']:.4g}, {greedy['max']:.5g})",
        *means,
        f"{theirs:.5g}" if theirs else "",
        str(paper),
        share,
    ]
    return f"| {' | '.join(cells)} |"


def _flags(settings: config.Config) -> list[str]:
    """The flags that differ from the defaults, or from the preset whose gradients are not cut."""
    preset = "" if settings.max_gradient_norm else "paper"
    flags = ["--preset", preset] if preset else []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != config.PRESETS.get(preset, {}).get(field.name, field.default):
            flags += [config.flag_of(field), str(value)]
    return flags


def _git(*arguments: str) -> str:
    """What git says of this checkout; nothing, if it is none."""
    done = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=pathlib.Path(__file__).parent
    )
    return done.stdout.strip()


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("python -m benchmarks.ship", __doc__)
    parser.add_argument("runs", type=pathlib.Path, nargs="*", metavar="RUN")
    parser.add_argument("--original", type=pathlib.Path, help="learning_curves.csv")
    parser.add_argument("--cards", action="store_true", help="only agents/README.md")
    with exit_on_user_error("benchmarks.ship"):
        args = parser.parse_args(argv)
        if not args.runs and not args.cards:
            raise UserError("name a run, or --cards")
        kinds = collections.defaultdict(list)
        for run in args.runs:
            settings = curves.settings(run)
            kinds[settings.game, settings.mask].append(run)
        for runs in kinds.values():
            print(f"written: {ship(runs, args.original)}")
        files.write(AGENTS / "README.md", cards())
    return 0


if __name__ == "__main__":
    devices.use_cores()
    run_program(main)
