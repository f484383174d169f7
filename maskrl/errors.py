"""The errors that end a program in one line, and how an entry point ends on them."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can mend; the message is one line that says how."""

    exit_code = 2


class Fault(UserError):
    """Something outside failed, an environment or a disk; what could be saved is."""

    exit_code = 1


@contextlib.contextmanager
def exit_on_user_error(program: str) -> Iterator[None]:
    """Turns a `UserError`, or Ctrl-C, into one line on stderr and its exit code: no traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
        sys.exit(error.exit_code)


def one_line(error: Exception) -> str:
    """What the error says, in one line that can be printed."""
    text = " ".join(str(error).split())
    return "".join(c if c.isprintable() else "?" for c in text) or type(error).__name__
