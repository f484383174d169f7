"""Every setting of a run, its default, its unit and its source; presets; reading and checking."""

import dataclasses
import json
import math
import pathlib
from typing import Any

from maskrl.errors import UserError

MASKS = ("both", "policy", "value", "none")


def setting(default: Any, help: str, choices: tuple[str, ...] | None = None, low: Any = None):
    """A field with its command-line help, its choices or its least value."""
    return dataclasses.field(
        default=default, metadata={"help": help, "choices": choices, "low": low}
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A training run. The defaults are the paper's but where the help says otherwise."""

    game: str = setting("SpaceInvaders", "Atari game, e.g. Breakout; any that EnvPool has")
    mask: str = setting("both", "branches with mask-attention (none: plain A3C)", MASKS)
    core: str = setting("convlstm", "recurrent core", ("convlstm", "none"))
    seed: int = setting(0, "of parameters, sampling and environments", low=0)
    steps: int = setting(100_000_000, "agent steps in all (4 frames each)", low=1)

    groups: int = setting(5, "actor groups; each acts with its own stale parameters", low=1)
    actors_per_group: int = setting(7, "environments per group", low=1)
    unroll_length: int = setting(20, "agent steps per update", low=1)
    sync_every: int = setting(1, "unrolls between two copies of the shared parameters", low=1)

    learning_rate: float = setting(0.0, "of the shared AMSGrad; 0: 1e-4 sqrt(B)", low=0)
    adam_eps: float = setting(0.0, "added to the second moment's root; 0: 1e-3 / sqrt(B)", low=0)
    discount: float = setting(0.99, "gamma, per agent step", low=0)
    gae_lambda: float = setting(1.0, "of the advantage's lambda-return", low=0)
    entropy_cost: float = setting(0.01, "weight of the policy's entropy", low=0)
    value_cost: float = setting(0.5, "weight of the value's loss", low=0)
    max_episode_steps: int = setting(10_000, "agent steps after which a game is cut off", low=1)
    frames: str = setting(
        "luminance",
        "grey from EnvPool (faster), or the original's mean of RGB",
        ("luminance", "rgb"),
    )

    precision: str = setting(
        "float32", "of the inputs of matrix products, on a CPU", ("float32", "bfloat16")
    )

    eval_every: int = setting(2_000_000, "agent steps between greedy evaluations; 0: none", low=0)
    eval_episodes: int = setting(10, "games per evaluation", low=1)
    eval_episode_steps: int = setting(3_000, "agent steps after which its games are cut", low=1)
    save_every: int = setting(600, "seconds of training between checkpoints", low=1)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, choices, low = getattr(self, field.name), *_bounds(field)
            flag = "--" + field.name.replace("_", "-")
            if choices and value not in choices:
                raise UserError(f"{flag} {value}: choose from {', '.join(choices)}")
            if low is not None and not value >= low:
                raise UserError(f"{flag} {value}: must be at least {low}")
        for name in ("discount", "gae_lambda"):
            if getattr(self, name) > 1:
                raise UserError(f"--{name.replace('_', '-')} must be at most 1")

    @property
    def unroll_steps(self) -> int:
        """Agent steps of one unroll of all actors."""
        return self.groups * self.actors_per_group * self.unroll_length

    @property
    def optimiser_scale(self) -> tuple[float, float]:
        """(learning rate, eps) of the optimiser for updates that average B actors.

        The paper's B workers take B steps, each by one actor's gradient, with 1e-4 and 1e-3; we
        take one by their mean. Where the gradient is small against eps, Adam is plain SGD and moves
        lr / eps times the gradient: that must be B times theirs. Where noise rules, Adam divides by
        the noise, which the mean makes sqrt(B) times smaller: lr must be sqrt(B) times theirs. Both
        hold with lr = 1e-4 sqrt(B), eps = 1e-3 / sqrt(B) (the square-root rule of Malladi et al.
        2022, *On the SDEs and Scaling Rules for Adaptive Gradient Algorithms*).
        """
        root = math.sqrt(self.actors_per_group)
        return self.learning_rate or 1e-4 * root, self.adam_eps or 1e-3 / root

    @property
    def run_name(self) -> str:
        """The run's folder below `runs/`."""
        return f"{self.game}-{self.mask}-{self.seed}"


def _bounds(field: dataclasses.Field) -> tuple[tuple[str, ...] | None, Any]:
    return field.metadata["choices"], field.metadata["low"]


# Sets of defaults; flags override them.
PRESETS: dict[str, dict[str, Any]] = {
    # The paper's A3C to the letter: 35 workers, each with its own stale parameters.
    "paper": {"groups": 35, "actors_per_group": 1},
}


def write(config: Config, path: pathlib.Path, session: dict[str, Any]) -> None:
    """Writes the configuration as JSON, with how each session of the run was started.

    Args:
      session: the command line and versions of this session; appended to the ones in the file.
    """
    sessions = json.loads(path.read_text()).get("sessions", []) if path.exists() else []
    content = {"config": dataclasses.asdict(config), "sessions": [*sessions, session]}
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


def read(path: pathlib.Path) -> Config:
    """Reads what `write` wrote.

    Raises:
      UserError: no such file, or not a configuration of this program.
    """
    try:
        return Config(**json.loads(path.read_text())["config"])
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} is not a run: it has no {path.name}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a configuration of this program: {error}") from error
