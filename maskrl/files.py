"""How a file comes to be whole, or not at all, and made by one process; JSON, rows of CSV files."""

import contextlib
import csv
import fcntl
import functools
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from maskrl.errors import UserError

MAX_JSON = 2**24  # bytes; the result of 10,000 games has some 200,000


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path beside `path` to write a file or a folder to, which then takes the name `path`.

    It does so last, when everything is on disk: a kill or a power cut leaves what was there before.
    (A folder that is replaced is put aside first, as NAME.old: for an instant there is none of the
    name.) After an error nothing is left of what was written. The folder above is made.

    Raises:
      UserError: it cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)  # of a process that was killed
        yield partial
        for written in (*partial.rglob("*"), partial):
            _sync(written)
        if path.is_dir() and partial.is_dir():
            aside = path.with_name(path.name + ".old")
            _remove(aside)
            path.rename(aside)
            partial.rename(path)
            _remove(aside)
        else:
            partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            _remove(partial)


def write(path: pathlib.Path, text: str) -> None:
    """Writes a text, UTF-8; see `whole`."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def locked(path: pathlib.Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process holds a lock, a file: no other one does inside, if so.

    It does unless another one does that is not to be waited for. The system lets go, however a
    process ends. The folder above is made.

    Raises:
      UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot write in {path.parent}: {error.strerror}") from error
    with file:
        held = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError as error:
            _warn_of_no_locks(path.parent, error.strerror)
        yield held


@functools.cache  # said once
def _warn_of_no_locks(folder: pathlib.Path, why: str) -> None:
    print(f"no locks in {folder} ({why}): let one process alone work there", file=sys.stderr)


@contextlib.contextmanager
def claimed(path: pathlib.Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether it falls to this process to make the file: no other one does inside, or has done.

    Raises:
      UserError: it cannot be written.
    """
    lock = path.with_name(path.name + ".lock")
    with locked(lock, wait=wait) as held:
        yield held and not path.exists()
        # Whoever has opened the lock before, and gets it now, sees the file.
        if held and path.exists():
            lock.unlink(missing_ok=True)


def exists(path: pathlib.Path) -> bool:
    """Also where the path is none at all: too long, with a NUL, below a file."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def check_new(path: pathlib.Path | None) -> None:
    """Raises UserError if something has that name, or nothing can: nothing is overwritten."""
    try:
        taken = path is not None and path.exists()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    if taken:
        raise UserError(f"{path} exists: name another")


def free_name(path: pathlib.Path) -> pathlib.Path:
    """The path, or with a number behind it if there is such a file: nothing is overwritten."""
    candidates = (path.with_stem(f"{path.stem}-{n}") for n in range(2, 10_000))
    return path if not path.exists() else next(p for p in candidates if not p.exists())


def check_writable(path: pathlib.Path) -> None:
    """Raises UserError now, and not after hours, if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with open(path, "a"):
            pass
        if new:
            path.unlink()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def check_output(path: pathlib.Path) -> None:
    """Raises UserError unless the file is new, and can be written."""
    check_new(path)
    check_writable(path)


def read_json(path: pathlib.Path) -> Any:
    """What a JSON file holds.

    Raises:
      OSError: no such file, or it cannot be read.
      ValueError: anything else: not JSON, too large, too deep, with NaN or infinity.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a file")
    with open(path, "rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ValueError("too large")

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    try:
        return json.loads(content, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError("too deep") from error


def read_rows(path: pathlib.Path, *names: str, **where: str) -> list[dict[str, str]]:
    """Rows of a CSV file, of all columns: those that have `names` and match `where`.

    Raises:
      UserError: no such file, or no such columns in it.
    """
    try:
        with open(path, newline="") as file:
            return [
                row
                for row in csv.DictReader(file)
                if all(row[n] for n in names) and all(row[k] == v for k, v in where.items())
            ]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise _unreadable(path, names, error) from error


def read_columns(path: pathlib.Path, *names: str, **where: str) -> list[np.ndarray]:
    """Columns of a CSV file as floats, of the rows where all of them are finite and `where` holds.

    Raises:
      UserError: no such file, or no such columns of numbers in it.
    """
    rows = read_rows(path, *names, **where)
    try:
        numbers = [np.array([float(row[name]) for row in rows]) for name in names]
    except ValueError as error:
        raise _unreadable(path, names, error) from error
    finite = np.isfinite(numbers).all(axis=0)
    return [column[finite] for column in numbers]


def _unreadable(path: pathlib.Path, names: Sequence[str], error: Exception) -> UserError:
    return UserError(f"cannot read {', '.join(names)} from {path}: {error}")


def _remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: pathlib.Path) -> None:
    """Waits until a file's contents, or a folder's names, are on disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
