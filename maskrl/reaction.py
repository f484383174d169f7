"""Puts something into the game that was not there, and asks the agent again (the paper's Figures 19
and 20): both masks, policy and value before and after.

    python -m maskrl.reaction screen GAME.npz --agent AGENT --frame 300 --source 20 \\
        --box 57,8,63,152 --to 57,8 --output bricks
    python -m maskrl.reaction memory --agent AGENT --step 300 --byte ball-x --value 100 \\
        --output ball

`screen` pastes a patch, taken from another frame, into a frame of a recording (`evaluate.py --mode
explain` writes recordings). `memory` changes a byte of the console's memory; it needs ale-py:
`pip install 'maskrl[ale]'`. Both write OUTPUT.png and OUTPUT.pdf.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Iterable

import jax
import numpy as np

from maskrl import checkpoint, files, recording
from maskrl.agent import Agent
from maskrl.cli import Parser, integers, run_program
from maskrl.errors import UserError, exit_on_user_error
from maskrl.evaluation import check_actions
from maskrl.explain import figures, overlay
from maskrl.explain.figures import Moment
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
class Reaction:
    """The same moment without and with the edit; the agent's memory before it is the same."""

    title: str
    action_names: tuple[str, ...]
    view: tuple[int, int]
    before: Moment
    after: Moment


def write_figure(reaction: Reaction, stem: str | pathlib.Path) -> list[pathlib.Path]:
    """Draws before, after and the difference to stem.png and stem.pdf; returns their paths.

    Raises:
      UserError: a file cannot be written.
    """
    scales = {
        name: overlay.contrast_scale(np.stack([mask, reaction.after.masks[name]]))
        for name, mask in reaction.before.masks.items()
    }
    figure = figures.reaction(
        reaction.before,
        reaction.after,
        reaction.view,
        reaction.action_names,
        reaction.title,
        scales,
    )
    return figures.save(figure, stem)


def edit_screen(
    agent: Agent,
    params: Params,
    game: Recording,
    index: int,
    source: int,
    box: tuple[int, int, int, int],
    to: tuple[int, int],
    *,
    name: str,
) -> Reaction:
    """Pastes a patch of frame `source` into frame `index` of a game.

    Args:
      index, source: frames of the recording.
      box: (top, left, bottom, right) of the patch in frame `source`, in the screen's pixels.
      to: (top, left) of where it goes in frame `index`.
      name: of the agent, for the title; the game may be another's.

    Raises:
      UserError: a frame or a pixel that is not there, or an agent of another game's actions.
    """
    check_actions(agent.spec)
    for frame in (index, source):
        if not 0 <= frame < len(game):
            raise UserError(f"there is no frame {frame}: the recording has {len(game)}")
    top, left, bottom, right = box
    patch = game.frames[source][top:bottom, left:right]
    height, width = bottom - top, right - left
    if patch.shape[:2] != (height, width) or not patch.size or min(top, left) < 0:
        raise UserError(f"box {box}: not within 210 x 160 pixels")
    edited = game.frames[index].copy()
    if edited[to[0] : to[0] + height, to[1] : to[1] + width].shape != patch.shape or min(to) < 0:
        raise UserError(f"the patch of {height} x {width} pixels does not fit at {to}")
    edited[to[0] : to[0] + height, to[1] : to[1] + width] = patch
    state = replay(agent, params, itertools.islice(game.frames, index), game.life_start[:index])
    look = functools.partial(_look, agent, params, state, bool(game.life_start[index]))
    return Reaction(
        title=f"{game.game} · {name} · frame {index}, with a patch of frame {source}",
        action_names=game.action_names,
        view=game.view,
        before=look(game.frames[index]),
        after=look(edited),
    )


def edit_memory(
    agent: Agent,
    params: Params,
    step: int,
    byte: str | int,
    to: int,
    *,
    seed: int = 0,
) -> Reaction:
    """Plays greedily to agent step `step`, sets a byte of the memory, and lets the screen follow.

    The agent has seen the screens up to `step`. The console then plays one agent step (four frames)
    without action, from the same state, with the byte as it was and with the byte changed: the two
    screens are before and after.

    Args:
      byte: a name in `MEMORY[game]`, or an address from 0 to 127.
      to: the new value, 0 to 255.

    Raises:
      UserError: ale-py is missing, no such step or byte, the game ended before `step`, no pixel
        changed (objects that flicker are not drawn at every step), or an agent of another game's
        actions.
    """
    check_actions(agent.spec)
    if step < 0:
        raise UserError(f"step {step}: from 0 on")
    game = agent.spec.game
    known = MEMORY.get(game, {})
    address = known[byte][0] if byte in known else byte
    if not isinstance(address, int) or not 0 <= address < 128 or not 0 <= to < 256:
        raise UserError(
            f"byte {byte} = {to}: an address from 0 to 127 or one of {', '.join(known) or 'none'}, "
            "and a value from 0 to 255"
        )
    console = _Console(game, seed)
    state, is_first = agent.init_state(np.arange(1)), True
    act = _step(agent)
    for _ in range(step):
        lives = console.lives
        state, output = act(params, state, _timestep(agent, console.screen(), is_first))
        console.act(int(np.asarray(output.action)[0]))
        is_first = console.lives < lives
        if console.game_over:
            raise UserError(f"the game was over before step {step}: choose an earlier one")
    state, _ = act(params, state, _timestep(agent, console.screen(), is_first))
    saved, lives = console.state(), console.lives

    def follow() -> tuple[np.ndarray, bool]:
        console.act(0)
        return console.screen(), console.lives < lives

    before, before_is_first = follow()
    console.restore(saved)
    was = console.memory(address)
    console.set_memory(address, to)
    after, after_is_first = follow()
    if np.array_equal(after, before):
        raise UserError(f"byte {byte} = {to} changes no pixel at step {step}: try another step")
    look = functools.partial(_look, agent, params, state)
    name = byte if isinstance(byte, str) else f"byte {byte}"
    return Reaction(
        title=f"{game}, step {step}: {name} {was} → {to}",
        action_names=console.action_names,
        view=(agent.crop.top, agent.crop.bottom),
        before=look(before_is_first, before),
        after=look(after_is_first, after),
    )


def replay(
    agent: Agent, params: Params, frames: Iterable[np.ndarray], is_first: np.ndarray
) -> ActorState:
    """The agent's state after RGB frames uint8 [210, 160, 3] with their `is_first`.

    The normaliser sees all of them; the core, whose memory ends with a life, the last life's.
    """
    state = agent.init_state(np.arange(1))
    starts = np.flatnonzero(is_first)
    start = int(starts[-1]) if len(starts) else 0
    observe = jax.jit(lambda state, frame: agent.observe(state, frame)[0])
    act = _step(agent)
    for t, frame in enumerate(frames):
        timestep = _timestep(agent, frame, is_first[t])
        state = observe(state, timestep.frame) if t < start else act(params, state, timestep)[0]
    return state


def luminance(rgb: np.ndarray) -> np.ndarray:
    """The console's grey of its colours: uint8 [..., 3] -> uint8 [...]."""
    return np.round(rgb @ np.array([0.2989, 0.5870, 0.1140])).astype(np.uint8)


def _timestep(agent: Agent, frame: np.ndarray, is_first: bool) -> TimeStep:
    """One actor's row with the frame uint8 [210, 160, 3] as the agent takes it."""
    rgb = agent.spec.frames == "rgb"
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


def _look(agent: Agent, params, state, is_first: bool, frame: np.ndarray) -> Moment:
    """What the agent says to a frame from this state."""
    _, output = _step(agent)(params, state, _timestep(agent, frame, is_first))
    network = output.network

    masks = {"policy": network.policy_mask, "value": network.value_mask}
    return Moment(
        frame=frame,
        masks={name: np.asarray(mask[0, 0]) for name, mask in masks.items() if mask is not None},
        probabilities=np.asarray(jax.nn.softmax(network.logits[0, 0])),
        value=float(network.value[0, 0]),
    )


class _Console:
    """ale-py stepped as EnvPool steps it: four frames an action, the last two's maximum shown.

    But a life's start is shorter: FIRE for four frames, where `Environments` plays `OPENING`, too.
    """

    def __init__(self, game: str, seed: int):
        try:
            import ale_py
        except ImportError as error:
            raise UserError("editing the memory needs ale-py: pip install 'maskrl[ale]'") from error
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale = ale_py.ALEInterface()
        self._ale.setInt("random_seed", seed)
        self._ale.setFloat("repeat_action_probability", 0.0)
        rom = re.sub(r"(?<!^)(?=[A-Z])", "_", game).lower()  # SpaceInvaders -> space_invaders
        path = ale_py.roms.get_rom_path(rom)
        if path is None:
            raise UserError(f"ale-py has no game {rom}")
        self._ale.loadROM(path)
        self._actions = self._ale.getMinimalActionSet()
        self._screens = [self._ale.getScreenRGB()] * 2
        self._serve()

    def _serve(self) -> None:
        """Presses FIRE, where there is one: some games wait for it in every new life."""
        fire = [n for n, action in enumerate(self._actions) if action.name == "FIRE"]
        if fire:
            self._four_frames(fire[0])

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple(action.name for action in self._actions)

    @property
    def lives(self) -> int:
        return self._ale.lives()

    @property
    def game_over(self) -> bool:
        return self._ale.game_over()

    def act(self, action: int) -> None:
        """Four frames of an action of the minimal set; a new life is begun."""
        lives = self.lives
        self._four_frames(action)
        if self.lives < lives and not self.game_over:
            self._serve()

    def _four_frames(self, action: int) -> None:
        for _ in range(4):
            self._ale.act(self._actions[action])
            self._screens = [self._screens[1], self._ale.getScreenRGB()]

    def screen(self) -> np.ndarray:
        """uint8 [210, 160, 3]: of games with more rows the first ones, which EnvPool shows."""
        return np.maximum(*self._screens)[:210]

    def state(self):
        return self._ale.cloneState(), list(self._screens)

    def restore(self, saved) -> None:
        self._ale.restoreState(saved[0])
        self._screens = list(saved[1])

    def memory(self, address: int) -> int:
        return int(self._ale.getRAM()[address])

    def set_memory(self, address: int, value: int) -> None:
        self._ale.setRAM(address, value)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("python -m maskrl.reaction", __doc__)
    commands = parser.add_subparsers(required=True, dest="way", metavar="{screen,memory}")
    screen = commands.add_parser("screen", help="paste a patch of another frame")
    screen.add_argument("recording", type=pathlib.Path, help="of the same game, .npz")
    screen.add_argument("--frame", type=int, required=True, help="to paste into")
    screen.add_argument("--source", type=int, required=True, help="frame to take the patch from")
    screen.add_argument(
        "--box", type=integers(4), required=True, help="top,left,bottom,right of the patch, pixels"
    )
    screen.add_argument("--to", type=integers(2), help="top,left where it goes [where it was]")
    memory = commands.add_parser("memory", help="change a byte of the console's memory")
    memory.add_argument("--step", type=int, required=True, help="agent step to do it at")
    memory.add_argument("--byte", required=True, help=f"address, or a name: {_known()}")
    memory.add_argument("--value", type=int, required=True, help="0 to 255")
    for command in (screen, memory):
        command.add_argument("--agent", type=pathlib.Path, required=True, help="run or agent")
        command.add_argument("--output", type=pathlib.Path, required=True, help="without .png")
    with exit_on_user_error("maskrl.reaction"):
        args = parser.parse_args(argv)
        for kind in ("png", "pdf"):
            files.check_output(pathlib.Path(f"{args.output}.{kind}"))
        agent, params, info = checkpoint.load_agent(args.agent)
        if args.way == "screen":
            game = recording.read(args.recording)
            if game.game != info.game:
                raise UserError(f"{args.recording} is {game.game}, the agent plays {info.game}")
            to = args.to or args.box[:2]
            reaction = edit_screen(
                agent, params, game, args.frame, args.source, args.box, to, name=info.source
            )
        else:
            byte = int(args.byte) if args.byte.isdecimal() else args.byte
            reaction = edit_memory(agent, params, args.step, byte, args.value)
        for path in write_figure(reaction, args.output):
            print(f"written: {path}")
    return 0


def _known() -> str:
    return "; ".join(f"{game} {', '.join(names)}" for game, names in MEMORY.items())


if __name__ == "__main__":
    run_program(main)
