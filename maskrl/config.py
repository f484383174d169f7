"""Every setting of a run, its default, its unit and its source; presets; reading and checking."""

import dataclasses
import json
import math
import pathlib
from typing import Any

from maskrl import files
from maskrl.errors import UserError

MASKS = ("both", "policy", "value", "none")
CORES = ("convlstm", "none")
FRAMES = ("luminance", "rgb")
PRECISIONS = ("float32", "bfloat16")
MOST = 2**31 - 1  # what is counted, is counted in 32 bits
MOST_ACTORS = 10_000  # each is a console of its own
# An agent's source is the name of its run, and of the agent that the run began with, if with any.
RUN, BEGAN_WITH = "maskrl, run ", ", from "
EPISODE_STEPS = 10_000  # agent steps after which the paper cuts a game off


def branches(choice: str) -> tuple[str, ...]:
    """The branches, policy and value, that `both` or the name of one means."""
    return ("policy", "value") if choice == "both" else (choice,)


def setting(
    default: Any,
    help: str,
    choices: tuple[str, ...] | None = None,
    low: Any = None,
    high: Any = None,
    flag: str | None = None,
):
    """A field with its command-line help, its choices or its range, and its flag's name."""
    metadata = {"help": help, "choices": choices, "low": low, "high": high, "flag": flag}
    return dataclasses.field(default=default, metadata=metadata)


def flag_of(field: dataclasses.Field) -> str:
    """The flag of the command line that sets a field."""
    return "--" + (field.metadata["flag"] or field.name.replace("_", "-"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A training run. The defaults are the paper's but where the help says otherwise."""

    game: str = setting("SpaceInvaders", "Atari game, e.g. Breakout; any that EnvPool has")
    mask: str = setting("both", "branches with mask-attention (none: plain A3C)", MASKS)
    core: str = setting("convlstm", "recurrent core", CORES)
    seed: int = setting(0, "of parameters, sampling and environments", low=0, high=MOST)
    steps: int = setting(100_000_000, "agent steps in all (4 frames each)", low=1, high=MOST)
    origin: str | None = setting(
        None,
        "folder of an agent or a run, whose parameters and count of steps the run begins with; the "
        "optimiser begins anew",
        flag="from",
    )

    groups: int = setting(
        2,
        "actor groups; each acts with its own stale parameters (the paper's 35 workers: 5 of 7)",
        low=1,
        high=1_000,
    )
    actors_per_group: int = setting(7, "environments per group", low=1, high=10_000)
    unroll_length: int = setting(20, "agent steps per update", low=1, high=1_000)
    sync_every: int = setting(
        1, "unrolls between two copies of the shared parameters", low=1, high=MOST
    )

    actors_per_update: int = setting(
        1,
        "actors whose mean gradient makes one update (1: A3C's own). More are an approximation: "
        "learning rate, eps and betas are scaled so that noise moves the parameters as far; where "
        "a signal rules the gradient, they move less",
        low=1,
        high=10_000,
    )
    learning_rate: float = setting(
        1e-4, "of the shared AMSGrad, for one actor's update", low=0, high=1.0
    )
    adam_eps: float = setting(
        1e-3, "added to the second moment's root, likewise", low=1e-12, high=1.0
    )
    max_gradient_norm: float = setting(
        40.0,
        "length to which longer gradients are cut; 0: never, as the paper's; AMSGrad then remembers"
        " one early spike for ever, and shrinks every later step",
        low=0,
        high=1e6,
    )
    discount: float = setting(0.99, "gamma, per agent step", low=0, high=1)
    gae_lambda: float = setting(1.0, "of the advantage's lambda-return", low=0, high=1)
    entropy_cost: float = setting(0.01, "weight of the policy's entropy", low=0, high=100.0)
    value_cost: float = setting(0.5, "weight of the value's loss", low=0, high=100.0)
    max_episode_steps: int = setting(
        EPISODE_STEPS, "agent steps after which a game is cut off", low=1, high=10_000_000
    )
    frames: str = setting(
        "luminance",
        "grey from EnvPool (faster), or the original's mean of RGB",
        FRAMES,
    )

    precision: str = setting(
        "float32",
        "of the inputs of matrix products, on a CPU; bfloat16 pays only with AVX512-BF16 or AMX",
        PRECISIONS,
    )

    eval_every: int | None = setting(
        None,
        "agent steps between greedy evaluations, one of them at the end; 0: none; by default "
        "250,000 up to 2 million, and 500,000 from there",
        low=0,
        high=MOST,
    )
    eval_episodes: int = setting(30, "games per evaluation", low=1, high=10_000)
    eval_episode_steps: int = setting(
        EPISODE_STEPS, "agent steps after which its games are cut", low=1, high=10_000_000
    )
    save_every: int = setting(600, "seconds of training between checkpoints", low=1, high=86_400)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, flag = getattr(self, field.name), flag_of(field)
            choices, low, high = (field.metadata[name] for name in ("choices", "low", "high"))
            kinds = field.type | int if isinstance(1.0, field.type) else field.type
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise UserError(f"{flag} {value!r}: of the wrong type")
            if choices and value not in choices:
                raise UserError(f"{flag} {value}: choose from {', '.join(choices)}")
            if value is not None and low is not None and not value >= low:
                raise UserError(f"{flag} {value}: must be at least {low}")
            if value is not None and high is not None and not value <= high:
                raise UserError(f"{flag} {value}: must be at most {high}")
        if self.groups * self.actors_per_group > MOST_ACTORS:
            raise UserError(
                f"--groups {self.groups} of --actors-per-group {self.actors_per_group}: more than "
                f"{MOST_ACTORS} actors, each with an environment of its own"
            )
        if self.actors_per_group % self.actors_per_update:
            raise UserError(
                f"--actors-per-group {self.actors_per_group} does not divide by "
                f"--actors-per-update {self.actors_per_update}"
            )

    @property
    def unroll_steps(self) -> int:
        """Agent steps of one unroll of all actors."""
        return self.groups * self.actors_per_group * self.unroll_length

    def evaluation_interval(self, last: int) -> float:
        """Agent steps between evaluations, after one at `last` (0: none yet)."""
        if self.eval_every == 0:
            return math.inf
        return self.eval_every or (250_000 if last < 2_000_000 else 500_000)

    @property
    def run_name(self) -> str:
        """The run's folder below `runs/`."""
        return f"{self.game}-{self.mask}-{self.seed}"


# Sets of defaults; flags override them.
PRESETS: dict[str, dict[str, Any]] = {
    # The paper's 35 workers and updates to the letter, at the speed of batches.
    "paper": {
        "groups": 5,
        "actors_per_group": 7,
        "actors_per_update": 1,
        "max_gradient_norm": 0.0,
    },
}


def write(config: Config, path: pathlib.Path, session: dict[str, Any]) -> None:
    """Writes the configuration as JSON, with how each session of the run was started.

    Args:
      session: where this session begins, and its command line and versions; appended to the ones
        in the file.
    """
    before = sessions(path) if path.exists() else []
    content = {"config": dataclasses.asdict(config), "sessions": [*before, session]}
    files.write(path, json.dumps(content, indent=2) + "\n")


def sessions(path: pathlib.Path) -> list[dict[str, Any]]:
    """How each session of a run was started, as given to `write`."""
    return files.read_json(path).get("sessions", [])


def read(path: pathlib.Path) -> Config:
    """Reads what `write` wrote.

    Raises:
      UserError: no such file, or not a configuration of this program.
    """
    try:
        content = files.read_json(path)
        if not isinstance(content.get("sessions", []), list):
            raise ValueError("sessions is no list")
        if content["config"].get("max_gradient_norm", 0.0) is None:
            content["config"]["max_gradient_norm"] = 0.0  # as older versions wrote it
        return Config(**content["config"])
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} is not a run: it has no {path.name}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a configuration of this program: {error}") from error
