"""How much of an agent's gradients is noise, and what bfloat16 adds to it.

    python -m benchmarks.noise agents/Breakout-both [--gradients 40]

The agent plays on and learns nothing. Of unrolls of 7 actors the loss's gradient g is taken twice,
in float32 and in bfloat16, which differ by e. The noise scale tr(cov g) / |E g|^2 (McCandlish et
al. 2018, *An Empirical Model of Large-Batch Training*, equation 2.9) is given in agent steps: in a
mean over so many, noise is as long as the signal. Of few gradients it is an order of magnitude.
|E e| / |E g| is what no mean takes away from e.
"""

import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

from maskrl import checkpoint, learner
from maskrl.actor import ActorGroup, make_act
from maskrl.agent import Agent
from maskrl.cli import Parser, run_program
from maskrl.config import Config
from maskrl.devices import Devices
from maskrl.errors import UserError, exit_on_user_error
from maskrl.training import environments_of
from maskrl.types import Params, Snapshot, Unroll

APART = 3  # unrolls from one gradient to the next: neighbours see almost the same
DROPPED = 15  # unrolls at the start, where all games are young


def unrolls(agent: Agent, params: Params, config: Config) -> Iterator[Unroll]:
    """What one group of actors sees, as training collects it."""
    devices = Devices(1)
    group = ActorGroup(
        make_act(agent, devices),
        devices,
        environments_of(config, 1, 0),
        devices.replicate(Snapshot(params=params, updates=np.int32(0))),
        devices.put(agent.init_state(np.arange(config.actors_per_group))),
        devices.replicate(jax.random.PRNGKey(config.seed)),
        config.unroll_length,
    )
    try:
        while True:
            group.receive()
            if group.full:
                yield group.collected()
            group.act()
    finally:
        group.send()
        group.close()


def gradient_of(agent: Agent, config: Config) -> Callable[[Params, Unroll], jax.Array]:
    """The loss's gradient as a vector, compiled; of what acting computed only the first carry."""

    @jax.jit
    def gradient(params: Params, unroll: Unroll) -> jax.Array:
        trajectory = learner.assemble(agent, unroll).replace(saved=None)
        of = jax.grad(lambda params: learner.loss(agent, config, params, trajectory)[0])
        return ravel_pytree(of(params))[0]

    return gradient


def numbers(exact: np.ndarray, rounded: np.ndarray) -> dict[str, float]:
    """What the help says of gradients [n, parameters] of the same unrolls.

    Squared lengths of means are means over pairs of different unrolls: noise adds nothing to them,
    and they can come out below 0, here taken for 0.
    """
    error = rounded - exact
    signal, lost = of_mean(exact), of_mean(error)
    lengths, errors = np.linalg.norm(exact, axis=1), np.linalg.norm(error, axis=1)
    return {
        "noise_scale": (np.mean(lengths**2) - signal) / signal if signal else np.inf,
        "error": float(np.median(errors / lengths)),
        "error_of_mean": np.sqrt(lost / signal) if signal else np.inf,
    }


def of_mean(vectors: np.ndarray) -> float:
    """|E x|^2 by pairs of vectors [n, size]."""
    n, total = len(vectors), vectors.sum(axis=0, dtype=np.float64)
    return max(0.0, float(total @ total - np.sum(vectors.astype(np.float64) ** 2)) / (n * (n - 1)))


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("python -m benchmarks.noise", __doc__)
    add = parser.add_argument
    add("agent", type=pathlib.Path, metavar="AGENT", help="its folder, or a run's")
    add("--gradients", type=int, default=40, help="how many, 2 or more [40]")
    with exit_on_user_error("benchmarks.noise"):
        args = parser.parse_args(argv)
        if args.gradients < 2:
            raise UserError(f"--gradients {args.gradients}: noise takes two at least")
        if jax.default_backend() != "cpu":
            raise UserError("bfloat16 is compared on CPUs: say JAX_PLATFORMS=cpu")
        agent, params, _ = checkpoint.load_agent(args.agent)
        quick, _, _ = checkpoint.load_agent(args.agent, "bfloat16")
        spec = agent.spec
        config = Config(game=spec.game, mask=spec.mask, core=spec.core, frames=spec.frames)
        exact, rounded = gradient_of(agent, config), gradient_of(quick, config)
        found = []
        with tqdm(total=args.gradients, unit=" gradients") as bar:
            for n, unroll in enumerate(unrolls(agent, params, config)):
                if n < DROPPED or n % APART:
                    continue
                found.append([np.asarray(of(params, unroll)) for of in (exact, rounded)])
                bar.update()
                if len(found) == args.gradients:
                    break
        got = numbers(*map(np.stack, zip(*found, strict=True)))
        steps = config.unroll_length * config.actors_per_group
        print(
            f"{args.agent.name}: {args.gradients} gradients of {steps} agent steps\n"
            f"noise scale                     {got['noise_scale'] * steps:10,.0f} agent steps\n"
            f"bfloat16: |e| / |g|, median     {got['error']:10.2%}\n"
            f"          |E e| / |E g|         {got['error_of_mean']:10.2%}"
        )
    return 0


if __name__ == "__main__":
    run_program(main)
