"""How SIGINT, SIGTERM and SIGHUP end a program: one mechanism, wherever the program happens to be.

A thread waits for them (`sigwait`); no code is ever interrupted in its middle, and the thread
answers even while the main thread is inside a library. What it does then is said by stages:
`Signals.leave` (nothing to save: end at once) and `Signals.ask` (the first signal asks, the second
one ends at once). Signals that the parent ignores (`nohup`) stay ignored.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
        """From now on the first signal calls `stop`, the second ends the process."""
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
        while self._wanted:
            number = signal.Signals(signal.sigwait(self._wanted))
            if self._closed:
                return
            first, self.received = self.received is None, self.received or number
            if first and self._ask is not None:
                print(f"\n{number.name}: saving; once more to end at once", file=sys.stderr)
                self._ask()
                continue
            with contextlib.suppress(Exception):
                print(f"\n{self._program}: {number.name}: {self._last_words()}", file=sys.stderr)
                sys.stdout.flush()
            os._exit(128 + number)
