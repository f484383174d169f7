"""Plays the games that the maps are measured on, and keeps their moments.

Moments come in pairs of neighbours, (t, t + 1), for the stability of maps. They are drawn evenly
from the whole game, whatever its length and whatever happens in it; the seeds are used for nothing
else.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from maskrl import files, preprocess
from maskrl.agent import Agent
from maskrl.cli import progress
from maskrl.envs import Environments, environment_seed
from maskrl.errors import UserError
from maskrl.evaluation import check_actions
from maskrl.recording import read_archive
from maskrl.study import objects
from maskrl.study.probe import Scene
from maskrl.types import Carry, Normaliser, Params

SETTLED = 2  # steps, even: before them the normaliser has seen too little


@dataclasses.dataclass(frozen=True)
class Moments:
    """The moments of all games, and what is known of every step of them.

    N moments; S steps of all games one after the other.
    """

    scene: Scene  # [N, ...], NumPy
    frame: np.ndarray  # uint8 [N, 210, 160, 3]
    game: np.ndarray  # int64 [N]
    step: np.ndarray  # int64 [N]
    step_game: np.ndarray  # int64 [S], the game of every step
    masks: dict[str, np.ndarray]  # float32 [S, 10, 10], by branch
    objects: dict[str, np.ndarray]  # bool [S, 10, 10], by kind: the cells that it touches
    facts: dict[str, np.ndarray]  # float32 [S], numbers from the memory (oxygen)

    def save(self, path: pathlib.Path) -> None:
        """Writes the file, whole or not at all."""
        flat = {f"scene.{k}": v for k, v in _scene_arrays(self.scene).items()}
        flat |= {k: getattr(self, k) for k in ("frame", "game", "step", "step_game")}
        for group in ("masks", "objects", "facts"):
            flat |= {f"{group}.{k}": v for k, v in getattr(self, group).items()}
        with files.whole(path) as partial, open(partial, "wb") as file:
            np.savez_compressed(file, **flat)


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[None]:
    """What a job has left is read within; for any job's file.

    Raises:
      UserError: it is damaged, or another version's.
    """
    try:
        yield
    except (UserError, OSError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged: delete it, and the same command makes it anew ({error})"
        ) from error


def read(path: pathlib.Path) -> Moments:
    """The inverse of `Moments.save`.

    Raises:
      UserError: the file is damaged.
    """
    with reading(path):
        return _moments(read_archive(path))


def read_game(path: pathlib.Path) -> np.ndarray:
    """Only `Moments.game`, which is soon read.

    Raises:
      UserError: the file is damaged.
    """
    with reading(path):
        return read_archive(path, {"game"})["game"]


def _moments(flat: dict[str, np.ndarray]) -> Moments:
    group = lambda g: {k[len(g) + 1 :]: v for k, v in flat.items() if k.startswith(g + ".")}  # noqa: E731
    scene = group("scene")
    carry = Carry(hidden=scene.pop("hidden"), cell=scene.pop("cell"))
    kept = {k: flat[k] for k in ("frame", "game", "step", "step_game")}
    kept |= {g: group(g) for g in ("masks", "objects", "facts")}
    scene["mean"] = np.broadcast_to(scene["mean"], scene["observation"].shape)
    return Moments(scene=Scene(carry=carry, **scene), **kept)


def _scene_arrays(scene: Scene) -> dict[str, np.ndarray]:
    names = ("observation", "previous", "mean", "black", "is_first", "action")
    arrays = {name: np.asarray(getattr(scene, name)) for name in names}
    arrays["mean"] = arrays["mean"][:1]  # every moment's is the same
    return arrays | {"hidden": scene.carry.hidden, "cell": scene.carry.cell}


class Draw:
    """A sample of a game's pairs of steps, every pair as likely, of a length not known before.

    Pairs are (0, 1), (2, 3), ...: they do not overlap. Vitter 1985, *Random Sampling with a
    Reservoir*, algorithm R.
    """

    def __init__(self, size: int, rng: np.random.Generator):
        self._size, self._rng, self._seen = size, rng, 0
        self._half: dict | None = None
        self.pairs: list[tuple[dict, dict]] = []

    def wants(self, step: int) -> bool:
        """Whether this step, the next one, is (so far) part of the sample."""
        if step % 2:
            return self._half is not None
        self._half = None
        self._seen += 1
        self._at = self._rng.integers(self._seen)
        return self._seen <= self._size or self._at < self._size

    def add(self, moment: dict) -> None:
        """Adds the step that was wanted."""
        if self._half is None:
            self._half = moment
        elif len(self.pairs) < self._size:
            self.pairs.append((self._half, moment))
        else:
            self.pairs[self._at] = self._half, moment


def black_level(normaliser: Normaliser) -> jax.Array:
    """float32 [B]: what a black pixel is after `preprocess.normalise`, with these statistics."""
    correction = -jnp.expm1(normaliser.count * np.log(preprocess.DECAY))
    return -(normaliser.mean / correction) / (normaliser.std / correction + 1e-8)


def collect(
    agent: Agent, params: Params, games: int, frames: int, seed: int, max_steps: int
) -> Moments:
    """Plays `games` greedy games at once, of at most `max_steps` agent steps, without intervention.

    Args:
      frames: moments wanted of all games; fewer where games are too short for their share.

    Raises:
      UserError: the games are too short for even one pair, or an agent of another game's actions.
    """
    check_actions(agent.spec)
    if max_steps < SETTLED + 2:
        raise UserError(f"games of {max_steps} agent steps are too short: at least {SETTLED + 2}")
    spec, rng = agent.spec, np.random.default_rng(seed)
    step = jax.jit(functools.partial(agent.step, greedy=True))
    level = jax.jit(black_level)
    make = functools.partial(
        Environments, spec.game, games, environment_seed(seed), max_episode_steps=max_steps
    )
    pairs = max(-(-frames // (2 * games)), 1)
    draws = [Draw(pairs, generator) for generator in rng.spawn(games)]
    state, key = agent.init_state(np.arange(games)), jax.random.PRNGKey(seed)
    params = jax.device_put(params)
    playing, previous = np.ones(games, bool), None
    every: list[list[dict]] = [[] for _ in range(games)]
    total, count = np.zeros((80, 80, 1)), 0
    bar = progress(total=max_steps, desc=f"{spec.game}: games to look at", unit=" steps")
    with bar, contextlib.ExitStack() as pools:
        envs = pools.enter_context(contextlib.closing(make(rgb=spec.frames == "rgb")))
        colour = envs
        if spec.frames != "rgb":
            colour = pools.enter_context(contextlib.closing(make(rgb=True)))
        row = envs.reset()
        shown = row if colour is envs else colour.reset()
        for t in range(max_steps):
            before = state.carry
            state, out = step(params, state, row.timestep, key)
            observation, action = np.asarray(out.observation), np.asarray(out.action)
            black = np.asarray(level(state.normaliser))
            previous = observation if previous is None else previous
            masks = {
                b: np.asarray(getattr(out.network, f"{b}_mask")[0])
                for b in ("policy", "value")
                if spec.has_mask(b)
            }
            view = (agent.crop.top, agent.crop.bottom)
            hidden = cell = None
            for g in np.flatnonzero(playing):
                frame = shown.timestep.frame[g].transpose(1, 2, 0)
                boxes, facts = objects.find(spec.game, frame, row.ram[g])
                every[g].append(
                    {
                        "masks": {b: m[g] for b, m in masks.items()},
                        "objects": {k: objects.touched(v, view) for k, v in boxes.items()},
                        "facts": facts,
                    }
                )
                if t >= SETTLED and draws[g].wants(t):
                    if hidden is None:
                        hidden, cell = np.asarray(before.hidden), np.asarray(before.cell)
                    moment = {
                        "observation": observation[g],
                        "previous": previous[g],
                        "black": black[g],
                        "is_first": row.timestep.is_first[g],
                        "action": action[g],
                        "hidden": hidden[g],
                        "cell": cell[g],
                        "frame": frame,
                        "step": t,
                    }
                    # Copied, or each would keep what all games had at this step.
                    draws[g].add({name: np.array(x) for name, x in moment.items()})
            total += observation[playing].sum(axis=0)
            count += playing.sum()
            playing &= ~row.game_over
            if not playing.any():
                break
            previous = observation
            envs.send(action)
            row = envs.recv()
            if colour is not envs:
                colour.send(action)
            shown = row if colour is envs else colour.recv()
            bar.update()

    chosen = [sorted(draw.pairs, key=lambda pair: pair[0]["step"]) for draw in draws]
    kept = [moment for pairs in chosen for pair in pairs for moment in pair]
    game = [g for g, pairs in enumerate(chosen) for _ in range(2 * len(pairs))]
    stack = lambda name: np.stack([m[name] for m in kept])  # noqa: E731
    mean = np.broadcast_to((total / count).astype(np.float32), (len(kept), 80, 80, 1))
    scene = Scene(
        mean=mean,
        carry=Carry(hidden=stack("hidden"), cell=stack("cell")),
        **{k: stack(k) for k in ("observation", "previous", "black", "is_first", "action")},
    )
    steps = [s for game in every for s in game]

    def of_steps(group: str) -> dict[str, np.ndarray]:
        return {k: np.stack([s[group][k] for s in steps]) for k in steps[0][group]}

    return Moments(
        scene=scene,
        frame=stack("frame"),
        game=np.array(game),
        step=stack("step"),
        step_game=np.repeat(np.arange(games), [len(e) for e in every]),
        masks=of_steps("masks"),
        objects=of_steps("objects"),
        facts=of_steps("facts"),
    )
