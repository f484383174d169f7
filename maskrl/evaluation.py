"""Plays whole games with an agent: scores, and recordings."""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskrl.agent import Agent, AgentSpec
from maskrl.checkpoint import AgentInfo
from maskrl.cli import progress as progress_line
from maskrl.config import EPISODE_STEPS, branches
from maskrl.devices import Devices, threads
from maskrl.envs import Environments, action_names, environment_seed, num_actions
from maskrl.errors import UserError
from maskrl.networks import Interventions, NetworkOutput, what_if
from maskrl.recording import Film, Recording
from maskrl.types import ActorState, Params, TimeStep

MODES = ("normal", "inverse", "random")
BRANCHES = ("policy", "value", "both")
MAX_ENVIRONMENTS = 100
CPU_ROWS = 5  # that a core's network takes at once; more are no faster


@dataclasses.dataclass(frozen=True, kw_only=True)
class How:
    """How games are played.

    Attributes:
      mode: normal; inverse (the mask becomes 1 - M in `branch`); random (uniform actions).
      branch: whose mask: policy, value or both.
      sample: draw actions from the policy instead of taking its most probable one.
      seed: of the environments, and of sampling.
      max_episode_steps: agent steps after which a game is cut off (it still counts).
    """

    mode: str = "normal"
    branch: str = "policy"
    sample: bool = False
    seed: int = 0
    max_episode_steps: int = EPISODE_STEPS

    def interventions(self, spec: AgentSpec) -> Interventions:
        """What is done to the agent's masks.

        Raises:
          UserError: the agent lacks a mask that would be inverted.
        """
        if self.mode != "inverse":
            return Interventions()
        for name in branches(self.branch):
            if not spec.has_mask(name):
                raise UserError(
                    f"mode inverse, branch {self.branch}: this agent has no {name} mask"
                )
        return Interventions(**{name: "invert" for name in branches(self.branch)})


@dataclasses.dataclass(frozen=True)
class Games:
    """Whole games, in the order of their environments (not of their ends)."""

    scores: np.ndarray  # float64 [episodes], unclipped, over all lives
    lengths: np.ndarray  # int64 [episodes], agent steps


def result(info: AgentInfo, how: How, games: Games) -> dict[str, Any]:
    """What a file of results says of some games; `tables.read_results` reads it."""
    scores = games.scores
    return {
        "game": info.game,
        "mask": info.mask,
        "source": info.source,
        "agent_steps": info.agent_steps,
        **dataclasses.asdict(how),
        "episodes": len(scores),
        "max": float(scores.max()),
        "mean": float(scores.mean()),
        "std": float(scores.std()),
        "median": float(np.median(scores)),
        "scores": scores.tolist(),
        "lengths": games.lengths.tolist(),
    }


def check_episodes(agent: Agent, episodes: int) -> None:
    """Raises UserError if the agent can play one game an environment, and these are more."""
    if agent.one_game and episodes > MAX_ENVIRONMENTS:
        raise UserError(f"{episodes} games: with this control at most {MAX_ENVIRONMENTS} games")


class Player:
    """Plays exactly `episodes` whole games in many environments at once, as often as asked.

    It is compiled once, whatever the parameters and the seed. Every environment's share of the
    games is fixed before the start, so that short games are not over-represented. Loss of a life
    resets the agent's memory, not the score; each environment has a fresh normaliser, which lasts
    for its games.

    Raises:
      UserError: the agent does not fit the game, has no mask to do `how` to, or is of one game an
        environment and these are more.
    """

    def __init__(self, agent: Agent, episodes: int, how: How = How()):
        check_actions(agent.spec)
        check_episodes(agent, episodes)
        self._agent, self._how, self._episodes = agent, how, episodes
        count = min(episodes, MAX_ENVIRONMENTS)
        self._share = np.full(count, episodes // count) + (np.arange(count) < episodes % count)
        self._devices = Devices(count, alone=True)
        self._start = _chooser(agent, self._devices, how)
        # Of every environment, and of those that fill a table up.
        actors = np.arange(count + self._devices.count)
        self._fresh = jax.tree.map(np.asarray, agent.init_state(actors))

    def play(
        self,
        params: Params,
        *,
        seed: int | None = None,
        progress: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Games:
        """Plays the games, the same ones every time, with these parameters (NumPy).

        Args:
          seed: of other games than `how`'s.

        Raises:
          KeyboardInterrupt: `stopped()` has become true.
        """
        how = self._how if seed is None else dataclasses.replace(self._how, seed=seed)
        devices, count = self._devices, len(self._share)
        choose = self._start(params, how.seed)
        # While the network chooses for one table, the environments of the other are stepped.
        parts = np.array_split(np.arange(count), min(count // devices.count, 2))
        with contextlib.ExitStack() as stack:
            tables = [
                stack.enter_context(
                    _Table(self._agent, how, devices, choose, self._fresh, ids, self._share[ids])
                )
                for ids in parts
            ]
            bar = stack.enter_context(
                progress_line(total=self._episodes, unit=" games", disable=not progress, miniters=0)
            )
            playing, previous = list(tables), None
            while playing:
                if stopped():
                    raise KeyboardInterrupt
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
                    done = [
                        score for table in tables for scores in table.scores for score in scores
                    ]
                    steps = sum(table.steps for table in tables)
                    rate = steps / max(bar.format_dict["elapsed"], 1e-9)
                    mean = f"{np.mean(done):.1f}" if done else "-"
                    bar.set_postfix({"score": mean, "steps/s": f"{rate:.0f}"}, refresh=False)
                    bar.update(len(done) - bar.n)
        return Games(
            np.concatenate([scores for table in tables for scores in table.scores]),
            np.array([n for table in tables for lengths in table.lengths for n in lengths], int),
        )


def play(
    agent: Agent,
    params: Params,
    episodes: int,
    how: How = How(),
    *,
    progress: bool = False,
) -> Games:
    """Plays whole games once; see `Player`."""
    return Player(agent, episodes, how).play(params, progress=progress)


class _Table:
    """Some of an evaluation's environments, each with its share of the games.

    `receive`, then `choose`, then `send`, over and over until `rows` is empty. The environments end
    with the `with` block.
    """

    def __init__(
        self,
        agent: Agent,
        how: How,
        devices: Devices,
        choose: Callable,
        fresh: ActorState,
        ids: np.ndarray,
        share: np.ndarray,
    ):
        first, size = int(ids[0]), _round_up(len(ids), devices.count)
        self.envs = Environments(
            agent.spec.game,
            size,
            environment_seed(how.seed) + first,
            rgb=agent.spec.frames == "rgb",
            max_episode_steps=how.max_episode_steps,
            threads=threads(1),  # while the other table's actions are computed
        )
        self._devices, self._choose = devices, choose
        self._share = np.pad(share, (0, size - len(ids)))
        self._state = devices.put(jax.tree.map(lambda x: x[first : first + size], fresh))
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
            self._score += row.timestep.reward  # what the opening has brought
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

    def __enter__(self) -> "_Table":
        return self

    def __exit__(self, *_: object) -> None:
        self.envs.close()


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _chooser(agent: Agent, devices: Devices, how: How) -> Callable:
    """Compiles `start(params, seed) -> choose`, and that `choose(state, timestep, playing) ->
    (state, action)`, split over the devices.

    Only the rows that are `playing`, bool [B], count; the others' states and actions are arbitrary.
    """
    if how.mode == "random":

        def start_random(params: Params, seed: int) -> Callable:
            rng = np.random.default_rng(seed)
            actions = agent.spec.num_actions
            return lambda state, timestep, playing: (
                state,
                devices.put(rng.integers(actions, size=len(playing))),
            )

        return start_random
    interventions = how.interventions(agent.spec)

    def step(params, state, timestep, key):
        state, output = agent.step(
            params, state, timestep, key, greedy=not how.sample, interventions=interventions
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

    def start(params: Params, seed: int) -> Callable:
        with jax.transfer_guard("allow"):  # the seed, on its way to become a key
            key = np.asarray(jax.random.PRNGKey(seed))
        params, key = devices.replicate((params, key))

        def choose(state: ActorState, timestep: TimeStep, playing: np.ndarray):
            seen = timestep.replace(reward=None, discount=None)
            seen, playing = devices.put((seen, playing))
            return compiled(params, state, seen, key, playing)

        return choose

    return start


def check_actions(spec: AgentSpec) -> None:
    """Raises UserError unless the agent's actions are the game's."""
    actions = num_actions(spec.game)
    if spec.num_actions != actions:
        raise UserError(f"this agent has {spec.num_actions} actions, {spec.game} has {actions}")


def record(
    agent: Agent,
    params: Params,
    how: How = How(),
    *,
    name: str,
    agent_steps: int,
    progress: bool = False,
) -> Recording:
    """Plays one whole game and records it.

    Args:
      name, agent_steps: of the agent, for the recording's header.

    Raises:
      UserError: the agent does not fit the game, or has no mask to do `how` to.
    """
    spec = agent.spec
    check_actions(spec)
    interventions = how.interventions(spec)

    @jax.jit
    def look(params, state, timestep, key):
        state, output = agent.step(
            params, state, timestep, key, greedy=not how.sample, interventions=interventions
        )
        return state, output.action, _said(params, output.network)

    first = environment_seed(how.seed)
    make = functools.partial(
        Environments, spec.game, 1, first, max_episode_steps=how.max_episode_steps
    )
    key, rng = jax.random.PRNGKey(how.seed), np.random.default_rng(how.seed)
    params = jax.device_put(params)

    kept: dict[str, list] = collections.defaultdict(list)
    film = Film(min(how.max_episode_steps, EPISODE_STEPS) + 1)
    state = agent.init_state(np.arange(1))
    bar = progress_line(unit=" steps", disable=not progress)
    with bar, contextlib.ExitStack() as stack:
        envs = stack.enter_context(contextlib.closing(make(rgb=spec.frames == "rgb")))
        colour = envs
        if spec.frames != "rgb":
            # An agent that sees luminance plays a twin of the game, step by step the same, whose
            # colours are recorded.
            colour = stack.enter_context(contextlib.closing(make(rgb=True)))
        row = opened = envs.reset()
        shown = row if colour is envs else colour.reset()
        while True:
            state, action, said = look(params, state, row.timestep, key)
            action = np.asarray(action)
            if how.mode == "random":
                action = rng.integers(spec.num_actions, size=1)
            if not row.game_over[0]:
                for each in {envs, colour}:  # step while this row is kept
                    each.send(action)
            here = {field: np.asarray(value) for field, value in said.items()} | {
                "action": np.int32(action[0]),
                "lives": np.int32(row.lives[0]),
                "life_start": row.timestep.is_first[0],
                "ram": row.ram[0],
            }
            film.add(shown.timestep.frame[0])
            for field, value in here.items():
                kept[field].append(value)
            if row.game_over[0]:
                kept["reward"].append(np.float32(0))
                break
            row = envs.recv()
            shown = row if colour is envs else colour.recv()
            kept["reward"].append(row.timestep.reward[0])
            bar.update()
    return Recording(
        game=spec.game,
        agent=name,
        mask=spec.mask,
        mode=how.mode,
        branch=how.branch,
        seed=how.seed,
        agent_steps=agent_steps,
        action_names=action_names(spec.game, spec.num_actions),
        view=(agent.crop.top, agent.crop.bottom),
        cut_off=bool(row.timestep.discount[0]),
        sample=how.sample,
        opening=float(opened.timestep.reward[0]),
        frames=film.frames(),
        **{field: np.stack(values) for field, values in kept.items()},
    )


def _said(params: Params, network: NetworkOutput) -> dict[str, jax.Array]:
    """What the network says of one step of one actor, and would say with other masks."""
    said = {"logits": network.logits, "value": network.value}
    if network.policy_mask is not None:
        said["policy_mask"] = network.policy_mask
        said["policy_mask_logits"] = network.policy_mask_logits
        other = what_if(params["policy"], network.policy_features, network.policy_mask)
        said["unmasked_logits"], said["inverted_logits"] = other.unmasked, other.inverted
        said["cell_logits"] = other.cells.astype(jnp.float16)
    if network.value_mask is not None:
        said["value_mask"] = network.value_mask
        said["value_mask_logits"] = network.value_mask_logits
        other = what_if(params["value"], network.value_features, network.value_mask)
        said["unmasked_value"] = other.unmasked[..., 0]
        said["inverted_value"] = other.inverted[..., 0]
        said["cell_values"] = other.cells[..., 0].astype(jnp.float16)
    return {field: array[0, 0] for field, array in said.items()}
