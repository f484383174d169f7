"""The command line: flags made from a dataclass's fields, errors as one line."""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any, get_args

from maskrl.config import Config, flag_of
from maskrl.errors import UserError


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
