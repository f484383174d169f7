"""Trains Mask-Attention A3C on an Atari game.

    python train.py --game SpaceInvaders
    python train.py --resume [RUN]

On several hosts, the same command on each:

    python train.py --game SpaceInvaders --coordinator HOST:PORT --processes N --process I
    python train.py --game SpaceInvaders --distributed      (TPU pod, SLURM: jax finds out)

Writes `runs/<Game>-<mask>-<seed>/`: checkpoints, metrics.csv, TensorBoard events, config.json.
"""

from maskrl.signals import Outlet, Signals

if __name__ == "__main__":
    SIGNALS = Signals("train.py")  # before the imports, which take seconds and start threads

import argparse
import contextlib
import dataclasses
import importlib.metadata
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import maskrl
from maskrl import checkpoint, config, devices, hosts, training
from maskrl.checkpoint import RUNS
from maskrl.cli import Parser, add_config_flags, run_program
from maskrl.envs import game_name
from maskrl.errors import Fault, UserError, exit_on_user_error
from maskrl.metrics import NotFinite

# A run may move to a machine where the other precision is faster, and end with smaller steps.
MAY_DIFFER = ("steps", "precision", "learning_rate")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "envpool", "numpy")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; only the settings that were given are in the result."""
    parser = Parser("train.py", __doc__)
    parser.add_argument(
        "--preset", choices=config.PRESETS, help="paper: its 35 workers, as 5 groups of 7"
    )
    parser.add_argument("--run-dir", type=pathlib.Path, help="[runs/<Game>-<mask>-<seed>]")
    parser.add_argument(
        "--resume",
        type=pathlib.Path,
        nargs="?",
        const=True,
        metavar="RUN",
        help="go on with this run, or the newest; only --steps, --precision and --learning-rate "
        "may differ",
    )
    parser.add_argument(
        "--distributed", action="store_true", help="several hosts, as the cluster says"
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    parser.add_argument("--processes", type=int, metavar="N", help="one per host")
    parser.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    add_config_flags(parser)
    return parser.parse_args(argv)


def new_run(args: argparse.Namespace, given: dict[str, Any]) -> tuple[config.Config, pathlib.Path]:
    """The settings of a new run, and its folder, which is not there yet."""
    if "game" in given:
        given["game"] = game_name(given["game"])
    chosen = config.PRESETS.get(args.preset, {}) | given
    if args.preset is None and "actors_per_group" not in given:
        default, b = config.Config.actors_per_group, given.get("actors_per_update", 1)
        if 0 < b <= config.MOST_ACTORS:
            actors = devices.fit_actors(default, False, b)
            if actors != default:
                print(f"{actors} actors per group, so that they divide by devices and updates")
            chosen["actors_per_group"] = actors
    settings = config.Config(**chosen)
    if args.preset is None:
        devices.fit_actors(settings.actors_per_group, True, settings.actors_per_update)
    if settings.steps < settings.unroll_steps:
        raise UserError(
            f"--steps {settings.steps} is less than one unroll of all actors: "
            f"at least {settings.unroll_steps}"
        )
    # What these two raise, they raise before the folder is made.
    devices.most_devices(settings.actors_per_group, settings.actors_per_update)
    if settings.origin is not None:
        checkpoint.load_agent(pathlib.Path(settings.origin))
    run = args.run_dir or RUNS / settings.run_name
    try:
        if run.exists() and not holds_nothing(run):
            raise UserError(
                f"{run} exists: go on with --resume {run}, or name another by --run-dir"
            )
    except (OSError, ValueError) as error:
        raise UserError(f"cannot make {run}: {getattr(error, 'strerror', error)}") from error
    return settings, run


def holds_nothing(run: pathlib.Path) -> bool:
    """Whether this is what a start that was killed has left: no configuration, nothing saved."""
    left = {checkpoint.LOCK, f"{checkpoint.CONFIG}.part", checkpoint.CHECKPOINTS}
    saved = run / checkpoint.CHECKPOINTS
    return (
        run.is_dir()
        and all(path.name in left for path in run.iterdir())
        and not (saved.exists() and any(saved.iterdir()))
    )


def old_run(args: argparse.Namespace, given: dict[str, Any]) -> tuple[config.Config, pathlib.Path]:
    """The settings of the run to resume, and its folder."""
    if args.run_dir or args.preset:
        raise UserError("--resume takes the run's own settings: leave out --run-dir and --preset")
    run = checkpoint.newest_run(RUNS, saved=False) if args.resume is True else args.resume
    if run is None:
        raise UserError(f"there is no run in {RUNS}/ to resume: python train.py --game Breakout")
    saved = config.read(run / checkpoint.CONFIG)
    if game_name(saved.game) != saved.game:
        raise UserError(f"{run / checkpoint.CONFIG}: there is no game {saved.game!r}")
    if "game" in given:
        given["game"] = game_name(given["game"])
    wrong = [
        f"{config.flag_of(field)} {given[field.name]} (the run has {getattr(saved, field.name)})"
        for field in dataclasses.fields(config.Config)
        if field.name in given
        and field.name not in MAY_DIFFER
        and given[field.name] != getattr(saved, field.name)
    ]
    if wrong:
        raise UserError(f"contradicts the run {run}: {', '.join(wrong)}")
    reached = checkpoint.Checkpointer(run).newest or 0
    if given.get("steps", saved.steps) < min(saved.steps, reached):
        raise UserError(f"{run} has {reached} agent steps already; --steps counts them")
    changed = {name: given[name] for name in MAY_DIFFER if name in given}
    return dataclasses.replace(saved, **changed), run


@contextlib.contextmanager
def starting(run: pathlib.Path, new: bool, signals: Signals | None) -> Iterator[None]:
    """The first host has the run for itself. If it does not come to train, no new folder stays.

    Raises:
      UserError: the folder cannot be made, or another process has it.
    """
    above = [folder for folder in run.parents if not folder.exists()]

    def undo() -> str:
        if new and not (run / checkpoint.CONFIG).exists():
            shutil.rmtree(run, ignore_errors=True)
            with contextlib.suppress(OSError):  # others may have put something into them
                for folder in above:
                    folder.rmdir()
        return "nothing was changed"

    def begin() -> None:
        try:
            run.mkdir(parents=True, exist_ok=not new or run.exists())
        except OSError as error:
            raise UserError(f"cannot make {run}: {error.strerror}") from error
        held.enter_context(checkpoint.locked(run))
        if signals is not None:
            signals.leave(undo)

    with contextlib.ExitStack() as held:
        hosts.from_first(begin)  # what stops the first host stops the others, too
        try:
            yield
        except BaseException:
            if hosts.is_first():
                undo()
            raise


def main(argv: list[str] | None = None, signals: Signals | None = None) -> int:
    """The command line; without `signals` only Ctrl-C is minded."""
    with exit_on_user_error("train.py"):
        args = parse(argv)
        names = {field.name for field in dataclasses.fields(config.Config)}
        given = {name: value for name, value in vars(args).items() if name in names}
        joining = (args.coordinator, args.processes, args.process)
        if args.distributed or joining != (None, None, None):
            hosts.join(*joining)
        settings, run = hosts.from_first(lambda: (old_run if args.resume else new_run)(args, given))
        with starting(run, not args.resume, signals):
            return train(settings, run, bool(args.resume), signals)


def train(settings: config.Config, run: pathlib.Path, resume: bool, signals: Signals | None) -> int:
    """Makes the trainer, and trains; the exit code."""
    count = devices.most_devices(settings.actors_per_group, settings.actors_per_update)
    trainer = training.Trainer(settings, run, device_count=count, resume=resume)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    versions["maskrl"] = maskrl.__version__
    session = {
        "agent_steps": trainer.counters.agent_steps,
        **{name: getattr(settings, name) for name in MAY_DIFFER},
        "command": sys.argv,
        "versions": versions,
    }
    if hosts.is_first():
        config.write(settings, run / checkpoint.CONFIG, session)
        print(f"{run}: {settings.groups} groups of {settings.actors_per_group} actors")
    go_on = f"go on with: python train.py --resume {run}"
    if signals is not None:
        signals.ask(trainer.stop, lambda: f"not saved, {trainer.newest}; {go_on}")
    try:
        trainer.train()
    except KeyboardInterrupt:
        print(f"interrupted and saved, {trainer.newest}; {go_on}")
        return 130 if signals is None or signals.received is None else signals.exit_code
    except (Fault, NotFinite) as error:
        raise type(error)(f"{error}; {trainer.newest}; {go_on}") from error
    if hosts.is_first():
        print(f"done: python evaluate.py --agent {run}")
    return 0


def program(signals: Signals) -> None:
    """`main` as a program of its own: on every core, and whoever listens may go away."""
    sys.stdout, sys.stderr = Outlet(sys.stdout), Outlet(sys.stderr)
    devices.use_cores()
    run_program(lambda: main(signals=signals))


if __name__ == "__main__":
    program(SIGNALS)
