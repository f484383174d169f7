"""Attacks a run and its files, many times; says what held, and what did not.

    python -m benchmarks.reliability kills --cases 100
    python -m benchmarks.reliability moments --cases 1000    (as kills, without starting anew)
    python -m benchmarks.reliability signals --cases 50
    python -m benchmarks.reliability damage --cases 1000
    python -m benchmarks.reliability disk --cases 20         (as root: mounts small disks)
    python -m benchmarks.reliability fuzz --cases 20000
    python -m benchmarks.reliability flags --cases 1000      (wrong ones; `runs` has right ones)
    python -m benchmarks.reliability soak --minutes 60

The smallest runs there are. `--output F.json` keeps every case (of a soak, also F.png); the exit
code is 1 if anything did not hold. docs/reliability.md has what came of it.
"""

import argparse
import collections
import contextlib
import dataclasses
import json
import pathlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.__main__ import machine
from benchmarks.reliability import damage, flags, processes, soak
from benchmarks.reliability.victim import DEVICES, Broken, Case
from maskrl import checkpoint, config, devices, evaluation, files, training
from maskrl.cli import Parser, run_program
from maskrl.errors import UserError, exit_on_user_error
from maskrl.signals import SIGNALS

AGENT = pathlib.Path("agents/Breakout-both")


def finished_run(folder: pathlib.Path) -> pathlib.Path:
    """A run with two checkpoints and a best agent."""
    run = folder / "run"
    run.mkdir()
    settings = config.Config(
        game="Breakout",
        core="none",
        mask="none",
        groups=2,
        actors_per_group=2,
        unroll_length=3,
        steps=40,
    )
    for resume in (False, True):
        settings = dataclasses.replace(settings, steps=settings.steps + 40)
        config.write(settings, run / checkpoint.CONFIG, {})
        trainer = training.Trainer(
            settings, run, device_count=1, resume=resume, evaluate=lambda params: np.zeros(1)
        )
        trainer.train()
    return run


def damaged(cases: int, seed: int, folder: pathlib.Path) -> Iterator[Case]:
    return damage.damaged(cases, seed, folder, finished_run(folder))


def fuzzed(cases: int, seed: int, folder: pathlib.Path) -> Iterator[Case]:
    agent, params, _ = checkpoint.load_agent(AGENT)
    game = evaluation.record(
        agent, params, evaluation.How(max_episode_steps=2), name="an agent", agent_steps=0
    )
    run = finished_run(folder)
    return damage.fuzzed(cases, seed, damage.readers(folder, run, game))


ATTACKS: dict[str, Callable[[int, int, pathlib.Path], Iterator[Case]]] = {
    "kills": processes.kills,
    "moments": processes.moments,
    "signals": processes.signals,
    "damage": damaged,
    "disk": processes.disks,
    "fuzz": fuzzed,
    "flags": flags.wrong_ones,
    "runs": flags.right_ones,
}


def table(cases: Iterable[Case]) -> str:
    """A row for everything that was attacked: how often, how it ended, what did not hold."""
    groups = collections.defaultdict(list)
    for case in cases:
        groups[case["what"]].append(case)
    groups = dict(sorted(groups.items())) | {"all": [c for cs in groups.values() for c in cs]}
    lines = [f"{'':36}{'cases':>8}{'failed':>8}  ends"]
    for what, found in groups.items():
        ends = collections.Counter(case["outcome"] for case in found if "outcome" in case)
        numbers = [f"{n} {end}" for end, n in ends.most_common()]
        for name in ("seconds", "lost_seconds"):
            if some := [case[name] for case in found if case.get(name) is not None]:
                numbers.append(f"{name} median {np.median(some):.1f}, most {max(some):.1f}")
        failed = sum(bool(case["failed"]) for case in found)
        lines.append(f"{what:36}{len(found):8}{failed:8}  {', '.join(numbers)}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command line; 1 if anything did not hold."""
    parser = Parser("python -m benchmarks.reliability", __doc__)
    add = parser.add_argument
    add("attack", choices=[*ATTACKS, "soak"])
    add("--cases", type=int, default=20, help="how many [20]")
    add("--minutes", type=float, default=10.0, help="of a soak [10]")
    add("--seed", type=int, default=0, help="of the attacks [0]")
    add("--output", type=pathlib.Path, help="JSON file; of a soak, a picture beside it")
    with exit_on_user_error("benchmarks.reliability"):
        args = parser.parse_args(argv)
        if args.cases < 1 or not args.minutes > 0:
            raise UserError("--cases and --minutes must be more than 0")
        if args.output:
            files.check_output(args.output)
            if args.attack == "soak":
                files.check_output(args.output.with_suffix(".png"))
        with tempfile.TemporaryDirectory() as folder:
            try:
                return attack(args, pathlib.Path(folder))
            except Broken as error:
                raise UserError(str(error)) from error


def attack(args: argparse.Namespace, folder: pathlib.Path) -> int:
    """Does it, prints the table, writes what came of it."""
    for number in SIGNALS:  # as from a terminal: behind `&` and `nohup` some would be ignored
        default = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    began, report = time.time(), {"attack": args.attack, "seed": args.seed, "machine": machine()}
    cases: list[dict[str, Any]] = []
    if args.attack == "soak":
        cases = soak.soak(args.minutes, folder)
        print(json.dumps(cases[-1]))
        if args.output:
            soak.draw(cases, args.output.with_suffix(".png"))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            progress = tqdm(total=args.cases, unit=" cases")
            for case in ATTACKS[args.attack](args.cases, args.seed, folder):
                cases.append(case)
                progress.update()
                if case["failed"]:
                    progress.write(json.dumps(case))
            progress.close()
        print(table(cases))
    if args.output:
        report |= {"hours": (time.time() - began) / 3600, "cases": cases}
        files.write(args.output, json.dumps(report, indent=1, default=str) + "\n")
    return int(any(case.get("failed") for case in cases))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", DEVICES)
    devices.use_cores()
    run_program(main)
