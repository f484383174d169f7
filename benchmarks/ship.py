"""Makes an agent of a run one that comes with the project, with a card that says what it is.

    python -m benchmarks.ship runs/Breakout-both-0 [--original learning_curves.csv]
    python -m benchmarks.ship --cards

Copies the run's best agent to `agents/<Game>-<mask>/`, plays 100 whole games with it on start
states that chose nothing (greedy, sampled, the policy mask inverted, uniform actions), and writes
the scores and where the agent comes from to its `card.json`, and the run's learning curve, thinned,
to `metrics.csv`. `agents/README.md` is the table of all cards; `--cards` writes only that.

The original's file (game, agent_steps, score: single greedy games) gives the score to compare with,
the mean of its games between 0.8 and 1.2 times the agent's steps.
"""

import csv
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.__main__ import machine
from benchmarks.curve import read_columns
from maskrl import checkpoint, config, devices, evaluation, tables
from maskrl.checkpoint import AgentInfo
from maskrl.cli import Parser
from maskrl.errors import UserError, exit_on_user_error
from maskrl.evaluation import How

AGENTS = pathlib.Path("agents")
EPISODES, SEED, ROWS = 100, 1000, 300  # seed: neither the training's nor `evaluate.py`'s default
PLAYS = {
    "greedy": How(seed=SEED),
    "sampled": How(seed=SEED, sample=True),
    "inverse": How(seed=SEED, mode="inverse"),
    "random": How(seed=SEED, mode="random"),
}


def ship(run: pathlib.Path, original: pathlib.Path | None) -> pathlib.Path:
    """Writes the folder of the run's best agent; returns it.

    Raises:
      UserError: no run or no agent there, or the files of the original cannot be read.
    """
    settings = config.read(run / checkpoint.CONFIG)
    agent, params, info = checkpoint.load_agent(run, settings.precision)
    steps, seconds = read_columns(run / "metrics.csv", "agent_steps", "seconds")
    theirs = original_score(original, info) if original else None
    plays = {
        name: how for name, how in PLAYS.items() if how.mode != "inverse" or info.has_mask("policy")
    }
    scores = {}
    for name, how in plays.items():
        print(f"{info.game}, {name}")
        games = evaluation.play(agent, params, EPISODES, how, progress=True)
        scores[name] = summary(games.scores)
    folder = AGENTS / f"{info.game}-{info.mask}"
    checkpoint.save_agent(folder, params, info)
    card = {
        "hours": float(np.interp(info.agent_steps, steps, seconds)) / 3600,
        "machine": machine()["processor"],
        "commit": _commit(),
        "command": ["python", "train.py", *_flags(settings)],
        "precision": settings.precision,
        "chosen": f"the best of the run's evaluations, {settings.eval_episodes} greedy games each"
        if info.score is not None
        else "the run's newest checkpoint",
        "episodes": EPISODES,
        "seed": SEED,
        "max_episode_steps": How().max_episode_steps,
        "scores": scores,
        "original": theirs,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    thin(run / "metrics.csv", folder / "metrics.csv")
    return folder


def summary(scores: np.ndarray) -> dict[str, float]:
    """What the card says of some games."""
    return {
        "mean": float(scores.mean()),
        "median": float(np.median(scores)),
        "std": float(scores.std()),
        "max": float(scores.max()),
    }


def original_score(path: pathlib.Path, info: AgentInfo) -> float | None:
    """The mean of the original's greedy games near the agent's steps; None if there is none."""
    steps, scores = read_columns(path, "agent_steps", "score", game=info.game)
    near = (steps > 0.8 * info.agent_steps) & (steps < 1.2 * info.agent_steps)
    return float(scores[near].mean()) if near.any() else None


def thin(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a run's metrics: every evaluation, and some `ROWS` of the other rows."""
    with open(source, newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    every = max(1, len(rows) // ROWS)
    with open(target, "w", newline="") as file:
        writer = csv.DictWriter(file, reader.fieldnames)
        writer.writeheader()
        writer.writerows(
            row for n, row in enumerate(rows) if row["eval_score_mean"] or n % every == 0
        )


def cards() -> str:
    """The table of all cards, Markdown."""
    lines = [
        "# Agents that come with the project",
        "",
        f"Made by `python -m benchmarks.ship`. Means over {EPISODES} whole games on start states "
        "that chose nothing; `evaluate.py --agent agents/NAME` plays them. The original's: the "
        "mean of its single greedy games at about the same agent steps (one run); the paper's: the "
        "best of five agents after 100 million.",
        "",
        "| agent | steps | hours | greedy, mean (median, std, max) | sampled | inverse | random "
        "| original | paper |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for path in sorted(AGENTS.glob(f"*/{checkpoint.AGENT}")):
        info = checkpoint.load_agent(path.parent)[2]
        card = json.loads((path.parent / "card.json").read_text())
        lines.append(_line(path.parent.name, info, card))
    lines += ["", "Each was trained by:", ""]
    for path in sorted(AGENTS.glob("*/card.json")):
        card = json.loads(path.read_text())
        lines.append(
            f"- {path.parent.name}: `{' '.join(card['command'])}`; {card['chosen']}; "
            f"{card['machine']}, commit {card['commit']}"
        )
    return "\n".join(lines) + "\n"


def _line(name: str, info: AgentInfo, card: dict[str, Any]) -> str:
    scores = card["scores"]
    greedy = scores["greedy"]
    means = [
        f"{scores[k]['mean']:.1f}" if k in scores else "" for k in ("sampled", "inverse", "random")
    ]
    paper = ""
    if info.game in tables.GAMES:
        paper = tables.PAPER_NORMAL[info.mask][tables.GAMES.index(info.game)][1]
    original = card["original"]
    behind = original is not None and greedy["mean"] < original / 2
    cells = [
        name + (" (**below half of the original at equal steps**)" if behind else ""),
        f"{info.agent_steps:,}",
        f"{card['hours']:.1f}",
        f"{greedy['mean']:.1f} ({greedy['median']:.0f}, {greedy['std']:.1f}, {greedy['max']:.0f})",
        *means,
        "" if original is None else f"{original:.1f}",
        str(paper),
    ]
    return f"| {' | '.join(cells)} |"


def _flags(settings: config.Config) -> list[str]:
    """The flags that differ from the defaults."""
    fields = config.Config.__dataclass_fields__.values()
    given = [(f, getattr(settings, f.name)) for f in fields]
    return [
        part
        for field, value in given
        if value != field.default
        for part in (config.flag_of(field), str(value))
    ]


def _commit() -> str:
    git = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, cwd=pathlib.Path(__file__).parent)
    return done.stdout.strip() or "unknown"


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
        for run in args.runs:
            print(f"written: {ship(run, args.original)}")
        (AGENTS / "README.md").write_text(cards())
    return 0


if __name__ == "__main__":
    devices.use_cores()
    sys.exit(main())
