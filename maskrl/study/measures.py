"""How good is a map? Insertion and deletion, agreement, similarity, and intervals over games.

What asks the network is traceable (`curves`); what compares maps is NumPy.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage, stats

from maskrl import losses
from maskrl.networks import MASK_CELLS
from maskrl.study.methods import blurred, pixels
from maskrl.study.probe import Answer, Probe, Scene

# Shares of the screen's cells at which the curves are sampled, and the backgrounds. What is left
# when a share of a random order is deleted is what is there when the rest is inserted: the shares
# mirror each other, so that the areas of a random order are equal in the mean.
SHARES = (0.0, 0.03, 0.1, 0.35, 0.65, 0.9, 0.97, 1.0)
BACKGROUNDS = ("black", "blur", "mean")
WAYS = ("deletion", "insertion")
CURVES = ("probability", "kl", "value", "kept")
STRONG_BLUR = 10.0  # pixels; nothing of an object is left
_WINDOW = 7  # pixels, of `ssim`
RESAMPLES = 2000  # of a bootstrap


def backgrounds(scene: Scene) -> chex.Array:
    """What deleted cells are replaced by, float32 [3, B, 80, 80, 1]: see `BACKGROUNDS`."""
    x = scene.observation
    black = jnp.broadcast_to(scene.black[:, None, None, None], x.shape)
    return jnp.stack([black, blurred(x, STRONG_BLUR), jnp.broadcast_to(scene.mean, x.shape)])


def ranks(maps: chex.Array, key: chex.PRNGKey) -> chex.Array:
    """The place of every cell in the order of a map [..., 10, 10]: 0 is the greatest.

    Ties are broken by lot: a map that says nothing must not profit from the order of the screen.
    """
    flat = maps.reshape(*maps.shape[:-2], -1)
    lot = jax.random.uniform(key, flat.shape)
    order = jnp.lexsort((lot, -flat), axis=-1)
    return jnp.argsort(order, axis=-1).reshape(maps.shape)


def curves(see: Probe, scene: Scene, rank: chex.Array) -> dict[str, chex.Array]:
    """What the network says while cells are deleted, or inserted, in the order of a map.

    Petsiuk et al. 2018, section 3.3 (deletion and insertion), by cells of the 10 x 10 grid. The
    carry is held fixed. `probability`: of the action chosen on the whole frame; `kl`:
    D(policy on the whole frame || policy now), nats; `value`: |V now - V on the whole frame|;
    `kept`: 1 where the most probable action is still the chosen one.

    Args:
      rank: [M, B, 10, 10], of M maps; see `ranks`.

    Returns:
      `CURVES`, each float32 [M, 2 ways, 3 backgrounds, len(SHARES), B].
    """
    x = scene.observation
    whole = see(x)
    log_policy = jax.nn.log_softmax(whole.logits)

    def row(answer: Answer) -> dict[str, chex.Array]:
        now = jax.nn.log_softmax(answer.logits)
        return {
            "probability": jnp.exp(losses.log_probability(answer.logits, scene.action)),
            "kl": jnp.sum(jnp.exp(log_policy) * (log_policy - now), axis=-1),
            "value": jnp.abs(answer.value - whole.value),
            "kept": (jnp.argmax(now, axis=-1) == scene.action).astype(jnp.float32),
        }

    ground = backgrounds(scene)
    counts = jnp.array([round(s * MASK_CELLS**2) for s in SHARES[1:-1]])

    def ask(index):
        m, way, b, n = index
        top = pixels(rank[m] < counts[n])[..., None]
        shown = top == (way == 1)
        return row(see(jnp.where(shown, x, ground[b])))

    shape = (len(rank), len(WAYS), len(BACKGROUNDS), len(counts))
    grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, shape), indexing="ij"), axis=-1).reshape(-1, 4)
    inner = jax.tree.map(lambda a: a.reshape(*shape, -1), jax.lax.map(ask, grid))
    # The ends are the same for every map: the whole frame, and the background alone.
    full = row(whole)
    empty = jax.lax.map(lambda g: row(see(g)), ground)

    def ends(name):
        f = jnp.broadcast_to(full[name], empty[name].shape)
        e = empty[name]
        first, last = jnp.stack([f, e]), jnp.stack([e, f])  # [way, background, B]
        lay = (len(rank), *first.shape)
        return (jnp.broadcast_to(a, lay)[:, :, :, None] for a in (first, last))

    result = {}
    for name in CURVES:
        first, last = ends(name)
        result[name] = jnp.concatenate([first, inner[name], last], axis=3)
    return result


def area(curve: np.ndarray) -> np.ndarray:
    """The area under curves [..., len(SHARES)] (trapezoids; the width is 1)."""
    return np.trapezoid(curve, SHARES)


# --------------------------------------------------------------------------- maps compared


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's coefficient (1904) of maps [..., H, W], [...]; 0 where one is constant."""
    a, b = (stats.rankdata(m.reshape(*m.shape[:-2], -1), axis=-1) for m in (a, b))
    a, b = (m - m.mean(axis=-1, keepdims=True) for m in (a, b))
    length = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    return (a * b).sum(axis=-1) / np.where(length > 0, length, np.inf)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Similarity of structure (Wang et al. 2004, equation 13) of maps [..., H, W], [...].

    Each is scaled to 0..1; means and variances over 7 x 7 pixels, constants 0.01^2 and 0.03^2. 0
    where one is constant: that two maps say nothing makes them no more alike.
    """
    says = np.logical_and(*(np.ptp(m, axis=(-2, -1)) > 0 for m in (a, b)))
    a, b = (_unit(m) for m in (a, b))
    mean = lambda x: ndimage.uniform_filter(x, _WINDOW, axes=(-2, -1))  # noqa: E731
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    edge = _WINDOW // 2
    return np.where(says, index[..., edge:-edge, edge:-edge].mean(axis=(-2, -1)), 0.0)


def _unit(m: np.ndarray) -> np.ndarray:
    m = m.astype(np.float64) - m.min(axis=(-2, -1), keepdims=True)
    top = m.max(axis=(-2, -1), keepdims=True)
    return m / np.where(top > 0, top, 1.0)


# --------------------------------------------------------------------------- intervals


Number = tuple[float, float, float]  # and its 95 % interval's ends


def bootstrap(
    values: np.ndarray,
    games: np.ndarray,
    of_means: Callable[[np.ndarray], np.ndarray] = lambda means: means[..., 0],
) -> Number:
    """A number made of means, and its 95 % interval, with games drawn with replacement.

    Frames of one game are not independent, so whole games are drawn (the cluster bootstrap, Field &
    Welsh 2007); percentiles of the resampled numbers (Efron & Tibshirani 1993, section 13.3).

    Args:
      values: [N], or [N, K] for a number made of K means.
      games: [N], the game of every row. With fewer than two games nothing is known of the spread:
        the interval is infinite.
      of_means: means [..., K] -> number [...]; by default the first mean.
    """
    values = values.reshape(len(values), -1).astype(np.float64)
    whole = float(of_means(values.mean(axis=0)))
    names, which = np.unique(games, return_inverse=True)
    if len(names) < 2:
        return whole, -np.inf, np.inf
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, which, values)
    draws = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    count = np.bincount(which)[draws].sum(axis=1)
    drawn = of_means(sums[draws].sum(axis=1) / count[:, None])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return whole, float(low), float(high)


def bootstrap_ratio(above: np.ndarray, below: np.ndarray) -> Number:
    """The ratio of the means of two independent samples of games, [N] and [M], and its interval.

    Both are drawn with replacement (Efron & Tibshirani 1993, section 8.3). Where all that was drawn
    of `below` has a mean of 0, as games without a point, the ratio has no limit. The mean of
    `below` itself must not be 0.
    """
    whole = float(above.mean() / below.mean())
    if min(len(above), len(below)) < 2:
        return whole, -np.inf, np.inf
    rng = np.random.default_rng(0)
    means = [x[rng.integers(len(x), size=(RESAMPLES, len(x)))].mean(axis=1) for x in (above, below)]
    ratios = np.divide(*means, out=np.full(RESAMPLES, np.inf), where=means[1] != 0)
    # A percentile between two drawn ones would be computed from infinities.
    low, high = np.percentile(ratios, [2.5, 97.5], method="nearest")
    return whole, float(low), float(high)
