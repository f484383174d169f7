"""Which frames of a game to show, and why; where its lives and stages begin.

Frame t is the moment at which the agent chooses action t, so "just before a reward" is the frame
whose action brought it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from maskrl.errors import UserError
from maskrl.recording import Recording

DANGER = 45  # steps, three seconds, before a lost life: the blow, and how the game shows it
ANNOUNCED = 60  # steps: how long a game may announce a new life or stage, standing still
MOST_FRAMES = 60  # that a person may ask for: more are unreadable in one figure

# Where the consoles' memory shows that a stage begins: the state (bool [T] of uint8 [T, 128]) that
# every stage begins in. Fishing Derby has one stage; other games are unknown and have none here.
_STAGE_STATE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Breakout": lambda ram: np.unpackbits(ram[:, :36], axis=1).sum(axis=1) == 240,  # whole wall
    "MsPacman": lambda ram: ram[:, 119] == 0,  # dots eaten in this maze
    "SpaceInvaders": lambda ram: ram[:, 17] == 36,  # invaders left of this wave
    "BeamRider": lambda ram: ram[:, 84] == 15,  # enemy ships left in this sector
    "Seaquest": lambda ram: (
        ram[:, 62] < 6
    ),  # divers aboard: six are brought up, a harder dive begins
}


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A frame to show."""

    index: int
    reason: str  # one line, for captions


@dataclasses.dataclass(frozen=True)
class Boundaries:
    """Where lives and stages begin, the game's first frame left out."""

    lives: tuple[int, ...]  # first frames after a lost life
    stages: tuple[int, ...]  # first frames of the second stage (wave, wall, maze ...) and later


def boundaries(recording: Recording) -> Boundaries:
    """The recording's lives and stages; of games whose stages are unknown, lives alone."""
    lives = np.flatnonzero(recording.life_start[1:]) + 1
    stages = np.array([], int)
    if recording.game in _STAGE_STATE:
        begins = _STAGE_STATE[recording.game](recording.ram)
        stages = np.flatnonzero(begins[1:] & ~begins[:-1]) + 1
        stages = np.setdiff1d(stages, lives)  # Seaquest: a lost life costs a diver, no dive ends
    return Boundaries(tuple(lives.tolist()), tuple(stages.tolist()))


def choose(recording: Recording, count: int) -> list[Chosen]:
    """The most telling frames, in order, spread over the game.

    The game is cut into `count` stretches of equal length; in turn, the largest reward, the largest
    jump of the value, the highest entropy and the danger before a lost life take one of the
    stretches that are left, until each stretch has its frame.

    Args:
      recording: the game.
      count: how many frames; all of them where the game has fewer.
    """
    length = len(recording)
    if length <= count:
        return [Chosen(t, "every frame of this short game") for t in range(length)]
    stretch = np.arange(length) * count // length
    gap = length // (4 * count)
    free = np.ones(length, bool)
    chosen: list[Chosen] = []
    while len(chosen) < count:
        for strength, reason in _signals(recording):
            wanted = np.where(free, strength, -np.inf)
            t = int(np.argmax(wanted))
            if np.isfinite(wanted[t]) and len(chosen) < count:
                chosen.append(Chosen(t, reason(t)))
                free[stretch == stretch[t]] = False
                free[max(t - gap, 0) : t + gap + 1] = False
    return sorted(chosen, key=lambda frame: frame.index)


def parse(text: str, recording: Recording) -> list[Chosen]:
    """The frames that a person asked for, such as "100,250,900-905" (last one included).

    Raises:
      UserError: not such a list, a frame that the recording lacks, or more than MOST_FRAMES.
    """
    indices: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"--frames {text}: {part.strip()!r} is no frame; write 100,250,900-905")
        start, stop = int(first), int(last or first)
        if start > stop or stop >= len(recording):
            raise UserError(
                f"--frames {text}: {part.strip()} is not within 0-{len(recording) - 1}, "
                "the frames of this game"
            )
        indices += range(start, min(stop, start + MOST_FRAMES) + 1)
    indices = sorted(set(indices))
    if len(indices) > MOST_FRAMES:
        raise UserError(f"--frames {text}: more than {MOST_FRAMES} frames do not fit a figure")
    return [Chosen(t, "asked for") for t in indices]


def telling_stretch(recording: Recording, length: int) -> tuple[int, int]:
    """The stretch [start, stop) of at most `length` frames in which most happens.

    Counted are the steps with a reward and, four times as much, the first frames of lives and
    stages; of equal stretches, the first.
    """
    if len(recording) <= length:
        return 0, len(recording)
    happens = (recording.reward != 0).astype(int)
    bounds = boundaries(recording)
    happens[[*bounds.lives, *bounds.stages]] += 4
    total = np.concatenate([[0], np.cumsum(happens)])
    start = int(np.argmax(total[length:] - total[:-length]))
    return start, start + length


def _signals(recording: Recording) -> list[tuple[np.ndarray, Callable[[int], str]]]:
    """Each kind of telling frame: how strong it is, float [T] (-inf: never), and its words.

    The entropy is never -inf: some frame can be chosen everywhere.
    """
    reward, value = recording.reward, recording.value
    bounds = boundaries(recording)
    change = np.diff(value, prepend=value[:1])
    jump, entropy = np.abs(change), recording.entropy
    for start in (0, *bounds.lives, *bounds.stages):  # the game stands still: nothing to decide
        still = slice(max(start - DANGER, 0), start + ANNOUNCED)
        entropy[still] -= 100
        if start not in bounds.stages:  # a new stage is worth a jump, an emptied memory is not
            jump[still] = -np.inf
    jump[jump < 0.1 * jump.max()] = -np.inf
    loss = np.full(len(recording), -np.inf)  # the value's steepest fall before each lost life
    left = {}  # steps from there to the loss
    for death in bounds.lives:
        start = max(death - DANGER, 1)
        t = start + int(np.argmin(change[start:death])) if start < death else 0
        loss[t], left[t] = -change[t], death - t
    most = np.log(len(recording.action_names))
    return [
        (
            np.where(reward != 0, np.abs(reward), -np.inf),
            lambda t: f"just before {reward[t]:+g} point{'' if abs(reward[t]) == 1 else 's'}",
        ),
        (jump, lambda t: f"the value jumps by {change[t]:+.2f}"),
        (
            entropy,
            lambda t: f"undecided: entropy {recording.entropy[t]:.2f} of at most {most:.2f} nats",
        ),
        (
            loss,
            lambda t: (
                f"the value changes by {change[t]:+.2f}; a life is lost {left[t]} steps later"
            ),
        ),
    ]
