"""EnvPool's Atari games -> `TimeStep`s. The only module that imports envpool."""

import concurrent.futures
import difflib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import envpool
import jax
import numpy as np
from envpool.atari.registration import atari_game_list

from maskrl.config import EPISODE_STEPS
from maskrl.errors import Fault, UserError, one_line
from maskrl.types import TimeStep

_ACTIONS = (
    *("NOOP", "FIRE", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT"),
    *("DOWNLEFT", "UPFIRE", "RIGHTFIRE", "LEFTFIRE", "DOWNFIRE", "UPRIGHTFIRE", "UPLEFTFIRE"),
    *("DOWNRIGHTFIRE", "DOWNLEFTFIRE"),
)
# The console's minimal action sets, `_ACTIONS` by their numbers, of the games that do not use all
# 18; as the emulator has them (Arcade Learning Environment, `getMinimalActionSet`).
_MINIMAL_ACTIONS = {
    (0, 2, 5): "Freeway",
    (0, 3, 4): "Skiing",
    (1, 3, 4): "Backgammon",
    (0, 1, 2, 5): "Blackjack Casino",
    (0, 1, 3, 4): "Breakout Kaboom",
    (0, 1, 11, 12): "Atlantis Atlantis2",
    (0, 1, 3, 4, 5): "Tetris",
    (0, 2, 3, 4, 5): "Frogger Pacman Surround",
    (1, 6, 7, 8, 9): "VideoCheckers",
    (0, 1, 2, 3, 4, 5): "BasicMath KingKong Qbert",
    (0, 1, 2, 5, 10, 13): "Bowling Pooyan UpNDown",
    (0, 1, 3, 4, 11, 12): (
        "AirRaid Carnival DemonAttack Galaxian NameThisGame Pong SirLancelot SpaceInvaders"
    ),
    (0, 1, 2, 3, 4, 11, 12): "Assault",
    (0, 1, 2, 3, 4, 10, 11, 12): "Gopher",
    (0, 1, 3, 4, 5, 11, 12, 13): "Phoenix",
    (0, 2, 3, 4, 5, 10, 11, 12): "Tutankham",
    (0, 1, 2, 3, 4, 5, 10, 11, 12): "VideoPinball",
    (0, 1, 2, 3, 4, 6, 7, 11, 12): "BeamRider",
    (0, 1, 3, 4, 5, 8, 9, 11, 12): "Enduro",
    (0, 2, 3, 4, 5, 6, 7, 8, 9): "Asterix CrazyClimber Koolaid LostLuggage MsPacman",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9): "Othello TicTacToe3d VideoChess",
    (0, 1, 2, 3, 4, 5, 10, 11, 12, 13): "Amidar MrDo TimePilot WizardOfWor",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12): "Turmoil",
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13): "KeystoneKapers",
    (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15): "Asteroids",
    (0, 2, 3, 4, 5, 8, 9, 11, 12, 13, 14, 15, 16, 17): "KungFuMaster",
    (0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17): "JourneyEscape",
}
_ACTIONS_OF = {
    game: tuple(_ACTIONS[n] for n in numbers)
    for numbers, games in _MINIMAL_ACTIONS.items()
    for game in games.split()
}


# What the original does with every life before the agent takes over, after the reset's FIRE, in
# games whose action 1 is FIRE: Breakout's ball is in flight then. Numbers of actions.
OPENING = (1, 2, 0, 1, 2)


STALL_SECONDS = 60  # without an answer, after which environments count as lost


def _plain(name: str) -> str:
    """`SpaceInvadersNoFrameskip-v4`, `ALE/SpaceInvaders-v5`, `space_invaders`: `spaceinvaders`."""
    name = re.sub(r"^ALE/|(NoFrameskip|Deterministic)?-v\d+$", "", name.strip())
    return re.sub(r"[^a-z0-9]", "", name.lower())


def game_name(name: str) -> str:
    """The game as EnvPool spells it, without its version: `space_invaders` -> `SpaceInvaders`.

    Raises:
      UserError: no such game; the message names the nearest ones.
    """
    games = {
        _plain(rom): "".join(w.capitalize() for w in rom.split("_")) for rom in atari_game_list
    }
    plain = _plain(name)
    if plain in games:
        return games[plain]
    near = difflib.get_close_matches(plain, games, n=3, cutoff=0.5)
    near += [key for key in games if plain and plain in key and key not in near][:3]
    hint = f"did you mean {' or '.join(games[n] for n in near)}?" if near else "e.g. Breakout"
    raise UserError(f"there is no game {name!r}: {hint}")


def action_names(game: str, num_actions: int) -> tuple[str, ...]:
    """The console's names of the agent's actions (`ACTION_3` where they are not known)."""
    names = _ACTIONS_OF.get(game, _ACTIONS)
    if len(names) == num_actions:
        return names
    return tuple(f"ACTION_{n}" for n in range(num_actions))


def num_actions(game: str) -> int:
    """The size of the game's minimal action set."""
    return int(envpool.make_spec(f"{game}-v5").action_space.n)


def environment_seed(*entropy: int) -> int:
    """EnvPool's seed for the first of some environments; the others count up from it.

    Spread out, so that neighbouring seeds (of runs, groups, evaluations) share no environments.
    """
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] % 2**30)


class Row(NamedTuple):
    """What came back from B environments, NumPy `[B, ...]`."""

    timestep: TimeStep
    done: np.ndarray  # bool: the last row of an episode; the next action is ignored
    game_over: np.ndarray  # bool: the last row of a game (all lives lost, or cut off)
    lives: np.ndarray  # int32
    ram: np.ndarray  # uint8 [B, 128], the console's memory


class Environments:
    """B copies of a game, stepped by EnvPool's threads in the background.

    Loss of a life ends an episode (`discount` 0), not the game. At the step limit the last row has
    discount 1: its value bootstraps. The row after a last row is the first of the next episode,
    whatever the action (EnvPool 1.2: it comes with reward 0); `Row.timestep.is_first` marks it.
    Before that row is handed over, the life's `OPENING` is played; its rewards come with the row,
    where they count for the score, and for no transition.

    Args:
      game: as `game_name` gives it.
      num_envs: B.
      seed: of no-op starts; environment i takes seed + i.
      rgb: frames [B, 3, 210, 160] instead of luminance [B, 210, 160].
      max_episode_steps: agent steps after which a game is cut off (less the openings of all its
        lives but the first).
      threads: that step the environments, at most B.

    Raises:
      Fault (every method): EnvPool failed, or has not answered for a minute; at the start for as
        many seconds as there are environments, if these are more.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        seed: int,
        *,
        rgb: bool = False,
        max_episode_steps: int = EPISODE_STEPS,
        threads: int = 1,
    ):
        self.num_actions = num_actions(game)
        fires = action_names(game, self.num_actions)[1:2] == ("FIRE",)
        self._opening = OPENING if fires else ()
        self._what = f"EnvPool, {game}, {num_envs} environments, seed {seed}"
        # EnvPool waits in C++, for ever: it does so in a thread of its own.
        self._waiter = concurrent.futures.ThreadPoolExecutor(1, "envpool")
        self._lost = False
        self._begun = False
        self.num_envs = num_envs
        self._pool = self._answer(
            envpool.make,
            f"{game}-v5",
            env_type="gymnasium",
            num_envs=num_envs,
            num_threads=min(num_envs, threads),
            seed=seed,
            stack_num=1,
            img_height=210,
            img_width=160,
            use_inter_area_resize=False,
            gray_scale=not rgb,
            episodic_life=True,
            max_episode_steps=max_episode_steps + len(self._opening),
        )
        self._rgb = rgb
        self._done = np.zeros(num_envs, bool)

    def reset(self) -> Row:
        """New games everywhere; every row is a first."""
        frame, info = self._answer(self._pool.reset)
        self._begun = True
        self._done[:] = False
        flags = np.zeros(self.num_envs, bool)
        timestep = TimeStep(
            frame=self._frame(frame),
            reward=np.zeros(self.num_envs, np.float32),
            discount=np.ones(self.num_envs, np.float32),
            is_first=~flags,
        )
        row = Row(timestep, flags, flags, info["lives"], info["ram"])
        return self._open(row, np.arange(self.num_envs))

    def send(self, action: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Starts a step of all environments, or of those in `ids`; does not wait for it."""
        ids = np.arange(self.num_envs) if ids is None else ids
        try:
            self._pool.send(np.asarray(action, np.int32), np.asarray(ids, np.int32))
        except Exception as error:
            raise Fault(f"{self._what}: {one_line(error)}") from error

    def _answer(self, ask: Callable, *args: Any, **kwargs: Any) -> Any:
        """What EnvPool returns."""
        answer = self._waiter.submit(ask, *args, **kwargs)
        # Many environments take long to make.
        patience = STALL_SECONDS if self._begun else max(STALL_SECONDS, self.num_envs)
        # Bit by bit: a process that stood still for a while (Ctrl-Z) has lost one bit of the time.
        for _ in range(60):
            if concurrent.futures.wait([answer], patience / 60).done:
                break
        else:
            self._lost = True
            raise Fault(f"{self._what}: no answer for {patience} s")
        try:
            return answer.result()
        except Exception as error:
            raise Fault(f"{self._what}: {one_line(error)}") from error

    def recv(self) -> Row:
        """Waits for the step that was sent; rows in the order of its ids."""
        return self._open(*self._recv())

    def _recv(self) -> tuple[Row, np.ndarray]:
        """A row, and the numbers of its environments."""
        frame, _, terminated, truncated, info = self._answer(self._pool.recv)
        ids = info["env_id"]
        is_first = self._done[ids]
        done = terminated | truncated
        self._done[ids] = done
        timestep = TimeStep(
            frame=self._frame(frame),
            reward=info["reward"],
            discount=1.0 - terminated.astype(np.float32),
            is_first=is_first,
        )
        game_over = info["terminated"].astype(bool) | truncated
        return Row(timestep, done, game_over, info["lives"], info["ram"]), ids

    def _open(self, row: Row, ids: np.ndarray) -> Row:
        """Plays the opening where a life begins; a life may end in it, on a row that is a first."""
        opening = np.flatnonzero(row.timestep.is_first)
        if not (len(opening) and self._opening):
            return row
        row = jax.tree.map(np.array, row)
        for action in self._opening:
            self.send(np.full(len(opening), action), ids[opening])
            new, _ = self._recv()
            reward = row.timestep.reward[opening] + new.timestep.reward
            first = row.timestep.is_first[opening]
            new = new._replace(timestep=new.timestep.replace(reward=reward, is_first=first))
            for old, now in zip(jax.tree.leaves(row), jax.tree.leaves(new), strict=True):
                old[opening] = now
            opening = opening[~new.done]
            if not len(opening):
                break
        return row

    def close(self) -> None:
        """Ends the threads; those of environments that do not answer are left to themselves."""
        if not self._lost:
            self._pool.close()
        self._waiter.shutdown(wait=not self._lost)

    def _frame(self, frame: np.ndarray) -> np.ndarray:
        return frame if self._rgb else frame[:, 0]
