"""Which frames of a game to show, and why; where its lives and stages begin.

Frame t is the moment at which the agent chooses action t, so "just before a reward" is the frame
whose action brought it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from scipy.signal import find_peaks

from maskrl.errors import UserError
from maskrl.explain.quantities import advantage, divergence
from maskrl.recording import Recording

DANGER = 90  # steps, six seconds, before a lost life: the blow, and how the game shows it
ANNOUNCED = 60  # steps: how long a game may announce a new life or stage, standing still
MOST_FRAMES = 60  # that a person may ask for: more are unreadable in one figure
_AROUND = 15  # steps, one second: from "before" to a moment, and from there to "after"
_EDGE = 8  # steps, half a second: before and after a fall of the value, whose noise is not one
_MATTERS = 0.05  # nats: what the mask must change of a decision
_PROMINENT = 0.1  # of the value's range: what a peak or trough must stand out by

# The kinds of moments, in the order in which they take turns, and their names.
KINDS = {
    "life": "a life is lost",
    "stage": "a stage begins",
    "trough": "trough of the value",
    "peak": "peak of the value",
    "worse": "worse than foretold",
    "better": "better than foretold",
    "points": "points",
    "mask": "hangs on the mask",
    "undecided": "undecided",
}

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
    kind: str = ""  # one of KINDS; nothing if a person asked for the frame
    before: int = 0  # a frame that shows what led to it,
    after: int = 0  # and one that shows what came of it


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
    """The moments that tell the game's story, in order.

    Lost lives and new stages come first, if they fill at most half of the frames (else some of the
    lives, evenly spread). For the rest the kinds of moment take turns (see KINDS), each with the
    strongest that is not close to one already chosen; the undecided come when no other is left.
    None is taken from a loop in which a game ends, long after the last thing that happened.

    Args:
      recording: the game.
      count: how many frames; all of them where the game has fewer.
    """
    length = len(recording)
    if length <= count:
        return [_chosen(recording, t, "", "every frame of this short game") for t in range(length)]
    bounds = boundaries(recording)
    kinds = _moments(recording, bounds)
    first = [*kinds.pop("life"), *kinds.pop("stage")]
    if len(first) > count // 2:
        lives = [moment for moment in first if moment.kind == "life"]
        first = _evenly(lives, count // 2) or first[: count // 2]
    chosen = {moment.index: moment for moment in first}
    told = _told(recording, bounds)
    free = np.arange(length) < told
    gap = told // (4 * count)

    def occupy(t: int) -> None:
        free[max(t - gap, 0) : t + gap + 1] = False

    for t in chosen:
        occupy(t)
    last = kinds.pop("undecided")
    for moment in itertools.chain(_in_turns(list(kinds.values()), free), last):
        if len(chosen) == count:
            break
        if free[moment.index]:
            chosen[moment.index] = moment
            occupy(moment.index)
    return [chosen[t] for t in sorted(chosen)]


def parse(text: str, recording: Recording) -> list[Chosen]:
    """The frames that a person asked for, such as "100,250,900-905" (last one included).

    Raises:
      UserError: not such a list, a frame that the recording lacks, or more than MOST_FRAMES.
    """
    indices = numbers(text, len(recording))
    value, entropy = recording.value, recording.entropy
    return [
        _chosen(recording, t, "", f"value {value[t]:.2f}, entropy {entropy[t]:.2f} nats")
        for t in indices
    ]


def numbers(text: str, length: int) -> list[int]:
    """The numbers in a list such as "100,250,900-905", in order, each once.

    Raises:
      UserError: not such a list, a number of `length` or more, or more than MOST_FRAMES.
    """
    indices: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"--frames {text}: {part.strip()!r} is no frame; write 100,250,900-905")
        start, stop = int(first), int(last or first)
        if start > stop or stop >= length:
            raise UserError(
                f"--frames {text}: {part.strip()} is not within 0-{length - 1}, "
                "the frames of this game"
            )
        indices += range(start, min(stop, start + MOST_FRAMES) + 1)
    indices = sorted(set(indices))
    if len(indices) > MOST_FRAMES:
        raise UserError(f"--frames {text}: more than {MOST_FRAMES} frames do not fit a figure")
    return indices


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


def _told(recording: Recording, bounds: Boundaries) -> int:
    """Of a game that was cut off, the frames up to the last reward, life or stage, and a tenth."""
    length = len(recording)
    happens = [*np.flatnonzero(recording.reward), *bounds.lives, *bounds.stages]
    if _is_over(recording) or not happens:
        return length
    return min(int(1.1 * max(happens)) + _AROUND, length)


def _is_over(recording: Recording) -> bool:
    """Whether the last frame is that of the last lost life."""
    return bool(recording.lives.any() and recording.lives[-1] == 0)


def _chosen(recording: Recording, t: int, kind: str, reason: str, after: int = 0) -> Chosen:
    last = len(recording) - 1
    after = after or t + _AROUND
    return Chosen(int(t), reason, kind, max(int(t) - _AROUND, 0), min(int(after), last))


def _evenly(moments: list[Chosen], count: int) -> list[Chosen]:
    """At most `count` of them, the first and the last among them."""
    if len(moments) <= count:
        return moments
    return [moments[i] for i in np.linspace(0, len(moments) - 1, count).round().astype(int)]


def _in_turns(kinds: list[Iterator[Chosen]], free: np.ndarray) -> Iterator[Chosen]:
    """One moment of each kind after the other, those that are not free left out."""
    while kinds:
        for kind in list(kinds):
            found = next((moment for moment in kind if free[moment.index]), None)
            if found is None:
                kinds.remove(kind)
            else:
                yield found


def _moments(recording: Recording, bounds: Boundaries) -> dict[str, Iterator[Chosen]]:
    """Every kind's moments: lives and stages in order, the others from the strongest on."""
    value, entropy, reward = recording.value, recording.entropy, recording.reward
    gain = advantage(recording)
    lives = _lost_lives(recording, bounds)
    # The game moves where it neither announces a life or a stage nor shows how one has ended.
    moving = np.ones(len(recording), bool)
    for start in (0, *bounds.lives, *bounds.stages):
        moving[start : start + ANNOUNCED] = False
    for moment in lives:
        moving[moment.index : moment.after + 1] = False
    calm = moving.copy()  # neither is a life about to end
    for moment in lives:
        calm[moment.before : moment.index] = False
    ended = np.append(recording.life_start[1:], False)  # what comes then is the next opening's

    def best(kind: str, strength: np.ndarray, where: np.ndarray, words: Callable[[int], str]):
        steps = np.flatnonzero(where)
        for t in steps[np.argsort(-strength[steps], kind="stable")]:
            yield _chosen(recording, t, kind, words(t))

    def extremes(kind: str, height: np.ndarray, words: Callable[[int], str]):
        span = float(np.ptp(value))
        peaks = np.zeros(len(recording), bool)
        if span:
            peaks[find_peaks(height, prominence=_PROMINENT * span)[0]] = True
        return best(kind, height, peaks & moving, words)

    most = np.log(len(recording.action_names))
    hangs = np.zeros(len(recording))
    if recording.unmasked_logits is not None:
        hangs = divergence(recording.logits, recording.unmasked_logits)
    return {
        "life": iter(lives),
        "stage": iter(
            [
                _chosen(recording, t, "stage", f"stage {number} begins")
                for number, t in enumerate(bounds.stages, 2)
            ]
        ),
        "trough": extremes("trough", -value, lambda t: f"a trough of the value, {value[t]:.2f}"),
        "peak": extremes("peak", value, lambda t: f"a peak of the value, {value[t]:.2f}"),
        "worse": best(
            *("worse", -gain, (-gain > 0.1 * np.max(-gain)) & calm),
            lambda t: f"it goes worse than foretold: advantage {gain[t]:.2f}",
        ),
        "better": best(
            *("better", gain, (gain > 0.1 * gain.max()) & calm),
            lambda t: f"it goes better than foretold: advantage {gain[t]:+.2f}",
        ),
        "points": best(
            *("points", np.abs(reward), (reward != 0) & ~ended),
            lambda t: f"just before {reward[t]:+g} point{'' if abs(reward[t]) == 1 else 's'}",
        ),
        "mask": best(
            *("mask", hangs, (hangs > _MATTERS) & moving),
            lambda t: f"hangs on the mask: KL {hangs[t]:.2f} nats to the policy without",
        ),
        "undecided": best(
            *("undecided", entropy - 100 * ~moving, np.ones(len(recording), bool)),
            lambda t: f"undecided: entropy {entropy[t]:.2f} of at most {most:.2f} nats",
        ),
    }


def _lost_lives(recording: Recording, bounds: Boundaries) -> list[Chosen]:
    """The value's greatest fall before every lost life, the last one's included."""
    deaths = list(bounds.lives)
    if _is_over(recording):
        deaths.append(len(recording) - 1)
    value = recording.value.astype(np.float64)
    found = []
    for before, death in zip([0, *deaths], deaths, strict=False):
        # A life begins a step after the one before was lost; the last one is lost where it ends.
        lost = death - (death in bounds.lives)
        t, fall = max(death - _AROUND, min(before + 1, lost)), 0.0
        for step in range(max(death - DANGER, before + 1), death):
            drop = value[max(step - _EDGE, before) : step].mean()
            drop -= value[step : min(step + _EDGE, death)].mean()
            if drop > fall:
                t, fall = step, drop
        words = f"a life is lost {lost - t} step{'' if lost - t == 1 else 's'} later"
        if fall > 0:
            words = f"the value falls by {fall:.2f}; {words}"
        found.append(_chosen(recording, t, "life", words, death))
    return found
