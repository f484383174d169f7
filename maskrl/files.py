"""How a file comes to be whole, or not at all."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from maskrl.errors import UserError


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
        if path.is_dir():
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
