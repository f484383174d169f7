"""Puts something into the game that was not there, and asks the agent again (the paper's Figures 19
and 20): both masks, policy and value before and after.

Two ways: `edit_screen` pastes a patch, taken from another frame, into a frame of a recording;
`edit_memory` changes a byte of the console's memory (it needs ale-py: `pip install 'maskrl[ale]'`).
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from maskrl.agent import Agent
from maskrl.errors import UserError
from maskrl.recording import Recording
from maskrl.types import ActorState, Params, TimeStep

# Bytes whose meaning is known, {game: {name: (address, meaning)}}: most from Anand et al. 2019,
# *Unsupervised State Representation Learning in Atari*; each seen to move what it says.
MEMORY: dict[str, dict[str, tuple[int, str]]] = {
    "Breakout": {
        "ball-x": (99, "the ball's column"),
        "ball-y": (101, "the ball's row"),
        "player-x": (72, "the paddle's column"),
        "bricks-right-1": (5, "bricks at the right end of the top row, a bit each; 63: all six"),
        "bricks-right-6": (0, "the same for the bottom row"),
    },
    "MsPacman": {
        "sue-x": (6, "the orange ghost's column"),
        "sue-y": (12, "the orange ghost's row"),
        "player-x": (10, "Ms. Pac-Man's column"),
        "player-y": (16, "Ms. Pac-Man's row"),
    },
    "Seaquest": {
        "oxygen": (102, "oxygen left, 0 to 64"),
        "divers": (62, "divers on board, 0 to 6"),
        "fish-1-x": (33, "column of the enemies in the top lane"),
        "fish-4-x": (30, "column of the enemies in the bottom lane"),
        "player-x": (70, "the submarine's column"),
    },
    "SpaceInvaders": {
        "player-x": (28, "the cannon's column"),
        "invaders-x": (26, "the invaders' column"),
        "invaders-1": (23, "invaders of the top row, a bit each; 63: all six"),
        "invaders-6": (18, "invaders of the bottom row, likewise"),
    },
}


@dataclasses.dataclass(frozen=True)
class Moment:
    """What the agent sees and says at one moment; absent masks are None."""

    frame: np.ndarray  # uint8 [210, 160, 3]
    probabilities: np.ndarray  # float32 [A]
    value: float
    policy_mask: np.ndarray | None  # float32 [10, 10]
    value_mask: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Reaction:
    """The same moment without and with the edit; the agent's memory before it is the same."""

    title: str
    action_names: tuple[str, ...]
    view: tuple[int, int]
    before: Moment
    after: Moment


def edit_screen(
    agent: Agent,
    params: Params,
    recording: Recording,
    index: int,
    source: int,
    box: tuple[int, int, int, int],
    to: tuple[int, int],
    *,
    rgb: bool,
    title: str = "",
) -> Reaction:
    """Pastes a patch of frame `source` into frame `index` of a recording.

    Args:
      index, source: frames of the recording.
      box: (top, left, bottom, right) of the patch in frame `source`, in the screen's pixels.
      to: (top, left) of where it goes in frame `index`.
      rgb: whether the agent sees the mean of RGB instead of luminance.

    Raises:
      UserError: a frame or a pixel that is not there.
    """
    for frame in (index, source):
        if not 0 <= frame < len(recording):
            raise UserError(f"there is no frame {frame}: the recording has {len(recording)}")
    top, left, bottom, right = box
    patch = recording.frames[source][top:bottom, left:right]
    height, width = bottom - top, right - left
    if patch.shape[:2] != (height, width) or not patch.size or min(top, left) < 0:
        raise UserError(f"box {box}: not within 210 x 160 pixels")
    edited = recording.frames[index].copy()
    if edited[to[0] : to[0] + height, to[1] : to[1] + width].shape != patch.shape or min(to) < 0:
        raise UserError(f"the patch of {height} x {width} pixels does not fit at {to}")
    edited[to[0] : to[0] + height, to[1] : to[1] + width] = patch
    state = replay(agent, params, recording.frames[:index], recording.life_start[:index], rgb=rgb)
    look = functools.partial(
        _look, agent, params, state, bool(recording.life_start[index]), rgb=rgb
    )
    return Reaction(
        title=title or f"{recording.game}, frame {index}, with a patch of frame {source}",
        action_names=recording.action_names,
        view=recording.view,
        before=look(recording.frames[index]),
        after=look(edited),
    )


def edit_memory(
    agent: Agent,
    params: Params,
    game: str,
    step: int,
    byte: str | int,
    to: int,
    *,
    rgb: bool,
    action_names: Sequence[str],
    rom: str,
    seed: int = 0,
    title: str = "",
) -> Reaction:
    """Plays greedily to agent step `step`, sets a byte of the memory, and lets the screen follow.

    The console plays one agent step (four frames) without action, from the same state, with the
    byte as it was and with the byte changed: the two screens are before and after.

    Args:
      byte: a name in `MEMORY[game]`, or an address from 0 to 127.
      to: the new value, 0 to 255.
      rom: ale-py's name of the game, "space_invaders".

    Raises:
      UserError: ale-py is missing, no such byte, or the game ended before `step`.
    """
    known = MEMORY.get(game, {})
    address = known[byte][0] if byte in known else byte
    if not isinstance(address, int) or not 0 <= address < 128 or not 0 <= to < 256:
        raise UserError(
            f"byte {byte} = {to}: an address from 0 to 127 or one of {', '.join(known) or 'none'}, "
            "and a value from 0 to 255"
        )
    console = _Console(rom, seed)
    state, is_first = agent.init_state(np.arange(1)), True
    act = _step(agent)
    for _ in range(step):
        lives = console.lives
        state, output = act(params, state, _timestep(console.screen(), is_first, rgb=rgb))
        console.act(int(np.asarray(output.action)[0]))
        is_first = console.lives < lives
        if console.game_over:
            raise UserError(f"the game was over before step {step}: choose an earlier one")
    saved = console.state()
    console.act(0)
    before = console.screen()
    console.restore(saved)
    was = console.memory(address)
    console.set_memory(address, to)
    console.act(0)
    look = functools.partial(_look, agent, params, state, is_first, rgb=rgb)
    name = byte if isinstance(byte, str) else f"byte {byte}"
    return Reaction(
        title=title or f"{game}, step {step}: {name} {was} → {to}",
        action_names=tuple(action_names),
        view=(agent.crop.top, agent.crop.bottom),
        before=look(before),
        after=look(console.screen()),
    )


def replay(
    agent: Agent, params: Params, frames: np.ndarray, is_first: np.ndarray, *, rgb: bool
) -> ActorState:
    """The agent's state after RGB frames uint8 [T, 210, 160, 3] with their `is_first` [T].

    The normaliser sees all of them; the core, whose memory ends with a life, the last life's.
    """
    state = agent.init_state(np.arange(1))
    starts = np.flatnonzero(is_first)
    start = int(starts[-1]) if len(starts) else 0
    observe = jax.jit(lambda state, frame: agent.observe(state, frame)[0])
    act = _step(agent)
    for t, frame in enumerate(frames):
        timestep = _timestep(frame, is_first[t], rgb=rgb)
        state = observe(state, timestep.frame) if t < start else act(params, state, timestep)[0]
    return state


def luminance(rgb: np.ndarray) -> np.ndarray:
    """The console's grey of its colours: uint8 [..., 3] -> uint8 [...]."""
    return np.round(rgb @ np.array([0.2989, 0.5870, 0.1140])).astype(np.uint8)


def _timestep(frame: np.ndarray, is_first: bool, *, rgb: bool) -> TimeStep:
    """One actor's row with the frame uint8 [210, 160, 3] as the agent takes it."""
    return TimeStep(
        frame=(frame.transpose(2, 0, 1) if rgb else luminance(frame))[None],
        reward=np.zeros(1, np.float32),
        discount=np.ones(1, np.float32),
        is_first=np.array([is_first]),
    )


@functools.cache
def _step(agent: Agent):
    key = jax.random.PRNGKey(0)
    return jax.jit(functools.partial(agent.step, greedy=True, key=key))


def _look(agent, params, state, is_first, frame, *, rgb: bool) -> Moment:
    """What the agent says to a frame from this state."""
    _, output = _step(agent)(params, state, _timestep(frame, is_first, rgb=rgb))
    network = output.network

    def mask(x):
        return None if x is None else np.asarray(x[0, 0])

    return Moment(
        frame=frame,
        probabilities=np.asarray(jax.nn.softmax(network.logits[0, 0])),
        value=float(network.value[0, 0]),
        policy_mask=mask(network.policy_mask),
        value_mask=mask(network.value_mask),
    )


class _Console:
    """ale-py stepped as EnvPool steps it: four frames an action, the last two's maximum shown."""

    def __init__(self, rom: str, seed: int):
        try:
            import ale_py
        except ImportError as error:
            raise UserError("editing the memory needs ale-py: pip install 'maskrl[ale]'") from error
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setInt("random_seed", seed)
        self._ale.setFloat("repeat_action_probability", 0.0)
        path = ale_py.roms.get_rom_path(rom)
        if path is None:
            raise UserError(f"ale-py has no game {rom}")
        self._ale.loadROM(path)
        self._actions = self._ale.getMinimalActionSet()
        self._screens = [self._ale.getScreenRGB()] * 2
        fire = [n for n, action in enumerate(self._actions) if action.name == "FIRE"]
        if fire:  # games that wait for it
            self.act(fire[0])

    @property
    def lives(self) -> int:
        return self._ale.lives()

    @property
    def game_over(self) -> bool:
        return self._ale.game_over()

    def act(self, action: int) -> None:
        """Four frames of an action of the minimal set."""
        for _ in range(4):
            self._ale.act(self._actions[action])
            self._screens = [self._screens[1], self._ale.getScreenRGB()]

    def screen(self) -> np.ndarray:
        """uint8 [210, 160, 3]."""
        return np.maximum(*self._screens)

    def state(self):
        return self._ale.cloneState(), list(self._screens)

    def restore(self, saved) -> None:
        self._ale.restoreState(saved[0])
        self._screens = list(saved[1])

    def memory(self, address: int) -> int:
        return int(self._ale.getRAM()[address])

    def set_memory(self, address: int, value: int) -> None:
        self._ale.setRAM(address, value)
