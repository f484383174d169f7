"""Command lines at random: wrong ones leave nothing behind, right ones train."""

import contextlib
import dataclasses
import io
import os
import pathlib
import random
import shutil
import signal
from collections.abc import Callable, Iterator

import train
from benchmarks.reliability.victim import Case
from maskrl import checkpoint, config
from maskrl.config import CORES, FRAMES, MASKS, PRECISIONS, Config, flag_of

UPDATES = 2

# What makes runs small; within these, everything goes.
SMALL = {
    "game": ("Breakout", "space_invaders", "PongNoFrameskip-v4", "FishingDerby"),
    "mask": MASKS,
    "core": CORES,
    "frames": FRAMES,
    "precision": PRECISIONS,
    "seed": (0, 1, 2**31 - 1),
    "groups": (1, 2, 3),
    "actors_per_group": (2, 4),
    "actors_per_update": (1, 2),
    "unroll_length": (1, 2, 5),
    "sync_every": (1, 3),
    "learning_rate": (0.0, 1e-4, 1.0),
    "adam_eps": (1e-8, 1e-3, 1.0),
    "max_gradient_norm": (0.0, 40.0, 1e6),
    "discount": (0.0, 0.99, 1.0),
    "gae_lambda": (0.0, 1.0),
    "entropy_cost": (0.0, 0.01, 100.0),
    "value_cost": (0.0, 0.5, 100.0),
    "max_episode_steps": (1, 100, 10_000_000),
    "eval_every": (0, 1, 2**31 - 1),
    "eval_episodes": (1, 3),
    "save_every": (1, 86_400),
}
DIVERGES = "--learning-rate=1.0"  # with it parameters may rightly become no numbers
ALWAYS = {"groups", "actors_per_group", "unroll_length", "eval_every"}
WORDS = ("", "nan", "inf", "-1", "1e400", "2.5", "99999999999999999999", "some", "--", "0x10", "é")


def right(rng: random.Random) -> list[str]:
    """Flags of a run that makes some updates."""
    chosen = {
        name: rng.choice(values)
        for name, values in SMALL.items()
        if name in ALWAYS or rng.random() < 0.5
    }
    unroll = chosen["groups"] * chosen["actors_per_group"] * chosen["unroll_length"]
    chosen |= {"steps": (UPDATES + 1) * unroll, "eval_episode_steps": 5}
    return [f"{flag_of(field)}={chosen[field.name]}" for field in FIELDS if field.name in chosen]


FIELDS = dataclasses.fields(Config)


def wrong(rng: random.Random) -> list[str]:
    """The same, with one thing that cannot be."""
    flags = right(rng)
    field = rng.choice(FIELDS)
    match rng.randrange(4):
        case 0:  # of no kind that this flag takes
            name = flag_of(field)
            numbers = ("", "nan", "inf", "-1", "1e400", "some", "é")
            words = {float: numbers, str: ("", "some", "é")}
            word = rng.choice(words.get(field.type, WORDS))
            return [*flags, f"{name}={word}"]
        case 1 if field.metadata["high"] is not None:  # out of its range
            low, high = field.metadata["low"], field.metadata["high"]
            return [*flags, f"{flag_of(field)}={rng.choice((low - 1, high + 1, high * 10**9))}"]
        case 2:
            return [*flags, rng.choice(("--nonsense", "word", "--seed", "--grou=2", "-x"))]
        case _:
            return [*flags, rng.choice(CONTRADICTIONS)]


CONTRADICTIONS = (
    *("--steps=1", "--actors-per-update=3", "--actors-per-group=10001", "--preset=fast"),
    *("--run-dir=a-file", "--run-dir=a-file/below", f"--run-dir={'x' * 300}", "--resume=absent"),
    *("--resume", "--from=absent", "--process=0", "--processes=2"),
    *("--coordinator=here", "--run-dir=/proc/none", "--run-dir="),
)


def wrong_ones(cases: int, seed: int, folder: pathlib.Path) -> Iterator[Case]:
    """Holds: they end with 2 and one line, and nothing is there that was not."""
    return _each(cases, seed, folder, "wrong flags", wrong, refused)


def right_ones(cases: int, seed: int, folder: pathlib.Path) -> Iterator[Case]:
    """Holds: they train to their last step, or say that their numbers became none."""
    return _each(cases, seed, folder, "right flags", right, trained)


def _each(
    cases: int,
    seed: int,
    folder: pathlib.Path,
    what: str,
    make: Callable[[random.Random], list[str]],
    failing: Callable[[pathlib.Path, list[str]], str],
) -> Iterator[Case]:
    rng = random.Random(seed)
    for number in range(cases):
        here, flags = folder / str(number), make(rng)
        here.mkdir()
        failed = failing(here, flags)
        shutil.rmtree(here)
        yield {"number": number, "what": what, "flags": " ".join(flags), "failed": failed}


def refused(folder: pathlib.Path, flags: list[str]) -> str:
    """Why a wrong command line was not refused as it should; "" if it was."""
    (folder / "a-file").touch()
    before = _contents(folder)
    code, _, said = _run(folder, flags)
    if code != 2:
        return f"exit code {code}"
    if len(said.splitlines()) != 1 or not said.startswith("train.py: error: "):
        return f"said {said!r}"
    return "" if _contents(folder) == before else f"left {_contents(folder)}"


def trained(folder: pathlib.Path, flags: list[str]) -> str:
    """Why a right command line did not train; "" if it did."""
    code, said, errors = _run(folder, [*flags, "--run-dir=run"])
    if code == 128 + signal.SIGINT:  # the attack was asked to stop, and the run took it for itself
        raise KeyboardInterrupt
    if code == 2 and DIVERGES in flags and "is no finite number any more" in errors:
        return ""
    if code != 0:
        return f"exit code {code}: {errors}"
    settings = config.read(folder / "run" / checkpoint.CONFIG)
    steps = checkpoint.Checkpointer(folder / "run").newest
    if steps < settings.steps:
        return f"{steps} steps: {said}"
    return ""


def _run(folder: pathlib.Path, flags: list[str]) -> tuple[int, str, str]:
    """(exit code, what was printed, what was said on stderr) of train.py, in this folder."""
    out, err, before = io.StringIO(), io.StringIO(), pathlib.Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = train.main(flags)
    except SystemExit as error:
        code = error.code
    finally:
        os.chdir(before)
    return code, out.getvalue(), err.getvalue()


def _contents(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
