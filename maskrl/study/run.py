"""The study: a list of jobs, each of which leaves a file. What has a file is not done again.

    games.npz                moments and steps of the games to look at      (`collect`)
    maps/CHUNK.npz           every method's maps and curves at some moments (`Measure`)
    sanity/CHUNK.npz         how alike maps of networks are whose layers were made anew
    controls/NAME-PART.json  scores of whole games under a control

One such folder per agent. A file appears whole or not at all, so a killed study goes on; a job is
done by one process, so several may work at a study at once.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from maskrl import evaluation, files
from maskrl.agent import Agent, AgentSpec
from maskrl.checkpoint import AgentInfo
from maskrl.cli import progress
from maskrl.config import EPISODE_STEPS
from maskrl.devices import Devices
from maskrl.errors import UserError
from maskrl.evaluation import How, Player
from maskrl.study import collect, controls, measures
from maskrl.study.collect import Moments
from maskrl.study.methods import METHODS, cells
from maskrl.study.probe import TARGETS, Scene, probe
from maskrl.types import Params

PLAYED = ("normal", "inverse", *controls.CONTROLS, "random")
# Cumulatively, from the output to the input (Adebayo et al. 2018, section 4.1).
CASCADE = (
    *("policy.kernel", "policy.features", "policy.mask", "value.kernel", "value.features"),
    *("value.mask", "gates", "conv3", "conv2", "conv1"),
)
PART = 20  # games of a job of a control: all of them are played at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is computed; it is kept beside the results, which must all have the same.

    Attributes:
      frames: moments per agent that maps are measured at.
      games: that these moments come from.
      look_steps: agent steps after which such a game is cut off.
      episodes: whole games per control.
      max_episode_steps: agent steps after which a game of a control is cut off.
      sanity: moments per agent at which layers are made anew.
      seed: of the games; those of the controls are other ones.
    """

    frames: int = 1000
    games: int = 20
    look_steps: int = EPISODE_STEPS
    episodes: int = 100
    max_episode_steps: int = EPISODE_STEPS
    sanity: int = 16
    seed: int = 1_000_003


@dataclasses.dataclass(frozen=True)
class Subject:
    """An agent to be studied, and its folder."""

    name: str
    agent: Agent
    params: Params  # NumPy
    info: AgentInfo
    folder: pathlib.Path


def settle(folder: pathlib.Path, budget: Budget, agents: dict[str, str], precision: str) -> None:
    """Writes what is studied, or checks that it is what the folder was begun with.

    Args:
      agents: name -> where it comes from, and its steps.

    Raises:
      UserError: it is not.
    """
    path = folder / "study.json"
    now = {"budget": dataclasses.asdict(budget), "agents": agents, "precision": precision}
    if path.exists():
        with collect.reading(path):
            then = files.read_json(path)
        if then != now:
            raise UserError(
                f"{folder} holds a study of other agents, another budget or precision: {then}"
            )
        return
    files.write(path, json.dumps(now, indent=2) + "\n")


def alone(folder: pathlib.Path) -> contextlib.AbstractContextManager:
    """Other processes at the same study wait meanwhile.

    Raises:
      UserError: the folder cannot be written.
    """
    return files.locked(folder / "study.lock", wait=True)


def run(subjects: list[Subject], budget: Budget) -> None:
    """Does every job that has left no file and that no other process does.

    It shows how many are left, and for how long; it ends when all are done, the others', too.
    """
    jobs = [job for subject in subjects for job in _jobs(subject, budget)]
    # One of each kind first: a study that was cut short says a little of everything.
    jobs.sort(key=lambda job: job[0])
    done = lambda: sum(path.exists() for _, path, *_ in jobs)  # noqa: E731
    with progress(total=len(jobs), initial=done(), unit=" jobs") as bar:
        # What others were at is waited for last, and done here if they were killed.
        for wait, (order, path, words, work) in itertools.product((False, True), jobs):
            if path.exists():
                continue
            with files.claimed(path, wait=wait or order == FIRST) as mine:
                if mine:
                    bar.set_postfix_str(words)
                    work(path)
            bar.update(done() - bar.n)


FIRST = (0, 0)  # in the order of jobs: what other jobs read
Job = tuple[tuple, pathlib.Path, str, Callable[[pathlib.Path], None]]


def _jobs(subject: Subject, budget: Budget) -> Iterator[Job]:
    """(order, file, words, work) of everything that is computed for an agent."""
    folder, name = subject.folder, subject.name
    games = folder / "games.npz"
    yield FIRST, games, f"{name}: games", functools.partial(_collect, subject, budget)
    known = functools.cache(lambda: collect.read(games))
    measure = Measure(subject, known)
    chunks = -(-budget.frames // CHUNK)
    for n in range(chunks):
        path = folder / "maps" / f"{n:04}.npz"
        yield (1, n / chunks), path, f"{name}: maps", functools.partial(measure.maps, n)
    sanities = -(-budget.sanity // CHUNK)
    for n in range(sanities):
        path = folder / "sanity" / f"{n:04}.npz"
        words = f"{name}: layers made anew"
        yield (1, (n + 0.3) / sanities), path, words, functools.partial(measure.sanity, n)
    player = functools.cache(functools.partial(_player, subject, budget, known))
    parts = -(-budget.episodes // PART)
    for part, (place, control) in itertools.product(range(parts), enumerate(PLAYED)):
        if control != "random" and not subject.info.has_mask("policy") and control != "normal":
            continue
        path = folder / "controls" / f"{control}-{part:02}.json"
        work = functools.partial(_play, subject, budget, player, control, part)
        yield (1, (part + place / len(PLAYED)) / parts), path, f"{name}: {control}", work


def _collect(subject: Subject, budget: Budget, path: pathlib.Path) -> None:
    moments = collect.collect(
        subject.agent,
        subject.params,
        budget.games,
        budget.frames,
        budget.seed,
        budget.look_steps,
    )
    moments.save(path)


# --------------------------------------------------------------------------- maps

CHUNK = 8  # moments of a job; a multiple of the devices, and whole pairs
PICTURED = 4  # every so many chunks keep their maps whole


def in_turns(game: np.ndarray) -> np.ndarray:
    """The order in which moments are measured: a pair of every game, then the next of every game.

    However few chunks there are, they are of as many games as possible.

    Args:
      game: int [N], the game of every moment; neighbours (0, 1), (2, 3), ... are of one game.
    """
    pair_game = game[::2]
    turn = np.array([np.sum(pair_game[:p] == g) for p, g in enumerate(pair_game)])
    pairs = np.lexsort((pair_game, turn))
    return np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel()


def method_names(spec: AgentSpec, target: str) -> list[str]:
    """The methods that apply, the trivial ones last.

    The mask's, if the target's branch has one; SARFA does not know the value.
    """
    without = {"sarfa"} if target == "value" else set()
    if not spec.has_mask("value" if target == "value" else "policy"):
        without.add("mask")
    return [name for name in METHODS if name not in without]


def computed(spec: AgentSpec, target: str) -> list[str]:
    """Those of `method_names` that are computed for this target: trivial maps know of none."""
    names = method_names(spec, target)
    return [n for n in names if METHODS[n].kind != "trivial" or target == TARGETS[0]]


class Measure:
    """Computes maps and curves; compiled once per agent."""

    def __init__(self, subject: Subject, moments: Callable[[], Moments]):
        self._subject, self._moments = subject, moments
        self._devices = Devices.dividing(CHUNK)
        self.names = {target: computed(subject.agent.spec, target) for target in TARGETS}

    @functools.cached_property
    def _params(self):
        return self._devices.replicate(self._subject.params)

    @functools.cached_property
    def _maps(self):
        return self._devices.compile(self._every_map)

    @functools.cached_property
    def _curves(self):
        return self._devices.compile(self._every_curve)

    def _every_map(self, params, scene: Scene, keys) -> dict[str, jax.Array]:
        """{target: [B, M, 80, 80]}: a target's methods have the same keys, whatever the params."""
        agent = self._subject.agent
        fast, plain = probe(agent, params, scene), probe(agent, params, scene, plain=True)
        maps, known = {}, {}
        for target, names in self.names.items():
            made = []
            for name in names:
                entry = METHODS[name]
                key = jax.random.fold_in(keys[0], list(METHODS).index(name))
                made.append(entry.map(plain if entry.plain else fast, scene, target, key, known))
            maps[target] = jnp.stack(made, axis=1)
        return maps

    def _every_curve(self, params, scene: Scene, keys, maps) -> dict[str, jax.Array]:
        """The maps, their cells and their curves; the moments come first in every array."""
        see = probe(self._subject.agent, params, scene)
        lot = jax.random.fold_in(keys[0], len(METHODS))  # no method's
        small = {target: cells(of_target) for target, of_target in maps.items()}  # [B, M, 10, 10]
        every = jnp.concatenate([small[target] for target in TARGETS], axis=1)
        rank = measures.ranks(jnp.swapaxes(every, 0, 1), lot)
        drawn = measures.curves(see, scene, rank)
        out, first = {}, 0
        for target in TARGETS:
            last = first + small[target].shape[1]
            top = jnp.maximum(maps[target].max(axis=(2, 3), keepdims=True), 1e-30)
            out[f"maps.{target}"] = (maps[target] / top).astype(jnp.float16)
            out[f"cells.{target}"] = small[target]
            for name, curve in drawn.items():
                # [B, M, way, ground, share]
                out[f"{name}.{target}"] = jnp.moveaxis(curve[first:last], -1, 0)
            first = last
        return out

    def _moments_at(self, index: np.ndarray, stream: int) -> tuple[Scene, np.ndarray]:
        """The scene of a chunk's moments, which are repeated to fill it, and their keys."""
        full = np.resize(index, CHUNK)
        scene = jax.tree.map(lambda x: x[full], self._moments().scene)
        keys = [jax.random.fold_in(jax.random.PRNGKey(stream), i) for i in full]
        return self._devices.put((scene, np.stack(keys)))

    def maps(self, chunk: int, path: pathlib.Path) -> None:
        """Maps and curves at the moments of a chunk; an empty file where there are no more."""
        index = in_turns(self._moments().game)[chunk * CHUNK : (chunk + 1) * CHUNK]
        if not len(index):
            _save(path, index=index)
            return
        scene, keys = self._moments_at(index, 1)
        maps = self._maps(self._params, scene, keys)
        out = self._curves(self._params, scene, keys, maps)
        out = {k: v[: len(index)] for k, v in self._devices.merge(out).items()}
        if chunk % PICTURED:  # full maps are for pictures
            out = {k: v for k, v in out.items() if not k.startswith("maps.")}
        _save(path, index=index, **out)

    def sanity(self, chunk: int, path: pathlib.Path) -> None:
        """Rank correlation and similarity of every map with the map of the network as it was.

        Layers are made anew one after the other, from the output to the input, and stay so; the
        carry is the one that the trained network left.
        """
        devices, subject, game = self._devices, self._subject, self._moments().game
        index = in_turns(game)[::2][chunk * CHUNK : (chunk + 1) * CHUNK]  # one of every pair
        if not len(index):
            _save(path, index=index)
            return
        scene, keys = self._moments_at(index, 2)
        fresh = subject.agent.init_params(jax.random.fold_in(jax.random.PRNGKey(3), chunk))
        fresh, params = (jax.tree.map(np.asarray, p) for p in (fresh, subject.params))
        original = devices.merge(self._maps(self._params, scene, keys))
        stages = [s for s in CASCADE if _has(params, s)]
        likeness = {f"{what}.{t}": [] for what in ("correlation", "ssim") for t in TARGETS}
        for stage in stages:
            params = replaced(params, fresh, stage)
            now = devices.merge(self._maps(devices.replicate(params), scene, keys))
            for target in TARGETS:
                before, after = (maps[target][: len(index)] for maps in (original, now))
                small = (np.asarray(cells(maps)) for maps in (before, after))
                likeness[f"correlation.{target}"].append(measures.rank_correlation(*small))
                likeness[f"ssim.{target}"].append(measures.ssim(before, after))
        arrays = {k: np.stack(v, axis=2) for k, v in likeness.items()}  # [B, M, stage]
        _save(path, index=index, game=game[index], stages=np.array(stages), **arrays)


def _has(params: Params, stage: str) -> bool:
    head, *rest = stage.split(".")
    return head in params and (not rest or rest[0] in params[head])


def replaced(params: Params, fresh: Params, stage: str) -> Params:
    """The parameters with those of one stage of `CASCADE` taken from `fresh`."""
    head, *rest = stage.split(".")
    new = fresh[head] if not rest else params[head] | {rest[0]: fresh[head][rest[0]]}
    if rest == ["kernel"]:  # the dense layer's other half
        new = new | {"bias": fresh[head]["bias"]}
    return params | {head: new}


# --------------------------------------------------------------------------- whole games


def known_masks(moments: Moments) -> dict[str, controls.Known]:
    """What the controls take from the games to look at, by branch."""
    return {branch: _known(masks, moments.step_game) for branch, masks in moments.masks.items()}


def _known(masks: np.ndarray, step_game: np.ndarray) -> controls.Known:
    games = [masks[step_game == g] for g in np.unique(step_game)]
    steps = max(map(len, games))
    others = np.stack([np.resize(g, (steps, *g.shape[1:])) for g in games])
    return controls.Known(mean=masks.mean(axis=0), others=others)


def _player(
    subject: Subject, budget: Budget, moments: Callable[[], Moments], control: str, episodes: int
) -> Player:
    """Plays a part of a control's games, whichever; compiled once."""
    agent = subject.agent
    if control in controls.CONTROLS:
        known = known_masks(moments()) if control in controls.NEEDS_KNOWN else {}
        agent = controls.controlled(agent, control, "policy", known)
    mode = control if control in evaluation.MODES else "normal"
    return Player(agent, episodes, How(mode=mode, max_episode_steps=budget.max_episode_steps))


def _play(
    subject: Subject,
    budget: Budget,
    player: Callable[[str, int], Player],
    control: str,
    part: int,
    path: pathlib.Path,
) -> None:
    """Scores of part of a control's games; the seeds are the same for every control."""
    episodes = min(PART, budget.episodes - part * PART)
    games = player(control, episodes).play(subject.params, seed=budget.seed + 1 + part)
    result = {"scores": games.scores.tolist(), "lengths": games.lengths.tolist()}
    files.write(path, json.dumps(result) + "\n")


def _save(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """An .npz that appears whole or not at all."""
    with files.whole(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)
