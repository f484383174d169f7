"""Maps per second of every saliency method, beside its floor and beside the obvious loop.

The floor is a method's forward passes times the cost of one, all rows and devices busy. (Occlusion
can pass it: it computes only what a covered cell reaches.) The loop is what a person would write
first, and what Greydanus et al. 2018 published: for every place SciPy blurs the frame and the spot,
and the network sees one frame at a time, here compiled. For RISE and occlusion it is the same loop
with their numbers of frames.
"""

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from tqdm import tqdm

from maskrl.agent import Agent
from maskrl.devices import Devices
from maskrl.study.methods import BLUR, METHODS, SPOT, STRIDE
from maskrl.study.probe import Scene, probe
from maskrl.types import Carry, Params

ROWS = 8  # moments at once
PASSES = 16  # that the cost of one is measured by


def moments(rows: int) -> Scene:
    """So many moments of noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 80, 80, 1)).astype(np.float32)
    hidden, cell = rng.normal(size=(2, rows, 10, 10, 64)).astype(np.float32)
    return Scene(
        observation=x,
        previous=x[::-1],
        mean=0 * x,
        black=np.full(rows, -1, np.float32),
        carry=Carry(hidden=np.tanh(hidden), cell=cell),
        is_first=np.zeros(rows, bool),
        action=np.zeros(rows, np.int32),
    )


def loop(agent: Agent, params: Params) -> Callable[[], int]:
    """A function that makes one map by blurred spots, frame by frame; the number of frames."""
    scene = moments(1)
    say = jax.jit(
        lambda x: agent.apply(params, x[None], scene.carry, scene.is_first[None])[0].logits[0, 0]
    )
    frame = scene.observation[0, ..., 0]

    def work() -> int:
        before, scores = np.asarray(say(frame[None, ..., None])), []
        for i, j in np.ndindex(80 // STRIDE, 80 // STRIDE):
            spot = np.zeros_like(frame)
            spot[STRIDE * i + STRIDE // 2, STRIDE * j + STRIDE // 2] = 1
            spot = ndimage.gaussian_filter(spot, SPOT)
            spot /= spot.max()
            blurred = frame * (1 - spot) + ndimage.gaussian_filter(frame, BLUR) * spot
            after = np.asarray(say(blurred[None, ..., None]))
            scores.append(0.5 * np.sum((before - after) ** 2))
        return len(scores)

    return work


def measure(
    agent: Agent, params: Params, rounds: int, rate: Callable[[Callable[[], int]], float]
) -> dict[str, Any]:
    """Every method, printed as a table; medians of the rounds.

    Args:
      params: NumPy.
      rate: work (which says how many units it did) -> units per second.
    """
    devices = Devices.dividing(ROWS)
    everywhere, scene = devices.replicate(params), devices.put(moments(ROWS))
    keys = devices.put(np.stack([jax.random.PRNGKey(0)] * ROWS))

    def passes(params, scene, keys):
        see = probe(agent, params, scene)
        return jax.lax.map(lambda n: see(scene.observation + n)[:2], jnp.arange(float(PASSES)))

    def of(name: str) -> Callable:
        entry = METHODS[name]

        def function(params, scene, keys):
            see = probe(agent, params, scene, plain=entry.plain)
            return entry.map(see, scene, "action", keys[0])

        return function

    def work(function: Callable, units: int) -> Callable[[], int]:
        compiled = devices.compile(function)

        def call() -> int:
            jax.block_until_ready(compiled(everywhere, scene, keys))
            return units

        return call

    asking = [name for name, entry in METHODS.items() if entry.forwards]
    parts = {"passes": work(passes, ROWS * PASSES), "loop": loop(agent, params)}
    parts |= {name: work(of(name), ROWS) for name in asking}
    samples: dict[str, list[float]] = {name: [] for name in parts}
    for part in parts.values():
        part()  # compiles
    for _ in tqdm(range(rounds), unit=" rounds of maps"):
        for name, part in parts.items():
            samples[name].append(rate(part))
    median = {name: statistics.median(values) for name, values in samples.items()}
    print(f"{'':18}{'maps/s':>10}{'passes':>8}{'floor':>10}{'ratio':>8}{'x the loop':>12}")
    for name in asking:
        entry = METHODS[name]
        floor = median["passes"] / entry.forwards
        line = f"{name:18}{median[name]:10.2f}{entry.forwards:8}{floor:10.2f}"
        line += f"{median[name] / floor:8.2f}"
        if entry.ask is not None:
            line += f"{median[name] / (median['loop'] / entry.forwards):12.1f}"
        print(line)
    print(f"forward passes {median['passes']:.0f}/s, the loop's {median['loop']:.0f}/s")
    return {"samples": samples, "median": median, "rows": ROWS}
