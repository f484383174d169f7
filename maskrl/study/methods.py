"""Saliency methods: where did the network look? One short function each, and a table of them.

A method is a pure function `(see, scene, target, key) -> float32 [B, 80, 80]`: the probe of the
network at the scene's moments, the moments, what is to be explained (`probe.TARGETS`), and a key
for the methods that sample. Maps are not negative; only the order of their pixels and their shape
mean something, not their scale. Everything is traceable by `jax.jit`.

A method by perturbation is two functions: one asks the network about some hundred frames, the other
makes a map of the answers, `(asked, scene, target) -> map`. What was asked once serves every target
and every method that asks the same.

To add one: write the function, and a line in `METHODS`.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from maskrl.networks import MASK_CELLS
from maskrl.preprocess import SIZE, bilinear_matrix
from maskrl.study.probe import CELL, Answer, Probe, Scene, explained

STEPS = 16  # of integrated gradients; noisy copies of SmoothGrad
NOISE = 0.15  # SmoothGrad's noise, of the range of an observation
BLUR, SPOT = 3.0, 5.0  # Greydanus et al.: blur of the frame, size of the blurred spot, in pixels
STRIDE = 8  # pixels between spots: one per cell of the mask (Greydanus et al. take 5)
SPOTS = (SIZE // STRIDE) ** 2
RISE_MASKS, RISE_GRID = 128, 8

Method = Callable[[Probe, Scene, str, chex.PRNGKey], chex.Array]


# --------------------------------------------------------------------------- tools


def cells(maps: chex.Array) -> chex.Array:
    """[..., 80, 80] -> the mean of every cell, [..., 10, 10]."""
    shape = (*maps.shape[:-2], MASK_CELLS, CELL, MASK_CELLS, CELL)
    return maps.reshape(shape).mean(axis=(-3, -1))


def pixels(grid: chex.Array) -> chex.Array:
    """[..., 10, 10] -> every cell's value on its pixels, [..., 80, 80]."""
    return jnp.repeat(jnp.repeat(grid, CELL, axis=-2), CELL, axis=-1)


def gaussian_matrix(sigma: float, size: int = SIZE) -> np.ndarray:
    """float32 [size, size]: blur along one axis by a Gaussian; rows sum to 1 (so do the edges')."""
    distance = np.arange(size)[:, None] - np.arange(size)
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def blurred(observation: chex.Array, sigma: float = BLUR) -> chex.Array:
    """[B, 80, 80, 1] blurred by a Gaussian."""
    g = gaussian_matrix(sigma)
    return jnp.einsum("ij,bjkc,lk->bilc", g, observation, g)


def _of_observation(see: Probe, scene: Scene, target: str):
    return lambda x: explained(see(x), scene.action, target)


def _derivative(function, x: chex.Array) -> chex.Array:
    """dy/dx, [B, ...], of a function from [B, ...] to [B] that treats each of B alone."""
    return jax.grad(lambda x: function(x).sum())(x)


def _mean_derivative(function, points: chex.Array) -> chex.Array:
    """The mean of the derivatives at points [n, B, ...]: [B, ...]."""
    # All at once: a loop's gradients of convolutions take XLA four times as long on a CPU.
    return jax.vmap(lambda x: _derivative(function, x))(points).mean(axis=0)


# --------------------------------------------------------------------------- by gradients


def gradient(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """|dy/dx| (Simonyan et al. 2014, *Deep Inside Convolutional Networks*, section 3)."""
    return jnp.abs(_derivative(_of_observation(see, scene, target), scene.observation))[..., 0]


def gradient_x_input(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """|x dy/dx| (Shrikumar et al. 2017, *Learning Important Features*, section 2).

    x is measured from black: what a pixel adds to an empty screen.
    """
    slope = _derivative(_of_observation(see, scene, target), scene.observation)
    light = scene.observation - scene.black[:, None, None, None]
    return jnp.abs(slope * light)[..., 0]


def smoothgrad(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """The gradient averaged over noisy copies (Smilkov et al. 2017, *SmoothGrad*, section 2)."""
    x = scene.observation
    spread = NOISE * (x.max(axis=(1, 2, 3)) - x.min(axis=(1, 2, 3)))[:, None, None, None]
    function = _of_observation(see, scene, target)
    noise = jax.vmap(lambda key: jax.random.normal(key, x.shape))(jax.random.split(key, STEPS))
    return jnp.abs(_mean_derivative(function, x + spread * noise))[..., 0]


def integrated_gradients(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """The size of `attributions` (Sundararajan et al. 2017, *Axiomatic Attribution*)."""
    return jnp.abs(attributions(see, scene, target))[..., 0]


def attributions(see: Probe, scene: Scene, target: str) -> chex.Array:
    """(x - x') times the mean gradient on the way from x' (their equation 1), [B, 80, 80, 1].

    x' is the black screen; the integral is a midpoint sum. They add up to y(x) - y(x')
    (completeness, their proposition 1), but for the sum's error.
    """
    x, base = scene.observation, scene.black[:, None, None, None]
    shares = ((jnp.arange(STEPS) + 0.5) / STEPS).reshape(-1, *x.ndim * (1,))
    function = _of_observation(see, scene, target)
    return _mean_derivative(function, base + shares * (x - base)) * (x - base)


def _grad_cam(rest, features: chex.Array) -> chex.Array:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2) of features [B, 10, 10, C]."""
    alpha = _derivative(rest, features).mean(axis=(1, 2), keepdims=True)
    return pixels(jax.nn.relu(jnp.sum(alpha * features, axis=-1)))


def grad_cam_torso(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """Grad-CAM on the torso's output; see `_grad_cam`."""
    return _grad_cam(
        lambda x: explained(see.heads(see.core(x)), scene.action, target),
        see.torso(scene.observation),
    )


def grad_cam_core(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """Grad-CAM on the core's output; see `_grad_cam`."""
    return _grad_cam(
        lambda x: explained(see.heads(x), scene.action, target),
        see.core(see.torso(scene.observation)),
    )


# --------------------------------------------------------------------------- by perturbation


class Asked(NamedTuple):
    """What the network said to the frames as they were, and to n perturbed ones."""

    before: Answer  # [B, ...]
    after: Answer  # [n, B, ...], less the masks
    # float32 [n, 80, 80], or [n, B, 80, 80]: how much of every pixel was left or, spots, blurred.
    places: chex.Array


def _ask(
    see: Probe,
    scene: Scene,
    places: chex.Array,
    frame: Callable[[chex.Array], chex.Array],
) -> Asked:
    """Asks about `frame(place)`, [B, 80, 80, 1], for every place."""
    after = jax.lax.map(lambda place: see(frame(place[..., None]))[:2], places)
    return Asked(see(scene.observation), Answer(*after, None, None), places)


def ask_spots(see: Probe, scene: Scene, key: chex.PRNGKey) -> Asked:
    """Blurred spots, n x n of them, laid over the frame (Greydanus et al. 2018, equation 1).

    Phi(I, i, j) = I (1 - M) + A M, A the blurred frame, M(i, j) a Gaussian that is 1 in its centre.
    """
    centres = np.arange(STRIDE / 2 - 0.5, SIZE, STRIDE)
    line = np.exp(-((np.arange(SIZE) - centres[:, None]) ** 2) / (2 * SPOT**2))
    spots = np.einsum("ai,bj->abij", line, line).reshape(-1, SIZE, SIZE).astype(np.float32)
    x = scene.observation
    change = blurred(x) - x
    return _ask(see, scene, jnp.array(spots), lambda spot: x + spot * change)


def ask_coins(see: Probe, scene: Scene, key: chex.PRNGKey) -> Asked:
    """Random masks over the frame, black where they hide it (Petsiuk et al. 2018, section 3.2).

    8 x 8 fair coins, enlarged bilinearly, with a random shift; every moment has masks of its own.
    """
    x, base = scene.observation, scene.black[:, None, None, None]
    side = SIZE // RISE_GRID
    enlarge = bilinear_matrix(RISE_GRID + 1, SIZE + side).astype(np.float32)

    def sample(key):
        coins, shift = jax.random.split(key)
        grid = jax.random.bernoulli(coins, 0.5, (RISE_GRID + 1,) * 2).astype(jnp.float32)
        row, column = jax.random.randint(shift, (2,), 0, side)
        return jax.lax.dynamic_slice(enlarge @ grid @ enlarge.T, (row, column), (SIZE, SIZE))

    masks = jax.lax.map(jax.vmap(sample), jax.random.split(key, (RISE_MASKS, len(x))))
    return _ask(see, scene, masks, lambda mask: base + mask * (x - base))


def ask_covers(see: Probe, scene: Scene, key: chex.PRNGKey) -> Asked:
    """Every cell of the screen covered in turn by its time mean's pixels.

    Nothing but the cell changes, so only what it reaches is computed (`Probe.near`).
    """
    x, known = scene.observation, see.know(scene.observation)
    every = jnp.stack(jnp.meshgrid(*2 * [jnp.arange(MASK_CELLS)], indexing="ij"), -1).reshape(-1, 2)

    def place(cell):
        return pixels(jnp.zeros((MASK_CELLS, MASK_CELLS)).at[cell[0], cell[1]].set(1.0))

    def covered(cell):
        frame = jnp.where(place(cell)[..., None] > 0, scene.mean, x)
        return see.near(known, frame, cell)[:2]

    after = jax.lax.map(covered, every)
    return Asked(known.answer, Answer(*after, None, None), jax.vmap(place)(every))


def _on_screen(scores: chex.Array) -> chex.Array:
    """Scores [n n, B] of an even grid of places -> maps, enlarged bilinearly."""
    n = round(len(scores) ** 0.5)
    enlarge = bilinear_matrix(n, SIZE).astype(np.float32)
    return jnp.einsum("ia,abn,jb->nij", enlarge, scores.reshape(n, n, -1), enlarge)


def _changes(asked: Asked, scene: Scene, target: str) -> chex.Array:
    """How much the explained number changes, [n, B]."""
    after = jax.vmap(lambda answer: explained(answer, scene.action, target))(asked.after)
    return after - explained(asked.before, scene.action, target)


def blur(asked: Asked, scene: Scene, target: str) -> chex.Array:
    """Perturbation by blur (Greydanus et al. 2018, *Visualizing and Understanding Atari Agents*).

    Half the squared change: their equation 3 for `value`, and for `action` the same of the chosen
    action's log-probability, where their equation 2 takes all logits.
    """
    return _on_screen(0.5 * _changes(asked, scene, target) ** 2)


def sarfa(asked: Asked, scene: Scene, target: str) -> chex.Array:
    """SARFA (Puri et al. 2020, *Explain Your Move*, section 3), with logits for Q.

    Explains the chosen action: S = 2 K dp / (K + dp), where dp is the loss of its probability and
    K = 1 / (1 + D_KL) says how little the other actions' proportions change. For `value`, which it
    does not know, it is the perturbation by blur.
    """
    if target == "value":
        return blur(asked, scene, target)
    chosen = jax.nn.one_hot(scene.action, asked.before.logits.shape[-1], dtype=bool)

    def split(logits: chex.Array):
        probability = jnp.sum(jax.nn.softmax(logits) * chosen, axis=-1)
        return probability, jax.nn.log_softmax(jnp.where(chosen, -1e9, logits))

    before, others = split(asked.before.logits)
    after, remaining = split(asked.after.logits)
    drop = jnp.maximum(before - after, 0.0)
    divergence = jnp.where(chosen, 0.0, jnp.exp(remaining) * (remaining - others)).sum(axis=-1)
    specific = 1 / (1 + divergence)
    return _on_screen(2 * specific * drop / (specific + drop))


def rise(asked: Asked, scene: Scene, target: str) -> chex.Array:
    """RISE (Petsiuk et al. 2018, equation 6): mean of random masks, weighted by what they leave.

    Weights are the chosen action's probability; for `value` minus the change of V. They are
    centred: equation 6 without the constant that the mean weight adds (and without its noise);
    below zero is drawn as zero.
    """
    if target == "value":
        weights = -jnp.abs(_changes(asked, scene, target))
    else:
        after = jax.nn.softmax(asked.after.logits)
        weights = after[:, jnp.arange(len(scene.action)), scene.action]
    weights, masks = (x - x.mean(axis=0) for x in (weights, asked.places))
    return jax.nn.relu(jnp.einsum("nb,nbij->bij", weights, masks))


def occlusion(asked: Asked, scene: Scene, target: str) -> chex.Array:
    """The change when a cell is covered (Zeiler & Fergus 2014, section 4.2)."""
    changes = jnp.abs(_changes(asked, scene, target))
    return pixels(changes.T.reshape(-1, MASK_CELLS, MASK_CELLS))


# --------------------------------------------------------------------------- the agent's own


def mask(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """The mask-attention of the policy's branch, or for `value` of the value's."""
    answer = see(scene.observation)
    return pixels(answer.value_mask if target == "value" else answer.policy_mask)


# --------------------------------------------------------------------------- trivial


def uniform(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """Everywhere the same: says nothing (its order of pixels is a coin's)."""
    return jnp.ones((len(scene.observation), SIZE, SIZE))


def random(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """A random number for every cell."""
    return pixels(jax.random.uniform(key, (len(scene.observation), MASK_CELLS, MASK_CELLS)))


def centre(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """The nearer to the screen's middle, the more."""
    line = np.exp(-((np.arange(SIZE) - (SIZE - 1) / 2) ** 2) / (2 * (SIZE / 4) ** 2))
    return jnp.broadcast_to(jnp.outer(line, line), (len(scene.observation), SIZE, SIZE))


def edges(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """The length of the frame's gradient (central differences)."""
    return jnp.hypot(*jnp.gradient(scene.observation[..., 0], axis=(1, 2)))


def moved(see: Probe, scene: Scene, target: str, key: chex.PRNGKey) -> chex.Array:
    """What changed since the last step."""
    return jnp.abs(scene.observation - scene.previous)[..., 0]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of the table of methods."""

    function: Method | Callable[[Asked, Scene, str], chex.Array]  # the latter if it asks
    words: str  # what it is, for the report
    kind: str  # gradient, perturbation, own or trivial
    forwards: int  # network passes for a map; a gradient counts three
    ask: Callable[[Probe, Scene, chex.PRNGKey], Asked] | None = None

    def map(
        self, see: Probe, scene: Scene, target: str, key: chex.PRNGKey, known: dict | None = None
    ) -> chex.Array:
        """The map [B, 80, 80]; see the head of this file.

        Args:
          known: what has been asked at this scene, by `ask`; what is asked is added.
        """
        if self.ask is None:
            return self.function(see, scene, target, key)
        known = {} if known is None else known
        if self.ask not in known:
            known[self.ask] = self.ask(see, scene, key)
        return self.function(known[self.ask], scene, target)

    @property
    def plain(self) -> bool:
        """Whether its gradients must reach the frame (or the features), see `maskrl.kernels`."""
        return self.kind == "gradient"


METHODS: dict[str, Entry] = {
    "mask": Entry(mask, "the agent's own mask-attention", "own", 1),
    "gradient": Entry(gradient, "gradient", "gradient", 3),
    "gradient-x-input": Entry(gradient_x_input, "gradient x input", "gradient", 3),
    "smoothgrad": Entry(smoothgrad, "SmoothGrad", "gradient", 3 * STEPS),
    "integrated": Entry(integrated_gradients, "integrated gradients", "gradient", 3 * STEPS),
    "grad-cam-torso": Entry(grad_cam_torso, "Grad-CAM, torso", "gradient", 3),
    "grad-cam-core": Entry(grad_cam_core, "Grad-CAM, core", "gradient", 3),
    "blur": Entry(blur, "perturbation by blur", "perturbation", SPOTS, ask_spots),
    "sarfa": Entry(sarfa, "SARFA", "perturbation", SPOTS, ask_spots),
    "rise": Entry(rise, "RISE", "perturbation", RISE_MASKS, ask_coins),
    "occlusion": Entry(occlusion, "occlusion by cell", "perturbation", MASK_CELLS**2, ask_covers),
    "uniform": Entry(uniform, "uniform", "trivial", 0),
    "random": Entry(random, "random", "trivial", 0),
    "centre": Entry(centre, "centre", "trivial", 0),
    "edges": Entry(edges, "edges", "trivial", 0),
    "moved": Entry(moved, "what moved", "trivial", 0),
}
