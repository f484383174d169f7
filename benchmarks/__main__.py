"""How fast each part is, in agent steps per second, beside its floor measured in the same run.

    python -m benchmarks [--game SpaceInvaders] [--precision float32] [--output F.json]
    python -m benchmarks --groups 1 5 --actors-per-group 8 16 --devices 1 2 --output F.json
    python -m benchmarks --actors-per-group 8 16 32 64 --actors-per-update 1 4 8
    python -m benchmarks --loop                 # what Python alone would allow
    python -m benchmarks --profile FOLDER

The floors are EnvPool alone, and a float32 matrix product of this machine: a frame costs 114 MFLOP
forward and 228 backward. Without an accelerator, network and environments share the cores, so the
floor of training and of evaluation is the sum of both times; with one it is the longer of the two.
(Products in bfloat16 can pass a float32 floor.) Every number is the median of several rounds, and
each round measures every part once, so that a change of the machine's speed hits all of them; but
for training, which is measured afterwards, in one run.

Then every saliency method's maps per second (`benchmarks.maps`).

`--loop` measures the training loop with 8, 32 and 128 actors per group where neither games nor the
network cost anything: what is left is Python, and jax's handing out of work.

Several values of `--groups`, `--actors-per-group`, `--actors-per-update` or `--devices` measure the
training loop at every combination instead, whole unrolls of all groups, beside EnvPool alone with
as many environments as a group has. All of it is compiled before anything is measured.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
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
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks import maps
from maskrl import devices, evaluation, files, learner, run_state
from maskrl.a3c import A3C
from maskrl.actor import ActorGroup, make_act
from maskrl.agent import Agent, agent_of
from maskrl.cli import Parser, run_program
from maskrl.config import Config
from maskrl.devices import Devices
from maskrl.envs import Environments, Row, game_name
from maskrl.errors import UserError, exit_on_user_error
from maskrl.networks import NetworkOutput
from maskrl.training import Trainer, environments_of
from maskrl.types import ActorState, Carry, Params, TimeStep, Unroll

FORWARD, BACKWARD = 114e6, 228e6  # floating-point operations of a frame
SECONDS = 3.0  # that a part is measured for, in each round
SETTING = {"game", "groups", "actors_per_group", "actors_per_update", "devices", "precision"}
TAKES = {"loop": {"output"}, "profile": SETTING}  # of the other flags


def rate(work: Callable[[], int], seconds: float = SECONDS) -> float:
    """Calls `work`, which says how many units it did, for so long; units per second."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        done += work()
    return done / elapsed


def environments_alone(envs: Environments) -> float:
    """Agent steps per second of environments, which have been reset, by uniform actions."""
    rng = np.random.default_rng(0)

    def work() -> int:
        envs.send(rng.integers(envs.num_actions, size=envs.num_envs))
        envs.recv()
        return envs.num_envs

    return rate(work)


class Parts:
    """The parts to measure, for one group of actors; each method returns units per second."""

    def __init__(self, config: Config, device_count: int):
        self.config, self.devices = config, Devices(device_count)
        actors = config.actors_per_group
        self.envs = Environments(config.game, actors, 0, threads=devices.threads(1))
        self.row = self.envs.reset()
        self.agent = agent_of(config)
        replicate = self.devices.replicate
        self.state = replicate(
            jax.tree.map(np.asarray, learner.init(self.agent, config, jax.random.PRNGKey(0)))
        )
        self.key = replicate(np.asarray(jax.random.PRNGKey(1)))
        self.actor_state = jax.tree.map(np.asarray, self.agent.init_state(np.arange(actors)))
        self.act = make_act(self.agent, self.devices)
        self.update = learner.make_update(self.agent, config, self.devices)
        self.group = ActorGroup(
            self.act,
            self.devices,
            Environments(config.game, actors, 1, threads=devices.threads(1)),
            self.state.snapshot(),
            self.devices.put(self.actor_state),
            self.key,
            config.unroll_length,
        )
        self.group.receive()
        self.filled = self.unroll()

    def unroll(self) -> Unroll:
        """The group's next unroll of real frames."""
        while not self.group.full:
            self.group.act()
            self.group.receive()
        return self.group.collected()

    def environments(self) -> float:
        """EnvPool alone; agent steps."""
        return environments_alone(self.envs)

    def preprocessing(self) -> float:
        """Crop, resize, normalise, on one device; frames."""
        observe = jax.jit(self.agent.observe)
        observe(self.actor_state, self.row.timestep.frame)

        def work() -> int:
            _, observation = observe(self.actor_state, self.row.timestep.frame)
            observation.block_until_ready()
            return self.envs.num_envs

        return rate(work, 1.0)

    def acting(self) -> float:
        """`Agent.step` of the group; agent steps."""
        state = self.devices.put(self.actor_state)
        timestep = self.devices.put(self.row.timestep.replace(reward=None, discount=None))

        def work() -> int:
            _, action, *_ = self.act(self.state.params, state, timestep, self.key)
            action.block_until_ready()
            return self.envs.num_envs

        return rate(work)

    def updating(self) -> float:
        """The update by the group's unroll; agent steps."""

        def work() -> int:
            state, _ = self.update(self.state, self.state.snapshot(), self.filled)
            jax.block_until_ready(state.params)
            return self.envs.num_envs * self.config.unroll_length

        return rate(work)

    def evaluation(self) -> float:
        """100 whole games of a fresh agent, start and end included; agent steps."""
        params = self.devices.first(self.state.params)
        start = time.perf_counter()
        games = evaluation.play(self.agent, params, 100, evaluation.How(sample=True))
        return games.lengths.sum() / (time.perf_counter() - start)

    def profile(self, folder: pathlib.Path) -> None:
        """Traces one unroll and one update, compiled before."""
        self.update(self.state, self.state.snapshot(), self.unroll())
        with jax.profiler.trace(str(folder), create_perfetto_trace=True):
            with jax.profiler.TraceAnnotation("unroll"):
                unroll = jax.block_until_ready(self.unroll())
            with jax.profiler.TraceAnnotation("update"):
                jax.block_until_ready(self.update(self.state, self.state.snapshot(), unroll))


def matrix_product() -> float:
    """Floating-point operations per second of a float32 product of 1024 x 1024, on one device."""
    size = 1024
    a = jnp.ones((size, size))
    product = jax.jit(jnp.dot)
    product(a, a)

    def work() -> int:
        product(a, a).block_until_ready()
        return 2 * size**3

    return rate(work, 1.0)


class NoGames:
    """B environments in which nothing happens, at once."""

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        flags, numbers = np.zeros(num_envs, bool), np.zeros(num_envs, np.float32)
        frame = np.zeros((num_envs, 210, 160), np.uint8)
        lives, ram = np.zeros(num_envs, np.int32), np.zeros((num_envs, 128), np.uint8)
        timestep = TimeStep(frame, reward=numbers, discount=numbers + 1, is_first=flags)
        self._row = Row(timestep, done=flags, game_over=flags, lives=lives, ram=ram)

    def reset(self) -> Row:
        return self._row

    def send(self, action: np.ndarray) -> None:
        pass

    def recv(self) -> Row:
        return self._row

    def close(self) -> None:
        pass


class NoNetwork(Agent):
    """A policy and a value that look at nothing and remember nothing."""

    def init_params(self, key: jax.Array) -> Params:
        return {"policy": jnp.zeros(self.spec.num_actions), "value": jnp.zeros(())}

    def init_state(self, actors: jax.Array) -> ActorState:
        nothing = jnp.zeros((len(actors), 1))
        return super().init_state(actors).replace(carry=Carry(nothing, nothing))

    def observe(self, state: ActorState, frame: jax.Array) -> tuple[ActorState, jax.Array]:
        return state, jnp.zeros((len(frame), 1))

    def apply(self, params: Params, observation: jax.Array, carry: Carry, *_: Any, **__: Any):
        rows = observation.shape[:2]
        absent = {field.name: None for field in dataclasses.fields(NetworkOutput)}
        said = {
            "logits": jnp.broadcast_to(params["policy"], (*rows, self.spec.num_actions)),
            "value": jnp.broadcast_to(params["value"], rows),
        }
        return NetworkOutput(**absent | said), carry


def loop_alone(actors: int) -> float:
    """Agent steps per second of the training loop, on one device, without games and network."""
    config = Config(actors_per_group=actors)
    with (
        mock.patch("maskrl.training.environments_of", return_value=NoGames(actors)),
        mock.patch("maskrl.training.agent_of", lambda c: NoNetwork(**vars(agent_of(c)))),
    ):
        return statistics.median(training(config, 1, 1000.0 * actors))


def measure_loop() -> dict[str, float]:
    """`loop_alone` for several numbers of actors, printed as a table."""
    rates = {str(actors): loop_alone(actors) for actors in (8, 32, 128)}
    print(f"{'actors':>8}{'steps/s':>12}")
    for actors, steps in rates.items():
        print(f"{actors:>8}{steps:12.0f}")
    return rates


def training(config: Config, device_count: int, expected: float) -> list[float]:
    """Agent steps per second of the whole loop, in stretches of `SECONDS` after the start.

    Args:
      expected: about what to expect; decides how long the run is (15 stretches).
    """
    steps = max(4 * config.unroll_steps, int(15 * SECONDS * expected))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            dataclasses.replace(config, steps=steps, eval_every=0),
            pathlib.Path(folder),
            device_count=device_count,
            resume=False,
            evaluate=lambda params: np.zeros(1),
            log_seconds=SECONDS,
        ).train()
        path = pathlib.Path(folder) / "metrics.csv"
        updates, speeds = files.read_columns(path, "updates", "steps_per_second")
    # Until every group has learned, updates are compiled, and groups start one after the other.
    of_an_unroll = config.actors_per_group // config.actors_per_update
    warm = speeds[updates >= 2 * config.groups * of_an_unroll].tolist()
    return warm[:-1] or warm  # the last stretch is cut short


def floors(median: dict[str, float]) -> dict[str, float]:
    """The floor of every part that has one; see the head of this file."""
    flops, env = median["matrix_product"], median["environments"]

    def with_environments(network: float) -> float:
        if jax.default_backend() == "cpu":
            return 1 / (1 / network + 1 / env)
        return min(network, env)

    return {
        "acting": flops / FORWARD,
        "updating": flops / BACKWARD,
        "training": with_environments(flops / (FORWARD + BACKWARD)),
        "evaluation": with_environments(flops / FORWARD),
    }


def measure_parts(config: Config, device_count: int, rounds: int) -> dict[str, Any]:
    """Every part and its floor, printed as a table; all samples."""
    parts = Parts(config, device_count)
    names = ("environments", "preprocessing", "acting", "updating", "evaluation")
    work = {name: getattr(parts, name) for name in names} | {"matrix_product": matrix_product}
    samples: dict[str, list[float]] = {name: [] for name in work}
    for n in tqdm(range(rounds + 1), unit=" rounds"):
        for name, part in work.items():
            value = part()
            if n:  # the first round compiles
                samples[name].append(value)
    median = {name: statistics.median(values) for name, values in samples.items()}
    unhurried = 1 / sum(1 / median[name] for name in ("environments", "acting", "updating"))
    samples["training"] = training(config, device_count, unhurried)
    median["training"] = statistics.median(samples["training"])

    floor = floors(median)
    print(f"{'':16}{'steps/s':>12}{'floor':>12}{'ratio':>8}")
    for name in (*names, "training"):
        line = f"{name:16}{median[name]:12.0f}"
        if name in floor:
            line += f"{floor[name]:12.0f}{median[name] / floor[name]:8.2f}"
        print(line)
    print(f"matrix product {median['matrix_product'] / 1e9:.0f} GFLOP/s")
    found = maps.measure(
        parts.agent,
        parts.devices.first(parts.state.params),
        rounds,
        functools.partial(rate, seconds=1.0),
    )
    kernels = parts.agent.network.kernels
    return {
        "kernels": kernels,
        "samples": samples,
        "median": median,
        "floors": floor,
        "maps": found,
    }


def measure_sweep(configs: list[tuple[Config, int]], rounds: int) -> list[dict[str, Any]]:
    """The training loop at every (settings, devices), printed as a table."""
    loops = [loop_of(*setting) for setting in configs]
    # What several devices do together must come in one order.
    at_once = len(loops) if all(count == 1 for _, count in configs) else 1
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        warm = [pool.submit(lambda loop=loop: (loop(), loop())) for loop in loops]
        for done in tqdm(concurrent.futures.as_completed(warm), total=len(warm), unit=" loops"):
            done.result()
    alone = {}
    for actors in sorted({config.actors_per_group for config, _ in configs}):
        envs = Environments(configs[0][0].game, actors, 0, threads=devices.threads(1))
        envs.reset()
        alone[actors] = environments_alone(envs)
        envs.close()
    samples = [[rate(loop) for loop in loops] for _ in tqdm(range(rounds), unit=" rounds")]
    rows = [
        {
            "groups": config.groups,
            "actors_per_group": config.actors_per_group,
            "actors_per_update": config.actors_per_update,
            "devices": count,
            "training": statistics.median(of_loop),
            "environments": alone[config.actors_per_group],
            "samples": of_loop,
        }
        for (config, count), of_loop in zip(configs, zip(*samples, strict=True), strict=True)
    ]
    heads = ("groups", "actors", "a update", "devices", "steps/s", "EnvPool", "ratio")
    print("".join(f"{head:>10}" for head in heads))
    for row in rows:
        numbers = [row[k] for k in ("groups", "actors_per_group", "actors_per_update", "devices")]
        speeds = [row[k] for k in ("training", "environments")]
        line = "".join(f"{n:10}" for n in numbers) + "".join(f"{n:10.0f}" for n in speeds)
        print(f"{line}{speeds[0] / speeds[1]:10.2f}")
    return rows


def loop_of(config: Config, device_count: int) -> Callable[[], int]:
    """A fresh run's loop; every call is an unroll of all groups, and returns its agent steps."""
    agent = agent_of(config)
    a3c = A3C(
        agent,
        config,
        run_state.fresh(agent, config, jax.random.PRNGKey(0)),
        jax.random.PRNGKey(1),
        Devices(device_count),
        functools.partial(environments_of, config, 0),
    )

    def unroll() -> int:
        for _ in range(config.unroll_length):
            a3c.tick()
        return sum(tally.agent_steps for tally in a3c.tallies())

    return unroll


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        processor = names[0].split(":")[1].strip() if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "devices": [d.device_kind for d in jax.local_devices()],
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("python -m benchmarks", __doc__)
    add = parser.add_argument
    add("--game", default="SpaceInvaders")
    add("--groups", type=int, nargs="+", default=[Config.groups])
    add("--actors-per-group", type=int, nargs="+", help="[as train.py takes them]")
    add("--actors-per-update", type=int, nargs="+", default=[Config.actors_per_update])
    add("--devices", type=int, nargs="+", help="local devices that share the actors [all]")
    add("--precision", default=Config.precision)
    add("--rounds", type=int, default=3, help="the median of so many [3]")
    add("--loop", action="store_true", help="the loop without games and network")
    add("--profile", type=pathlib.Path, help="trace an unroll and an update into this folder")
    add("--output", type=pathlib.Path, help="JSON file")
    with exit_on_user_error("benchmarks"):
        args = parser.parse_args(argv)
        if args.output:
            files.check_output(args.output)
        said = {name for name, value in vars(args).items() if value != parser.get_default(name)}
        for mode in TAKES.keys() & said:
            if other := said - {mode} - TAKES[mode]:
                flag = min(other).replace("_", "-")
                raise UserError(f"--{flag}: says nothing beside --{mode}")
        actors = args.actors_per_group or [devices.fit_actors(Config.actors_per_group, False)]
        counts = args.devices or [jax.local_device_count()]
        if min(*counts, args.rounds) < 1:
            raise UserError("--devices and --rounds must be at least 1")
        settings = [
            (
                Config(
                    game=game_name(args.game),
                    groups=g,
                    actors_per_group=a,
                    actors_per_update=b,
                    precision=args.precision,
                ),
                d,
            )
            for g, a, b, d in itertools.product(args.groups, actors, args.actors_per_update, counts)
        ]
        for config, count in settings:
            a, b = config.actors_per_group, config.actors_per_update
            if count > jax.local_device_count() or not devices.divides(a, count, b):
                raise UserError(
                    f"{a} actors, {b} of them per update, do not divide over {count} of "
                    f"{jax.local_device_count()} devices"
                )
        if args.profile:
            Parts(*settings[0]).profile(args.profile)
            print(
                f"tensorboard --logdir {args.profile}, or ui.perfetto.dev: perfetto_trace.json.gz"
            )
            return 0
        if args.loop:
            results = {"loop": measure_loop()}
        elif len(settings) > 1:
            results = {"sweep": measure_sweep(settings, args.rounds)}
        else:
            results = measure_parts(*settings[0], args.rounds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak memory {peak:.1f} GiB")
        if args.output:
            report = {"machine": machine(), "command": sys.argv[1:], "peak_memory_gib": peak}
            files.write(args.output, json.dumps(report | results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    devices.use_cores()
    run_program(main)
