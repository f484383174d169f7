"""How SIGINT, SIGTERM and SIGHUP end a program: one mechanism, wherever the program happens to be.

A thread waits for them (`sigwait`); no code is ever interrupted in its middle, and the thread
answers even while the main thread is inside a library. What it does then is said by stages:
`Signals.leave` (nothing to save: end at once) and `Signals.ask` (the first signal asks, the second
one ends at once, unless it is the first one's echo: a closed terminal's shell and the kernel send
one each, and `timeout` and `srun` may do likewise). Signals that the parent ignores (`nohup`) stay
ignored. Whoever listens, a terminal or `| tee`, often ends with the same signal: an `Outlet` stands
that.
"""

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ECHO = 1.0  # seconds after the first signal in which others say nothing new


class Signals:
    """Takes over the signals of this process, until `close`.

    To be made in the main thread and before other threads, which inherit that they do not get them.
    """

    def __init__(self, program: str):
        self._program = program
        self._wanted = {s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN}
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._wanted)
        self._closed = False
        self.received: signal.Signals | None = None  # the first one
        self.leave(lambda: "nothing was saved")
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._thread.start()

    def leave(self, last_words: Callable[[], str]) -> None:
        """From now on the first signal ends the process, after `last_words`, which clean up."""
        self._ask, self._last_words = None, last_words

    def ask(self, stop: Callable[[], None], last_words: Callable[[], str]) -> None:
        """From now on the first signal calls `stop`, one that is no echo of it ends the process."""
        self._ask, self._last_words = stop, last_words

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that the signal ended."""
        return 128 + self.received

    def close(self) -> None:
        """Lets go of the signals."""
        self._closed = True
        if self._wanted:
            signal.pthread_kill(self._thread.ident, min(self._wanted))
            self._thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def _wait(self) -> None:
        asked = -ECHO
        while self._wanted:
            number = signal.Signals(signal.sigwait(self._wanted))
            if self._closed:
                return
            first, self.received = self.received is None, self.received or number
            if time.monotonic() - asked < ECHO:
                continue
            if first and self._ask is not None:
                asked = time.monotonic()
                self._ask()
                with contextlib.suppress(Exception):
                    print(f"\n{number.name}: saving; once more to end at once", file=sys.stderr)
                continue
            with contextlib.suppress(Exception):
                print(f"\n{self._program}: {number.name}: {self._last_words()}", file=sys.stderr)
                sys.stdout.flush()
            os._exit(128 + number)


class Outlet:
    """A standard stream that no failure ends the program: what cannot be said is lost.

    Once nobody listens any more, all is.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, function: Callable, *args: str) -> None:
        try:
            function(*args)
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
