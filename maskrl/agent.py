"""The agent: preprocessing and network together, for one step and for a whole unroll.

`step` and `unroll` are the same computation: `step` sees one row, `unroll` T + 1 rows whose
observations `step` has already made.
"""

import dataclasses
import functools
import sys

import chex
import flax.struct
import jax
import jax.numpy as jnp

from maskrl import preprocess
from maskrl.config import PRECISIONS, Config
from maskrl.envs import num_actions
from maskrl.networks import (
    CORE_CHANNELS,
    MASK_CELLS,
    NOTHING_SAVED,
    Interventions,
    Network,
    NetworkOutput,
    Saved,
)
from maskrl.types import ActorState, Carry, Params, TimeStep, Trajectory

KEEP = Interventions()


class StepOutput(flax.struct.PyTreeNode):
    """One step of B actors."""

    action: chex.Array  # int32 [B]
    observation: chex.Array  # float32 [B, 80, 80, 1], the network's input
    network: NetworkOutput  # with T = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentSpec:
    """What an agent is, but for its parameters."""

    game: str  # as EnvPool spells it
    num_actions: int
    mask: str = "both"  # config.MASKS: the branches with mask-attention
    core: str = "convlstm"  # config.CORES
    frames: str = "luminance"  # config.FRAMES: what it sees

    def has_mask(self, branch: str) -> bool:
        """Whether this branch, policy or value, has a mask."""
        return self.mask in (branch, "both")


@dataclasses.dataclass(frozen=True)
class Agent:
    """A network and the part of the screen that it sees; the parameters are passed in."""

    spec: AgentSpec
    network: Network
    crop: preprocess.Crop

    @property
    def one_game(self) -> bool:
        """Whether an actor of it can play no second game."""
        return False

    @functools.partial(jax.jit, static_argnums=0)
    def init_params(self, key: chex.PRNGKey) -> Params:
        """Fresh parameters."""
        observation = jnp.zeros((1, 1, preprocess.SIZE, preprocess.SIZE, 1))
        rows = observation, init_carry(1), jnp.ones((1, 1), bool)
        return self.network.init(key, *rows, interventions=KEEP)["params"]

    def init_state(self, actors: chex.Array) -> ActorState:
        """The state of these actors, int32 [B], before their first step."""
        batch = len(actors)
        return ActorState(
            carry=init_carry(batch),
            normaliser=preprocess.init_normaliser(batch),
            actor=jnp.asarray(actors, jnp.int32),
            step=jnp.zeros(batch, jnp.int32),
        )

    def observe(self, state: ActorState, frame: chex.Array) -> tuple[ActorState, chex.Array]:
        """Raw frames -> the network's input [B, 80, 80, 1]; the normaliser moves on."""
        pixels = preprocess.resize(frame, self.crop)
        normaliser, observation = preprocess.normalise(state.normaliser, pixels)
        return state.replace(normaliser=normaliser), observation[..., None]

    def apply(
        self,
        params: Params,
        observation: chex.Array,
        carry: Carry,
        is_first: chex.Array,
        interventions: Interventions = KEEP,
        saved: Saved = NOTHING_SAVED,
    ) -> tuple[NetworkOutput, Carry]:
        """The network on `[T, B, ...]`; see `maskrl.networks.Network`."""
        inputs = observation, carry, is_first, interventions, saved
        return self.network.apply({"params": params}, *inputs)

    def step(
        self,
        params: Params,
        state: ActorState,
        timestep: TimeStep,
        key: chex.PRNGKey,
        *,
        greedy: bool = False,
        interventions: Interventions = KEEP,
    ) -> tuple[ActorState, StepOutput]:
        """Observes, and chooses an action: sampled from the policy, or its most probable one.

        Args:
          key: the run's; every actor folds its number and its step into it, so what is sampled
            does not depend on how actors lie on devices, and no key is used twice.
        """
        state, observation = self.observe(state, timestep.frame)
        output, carry = self.apply(
            params, observation[None], state.carry, timestep.is_first[None], interventions
        )
        action = self.choose(output.logits[0], state, key, greedy=greedy)
        state = state.replace(carry=carry, step=state.step + 1)
        return state, StepOutput(action, observation, output)

    def choose(
        self, logits: chex.Array, state: ActorState, key: chex.PRNGKey, *, greedy: bool
    ) -> chex.Array:
        """The action, int32 [B], of logits [B, A]; `state` and `key` as in `step`."""
        if greedy:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        keys = jax.vmap(lambda a, s: jax.random.fold_in(jax.random.fold_in(key, a), s))(
            state.actor, state.step
        )
        return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)

    def unroll(self, params: Params, trajectory: Trajectory) -> NetworkOutput:
        """The network over all T + 1 rows of a trajectory, from its initial carry.

        Where the trajectory holds what acting saved, by the same parameters, only the last row is
        computed; it bootstraps, and no gradient flows through it.
        """
        rows, first = trajectory.observation, trajectory.is_first
        carry = trajectory.initial_carry
        if trajectory.saved is None:
            return self.apply(params, rows, carry, first)[0]
        output, carry = self.apply(params, rows[:-1], carry, first[:-1], saved=trajectory.saved)
        last, _ = jax.lax.stop_gradient(self.apply(params, rows[-1:], carry, first[-1:]))
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), output, last)


def make_agent(spec: AgentSpec, precision: str = "float32") -> Agent:
    """The agent of this description.

    Args:
      precision: of the inputs of matrix products on a CPU, float32 or bfloat16. An accelerator has
        its own default precision: that is said.
    """
    if jax.default_backend() != "cpu" and precision != PRECISIONS[0]:
        print(
            f"--precision {precision} is for CPUs: here JAX_DEFAULT_MATMUL_PRECISION rules",
            file=sys.stderr,
        )
        precision = PRECISIONS[0]
    network = Network(
        num_actions=spec.num_actions,
        mask_policy=spec.has_mask("policy"),
        mask_value=spec.has_mask("value"),
        core=spec.core,
        kernels=precision,
    )
    # Subclasses say more than an agent is.
    spec = AgentSpec(**{f.name: getattr(spec, f.name) for f in dataclasses.fields(AgentSpec)})
    return Agent(spec=spec, network=network, crop=preprocess.crop_of(spec.game))


def agent_of(config: Config) -> Agent:
    """The agent that a run trains."""
    spec = AgentSpec(
        game=config.game,
        num_actions=num_actions(config.game),
        mask=config.mask,
        core=config.core,
        frames=config.frames,
    )
    return make_agent(spec, config.precision)


def init_carry(batch_size: int) -> Carry:
    """The state at the start of an episode."""
    zeros = jnp.zeros((batch_size, MASK_CELLS, MASK_CELLS, CORE_CHANNELS))
    return Carry(hidden=zeros, cell=zeros)
