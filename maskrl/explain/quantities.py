"""What a game's curves show: numbers for every step, made from its recording alone."""

from collections.abc import Iterator

import numpy as np

from maskrl.recording import MASK_CELLS, Recording

DISCOUNT, LAMBDA = 0.99, 0.95
FEW = MASK_CELLS  # cells, a tenth of them, whose share of the mask is its concentration


def advantage(
    recording: Recording, discount: float = DISCOUNT, lambda_: float = LAMBDA
) -> np.ndarray:
    """float32 [T]: how much better than the value foretold it went after each step.

    The generalised advantage estimate (Schulman et al. 2016, equation 16) of what the critic was
    trained on: rewards clipped to [-1, 1], episodes that end with a life. It is 0 on the last frame
    of a life, whose action the game ignores. A game that was cut off bootstraps from its last
    value.
    """
    length = len(recording)
    reward = np.clip(recording.reward, -1, 1).astype(np.float64)
    value = recording.value.astype(np.float64)
    last = np.append(recording.life_start[1:], True)  # of a life
    result = np.zeros(length)
    for t in range(length - 2, -1, -1):
        if last[t]:
            continue
        ends = last[t + 1] and not (t + 1 == length - 1 and recording.cut_off)
        follows = 0.0 if ends else discount
        error = reward[t] + follows * value[t + 1] - value[t]
        result[t] = error + follows * lambda_ * result[t + 1]
    return result.astype(np.float32)


def divergence(logits: np.ndarray, other: np.ndarray) -> np.ndarray:
    """float32 [...]: KL(p || q) in nats of the policies p, q with these logits, float [..., A]."""
    p, q = _log_softmax(logits), _log_softmax(other)
    return np.maximum(np.sum(np.exp(p) * (p - q), axis=-1), 0).astype(np.float32)


def mean(mask: np.ndarray) -> np.ndarray:
    """float32 [T]: the mean over the cells of a mask [T, 10, 10]."""
    return mask.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)


def change(mask: np.ndarray) -> np.ndarray:
    """float32 [T]: the mean over the cells of |M[t] - M[t - 1]|; 0 at first."""
    step = np.abs(np.diff(mask, axis=0, prepend=mask[:1]))
    return step.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)


def concentration(mask: np.ndarray) -> np.ndarray:
    """float32 [T]: the share of the mask's sum that its FEW (a tenth) largest cells hold.

    0.1 where all cells are alike (or all are 0), 1 where ten cells hold everything.
    """
    cells = np.sort(mask.reshape(len(mask), -1).astype(np.float64), axis=1)
    total = cells.sum(axis=1)
    share = cells[:, -FEW:].sum(axis=1) / np.maximum(total, 1e-12)
    return np.where(total > 0, share, FEW / cells.shape[1]).astype(np.float32)


def highest(courses: np.ndarray, count: int, apart: int) -> np.ndarray:
    """int [N, count]: the steps, in order, at which each of N courses, [T, ...], is highest.

    They lie at least `apart` steps from each other; a game too short for so many repeats its first.
    """
    courses = courses.reshape(len(courses), -1).T
    result = np.zeros((len(courses), count), int)
    for number, course in enumerate(courses):
        left, steps = course.astype(np.float64), []
        while len(steps) < count and np.isfinite(left.max()):
            t = int(np.argmax(left))
            steps.append(t)
            left[max(t - apart + 1, 0) : t + apart] = -np.inf
        result[number] = sorted(steps + steps[:1] * (count - len(steps)))
    return result


def cells_off(recording: Recording, t: int) -> np.ndarray:
    """float32 [100, A]: the logits at frame t if one cell of the policy's mask were 0."""
    cells = recording.cell_logits[t].astype(np.float32)
    return recording.logits[t] - cells.reshape(MASK_CELLS**2, -1)


def cells_hang(recording: Recording) -> Iterator[np.ndarray]:
    """float32 [100] for every frame: KL(policy as played || with this cell off) in nats."""
    for t in range(len(recording)):
        yield divergence(recording.logits[t], cells_off(recording, t))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
