"""What a run says of itself: games, lives and updates since the last row, as a few numbers."""

import collections
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from maskrl import hosts
from maskrl.actor import Tally
from maskrl.config import Config
from maskrl.errors import UserError
from maskrl.learner import LearnerState
from maskrl.types import Params

SCORES, LIVES = 100, 500  # of every host, in the running means

# Groups of layers, whose distances from the start are logged.
LAYERS = {
    "torso": ("conv1", "conv2", "conv3"),
    "core": ("gates",),
    "policy": ("policy",),
    "value": ("value",),
}

CHECKED = ("loss", "gradient_norm", "parameter_norm")  # a run ends where they are no numbers


class NotFinite(UserError):
    """The loss, gradients or parameters are no numbers any more: nothing of it may be saved."""


class Metrics:
    """Collects, and sums up in rows of `metrics.csv`."""

    def __init__(self):
        self._scores: collections.deque[float] = collections.deque(maxlen=SCORES)
        self._lives: collections.deque[tuple[float, float]] = collections.deque(maxlen=LIVES)
        self._updates: list[dict[str, np.ndarray]] = []

    def recent(self) -> dict[str, np.ndarray]:
        """The running means' games and lives, of this host: float32, NaN where none is yet."""
        return {"scores": _padded(self._scores, SCORES), "lives": _padded(self._lives, LIVES, 2)}

    def go_on(self, recent: dict[str, np.ndarray]) -> None:
        """Takes what `recent` gave: the first games after a resume, short ones, are not alone."""
        self._scores.extend(_whole(recent["scores"]).tolist())
        self._lives.extend(_whole(recent["lives"]).tolist())

    def play(self, tally: Tally) -> None:
        """Takes what happened in a group's environments."""
        self._scores.extend(tally.scores)
        self._lives.extend(tally.lives)

    def update(self, numbers: dict[str, np.ndarray], agent_steps: int) -> None:
        """Takes the metrics of `learner.make_update`, NumPy.

        Args:
          agent_steps: of the run, about then.

        Raises:
          NotFinite: the loss, a gradient or a parameter is none.
        """
        # NaN also marks a gradient that was not there; then its staleness is NaN, too.
        there = ~np.isnan(numbers["staleness"])
        for name in CHECKED:
            seen = numbers[name][there] if numbers[name].ndim else numbers[name]
            if not np.isfinite(seen).all():
                raise NotFinite(
                    f"near step {agent_steps} the {name.replace('_', ' ')} is no finite number any "
                    "more; nothing of it was saved (from the start, a lower --learning-rate may "
                    "help)"
                )
        self._updates.append(numbers)

    def row(self) -> dict[str, float]:
        """The running means of games and lives (of all hosts), and the updates since the last row.

        `score_*` are of whole games, unclipped; `life_*` of lives, rewards clipped: what the
        original logged.
        """
        row: dict[str, float] = {}
        scores, lives = (_whole(hosts.gather(x)) for x in self.recent().values())
        if len(scores):
            row |= {"score_mean": float(scores.mean()), "score_max": float(scores.max())}
        if len(lives):
            row |= {
                "life_reward": float(lives[:, 0].mean()),
                "life_steps": float(lives[:, 1].mean()),
            }
        if self._updates:
            row |= _sum_up(self._updates)
            self._updates = []
        return row


def _padded(values: collections.deque, size: int, *shape: int) -> np.ndarray:
    padded = np.full((size, *shape), np.nan, np.float32)
    if values:
        padded[: len(values)] = values
    return padded


def _whole(padded: np.ndarray) -> np.ndarray:
    return padded[~np.isnan(padded.reshape(len(padded), -1)).any(axis=1)]


def _sum_up(updates: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Means over all gradients; quantiles of their norms; the value's explained variance."""
    joined = {
        name: np.concatenate([u[name].ravel() for u in updates])
        for name in updates[0]
        if name != "parameter_norm"
    }
    present = ~np.isnan(joined["staleness"])
    numbers = {name: x[present].astype(np.float64) for name, x in joined.items()}
    norms, staleness = numbers.pop("gradient_norm"), numbers.pop("staleness")
    weight = numbers.pop("transitions")
    moments = [
        numbers.pop(f"{of}_{what}").sum() / weight.sum()
        for of in ("return", "error")
        for what in ("sum", "squares")
    ]
    return {name: float(x.mean()) for name, x in numbers.items()} | {
        "explained_variance": explained_variance(*moments),
        "gradient_norm_median": float(np.median(norms)),
        "gradient_norm_90": float(np.quantile(norms, 0.9)),
        "gradient_norm_max": float(norms.max()),
        "staleness_mean": float(staleness.mean()),
        "staleness_min": int(staleness.min()),
        "staleness_max": int(staleness.max()),
    }


def explained_variance(
    returns: float, returns_squared: float, error: float, error_squared: float
) -> float:
    """1 - Var[R - V] / Var[R], from the means of R, R^2, R - V and (R - V)^2.

    1 is a perfect value, 0 one no better than a constant; NaN where the returns do not vary.
    """
    variance = returns_squared - returns**2
    return 1 - (error_squared - error**2) / variance if variance > 1e-12 else float("nan")


def make_diagnose(config: Config) -> Callable[[LearnerState, Params], dict[str, float]]:
    """Compiles `diagnose(state, start)`, NumPy: where the parameters are, as numbers.

    `moved_*`: the distance of a group of layers from where the run started, Euclidean;
    `below_eps`: the share of parameters whose sqrt(max v) is below the optimiser's eps, for which
    AMSGrad is plain gradient descent.
    """
    eps = config.adam_eps / config.actors_per_update**0.5

    @jax.jit
    def compiled(state: LearnerState, start: Params) -> dict[str, chex.Array]:
        moved = jax.tree.map(jnp.subtract, state.params, start)
        numbers = {
            f"moved_{group}": optax.tree.norm([moved[name] for name in names if name in moved])
            for group, names in LAYERS.items()
            if any(name in moved for name in names)
        }
        most = jax.tree.leaves(optax.tree.get(state.optimiser, "nu_max"))
        below = sum(jnp.sum(jnp.sqrt(v) < eps) for v in most)
        return numbers | {"below_eps": below / sum(v.size for v in most)}

    def diagnose(state: LearnerState, start: Params) -> dict[str, float]:
        numbers = jax.device_get(compiled(*jax.device_put((state, start))))
        return {name: float(x) for name, x in numbers.items()}

    return diagnose
