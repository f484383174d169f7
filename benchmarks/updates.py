"""How far settings move the parameters, as a ratio to A3C's literal updates.

    python -m benchmarks.updates [--game Breakout] [--steps 40000] [--seeds 0 1 2] --output F.json

Trains `SETTINGS` with `train.py`, reads from each run's last row how far every group of layers has
moved from its start, and prints the ratios to the first setting: 35 groups of one actor, each with
its own stale parameters. Runs that are there already (in `--runs`) are not made again; one that was
interrupted goes on.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np

from benchmarks.campaign import Run
from maskrl import checkpoint, files
from maskrl.cli import Parser
from maskrl.errors import UserError, exit_on_user_error

MOVED = ("moved_torso", "moved_core", "moved_policy", "moved_value")
SETTINGS = {
    "literal: 35 groups of 1": ["--preset=paper", "--groups=35", "--actors-per-group=1"],
    "--preset paper: 5 groups of 7": ["--preset=paper"],
    "5 groups of 8, mean of 8": ["--preset=paper", "--actors-per-group=8", "--actors-per-update=8"],
}


def distances(run: Run) -> list[float]:
    """How far each group of layers has moved at the end of the run, which is made if need be."""
    if not run.done and subprocess.run(run.command).returncode:
        raise UserError(f"{' '.join(run.command)} has failed")
    columns = files.read_columns(run.folder / "metrics.csv", *MOVED)
    return [float(column[-1]) for column in columns]


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("python -m benchmarks.updates", __doc__)
    add = parser.add_argument
    add("--game", default="Breakout")
    add("--steps", type=int, default=40_000)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--precision", default="float32")
    add("--runs", type=pathlib.Path, default=checkpoint.RUNS / "updates")
    add("--output", type=pathlib.Path, required=True)
    with exit_on_user_error("benchmarks.updates"):
        args = parser.parse_args(argv)
        files.check_output(args.output)
        common = [f"--game={args.game}", f"--steps={args.steps}", f"--precision={args.precision}"]
        moved = {
            name: [
                distances(
                    Run(
                        [*common, *flags, f"--seed={seed}", "--eval-every=0"],
                        args.runs / f"{args.game}-{args.precision}-{args.steps}-{n}-seed{seed}",
                        args.steps,
                        evaluated=False,
                    )
                )
                for seed in args.seeds
            ]
            for n, (name, flags) in enumerate(SETTINGS.items())
        }
        literal = np.array(next(iter(moved.values())))
        print(
            f"{'mean ratio over seeds':34}"
            + "".join(f"{m.removeprefix('moved_'):>9}" for m in MOVED)
        )
        for name, rows in moved.items():
            ratios = (np.array(rows) / literal).mean(axis=0)
            print(f"{name:34}" + "".join(f"{ratio:9.2f}" for ratio in ratios))
        report = {"command": sys.argv[1:], "moved": moved}
        files.write(args.output, json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
