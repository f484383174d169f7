"""What masks look at: the screen's cells under them, grouped into about a dozen kinds, the sights.

Cells are told apart by how much of each colour they have, so a thing is the same wherever it stands
on the screen and in its cell; things of one colour and size are one sight. The sights are k-means
clusters, found on what the masks look at most, and then given to every cell of every frame: one
legend for all recordings of a page and for both branches.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from maskrl.explain.overlay import contrast_scale, cover
from maskrl.recording import MASK_CELLS, Frames, Recording

COUNT = 12  # sights, at most
_SHIFT = 5  # the colour channels' lowest bits are left out: 8 levels of each remain
_COLOURS = 8**3
_SAMPLED = 10  # of so many frames one says which colours there are; all others are one more colour
_CANDIDATES = 500  # looks among which the first centres are sought
_ROUNDS = 50  # of k-means, at most


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is kept of a recording until all have been seen."""

    cells: np.ndarray  # int32 [T, 100]: the row of each cell in `looks`
    looks: np.ndarray  # float32 [U, C + 1]: the share of `colours`, and of all others, in a cell
    colours: np.ndarray  # int [C]
    masks: Mapping[str, np.ndarray]  # float32 [T, 100], by branch


@dataclasses.dataclass(frozen=True)
class Sight:
    """A kind of thing, and where its most typical cell is to be seen."""

    recording: int
    step: int
    cell: int


@dataclasses.dataclass(frozen=True)
class Share:
    """How much one mask looks at a sight, over a whole game. All are between 0 and 1."""

    mask: float  # of the mask's sum
    screen: float  # of the cells: what an even mask would have
    steps: float  # with one of its cells above the middle of the mask's scale in this recording


def see(recording: Recording, masks: Mapping[str, np.ndarray]) -> Seen:
    """Looks at every cell; `masks`, float32 [T, 10, 10], are those whose sights are wanted."""
    top, bottom = recording.view
    colours_at = _colours_of(recording.frames, slice(top, bottom))
    present = np.zeros(_COLOURS, bool)
    for t in range(0, len(recording), _SAMPLED):
        present[colours_at(t)] = True
    colours = np.flatnonzero(present)
    number = np.full(_COLOURS, len(colours))
    number[colours] = np.arange(len(colours))
    size = len(colours) + 1
    start = cover(recording.view)[top:bottom] * size
    counts = np.empty((len(recording), MASK_CELLS**2 * size), np.uint16)
    for t in range(len(recording)):
        place = number[colours_at(t)] + start
        counts[t] = np.bincount(place.ravel(), minlength=counts.shape[1])
    counts = counts.reshape(-1, size)
    # Rows are told apart by a sum with random weights of 63 bits: quicker than by their numbers.
    weights = np.random.default_rng(0).integers(2**63, size=size, dtype=np.uint64)
    _, first, cells = np.unique(counts @ weights, return_index=True, return_inverse=True)
    looks = counts[first].astype(np.float32)
    return Seen(
        cells.astype(np.int32).reshape(len(recording), -1),
        looks / looks.sum(axis=1, keepdims=True),
        colours,
        {name: mask.reshape(len(mask), -1) for name, mask in masks.items()},
    )


def group(seen: Sequence[Seen], count: int = COUNT) -> tuple[list[Sight], list[np.ndarray]]:
    """Finds the sights of a game's recordings.

    First come those that hold more of the first game's masks than of its screen.

    Args:
      seen: the recordings.
      count: how many sights; there are fewer where fewer different cells are looked at.

    Returns:
      The sights, and for every recording uint8 [T, 100]: which of them each cell shows.
    """
    looks = _together(seen)
    starts = np.cumsum([0, *(len(one.looks) for one in seen)])
    centres = _centres(looks, np.concatenate([_attention(one) for one in seen]), count)
    distance = _distances(looks, centres)
    used, sight = np.unique(distance.argmin(axis=1), return_inverse=True)
    distance = distance[:, used]
    labels = [sight[one.cells + start] for one, start in zip(seen, starts, strict=False)]
    excess = np.zeros(len(used))
    for mask in seen[0].masks.values():
        excess += [share.mask - share.screen for share in summary(mask, labels[0], len(used))]
    order = np.argsort(-excess, kind="stable")
    place = np.argsort(order).astype(np.uint8)
    found = []
    for k in order:
        typical = int(np.where(sight == k, distance[:, k], np.inf).argmin())
        number = int(np.searchsorted(starts, typical, side="right")) - 1
        one = seen[number]
        mask = sum(one.masks.values())
        at = np.where(one.cells == typical - starts[number], mask, -1).argmax()
        found.append(Sight(number, *(int(n) for n in divmod(at, MASK_CELLS**2))))
    return found, [place[label] for label in labels]


def shares(mask: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """float32 [T, count]: the share of the mask's sum, [T, 100], that lies on each sight."""
    length = len(label)
    place = label + count * np.arange(length)[:, None]
    sums = np.bincount(place.ravel(), mask.ravel(), length * count).reshape(length, count)
    return (sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)


def summary(mask: np.ndarray, label: np.ndarray, count: int) -> list[Share]:
    """How much a mask, float32 [T, 100], looks at each of `count` sights."""
    sums = np.bincount(label.ravel(), mask.ravel(), count)
    cells = np.bincount(label.ravel(), minlength=count)
    scale = contrast_scale(mask)
    high = mask > (scale.low + scale.high) / 2  # of this recording's own scale
    return [
        Share(
            float(sums[k] / max(sums.sum(), 1e-12)),
            float(cells[k] / label.size),
            float(np.mean(np.any(high & (label == k), axis=1))),
        )
        for k in range(count)
    ]


def _colours_of(frames: np.ndarray | Frames, rows: slice) -> Callable[[int], np.ndarray]:
    """`t -> _colours` of these rows of frame t."""
    if not isinstance(frames, Frames):
        return lambda t: _colours(frames[t][rows])
    table = _colours(frames.palette)
    return lambda t: table[frames.pixels[t, rows]]


def _colours(frames: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] RGB as numbers of colours, int32 [...] below _COLOURS."""
    red, green, blue = np.moveaxis(frames >> _SHIFT, -1, 0)
    return (red.astype(np.int32) << 6) | (green.astype(np.int32) << 3) | blue


def _together(seen: Sequence[Seen]) -> np.ndarray:
    """float32 [U, C]: all looks, as square roots: small things count, distances are Hellinger's."""
    colours = np.unique(np.concatenate([one.colours for one in seen]))
    size = len(colours) + 1
    parts = []
    for one in seen:
        part = np.zeros((len(one.looks), size), np.float32)
        part[:, [*np.searchsorted(colours, one.colours), size - 1]] = np.sqrt(one.looks)
        parts.append(part)
    return np.concatenate(parts)


def _attention(seen: Seen) -> np.ndarray:
    """float64 [U]: the sum of the masks over the cells of each look."""
    total = sum(seen.masks.values(), np.zeros(seen.cells.shape))
    return np.bincount(seen.cells.ravel(), total.ravel(), len(seen.looks))


def _centres(looks: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """float32 [at most count, C]: weighted k-means, without chance.

    The first centres are the looks that lower the sum of squared distances most, one after the
    other (greedy k-means++, whose candidates are spread evenly over the weight).
    """
    if not weight.any():
        weight = np.ones(len(looks))
    total = np.cumsum(weight)
    along = (np.arange(_CANDIDATES) + 0.5) / _CANDIDATES * total[-1]
    candidates = looks[np.unique(np.searchsorted(total, along))]
    distance = _distances(looks, candidates)
    chosen = [int(np.argmin(weight @ distance))]
    least = distance[:, chosen[0]]
    while len(chosen) < count:
        gain = weight @ np.maximum(least[:, None] - distance, 0)
        best = int(np.argmax(gain))
        if gain[best] <= 1e-6 * total[-1]:
            break
        chosen.append(best)
        least = np.minimum(least, distance[:, best])
    centres = candidates[chosen]
    for _ in range(_ROUNDS):
        nearest = _distances(looks, centres).argmin(axis=1)
        members = np.eye(len(centres))[nearest] * weight[:, None]  # [U, count]
        held = members.sum(axis=0)
        moved = (members.T @ looks / np.maximum(held, 1e-12)[:, None]).astype(np.float32)
        moved[held == 0] = centres[held == 0]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _distances(looks: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """float32 [U, K]: squared distances."""
    squares = [np.sum(x**2, axis=1) for x in (looks, centres)]
    return np.maximum(squares[0][:, None] - 2 * looks @ centres.T + squares[1], 0)
