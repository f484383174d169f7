"""A `train.py` in a process of its own that says where it stands, so that it can be hit there."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from maskrl import checkpoint

CHECKOUT = pathlib.Path(__file__).parents[2]
PATIENCE = 900  # seconds for anything that a process does on a machine with other work
DEVICES = 2  # of the processes, on any machine: that all flags below fit
STAGES = ("start", "training", "saving", "evaluating", "replacing best")
# The smallest network, many saves and evaluations.
FLAGS = (
    *("--game=Breakout", "--core=none", "--mask=none", "--groups=2", "--actors-per-group=2"),
    *("--unroll-length=3", "--steps=1000000", "--save-every=1", "--eval-every=60"),
    *("--eval-episodes=2", "--eval-episode-steps=20"),
)

# train.py, with a letter more in a file whenever the stage changes, a line for the step with which
# training begins, and every agent evaluated as better than those before: best/ is often replaced.
_PROGRAM = """
from maskrl.signals import Signals

SIGNALS = Signals("train.py")
stages, now = open("stages", "ab", buffering=0), [b"0"]
stages.write(b"0")

import time
import numpy as np
import train
from maskrl import checkpoint, evaluation, training

def marked(owner, name, stage):
    inner = getattr(owner, name)

    def outer(*args, **kwargs):
        now.append(stage)
        stages.write(stage)
        try:
            return inner(*args, **kwargs)
        finally:
            now.pop()
            stages.write(now[-1])

    setattr(owner, name, outer)

play, begin = evaluation.Player.play, training.Trainer.train

def better(self, *args, **kwargs):
    games = play(self, *args, **kwargs)
    return evaluation.Games(np.full_like(games.scores, time.time()), games.lengths)

def said(self):
    print(f"begins at step {self.counters.agent_steps}, at {time.time()}", flush=True)
    begin(self)

evaluation.Player.play, training.Trainer.train = better, said
marked(training.Trainer, "train", b"1")
marked(checkpoint.Checkpointer, "save", b"2")
marked(evaluation.Player, "play", b"3")
marked(checkpoint, "save_agent", b"4")
train.program(SIGNALS)
"""


Case = dict[str, Any]  # `what` was attacked, `failed`: why (empty if all held), and numbers


class Broken(Exception):
    """What was promised does not hold; says what."""


@dataclasses.dataclass
class Victim:
    """The process; its folder has `stages` and, of this process alone, `output`.

    Goes on with `run` where that has got as far as a configuration; else begins it.
    """

    folder: pathlib.Path
    run: pathlib.Path

    def __post_init__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "stages").write_bytes(b"0")
        self.new = not (self.run / checkpoint.CONFIG).exists()
        flags = [*FLAGS, f"--run-dir={self.run}"] if self.new else [f"--resume={self.run}"]
        with open(self.folder / "output", "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *flags],
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
            )

    @property
    def stage(self) -> str:
        with open(self.folder / "stages", "rb") as file:
            file.seek(-1, os.SEEK_END)
            return STAGES[int(file.read(1))]

    def times(self, stage: str) -> int:
        """How often it has come to a stage (training: how often it has gone on with it)."""
        return (self.folder / "stages").read_bytes().count(b"%d" % STAGES.index(stage))

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace").replace("\r", "\n")

    @property
    def began(self) -> tuple[int, float] | None:
        """(step with which training began, when); None before."""
        found = re.search(r"begins at step (\d+), at ([\d.]+)\n", self.output)
        return found and (int(found[1]), float(found[2]))

    def wait_for(self, stage: str) -> None:
        """Returns as soon as it is there; raises Broken as `until` does."""
        self.until(lambda: self.stage == stage, stage, every=0.005)

    def until(
        self, condition: Callable[[], bool], what: str = "so far", every: float = 0.1
    ) -> None:
        """Returns as soon as the condition holds; looks every so many seconds.

        Raises:
          Broken: it has ended, or does not get there.
        """
        since = time.monotonic()
        while not condition():
            if self.process.poll() is not None:
                raise Broken(f"ended with {self.process.returncode}: {self.last_line}")
            if time.monotonic() - since > PATIENCE:
                raise Broken(f"not {what} after {PATIENCE} s: {self.last_line}")
            time.sleep(every)

    def ended(self) -> int:
        """Its exit code, which it must come to.

        Raises:
          Broken: it hangs, or has said more than lines that are meant for people.
        """
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise Broken(f"hangs: {self.last_line}") from error
        self.check_output()
        return code

    def check_output(self) -> None:
        """Raises Broken if there is a traceback, or another error of Python's."""
        wrong = re.search(r"Traceback|Exception ignored|^\w*Error\b.*", self.output, re.MULTILINE)
        if wrong:
            raise Broken(f"said {wrong[0]}: {self.last_line}")

    def stands_still(self) -> bool:
        """Whether the system has stopped it: all its threads."""
        status = (pathlib.Path("/proc") / str(self.process.pid) / "stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    @property
    def last_line(self) -> str:
        lines = [line for line in self.output.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "nothing said"

    def end(self) -> None:
        """Kills it, if it is still there."""
        self.process.kill()
        self.process.wait()


def environment() -> dict[str, str]:
    """Of the processes: this checkout, the CPU's devices, and one cache of compiled functions."""
    cache = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(CHECKOUT / ".pytest_cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    flags = os.environ.get("XLA_FLAGS", "")
    devices = {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={DEVICES}"}
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return cache | os.environ | devices | {"PYTHONPATH": os.pathsep.join(paths)}
