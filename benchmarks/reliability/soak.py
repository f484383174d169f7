"""A run that saves and evaluates thousands of times, watched from outside."""

import pathlib
import signal
import time
from typing import Any

import matplotlib.pyplot as plt

from benchmarks.reliability.victim import Victim

SHOWN = {"memory": "resident memory, MB", "files": "open files", "threads": "threads"}


def soak(minutes: float, folder: pathlib.Path, every: float = 5.0) -> list[dict[str, Any]]:
    """Trains for so long; samples of memory (MB), open files, threads, steps, saves, evaluations.

    Raises:
      Broken: the run has ended, or does not end as it should.
    """
    victim = Victim(folder, folder / "run")
    samples = []
    try:
        victim.wait_for("training")
        began = time.monotonic()
        while time.monotonic() - began < 60 * minutes and victim.process.poll() is None:
            samples.append({"minutes": (time.monotonic() - began) / 60, **_look(victim)})
            time.sleep(every)
        victim.process.send_signal(signal.SIGTERM)
        victim.ended()
    finally:
        victim.end()
    return samples


def _look(victim: Victim) -> dict[str, int]:
    process = pathlib.Path("/proc") / str(victim.process.pid)
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    found = {"memory": int(status["VmRSS"].split()[0]) // 1024}
    found |= {"threads": int(status["Threads"]), "files": len(list((process / "fd").iterdir()))}
    found |= {"saves": victim.times("saving"), "evaluations": victim.times("evaluating")}
    return found


def draw(samples: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Memory, open files and threads over the minutes, one below the other."""
    figure, axes = plt.subplots(len(SHOWN), sharex=True, figsize=(8, 6), layout="constrained")
    minutes, last = [s["minutes"] for s in samples], samples[-1]
    for axis, (name, label) in zip(axes, SHOWN.items(), strict=True):
        axis.plot(minutes, [s[name] for s in samples], linewidth=1)
        axis.set_ylabel(label)
        axis.set_ylim(0, 1.1 * max(s[name] for s in samples))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_title(f"{last['saves']} saves, {last['evaluations']} evaluations", loc="left")
    axes[-1].set_xlabel("minutes of training")
    figure.savefig(path, dpi=120)
    plt.close(figure)
