"""Checkpoints, agents and files that are not what was written any more."""

import contextlib
import io
import json
import os
import pathlib
import random
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.reliability.victim import Case
from maskrl import archive, checkpoint, config, loggers, official, recording, run_state, tables
from maskrl.checkpoint import BEST, CHECKPOINTS, CONFIG, Checkpointer
from maskrl.errors import UserError

SLOW = 10  # seconds, after which reading a small file counts as a failure


def _flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _zero(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    size = min(rng.choice((16, 512, 4096)), len(content) - start)
    content[start : start + size] = bytes(size)


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _drop(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.randint(1, 200)]


def _insert(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start:start] = rng.randbytes(rng.randint(1, 200))


def _repeat(content: bytearray, rng: random.Random) -> None:
    start, other = rng.randrange(len(content)), rng.randrange(len(content))
    size = rng.randint(1, 200)
    content[start : start + size] = content[other : other + size]


# What a disk, a cable or a hand does to the bytes of a file (never an empty one).
BYTES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "a bit flipped": _flip,
    "a block of zeros": _zero,
    "cut off": _cut,
    "bytes lost": _drop,
    "bytes added": _insert,
    "bytes copied": _repeat,
}


def damaged(cases: int, seed: int, folder: pathlib.Path, run: pathlib.Path) -> Iterator[Case]:
    """One file of a checkpoint, or of an agent, is damaged; then it is read.

    Holds: it is refused in one line (of checkpoints the next older one is taken instead), or what
    is read is bit by bit what was saved.

    Args:
      run: one with two checkpoints and a best agent.
    """
    rng, copy = random.Random(seed), folder / "copy"
    expected = like(run)
    agent, info = checkpoint.load_agent(run / BEST)[1:]
    saved = {}
    for step in Checkpointer(run).steps():
        _copy(run, copy)
        for other in set(Checkpointer(run).steps()) - {step}:
            shutil.rmtree(copy / CHECKPOINTS / str(other))
        _, *saved[step] = Checkpointer(copy).restore(*expected)

    def read_agent() -> str:
        found, description = checkpoint.load_agent(copy / BEST)[1:]
        _same(found, agent)
        assert description == info
        return "unchanged"

    def read_checkpoint() -> str:
        step, *found = Checkpointer(copy).restore(*expected)
        _same(found, saved[step])
        return "unchanged" if step == max(saved) else "the older one"

    targets = {"agent": read_agent, "checkpoint": read_checkpoint}
    for number in range(cases):
        target, kind = rng.choice(list(targets)), rng.choice([*BYTES, "gone"])
        case = {"number": number, "what": f"{target}: {kind}", "failed": ""}
        _copy(run, copy)
        inside = copy / BEST
        if target == "checkpoint":
            inside = copy / CHECKPOINTS / str(Checkpointer(copy).newest)
        path = rng.choice([p for p in sorted(inside.rglob("*")) if p.is_file()])
        content = bytearray(path.read_bytes())
        path.unlink()  # a name of the same file as the original's
        if kind != "gone":
            if content:
                BYTES[kind](content, rng)
            path.write_bytes(content)
        case["file"] = str(path.relative_to(inside))
        case |= judge(targets[target])
        yield case


def judge(read: Callable[[], str]) -> Case:
    """{"outcome": what `read` returns, or "refused", "failed": why}."""
    began = time.monotonic()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            outcome, failed = read(), ""
    except UserError as error:
        outcome = "refused"
        failed = "" if len(str(error).splitlines()) == 1 else f"not one line: {error}"
    except Exception as error:
        outcome, failed = "broken", f"{type(error).__name__}: {error}"[:300]
    if time.monotonic() - began > SLOW:
        failed = failed or f"took {time.monotonic() - began:.0f} s"
    return {"outcome": outcome, "failed": failed}


def _copy(run: pathlib.Path, copy: pathlib.Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, copy_function=os.link)


def _same(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if np.asarray(a).tobytes() != np.asarray(b).tobytes():
            raise AssertionError("loaded silently wrong")


def like(run: pathlib.Path) -> tuple[Any, Any]:
    """Trees of the shapes of the run's checkpoints."""
    settings = config.read(run / CONFIG)
    agent = Checkpointer(run).restore_agent()[0]
    return archive.to_tree(run_state.fresh(agent, settings, jax.random.PRNGKey(0)))


def fuzzed(cases: int, seed: int, readers: "Readers") -> Iterator[Case]:
    """Files of every kind that is read, changed at random; then they are read.

    Holds: read, or refused in one line; in seconds, and without much memory.
    """
    rng = random.Random(seed)
    whole = {path: path.read_bytes() for path in readers}
    above = os.path.commonpath(readers)
    for number in range(cases):
        path = rng.choice(list(readers))
        kind, content = changed(whole[path], path.suffix, rng)
        case = {"number": number, "what": str(path.relative_to(above)), "kind": kind, "failed": ""}
        path.write_bytes(content)
        case |= judge(lambda: (readers[path](path) and None) or "read")  # noqa: B023
        path.write_bytes(whole[path])
        yield case


def changed(content: bytes, suffix: str, rng: random.Random) -> tuple[str, bytes]:
    """(what was done, the file's new content)."""
    kinds = [*BYTES]
    if suffix == ".json":
        kinds += ["another value"] * len(BYTES)
    if suffix in (".npz", ".dat"):
        kinds += ["inside the archive"] * len(BYTES)
    kind = rng.choice(kinds)
    if kind == "another value":
        return kind, _another_value(content, rng)
    if kind == "inside the archive":
        return kind, _inside(content, rng)
    new = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        BYTES[kind](new, rng)
        new = new or bytearray(b" ")
    return kind, bytes(new)


VALUES = (
    *(None, True, -1, 0, 2.5, 1e308, 10**30, "", "x" * 10_000, "../../etc/passwd", "\0"),
    *([], {}, [[[[]]]], [None], {"a": {}}, "Pong", "both", float("nan"), float("inf")),
)


def _another_value(content: bytes, rng: random.Random) -> bytes:
    """A JSON file with one value, however deep, of another type or size, absent or new."""
    tree = json.loads(content)
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            break
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        match rng.randrange(4):
            case 0:
                del node[key]
            case 1 if isinstance(node, dict):
                node[rng.choice(("unknown", "", "__class__"))] = rng.choice(VALUES)
            case _:
                node[key] = rng.choice(VALUES)
        break
    return json.dumps(tree).encode()


def _inside(content: bytes, rng: random.Random) -> bytes:
    """A zip archive with one member changed, so that its checksum holds all the same."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        infos = old.infolist()
        hit = rng.randrange(len(infos))
        for number, info in enumerate(infos):
            member = bytearray(old.read(info))
            if number == hit:
                # The first bytes say what an array is; most of the others are any numbers.
                head, rest = member[:200], member[200:]
                BYTES[rng.choice(list(BYTES))](head or bytearray(b" "), rng)
                member = head + rest
            new.writestr(info.filename, bytes(member), rng.choice((0, 0, zipfile.ZIP_DEFLATED)))
    return out.getvalue()


Readers = dict[pathlib.Path, Callable[[pathlib.Path], Any]]


def readers(folder: pathlib.Path, run: pathlib.Path, game: recording.Recording) -> Readers:
    """A whole file of every kind, and what reads it.

    Args:
      run: one with a best agent.
    """
    recording.write(game, folder / "recording.npz")
    numbers = dict.fromkeys(tables.KEYS, 1.0) | {"scores": [1.0], "lengths": [2]}
    words = {"game": "Breakout", "mask": "both", "mode": "inverse", "branch": "policy"}
    words |= {"source": "a run", "sample": False}
    (folder / "result.json").write_text(json.dumps(numbers | words))
    for source in (run / CONFIG, run / BEST / checkpoint.AGENT, run / "metrics.csv"):
        shutil.copy(source, folder)
    (folder / checkpoint.PARAMS).mkdir()
    found: Readers = {
        folder / "recording.npz": recording.read,
        folder / "result.json": lambda path: tables.markdown(tables.read_results([path])),
        folder / CONFIG: config.read,
        folder / checkpoint.AGENT: lambda path: checkpoint.describe(path.parent),
        folder / "metrics.csv": lambda path: loggers.read_rows(path, 1000),
    }
    # With its checksum mended, so that what the checksum guards is asked, too.
    resealed = folder / "resealed" / checkpoint.AGENT
    (resealed.parent / checkpoint.PARAMS).mkdir(parents=True)
    shutil.copy(folder / checkpoint.AGENT, resealed)
    found[resealed] = _read_resealed
    step = dict.fromkeys(official.TRAIN_STEP, np.zeros(3, np.float32))
    np.savez(folder / "train_step.npz", **step)
    found[folder / "train_step.npz"] = official.read_train_step
    try:
        import torch
    except ImportError:  # not needed but to read the original's agents
        return found
    weights = {f"conv{n}.weight": torch.ones(2, 3) for n in range(3)}
    torch.save(weights, folder / "agent.dat")
    return found | {folder / "agent.dat": official.read_state_dict}


def _read_resealed(path: pathlib.Path) -> None:
    with contextlib.suppress(ValueError, AttributeError, RecursionError):
        content = json.loads(path.read_text())
        content.pop("sha256", None)
        path.write_text(checkpoint.sealed(content))
    checkpoint.describe(path.parent)
