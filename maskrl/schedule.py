"""When something is due: every so many steps, or seconds of training."""

import time


class Every:
    """What is done whenever another multiple of an interval of steps or seconds has been passed.

    Args:
      interval: in steps, or in seconds.
      last: when it was done last. A run saves it: however often it is preempted, it comes due.
    """

    def __init__(self, interval: float, last: float):
        self.interval, self.last = interval, last

    def due(self, now: float) -> bool:
        """Whether it is to be done now."""
        return now >= (self.last // self.interval + 1) * self.interval

    def done(self, now: float, interval: float | None = None) -> None:
        """It has been done now, and comes again, if it is given, after another interval."""
        self.last = now
        self.interval = interval or self.interval


class Clock:
    """Seconds of training, over all sessions of a run: stands still inside `paused`."""

    def __init__(self, seconds: float):
        self._start = time.monotonic() - seconds
        self._stopped: float | None = None

    @property
    def seconds(self) -> float:
        now = time.monotonic() if self._stopped is None else self._stopped
        return now - self._start

    def paused(self) -> "Clock":
        return self

    def __enter__(self) -> None:
        self._stopped = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._start += time.monotonic() - self._stopped
        self._stopped = None
