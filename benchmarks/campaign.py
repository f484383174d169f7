"""Trains the runs of a list, one after the other on every core, and goes on where they stopped.

    python -m benchmarks.campaign benchmarks/campaign.txt
    python -m benchmarks.campaign benchmarks/campaign.txt --status
    python -m benchmarks.campaign benchmarks/campaign.txt --only $SLURM_ARRAY_TASK_ID

Every line of the list is the flags of one run of `train.py`; `#` begins a comment. As many runs as
there are cores go on at a time, each held to a core of its own (on two cores, two such runs make
more steps than one run on both); when one is done the next is begun. Ctrl-C, SIGTERM or a closed
terminal (but for `nohup`): all save and end, within seconds. The same command again goes on with
everything. `--only N` is run number N of the list alone, on all of the machine: for a cluster's
array job.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from maskrl import checkpoint
from maskrl.cli import Parser
from maskrl.envs import game_name
from maskrl.errors import UserError, exit_on_user_error
from maskrl.signals import Outlet

CHECKOUT = pathlib.Path(__file__).parent.parent
TRIES = 3  # starts in a row that make no new checkpoint, after which a run is given up


@dataclasses.dataclass
class Run:
    """A line of the list."""

    flags: list[str]
    folder: pathlib.Path
    steps: int
    evaluated: bool = True  # whether it is, at its end
    process: subprocess.Popen | None = None
    core: int | None = None
    tries: int = 0
    began_at: int = 0  # the checkpoint that its process began with

    @property
    def saved(self) -> int:
        """Agent steps of the newest checkpoint that was written whole; 0 without one."""
        try:
            return checkpoint.Checkpointer(self.folder).newest or 0
        except UserError:  # `train.py` will say so
            return 0

    @property
    def done(self) -> bool:
        if self.saved < self.steps:
            return False
        scored = _last_row(self.folder / "metrics.csv", "eval_score_mean")
        return not self.evaluated or int(scored.get("agent_steps", 0)) >= self.steps

    @property
    def given_up(self) -> bool:
        return self.tries >= TRIES

    @property
    def elsewhere(self) -> bool:
        """Whether another process trains it: one that outlived a campaign that was killed."""
        if self.process is not None or not self.folder.exists():
            return False
        try:
            with checkpoint.locked(self.folder):
                return False
        except checkpoint.InUse:
            return True
        except UserError:  # `train.py` will say so
            return False

    @property
    def command(self) -> list[str]:
        """`train.py` from the start, or from where it has left off."""
        folder, flags = "--run-dir", self.flags
        if (self.folder / checkpoint.CONFIG).exists():
            # What it began with is said again: `train.py` refuses what contradicts it.
            folder, flags = "--resume", without_preset(flags)
        return [sys.executable, str(CHECKOUT / "train.py"), *flags, folder, str(self.folder)]

    def begin(self, core: int | None, nice: int) -> None:
        """Starts its command, on one core or on all.

        Raises:
          UserError: the log beside its folder cannot be written.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            log = open(self.folder.with_suffix(".log"), "a")  # noqa: SIM115
        except OSError as error:
            raise UserError(f"cannot write in {self.folder.parent}: {error.strerror}") from error
        with log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for this program, which passes it on
            )
        nice = max(nice, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, self.process.pid, nice)
        if core is not None:
            os.sched_setaffinity(self.process.pid, {core})
        self.core, self.began_at = core, self.saved

    def ended(self) -> bool:
        """Whether its process has ended; if so, counts whether it came any further."""
        if self.process is None or self.process.poll() is None:
            return False
        self.tries = 0 if self.saved > self.began_at else self.tries + 1
        self.process = None
        return True

    def status(self) -> str:
        """One line: how far, how fast, how well, how long still."""
        last = _last_row(self.folder / "metrics.csv", "steps_per_second")
        scored = _last_row(self.folder / "metrics.csv", "eval_score_mean")
        steps = int(last.get("agent_steps", 0))
        rate = float(last.get("steps_per_second", "nan"))
        left = f"{(self.steps - steps) / rate / 3600:6.1f} h left" if rate > 0 else ""
        state = "done" if self.done else "given up" if self.given_up else "waiting"
        state = "elsewhere" if self.elsewhere else state
        if self.process is not None:
            state = "all cores" if self.core is None else f"core {self.core}"
        life = float(last.get("life_reward") or "nan")
        greedy = float(scored.get("eval_score_mean") or "nan")
        return (
            f"{self.folder.name:32} {state:>9} {steps / 1e6:7.3f} of {self.steps / 1e6:g} M "
            f"{rate:5.0f} steps/s  life {life:6.2f}  greedy {greedy:7.1f}"
            f"{'' if self.done else left}"
        )


def without_preset(flags: list[str]) -> list[str]:
    """The flags without `--preset NAME` or `--preset=NAME`: a run has settings of its own."""
    left, rest = [], iter(flags)
    for flag in rest:
        if flag == "--preset":
            next(rest, None)
        elif not flag.startswith("--preset="):
            left.append(flag)
    return left


def _last_row(path: pathlib.Path, column: str) -> dict[str, str]:
    """The last row of metrics in which this column is not empty; what is damaged is no row."""
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return {}
    names = lines[0].split(",") if lines else []
    for line in reversed(lines[1:]):
        with contextlib.suppress(KeyError, ValueError):
            row = dict(zip(names, line.split(","), strict=True))
            int(row["agent_steps"])
            numbers = {name: float(cell) for name, cell in row.items() if cell}
            if column in numbers and math.isfinite(numbers[column]):
                return row
    return {}


def read(path: pathlib.Path, runs: pathlib.Path) -> list[Run]:
    """The runs of a list, whose folders are below `runs`.

    Raises:
      UserError: no such file, or a line without a game or a number of steps, or twice the same run.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    parser = Parser(str(path))
    parser.add_argument("--game", required=True)
    parser.add_argument("--mask", default="both")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--eval-every", type=int)
    parser.add_argument("--run-dir")
    parser.add_argument("--resume", nargs="?", const=True)
    found: dict[pathlib.Path, Run] = {}
    for number, line in enumerate(lines, 1):
        try:
            flags = shlex.split(line, comments=True)
            if not flags:
                continue
            known, _ = parser.parse_known_args(flags)
            if known.run_dir or known.resume:
                raise UserError("the campaign chooses the folder: leave out --run-dir and --resume")
            if known.steps < 1:
                raise UserError(f"--steps {known.steps}: a run has at least 1")
            folder = runs / f"{game_name(known.game)}-{known.mask}-{known.seed}"
        except (UserError, ValueError) as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if folder in found:
            raise UserError(f"{path}, line {number}: {folder.name} stands there twice")
        found[folder] = Run(flags, folder.absolute(), known.steps, known.eval_every != 0)
    return list(found.values())


def carry_on(runs: list[Run], cores: list[int | None], nice: int) -> Iterator[None]:
    """Keeps one run going on every core, in the order of the list, until all are done."""
    free = list(cores)
    while True:
        for run in runs:
            if run.process is not None and run.ended():
                free.append(run.core)
        left = [r for r in runs if r.process is None and not r.done and not r.given_up]
        orphans = [run for run in left if run.elsewhere]
        waiting = [run for run in left if run not in orphans]
        while waiting and len(free) > len(orphans):
            waiting.pop(0).begin(free.pop(0), nice)
        if not left and len(free) == len(cores):
            return
        yield


def stop(runs: list[Run]) -> None:
    """Asks all to save and to end, and waits for it."""
    going = [run.process for run in runs if run.process is not None]
    for process in going:
        process.send_signal(signal.SIGTERM)
    for process in going:
        process.wait()


def main(argv: list[str] | None = None) -> int:
    """The command line; 1 if a run was given up, 130 if it was asked to stop."""
    parser = Parser("python -m benchmarks.campaign", __doc__)
    add = parser.add_argument
    add("list", type=pathlib.Path, metavar="LIST", help="a line of train.py's flags per run")
    add("--runs", type=pathlib.Path, default=checkpoint.RUNS, help="their folder [runs]")
    add("--jobs", type=int, help="runs at a time, each on a core [one per core]")
    add("--only", type=int, metavar="N", help="the run of this number alone, from 0; all cores")
    add("--nice", type=int, default=5, help="of the runs, for the sake of other work [5]")
    add("--every", type=float, default=60.0, help="seconds between two reports [60]")
    add("--status", action="store_true", help="say how the runs stand, and end")
    with exit_on_user_error("benchmarks.campaign"):
        args = parser.parse_args(argv)
        cores: list[int | None] = sorted(os.sched_getaffinity(0))
        if args.jobs is not None and not 1 <= args.jobs <= len(cores):
            raise UserError(f"--jobs {args.jobs}: from 1 to {len(cores)}, a core for each run")
        runs, cores = read(args.list, args.runs), cores[: args.jobs]
        if args.only is not None:
            if not 0 <= args.only < len(runs):
                raise UserError(f"--only {args.only}: the list has {len(runs)} runs, from 0")
            runs, cores = [runs[args.only]], [None]
        if args.status:
            report(runs)
            return 0
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` has it
                signal.signal(number, signal.default_int_handler)
        reported, interrupted = -args.every, False
        try:
            for _ in carry_on(runs, cores, args.nice):
                if time.monotonic() - reported >= args.every:
                    reported = time.monotonic()
                    report(runs)
                time.sleep(1)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # a second one would leave runs behind
            stop(runs)
        report(runs)
    return 130 if interrupted else int(any(run.given_up for run in runs))


def report(runs: list[Run]) -> None:
    """A line per run."""
    print(time.strftime("%H:%M:%S"))
    for run in runs:
        print(run.status(), flush=True)


if __name__ == "__main__":
    # The runs go on when nobody listens any more.
    sys.stdout, sys.stderr = Outlet(sys.stdout), Outlet(sys.stderr)
    sys.exit(main())
