"""The command line: flags made from a dataclass's fields, errors as one line, progress lines."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TextIO, get_args

from tqdm import tqdm

from maskrl.config import Config, flag_of
from maskrl.errors import Fault, UserError

_SELDOM = 30  # seconds between lines of progress that go to a file
_KNOWN = "{desc}{percentage:3.0f}% {n_fmt}/{total_fmt} {remaining} left {rate_fmt}{postfix}"
_UNKNOWN = "{desc}{n_fmt}{unit} {elapsed} {rate_fmt}{postfix}"


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `UserError` instead of printing its usage."""

    def __init__(self, prog: str, description: str | None = None, **kwargs: Any):
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **kwargs,
        )

    def error(self, message: str) -> None:
        raise UserError(f"{message} (see --help)")


def run_program(main: Callable[[], int]) -> NoReturn:
    """Runs a command as a program of its own, and exits.

    After a `Fault` at once: threads that wait for a lost environment would be waited for.
    """
    try:
        code = main()
    except SystemExit as error:
        code = error.code
        if code == Fault.exit_code:
            sys.stdout.flush()
            os._exit(code)
    sys.exit(code)


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per field of `Config`; a flag that is not given does not appear in the result."""
    for field in dataclasses.fields(Config):
        # `int | None`: None is what a flag that is not given means.
        kind = next((k for k in get_args(field.type) if k is not type(None)), field.type)
        default = "" if field.default is None else f" [{field.default}]"
        parser.add_argument(
            flag_of(field),
            dest=field.name,
            type=kind,
            choices=field.metadata["choices"],
            default=argparse.SUPPRESS,
            metavar=None if field.metadata["choices"] else kind.__name__.upper(),
            help=f"{field.metadata['help']}{default}".replace("%", "%%"),
        )


def integers(count: int) -> Callable[[str], tuple[int, ...]]:
    """A type of argument: so many whole numbers, separated by commas."""

    def parse(text: str) -> tuple[int, ...]:
        numbers = tuple(int(part) for part in text.split(","))
        if len(numbers) != count:
            raise argparse.ArgumentTypeError(f"{count} numbers separated by commas, not {text}")
        return numbers

    parse.__name__ = f"{count} numbers separated by commas"
    return parse


def progress(
    iterable: Iterable | None = None, *, desc: str = "", total: int | None = None, **options: Any
) -> tqdm:
    """A progress line without a bar: what it says fits 60 columns. `options` are tqdm's.

    On a terminal it is drawn over and over; in a file, a line now and then.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    form = _UNKNOWN if total is None else _KNOWN
    options |= {"bar_format": form, "total": total, "desc": f"{desc}: " if desc else None}
    if sys.stderr.isatty():
        return tqdm(iterable, dynamic_ncols=True, **options)
    options |= {"mininterval": _SELDOM, "maxinterval": _SELDOM}
    return tqdm(iterable, file=_Lines(sys.stderr), **options)


class _Lines:
    """A stream in which what would be drawn over becomes a line of its own.

    It does not inherit from `io`: that would flush when it is collected, long after `stream` may
    have been closed.
    """

    def __init__(self, stream: TextIO):
        self._stream, self._last = stream, ""

    def write(self, text: str) -> int:
        line = text.strip()
        if line and line != self._last:
            self._stream.write(f"{line}\n")
            self._last = line
        return len(text)

    def flush(self) -> None:
        self._stream.flush()
