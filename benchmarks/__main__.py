"""How fast each part is, in agent steps per second, beside its floor measured in the same run.

    python -m benchmarks [--game SpaceInvaders] [--groups 5] [--precision float32] [--output F.json]

The floors are EnvPool alone, and a float32 matrix product of this machine: a frame costs 114 MFLOP
forward, a trained step 456 (act, then forward and backward). Without an accelerator, network and
environments share the cores, so the training loop's floor is the sum of both times; with one it is
the longer of the two. Every number is the median of several rounds, and each round measures every
part once, so that a change of the machine's speed hits all of them.
"""

import argparse
import csv
import dataclasses
import json
import os
import pathlib
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from maskrl import evaluation, learner
from maskrl.actor import ActorGroup, make_act
from maskrl.agent import Agent, make_agent
from maskrl.config import Config
from maskrl.devices import Devices
from maskrl.envs import Environments, game_name
from maskrl.errors import exit_on_user_error
from maskrl.training import Trainer

FORWARD, TRAINED = 114e6, 456e6  # floating-point operations of a frame and of a trained step
SECONDS = 3.0  # that a part is measured for, in each round


def rate(work: Callable[[], int], seconds: float = SECONDS) -> float:
    """Calls `work`, which says how many units it did, for so long; units per second."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        done += work()
    return done / elapsed


class Parts:
    """The parts to measure; each method returns units per second."""

    def __init__(self, config: Config):
        self.config = config
        actors = config.actors_per_group
        self.devices = Devices(1)
        self.envs = Environments(config.game, actors, 0)
        self.row = self.envs.reset()
        self.agent: Agent = make_agent(
            config.game, self.envs.num_actions, config.mask, config.core, config.precision
        )
        self.state = learner.init(self.agent, config, jax.random.PRNGKey(0))
        self.key = jax.random.PRNGKey(1)
        self.actor_state = self.agent.init_state(np.arange(actors))
        self.act = make_act(self.agent, self.devices)
        self.update = learner.make_update(self.agent, config, self.devices)
        self.observe = jax.jit(self.agent.observe)
        self.product = jax.jit(jnp.dot)
        self.collected = self._collect()

    def _collect(self) -> tuple:
        """One unroll of real frames."""
        config = self.config
        group = ActorGroup(
            self.act,
            self.devices,
            Environments(config.game, config.actors_per_group, 1),
            self.state.params,
            0,
            self.actor_state,
            self.key,
            config.unroll_length,
        )
        group.receive()
        while not group.full:
            group.act()
            group.receive()
        return group.collected()

    def matrix_product(self) -> float:
        """Floating-point operations per second of a float32 product of 1024 x 1024."""
        size = 1024
        a = jnp.ones((size, size))

        def work() -> int:
            self.product(a, a).block_until_ready()
            return 2 * size**3

        return rate(work, 1.0)

    def environments(self) -> float:
        """EnvPool alone, all cores, uniform actions; agent steps."""
        rng = np.random.default_rng(0)

        def work() -> int:
            self.envs.send(rng.integers(self.envs.num_actions, size=self.envs.num_envs))
            self.envs.recv()
            return self.envs.num_envs

        return rate(work)

    def preprocessing(self) -> float:
        """Crop, resize, normalise; frames."""

        def work() -> int:
            _, observation = self.observe(self.actor_state, self.row.timestep.frame)
            observation.block_until_ready()
            return self.envs.num_envs

        return rate(work, 1.0)

    def acting(self) -> float:
        """`Agent.step` of one group; agent steps."""

        def work() -> int:
            self.actor_state, action, _ = self.act(
                self.state.params, self.actor_state, self.row.timestep, self.key
            )
            action.block_until_ready()
            return self.envs.num_envs

        return rate(work)

    def updating(self) -> float:
        """The update by one group's unroll; agent steps."""

        def work() -> int:
            state, _ = self.update(self.state, self.state.params, *self.collected)
            jax.block_until_ready(state.params)
            return self.envs.num_envs * self.config.unroll_length

        return rate(work)

    def evaluation(self) -> float:
        """Whole games as `evaluate.py` plays them, cut at 200 steps; agent steps."""
        start = time.perf_counter()
        games = evaluation.play(
            self.agent, self.state.params, self.config.game, 100, max_episode_steps=200
        )
        return games.lengths.sum() / (time.perf_counter() - start)


def training(config: Config, expected: float) -> list[float]:
    """Agent steps per second of the whole loop, in stretches of `SECONDS` after the start.

    Args:
      expected: about what to expect; decides how long the run is (15 stretches).
    """
    steps = max(4 * config.unroll_steps, int(15 * SECONDS * expected))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            dataclasses.replace(config, steps=steps),
            pathlib.Path(folder),
            device_count=1,
            resume=False,
            evaluate=lambda agent, params: np.zeros(1),
            log_seconds=SECONDS,
        ).train()
        with open(pathlib.Path(folder) / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    # Until every group has learned, updates are compiled, and groups start one after the other.
    warm = [float(r["steps_per_second"]) for r in rows if int(r["updates"]) >= 2 * config.groups]
    return warm[:-1] or warm  # the last stretch is cut short


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--game", default="SpaceInvaders")
    parser.add_argument("--groups", type=int, default=Config.groups)
    parser.add_argument("--actors-per-group", type=int, default=Config.actors_per_group)
    parser.add_argument("--precision", default=Config.precision)
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many [3]")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file")
    args = parser.parse_args(argv)
    with exit_on_user_error("benchmarks"):
        config = Config(
            game=game_name(args.game),
            groups=args.groups,
            actors_per_group=args.actors_per_group,
            precision=args.precision,
        )
        parts = Parts(config)
        names = (
            *("matrix_product", "environments", "preprocessing", "acting", "updating"),
            "evaluation",
        )
        samples: dict[str, list[float]] = {name: [] for name in names}
        for n in range(args.rounds + 1):
            for name in names:
                value = getattr(parts, name)()
                if n:  # the first round compiles
                    samples[name].append(value)
        unhurried = 1 / sum(
            1 / statistics.median(samples[n]) for n in ("environments", "acting", "updating")
        )
        samples["training"] = training(config, unhurried)

    median = {name: statistics.median(values) for name, values in samples.items()}
    flops, env = median["matrix_product"], median["environments"]
    shared = jax.default_backend() == "cpu"

    def with_environments(network: float) -> float:
        return 1 / (1 / network + 1 / env) if shared else min(network, env)

    floors = {
        "environments": env,
        "preprocessing": None,
        "acting": flops / FORWARD,
        "updating": flops / (TRAINED - FORWARD),
        "training": with_environments(flops / TRAINED),
        "evaluation": with_environments(flops / FORWARD),
    }
    print(f"{'':16}{'steps/s':>12}{'floor':>12}{'ratio':>8}")
    for name, floor in floors.items():
        line = f"{name:16}{median[name]:12.0f}"
        print(line + (f"{floor:12.0f}{median[name] / floor:8.2f}" if floor else ""))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"matrix product {flops / 1e9:.0f} GFLOP/s, peak memory {peak:.1f} GiB")
    if args.output:
        report = {
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "devices": [str(d) for d in jax.devices()],
            },
            "versions": {"python": platform.python_version(), "jax": jax.__version__},
            "settings": vars(args) | {"output": str(args.output)},
            "samples": samples,
            "median": median,
            "floors": floors,
            "peak_memory_gib": peak,
        }
        args.output.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
