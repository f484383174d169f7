"""The original's agents (PyTorch state dicts): check ours against them, and import them.

    python -m maskrl.official check AGENT.dat TRAIN_STEP.npz [--game NAME]
    python -m maskrl.official import AGENT.dat DIR [--game NAME]

`check` recomputes everything that the original computed on one unroll of real frames, prints the
errors, and exits 1 if one is beyond 1e-4 (see `TOLERANCE` and `UNDECIDED`). `import` writes an
agent that `evaluate.py` takes.
Reading a `.dat` needs PyTorch (`pip install 'maskrl[torch]'`) and never runs code from it.
"""

import pathlib
import re
import sys
import zipfile
from collections.abc import Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np

from maskrl import checkpoint, files, learner, losses, preprocess
from maskrl.agent import Agent, make_agent
from maskrl.cli import Parser
from maskrl.config import Config
from maskrl.envs import game_name
from maskrl.errors import UserError, exit_on_user_error
from maskrl.recording import read_archive
from maskrl.types import Carry, Normaliser, Params, Trajectory

MAX_NUMBERS = 10_000_000  # of an agent; the original's has 0.4 million
TOLERANCE = 1e-4  # absolute for outputs, relative for losses, gradients and the optimiser's step
# In that unroll of Breakout, six of the first layer's 600,000 pooling windows that have a gradient
# hold two values, of different pixels, that differ by less than 3e-7 of themselves: rounding
# decides which pixel gets it, and may move the kernel's by 1.6e-3 in all. jax 0.10 decides as
# PyTorch did, jax 0.7 and 0.12 otherwise (8e-4, with XLA's own convolutions, too).
UNDECIDED = {("Breakout", "grad/conv1.kernel"): 2e-3}
LEARNING_RATE, ADAM_EPS = 1e-4, 1e-3  # of the original's optimiser

# Their name -> our path; torch keeps [out, in, k, k], ours are [k, k, in, out].
_CONVS = {
    "conv1": ("conv1",),
    "conv2": ("conv2",),
    "conv3": ("conv3",),
    "convlstm1.conv": ("gates",),
    "a_conv": ("policy", "features"),
    "att_conv_a1": ("policy", "mask"),
    "c_conv": ("value", "features"),
    "att_conv_c1": ("value", "mask"),
}
_DENSES = {"actor_linear": ("policy",), "critic_linear": ("value",)}
_OPTIONAL = {"convlstm1.conv", "att_conv_a1", "att_conv_c1"}  # absent in the ablations
# What a `*_train_step.npz` has at least.
TRAIN_STEP = (
    *("game", "frames", "pixels", "obs", "normaliser0", "h0", "c0", "h", "logits", "values"),
    *("actions", "rewards", "entropy", "policy_loss", "value_loss", "total_loss"),
)


def read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a PyTorch state dict with torch's `weights_only` loader.

    Raises:
      UserError: no PyTorch, no such file, cut off, hostile, or not a dict of float arrays.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError("reading a .dat needs PyTorch: pip install 'maskrl[torch]'") from error
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(info.file_size for info in archive.infolist())
        else:
            size = path.stat().st_size
        if size > 8 * MAX_NUMBERS:
            raise ValueError("too large")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a bad file
        raise UserError(f"{path} is not a PyTorch state dict (cut off, or another file)") from error
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.is_floating_point()
        and value.numel() <= MAX_NUMBERS
        for name, value in state.items()
    ):
        raise UserError(f"{path} is not a state dict of arrays")
    return {name: value.detach().float().numpy() for name, value in state.items()}


def convert(state: Mapping[str, np.ndarray], source: str = "the state dict") -> Params:
    """Their arrays by name -> our parameter tree; gradients convert like parameters.

    Raises:
      UserError: an array is missing, unknown, of another shape, or not finite.
    """
    params: Params = {}
    left = dict(state)

    def take(name: str, rank: int) -> np.ndarray:
        if name not in left:
            raise UserError(f"{source} is no agent of the original: {name} is missing")
        array = left.pop(name)
        if array.ndim != rank or not np.all(np.isfinite(array)):
            raise UserError(f"{source}: {name} has the wrong rank, or numbers that are not finite")
        return array

    def put(path: tuple[str, ...], **leaves: np.ndarray) -> None:
        node = params
        for part in path:
            node = node.setdefault(part, {})
        node.update(leaves)

    for theirs, ours in _CONVS.items():
        if theirs in _OPTIONAL and f"{theirs}.weight" not in left:
            continue
        kernel = take(f"{theirs}.weight", 4).transpose(2, 3, 1, 0)
        put(ours, kernel=kernel, bias=take(f"{theirs}.bias", 1))
    for theirs, ours in _DENSES.items():
        weight = take(f"{theirs}.weight", 2)
        if weight.shape[1] != 32 * 10 * 10:
            raise UserError(f"{source}: {theirs}.weight has {weight.shape[1]} inputs, not 3200")
        # They flatten [channel, row, column], we [row, column, channel].
        kernel = weight.reshape(-1, 32, 10, 10).transpose(2, 3, 1, 0).reshape(3200, -1)
        put(ours, kernel=kernel, bias=take(f"{theirs}.bias", 1))
    if left:
        raise UserError(f"{source} is no agent of the original: {min(left)} is unknown")
    return params


def agent_of(params: Params, game: str, source: str) -> tuple[Agent, checkpoint.AgentInfo]:
    """The agent and its description for converted parameters.

    Raises:
      UserError: the arrays' shapes fit no agent.
    """
    masks = ("mask" in params["policy"], "mask" in params["value"])
    info = checkpoint.AgentInfo(
        game=game,
        num_actions=params["policy"]["bias"].shape[0],
        mask={(1, 1): "both", (1, 0): "policy", (0, 1): "value", (0, 0): "none"}[masks],
        core="convlstm" if "gates" in params else "none",
        frames="rgb",
        agent_steps=0,
        source=source,
    )
    agent = make_agent(info)
    expected = jax.eval_shape(agent.init_params, jax.random.PRNGKey(0))
    checkpoint.check_shapes(params, expected, source)
    return agent, info


def compare(params: Params, data: Mapping[str, np.ndarray], game: str) -> dict[str, float]:
    """Recomputes one unroll of the original and returns the error of every quantity.

    Args:
      params: the agent, converted.
      data: the arrays of a `*_train_step.npz`.
      game: as EnvPool spells it.

    Returns:
      {name: error}: the greatest absolute error of `pixels`, `obs`, `h`, `logits`, `values`,
      `policy_mask`, `value_mask`, `entropy`; the relative error of `policy_loss`, `value_loss`,
      `total_loss`; of every `grad/*` (greatest difference over greatest entry); and of every
      `step/*`, what the optimiser adds to a parameter (likewise, less one unit in the last place
      of the float32 parameter, which is as well as the data tell it).
    """
    agent, _ = agent_of(params, game, "the agent")
    config = Config(
        game=game, learning_rate=LEARNING_RATE, adam_eps=ADAM_EPS, max_gradient_norm=0.0
    )
    errors: dict[str, float] = {}

    def absolute(name: str, ours: chex.Array) -> None:
        errors[name] = float(np.max(np.abs(np.asarray(ours) - data[name])))

    pixels = preprocess.resize(jnp.asarray(data["frames"].transpose(0, 3, 1, 2)), agent.crop)
    absolute("pixels", pixels)
    # The saved statistics are those just after the first frame; take that frame out again.
    mean, std, count = (np.float64(x) for x in data["normaliser0"])
    first = np.asarray(pixels[0], np.float64)
    fresh = 1 - preprocess.DECAY
    normaliser = Normaliser(
        mean=jnp.array([(mean - fresh * first.mean()) / preprocess.DECAY], jnp.float32),
        std=jnp.array([(std - fresh * first.std()) / preprocess.DECAY], jnp.float32),
        count=jnp.array([count - 1], jnp.float32),
    )
    _, observation = jax.lax.scan(
        lambda state, p: preprocess.normalise(state, p[None]), normaliser, pixels
    )
    absolute("obs", observation[:, 0])

    rows = len(observation)
    trajectory = Trajectory(
        observation=observation[..., None],
        action=jnp.asarray(data["actions"])[:, None],
        # reward[t + 1] answers action[t]; row 0's belongs to the unroll before.
        reward=jnp.concatenate([jnp.zeros(1), jnp.asarray(data["rewards"])])[:, None],
        discount=jnp.ones((rows, 1)),
        is_first=jnp.zeros((rows, 1), bool),
        initial_carry=Carry(
            hidden=jnp.asarray(data["h0"]).transpose(1, 2, 0)[None],
            cell=jnp.asarray(data["c0"]).transpose(1, 2, 0)[None],
        ),
    )
    output = jax.jit(agent.unroll)(params, trajectory)
    absolute("h", output.hidden[:-1, 0].transpose(0, 3, 1, 2))
    absolute("logits", output.logits[:-1, 0])
    absolute("values", output.value[:, 0])
    for mask in ("policy_mask", "value_mask"):
        if getattr(output, mask) is not None:
            absolute(mask, getattr(output, mask)[:-1, 0])
    absolute("entropy", losses.entropy(output.logits[:-1, 0]))

    def total_loss(p: Params) -> tuple[chex.Array, dict[str, chex.Array]]:
        return learner.loss(agent, config, p, trajectory)

    (total, parts), gradient = jax.jit(jax.value_and_grad(total_loss, has_aux=True))(params)
    parts["total_loss"] = total
    for name in ("policy_loss", "value_loss", "total_loss"):
        errors[name] = float(abs(parts[name] - data[name]) / abs(data[name]))

    def relative(prefix: str, ours: Params, theirs: Params, unit: Params | None = None) -> None:
        ours, theirs, unit = _flatten(ours), _flatten(theirs), _flatten(unit)
        for name, expected in theirs.items():
            difference = np.max(np.abs(ours[name] - expected) - unit.get(name, 0.0))
            error = max(difference, 0.0) if np.isfinite(difference) else np.inf
            errors[f"{prefix}/{name}"] = float(error / max(np.max(np.abs(expected)), 1e-30))

    their_gradient = convert(_under(data, "grad/"))
    relative("grad", gradient, their_gradient)
    # Their gradient, not ours: where it is small the first step is 30 times as sensitive to it.
    optimiser = learner.make_optimiser(config)
    change, _ = optimiser.update(their_gradient, optimiser.init(params))
    stepped = convert(_under(data, "stepped/"))
    # The original's stepped parameters are float32: their last digit's unit is no error of ours.
    unit = jax.tree.map(lambda x: np.spacing(np.abs(x)), stepped)
    relative("step", change, jax.tree.map(lambda x, p: np.float64(x) - p, stepped, params), unit)
    return errors


def _under(data: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): data[name] for name in data if name.startswith(prefix)}


def _flatten(tree: Params | None) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(part.key for part in path): np.asarray(leaf) for path, leaf in leaves}


def read_train_step(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a `*_train_step.npz`.

    Raises:
      UserError: no such file, or not such an archive.
    """
    data = read_archive(path)
    missing = [name for name in TRAIN_STEP if name not in data]
    if missing:
        raise UserError(f"{path} is no train step of the original: {missing[0]} is missing")
    return data


def game_of_file(path: pathlib.Path) -> str:
    """The game that the original put into the file's name, `SpaceInvadersNoFrameskip-v4_...`.

    Raises:
      UserError: there is none.
    """
    match = re.match(r"(\w+?)(NoFrameskip|Deterministic)?-v\d", path.name)
    if not match:
        raise UserError(f"no game in the name {path.name}: pass --game")
    return game_name(match[1])


def check(args) -> int:
    """Prints every error; 0 if all are within the tolerance, else 1."""
    data = read_train_step(args.train_step)
    game = game_name(args.game or str(data["game"]))
    params = convert(read_state_dict(args.agent), str(args.agent))
    actions = params["policy"]["bias"].shape
    if data["logits"].shape[-1:] != actions:
        raise UserError(f"{args.train_step} is not of an agent with {actions[0]} actions")
    try:
        errors = compare(params, data, game)
    except (AssertionError, KeyError, TypeError, ValueError) as error:  # chex's are the first
        raise UserError(f"{args.train_step} is not of this agent: {error}") from error
    wrong = too_large(errors, game)
    for name, error in errors.items():
        print(f"{name:32} {error:.2e}{'   TOO LARGE' if name in wrong else ''}")
    worst = max(errors, key=errors.get)
    print(f"{game}: {'FAILED' if wrong else 'passed'}; worst: {worst} {errors[worst]:.2e}")
    return int(bool(wrong))


def too_large(errors: Mapping[str, float], game: str) -> dict[str, float]:
    """Those of the errors that are beyond what they may be; NaN is."""
    limit = {name: UNDECIDED.get((game, name), TOLERANCE) for name in errors}
    return {name: error for name, error in errors.items() if not error <= limit[name]}


def import_(args) -> int:
    """Writes the agent's folder."""
    game = game_name(args.game) if args.game else game_of_file(args.agent)
    params = convert(read_state_dict(args.agent), str(args.agent))
    _, info = agent_of(params, game, "the original's agent")
    files.check_new(args.folder)
    try:
        checkpoint.save_agent(args.folder, params, info)
    except checkpoint.SaveError as error:
        raise UserError(str(error)) from error
    print(f"{args.folder}: {game}, {info.num_actions} actions, mask {info.mask}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("python -m maskrl.official", __doc__)
    commands = parser.add_subparsers(required=True, metavar="{check,import}")
    for name, function, help in (
        ("check", check, "recompute the original's numbers"),
        ("import", import_, "write an agent that evaluate.py takes"),
    ):
        command = commands.add_parser(name, help=help)
        command.set_defaults(function=function)
        command.add_argument("agent", type=pathlib.Path, help="state dict, .dat")
        if name == "check":
            command.add_argument("train_step", type=pathlib.Path, help="its numbers, .npz")
        else:
            command.add_argument("folder", type=pathlib.Path, help="to write; must not exist")
        command.add_argument("--game", help="by default what the file says")
    with exit_on_user_error("maskrl.official"):
        args = parser.parse_args(argv)
        return args.function(args)


if __name__ == "__main__":
    sys.exit(main())
