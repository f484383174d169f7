"""Runs that are killed, asked to stop, and left without a disk."""

import contextlib
import math
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.reliability.damage import like
from benchmarks.reliability.victim import STAGES, Broken, Case, Victim
from maskrl import checkpoint, loggers
from maskrl.checkpoint import BEST, CHECKPOINTS, CONFIG, Checkpointer
from maskrl.errors import UserError
from maskrl.signals import ECHO

NEW_RUN = 0.15  # the share of cases that begin a new run instead of going on with the one before
# Seconds within a stage at which it is hit, at most.
SPANS = {"start": 8.0, "training": 3.0, "saving": 0.5, "evaluating": 1.0, "replacing best": 0.3}


@contextlib.contextmanager
def _victim(case: Case, folder: pathlib.Path, run: pathlib.Path) -> Iterator[Victim]:
    """A process to attack, which is then ended; what did not hold is put down in the case."""
    victim = Victim(folder, run)
    try:
        yield victim
    except Broken as error:
        case["failed"] = str(error)
    finally:
        victim.end()


def kills(cases: int, seed: int, folder: pathlib.Path) -> Iterator[Case]:
    """SIGKILL at random moments of every stage; each process goes on with what the last one left.

    Holds: training begins with the newest checkpoint that was there; that one, and the best agent,
    are never harmed; the curve stays one curve.
    """
    for case, rng, run, stage in _stages(cases, seed, folder):
        before, best = newest_of(run), checkpoint.score_of(run / BEST)
        case |= {"lost_seconds": None}
        with _victim(case, folder, run) as victim:
            victim.wait_for(stage)
            time.sleep(rng.uniform(0, SPANS[stage]))
            began, case["what"] = victim.began, victim.stage
            lost = time.time() - max(_saved_at(run), began[1] if began else 0)
            victim.end()
            victim.check_output()
            if began is not None:
                case["lost_seconds"] = lost
                if began[0] != before:
                    raise Broken(f"began at step {began[0]}, and {before} was there")
            if newest_of(run) < before:
                raise Broken(f"step {before} was there, {newest_of(run)} is now")
            if best is not None and (checkpoint.score_of(run / BEST) or 0) < best:
                raise Broken("the best agent was lost, or became worse")
            _check_run(run)
        yield case


def moments(cases: int, seed: int, folder: pathlib.Path) -> Iterator[Case]:
    """What SIGKILL would leave, many times of one process: it is stopped, its folder is copied.

    A process that is killed leaves what it has written to files, and nothing else of it lives on:
    the copy is what a kill at this moment would have left. The copy is gone on with here.

    Holds: the newest checkpoint is whole, both parts, and not older than what was there; so is the
    best agent; the curve is one curve; what was half written can be cleared away.
    """
    rng, newest, best, expected = random.Random(seed), 0, -math.inf, None
    victim = Victim(folder, folder / "run")
    copy = folder / "copy"
    try:
        victim.until(lambda: newest_of(victim.run) > 0)
        expected = like(victim.run)
        for number in range(cases):
            stage = rng.choice(STAGES[1:])
            victim.wait_for(stage)
            time.sleep(rng.uniform(0, SPANS[stage]))
            os.kill(victim.process.pid, signal.SIGSTOP)
            victim.until(victim.stands_still, every=0.005)
            case = {"number": number, "what": victim.stage, "failed": ""}
            case["lost_seconds"] = time.time() - _saved_at(victim.run)
            case["half_written"] = len(list(victim.run.rglob("*.part")))
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(victim.run, copy)
            os.kill(victim.process.pid, signal.SIGCONT)
            try:
                step, score = _go_on(copy, expected)
                if step < newest or score < best:
                    raise Broken(f"step {newest}, score {best} were there: {step}, {score}")
                newest, best = step, score
            except Broken as error:
                case["failed"] = str(error)
            yield case
    finally:
        victim.end()


def _go_on(run: pathlib.Path, expected: tuple[Any, Any]) -> tuple[int, float]:
    """(step, score of the best agent) of what going on with a run finds, checked."""
    _check_run(run)
    checkpointer = Checkpointer(run)
    step = checkpointer.restore(*expected)[0]
    if step != checkpointer.newest:
        raise Broken(f"began at step {step}, and {checkpointer.newest} was there")
    checkpointer.clean()
    if list(checkpointer.folder.rglob("*.part")):
        raise Broken("something half written stays")
    score = checkpoint.score_of(run / BEST)
    return step, -math.inf if score is None else score


def signals(cases: int, seed: int, folder: pathlib.Path) -> Iterator[Case]:
    """SIGINT, SIGTERM and SIGHUP at random moments of every stage, every other time twice.

    Holds: what it says of the newest checkpoint is true, and that one is whole; the shell's exit
    code; nothing is left of a run that was stopped before it began to train.
    """
    for case, rng, run, stage in _stages(cases, seed, folder):
        before, number = newest_of(run), rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        twice = case["number"] % 2 == 1
        with _victim(case, folder, run) as victim:
            # Before, Python itself is starting, and does as Python does.
            victim.until(lambda: victim.times("start") > 1)
            victim.wait_for(stage)
            time.sleep(rng.uniform(0, SPANS[stage]))
            case["what"] = f"{victim.stage}{', twice' * twice}"
            asked = time.monotonic()
            victim.process.send_signal(number)
            if twice:
                time.sleep(rng.uniform(0, 2 * ECHO))
                victim.process.send_signal(number)
            code = victim.ended()
            case |= {"signal": number.name, "seconds": time.monotonic() - asked}
            case["said"] = victim.last_line
            if code != 128 + number:
                raise Broken(f"{number.name}: exit code {code}")
            _check_last_words(victim, before)
            _check_run(run)
        yield case


def _check_last_words(victim: Victim, before: int) -> None:
    """Raises Broken unless what it said when it was asked to stop is true."""
    newest = newest_of(victim.run)
    claimed = re.search(r"the newest checkpoint is step (\d+)", victim.last_line)
    if victim.began is None and claimed is None:
        if newest != before or (victim.new and victim.run.exists()):
            raise Broken(f"left something behind: {victim.last_line}")
        if "nothing was" not in victim.last_line:
            raise Broken(f"no word: {victim.last_line}")
    elif "there is no checkpoint" in victim.last_line:
        if newest:
            raise Broken(f"there is a checkpoint of step {newest}: {victim.last_line}")
    elif claimed is None or int(claimed[1]) != newest:
        raise Broken(f"the newest is {newest}: {victim.last_line}")


def disks(cases: int, seed: int, folder: pathlib.Path) -> Iterator[Case]:
    """Runs on a small disk of their own that fills up, or cannot be written; needs root.

    Holds: it is said in one line, training goes on, and once the fault is over a checkpoint is
    written; a run whose last save failed ends with 1; the checkpoint before is whole; no hang.
    """
    rng = random.Random(seed)
    if os.geteuid() != 0:
        raise UserError("disk mounts small disks, and only root may")
    kinds = [(fault, over) for fault in FAULTS for over in (True, False)]
    for number in range(cases):
        fault, over = kinds[number % len(kinds)]
        case = {"number": number, "what": f"{fault}{', then over' * over}", "failed": ""}
        disk = folder / f"disk-{number}"
        disk.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=400", "tmpfs", disk], check=True
        )
        victim = Victim(folder / f"case-{number}", disk / "run")
        try:
            victim.until(lambda: newest_of(victim.run) > 0)  # noqa: B023
            time.sleep(rng.uniform(0, 1.5))
            mend = FAULTS[fault](disk, victim)  # it may be called more than once
            victim.until(lambda: "cannot save" in victim.output)  # noqa: B023
            time.sleep(rng.uniform(0, 2))
            before = newest_of(victim.run)
            if over:
                mend()
                victim.until(lambda: newest_of(victim.run) > before)  # noqa: B023
            asked = time.monotonic()
            victim.process.send_signal(signal.SIGTERM)
            code = victim.ended()
            case |= {"seconds": time.monotonic() - asked, "said": victim.last_line}
            if code != (143 if over else 1):
                raise Broken(f"exit code {code}: {victim.last_line}")
            mend()
            _check_run(victim.run)
            if not over and newest_of(victim.run) != before:
                raise Broken(f"step {before} was the newest, {newest_of(victim.run)} is")
        except Broken as error:
            case["failed"] = str(error)
        finally:
            victim.end()
            subprocess.run(["umount", "--recursive", disk], check=True)
        yield case


def _full(disk: pathlib.Path, victim: Victim) -> Callable[[], Any]:
    """Fills the disk, to some bytes that a save begins with."""
    with open(disk / "full", "wb", buffering=0) as file:
        try:
            while file.write(bytes(2**16)):
                pass
        except OSError:
            file.truncate(max(os.path.getsize(disk / "full") - 50_000, 0))
    return lambda: (disk / "full").unlink(missing_ok=True)


def _no_inodes(disk: pathlib.Path, victim: Victim) -> Callable[[], Any]:
    (disk / "many").mkdir()
    left = os.statvfs(disk).f_ffree
    for n in range(max(left - 5, 0)):
        try:
            (disk / "many" / str(n)).touch()
        except OSError:
            break
    return lambda: [path.unlink() for path in (disk / "many").iterdir()]


def _read_only(disk: pathlib.Path, victim: Victim) -> Callable[[], Any]:
    # Files that are open for writing forbid it for the disk: the folder alone, mounted over itself.
    folder = victim.run / CHECKPOINTS
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    return lambda: subprocess.run(["umount", "--quiet", folder])  # fails the second time


def _immutable(disk: pathlib.Path, victim: Victim) -> Callable[[], Any]:
    subprocess.run(["chattr", "+i", victim.run / CHECKPOINTS], check=True)
    return lambda: subprocess.run(["chattr", "-i", victim.run / CHECKPOINTS], check=True)


def _size_limit(disk: pathlib.Path, victim: Victim) -> Callable[[], Any]:
    pid, kind = victim.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (20_000, before[1]))
    return lambda: victim.process.poll() is None and resource.prlimit(pid, kind, before)


FAULTS: dict[str, Callable[[pathlib.Path, Victim], Callable[[], Any]]] = {
    "disk full": _full,
    "no inodes left": _no_inodes,
    "read-only": _read_only,
    "folder immutable": _immutable,
    "size limit": _size_limit,
}


def _stages(
    cases: int, seed: int, folder: pathlib.Path
) -> Iterator[tuple[Case, random.Random, pathlib.Path, str]]:
    """(an empty case, its random numbers, the run to go on with, the stage to hit)."""
    rng, runs = random.Random(seed), 0
    for number in range(cases):
        runs += rng.random() < NEW_RUN
        case = {"number": number, "what": "", "failed": ""}
        yield case, rng, folder / f"run-{runs}", STAGES[number % len(STAGES)]


def newest_of(run: pathlib.Path) -> int:
    """The step of the newest checkpoint that was written whole; 0 without any."""
    return Checkpointer(run).newest or 0


def _saved_at(run: pathlib.Path) -> float:
    """When the newest checkpoint was on disk; 0 without any."""
    path = run / CHECKPOINTS / str(newest_of(run)) / checkpoint.AGENT
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _check_run(run: pathlib.Path) -> None:
    """Raises Broken unless what a run has left is whole: checkpoint, best agent, curve."""
    if not (run / CONFIG).exists():
        return
    try:
        if step := newest_of(run):
            info = Checkpointer(run).restore_agent()[2]
            if info.agent_steps != step:
                raise Broken(f"step {step} is damaged")
        if (run / BEST / checkpoint.AGENT).exists():
            checkpoint.load_agent(run / BEST)
        rows, damaged = loggers.read_rows(run / "metrics.csv", 2**31)
    except UserError as error:
        raise Broken(str(error)) from error
    if damaged > 1:
        raise Broken(f"{damaged} damaged rows in metrics.csv")
    steps = [int(row["agent_steps"]) for row in rows]
    if steps != sorted(steps):
        raise Broken("the curve goes back")
