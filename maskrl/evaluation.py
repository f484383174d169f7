"""Plays whole games with an agent: scores, and recordings."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from maskrl.agent import Agent
from maskrl.devices import Devices
from maskrl.envs import Environments, action_names, environment_seed
from maskrl.errors import UserError
from maskrl.networks import Interventions, NetworkOutput, what_if
from maskrl.recording import Recording
from maskrl.types import ActorState, Params, TimeStep

Mode = Literal["normal", "inverse", "random"]
MAX_ENVIRONMENTS = 100
CPU_ROWS = 5  # that a core's network takes at once; more are no faster


@dataclasses.dataclass(frozen=True)
class Games:
    """Whole games, in the order of their environments (not of their ends)."""

    scores: np.ndarray  # float64 [episodes], unclipped, over all lives
    lengths: np.ndarray  # int64 [episodes], agent steps


def interventions_of(mode: Mode, branch: str, agent: Agent) -> Interventions:
    """What `inverse` does to the branch's masks (both: to policy and value); else nothing.

    Raises:
      UserError: the agent lacks a mask that would be inverted.
    """
    if mode != "inverse":
        return Interventions()
    has = {"policy": agent.network.mask_policy, "value": agent.network.mask_value}
    branches = ("policy", "value") if branch == "both" else (branch,)
    for name in branches:
        if not has[name]:
            raise UserError(f"mode inverse, branch {branch}: this agent has no {name} mask")
    return Interventions(**{name: "invert" for name in branches})


def play(
    agent: Agent,
    params: Params,
    game: str,
    episodes: int,
    *,
    seed: int = 0,
    mode: Mode = "normal",
    branch: str = "policy",
    sample: bool = False,
    rgb: bool = False,
    max_episode_steps: int = 10_000,
    progress: bool = False,
) -> Games:
    """Plays exactly `episodes` whole games in many environments at once.

    Every environment's share of the games is fixed before the start, so that short games are not
    over-represented. Loss of a life resets the agent's memory, not the score; each environment has
    a fresh normaliser, which lasts for its games.

    Args:
      mode: normal; inverse (the mask becomes 1 - M in `branch`); random (uniform actions).
      sample: draw actions from the policy instead of taking its most probable one.
      rgb: whether the agent sees the mean of RGB instead of luminance.
      max_episode_steps: agent steps after which a game is cut off (it still counts).
    """
    count = min(episodes, MAX_ENVIRONMENTS)
    share = np.full(count, episodes // count) + (np.arange(count) < episodes % count)
    devices = Devices(count, alone=True)
    choose = _chooser(agent, params, devices, mode, branch, sample, seed)
    # While the network chooses for one table, the environments of the other are stepped.
    tables = [
        _Table(agent, devices, choose, game, ids, share[ids], seed, rgb, max_episode_steps)
        for ids in np.array_split(np.arange(count), min(count // devices.count, 2))
    ]
    check_actions(agent, tables[0].envs, game)

    with tqdm(
        total=episodes, unit=" games", disable=not progress, miniters=0, mininterval=0.5
    ) as bar:
        playing, previous = list(tables), None
        while playing:
            for table in list(playing):
                table.receive()
                if not len(table.rows):
                    playing.remove(table)
                    continue
                table.choose()
                if previous is not None:
                    previous.send()
                previous = table
            if progress:
                done = [score for table in tables for scores in table.scores for score in scores]
                rate = sum(table.steps for table in tables) / max(bar.format_dict["elapsed"], 1e-9)
                mean = f"{np.mean(done):.1f}" if done else "-"
                bar.set_postfix({"score": mean, "steps/s": f"{rate:.0f}"}, refresh=False)
                bar.update(len(done) - bar.n)
    return Games(
        np.concatenate([scores for table in tables for scores in table.scores]),
        np.concatenate([lengths for table in tables for lengths in table.lengths]),
    )


class _Table:
    """Some of an evaluation's environments, each with its share of the games.

    `receive`, then `choose`, then `send`, over and over until `rows` is empty.
    """

    def __init__(
        self,
        agent: Agent,
        devices: Devices,
        choose: Callable,
        game: str,
        ids: np.ndarray,
        share: np.ndarray,
        seed: int,
        rgb: bool,
        max_episode_steps: int,
    ):
        first, size = int(ids[0]), _round_up(len(ids), devices.count)
        self.envs = Environments(
            game,
            size,
            environment_seed(seed) + first,
            rgb=rgb,
            max_episode_steps=max_episode_steps,
        )
        self._devices, self._choose = devices, choose
        self._share = np.pad(share, (0, size - len(ids)))
        state = agent.init_state(np.arange(first, first + size))
        self._state = devices.put(jax.tree.map(np.asarray, state))
        self._score, self._length = np.zeros(size), np.zeros(size, np.int64)
        self._timestep: TimeStep | None = None
        self._action: jax.Array | None = None
        self.rows = np.flatnonzero(self._share)  # the environments that still play
        self.scores: list[list[float]] = [[] for _ in range(size)]
        self.lengths: list[list[int]] = [[] for _ in range(size)]
        self.steps = 0

    def receive(self) -> None:
        """Waits for the environments, counts, and drops those that have played their share."""
        if self._timestep is None:
            row = self.envs.reset()
            self._timestep = row.timestep
            return
        self.send()
        row = self.envs.recv()
        counted = ~row.timestep.is_first
        self._score[self.rows] += row.timestep.reward
        self._length[self.rows] += counted
        self.steps += int(np.sum(counted))
        for i in self.rows[row.game_over]:
            self.scores[i].append(float(self._score[i]))
            self.lengths[i].append(int(self._length[i]))
            self._score[i] = self._length[i] = 0
        leaves = map(jax.tree.leaves, (self._timestep, row.timestep))
        for every, stepped in zip(*leaves, strict=True):
            every[self.rows] = stepped
        left = [len(self.scores[i]) < self._share[i] for i in self.rows]
        self.rows = self.rows[left]
        if not len(self.rows):
            self.envs.close()

    def choose(self) -> None:
        """Dispatches the choice of the next actions."""
        playing = np.zeros(len(self._share), bool)
        playing[self.rows] = True
        self._state, self._action = self._choose(self._state, self._timestep, playing)

    def send(self) -> None:
        """Sends the actions that were chosen, if it has not been done."""
        if self._action is not None:
            self.envs.send(self._devices.merge(self._action)[self.rows], self.rows)
            self._action = None


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _chooser(agent, params, devices, mode, branch, sample, seed):
    """`(state, timestep, playing) -> (state, action)` for the mode, split over the devices.

    Only the rows that are `playing`, bool [B], count; the others' states and actions are arbitrary.
    """
    if mode == "random":
        rng = np.random.default_rng(seed)
        actions = agent.network.num_actions
        return lambda state, timestep, playing: (
            state,
            devices.split(rng.integers(actions, size=len(playing))),
        )
    interventions = interventions_of(mode, branch, agent)

    def step(params, state, timestep, key):
        state, output = agent.step(
            params, state, timestep, key, greedy=not sample, interventions=interventions
        )
        return state, output.action

    def step_playing(params, state, timestep, key, playing):
        if jax.default_backend() != "cpu":
            return step(params, state, timestep, key)  # other rows cost an accelerator nothing
        # A few rows at a time, and only those that play: a step takes less and less time as games
        # end, and nothing is compiled anew.
        rows = len(playing)
        few = min(rows, CPU_ROWS)
        order = jnp.pad(jnp.argsort(~playing), (0, -rows % few), constant_values=rows)

        def step_few(n, carry):
            at = jax.lax.dynamic_slice_in_dim(order, n * few, few)
            some = jax.tree.map(lambda x: x.at[at].get(mode="clip"), (carry[0], timestep))
            moved = step(params, *some, key)
            return jax.tree.map(lambda x, y: x.at[at].set(y, mode="drop"), carry, moved)

        passes = (jnp.sum(playing) + few - 1) // few
        return jax.lax.fori_loop(0, passes, step_few, (state, jnp.zeros(rows, jnp.int32)))

    compiled = devices.compile(step_playing)
    params, key = devices.replicate((params, np.asarray(jax.random.PRNGKey(seed))))

    def choose(state: ActorState, timestep: TimeStep, playing: np.ndarray):
        return compiled(params, state, devices.split(timestep), key, devices.split(playing))

    return choose


def check_actions(agent: Agent, envs: Environments, game: str) -> None:
    """Raises UserError unless the agent's actions are the game's."""
    if agent.network.num_actions != envs.num_actions:
        raise UserError(
            f"this agent has {agent.network.num_actions} actions, {game} has {envs.num_actions}"
        )


def record(
    agent: Agent,
    params: Params,
    game: str,
    *,
    name: str,
    mask: str,
    agent_steps: int,
    seed: int = 0,
    mode: Mode = "normal",
    branch: str = "policy",
    sample: bool = False,
    rgb: bool = False,
    max_episode_steps: int = 10_000,
    progress: bool = False,
) -> Recording:
    """Plays one whole game and records it; see `play` for the arguments.

    Args:
      name, mask, agent_steps: of the agent, for the recording's header.
    """
    first = environment_seed(seed)
    envs = Environments(game, 1, first, rgb=rgb, max_episode_steps=max_episode_steps)
    check_actions(agent, envs, game)
    # An agent that sees luminance plays a twin of the game, step by step the same, whose colours
    # are recorded.
    colour = (
        envs if rgb else Environments(game, 1, first, rgb=True, max_episode_steps=max_episode_steps)
    )
    interventions = interventions_of(mode, branch, agent)

    def look(params, state, timestep, key):
        state, output = agent.step(
            params, state, timestep, key, greedy=not sample, interventions=interventions
        )
        return state, output.action, _said(params, output.network)

    step = jax.jit(look)
    key, rng = jax.random.PRNGKey(seed), np.random.default_rng(seed)
    params = jax.device_put(params)

    kept: dict[str, list] = collections.defaultdict(list)
    state = agent.init_state(np.arange(1))
    row = envs.reset()
    shown = row if colour is envs else colour.reset()
    with tqdm(unit=" steps", disable=not progress, dynamic_ncols=True) as bar:
        while True:
            state, action, said = step(params, state, row.timestep, key)
            action = np.asarray(action)
            if mode == "random":
                action = rng.integers(agent.network.num_actions, size=1)
            here = {field: np.asarray(array) for field, array in said.items()} | {
                "frames": shown.timestep.frame[0].transpose(1, 2, 0),
                "action": np.int32(action[0]),
                "lives": np.int32(row.lives[0]),
                "life_start": row.timestep.is_first[0],
                "ram": row.ram[0],
            }
            for field, value in here.items():
                kept[field].append(value)
            if row.game_over[0]:
                kept["reward"].append(np.float32(0))
                break
            envs.send(action)
            row = envs.recv()
            if colour is not envs:
                colour.send(action)
            shown = row if colour is envs else colour.recv()
            kept["reward"].append(row.timestep.reward[0])
            bar.update()
    for pool in {envs, colour}:
        pool.close()
    return Recording(
        game=game,
        agent=name,
        mask=mask,
        mode=mode,
        branch=branch,
        seed=seed,
        agent_steps=agent_steps,
        action_names=action_names(game, agent.network.num_actions),
        view=(agent.crop.top, agent.crop.bottom),
        cut_off=bool(row.timestep.discount[0]),
        **{field: np.stack(values) for field, values in kept.items() if values},
    )


def _said(params: Params, network: NetworkOutput) -> dict[str, jax.Array]:
    """What the network says of one step of one actor, and would say with other masks."""
    said = {"logits": network.logits, "value": network.value}
    for branch in ("policy", "value"):
        mask = getattr(network, f"{branch}_mask")
        if mask is None:
            continue
        other = what_if(params[branch], getattr(network, f"{branch}_features"), mask)
        said |= {
            f"{branch}_mask": mask,
            f"{branch}_mask_logits": getattr(network, f"{branch}_mask_logits"),
        }
        if branch == "policy":
            said |= {"unmasked_logits": other.unmasked, "inverted_logits": other.inverted}
            said["cell_logits"] = other.cells.astype(jnp.float16)
        else:
            said |= {
                "unmasked_value": other.unmasked[..., 0],
                "inverted_value": other.inverted[..., 0],
            }
            said["cell_values"] = other.cells[..., 0].astype(jnp.float16)
    return {field: array[0, 0] for field, array in said.items()}
