"""Small files: read within bounds, written whole or not at all, and durably."""

import json
import os
import pathlib
from typing import Any

MAX_JSON = 2**24  # bytes; a result of thousands of games has some 100,000


def read_json(path: pathlib.Path) -> Any:
    """What a JSON file holds.

    Raises:
      OSError: no such file, or it cannot be read.
      ValueError: anything else: not JSON, too large, too deep, NaN or infinity in it.
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


def write(path: pathlib.Path, text: str) -> None:
    """Writes a file; one that is there is replaced at once, even if power fails.

    Raises:
      OSError: it cannot be written; what was there still is.
    """
    partial = path.with_name(path.name + ".part")
    try:
        with open(partial, "w", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: pathlib.Path) -> None:
    """Waits until a file, or a folder's list of files, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: pathlib.Path) -> None:
    """As `sync`, for the folder and everything below it."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)
