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
    """Seconds of training, over all sessions of a run: stands still inside `paused`.

    The training loop reads it every tick, which takes a second or two: of a longer gap, in which
    the process was stopped or the machine slept, `MOST` seconds count.
    """

    MOST = 60.0

    def __init__(self, seconds: float):
        self._seconds, self._read, self._paused = seconds, time.monotonic(), False

    @property
    def seconds(self) -> float:
        now = time.monotonic()
        if not self._paused:
            self._seconds += min(now - self._read, self.MOST)
        self._read = now
        return self._seconds

    def paused(self) -> "Clock":
        return self

    def __enter__(self) -> None:
        self._seconds, self._paused = self.seconds, True

    def __exit__(self, *_: object) -> None:
        self._read, self._paused = time.monotonic(), False
