"""The one error that a user can cause, and how an entry point ends on it."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can mend; the message is one line that says how."""


@contextlib.contextmanager
def exit_on_user_error(program: str) -> Iterator[None]:
    """Turns a `UserError` into one line on stderr and exit code 2, without a traceback."""
    try:
        yield
    except UserError as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
