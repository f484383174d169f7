"""Controls for the inverse test: is it the mask's place that matters, or its strength?

The paper inverts the mask, and the score collapses. Inversion changes where the network looks and
also how much it lets through; each control here changes some of that and leaves the rest:

| control | place | mean strength | histogram | follows the frame |
| --- | --- | --- | --- | --- |
| ones | none | 1 | all ones | no |
| mean | its time mean | kept in the mean | flatter | no |
| shifted | 5 cells off both ways, around the edges | kept | kept | yes |
| shuffled | cells permuted, one permutation a game | kept | kept | yes |
| noise | cells permuted anew at every step | kept | kept | no |
| other | another game's mask of the same step | kept in the mean | kept in the mean | another's |
| reversed | brightest cell for darkest, by rank | kept | kept | yes, inverted |
| rescaled | 1 - M, times what keeps its mean | kept | changed | yes, inverted |
| inverse | 1 - M | changed | mirrored | yes, inverted |

(`inverse` is `maskrl.evaluation`'s own mode; the others are here.) In greedy play `rescaled` can
differ from `inverse` by the heads' biases only: one factor for all logits leaves their order. What
changes the place alone, the numbers kept, is `reversed`.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp

from maskrl.agent import KEEP, Agent, StepOutput
from maskrl.config import branches
from maskrl.errors import UserError
from maskrl.networks import Interventions
from maskrl.study.probe import apply_head
from maskrl.types import ActorState, Params, TimeStep

SHIFT = 5  # cells, of ten: as far off as a torus allows


class Known(flax.struct.PyTreeNode):
    """Masks of normal games, which some controls take from."""

    mean: chex.Array  # float32 [10, 10], the time mean
    others: chex.Array  # float32 [G, T, 10, 10], G games; after its end a game's masks start anew


class Moment(NamedTuple):
    """What a control may know, rows of B actors."""

    mask: chex.Array  # float32 [B, 10, 10], the network's own
    actor: chex.Array  # int32 [B]
    step: chex.Array  # int32 [B]
    key: chex.PRNGKey


def ones(at: Moment, known: Known | None) -> chex.Array:
    """No mask."""
    return jnp.ones_like(at.mask)


def mean(at: Moment, known: Known | None) -> chex.Array:
    """The time mean of normal games: the mask without its reaction to the frame."""
    return jnp.broadcast_to(known.mean, at.mask.shape)


def shifted(at: Moment, known: Known | None) -> chex.Array:
    """`SHIFT` cells down and to the right, around the edges."""
    return jnp.roll(at.mask, (SHIFT, SHIFT), axis=(1, 2))


def shuffled(at: Moment, known: Known | None) -> chex.Array:
    """Cells permuted: a permutation for every actor, the same at all its steps."""
    return _permuted(at.mask, jax.vmap(lambda a: jax.random.fold_in(at.key, a))(at.actor))


def noise(at: Moment, known: Known | None) -> chex.Array:
    """White noise with the mask's own histogram: cells permuted anew at every step."""
    keys = jax.vmap(lambda a, s: jax.random.fold_in(jax.random.fold_in(at.key, a), s))
    return _permuted(at.mask, keys(at.actor, at.step))


def other(at: Moment, known: Known | None) -> chex.Array:
    """Another game's mask of the same step; which game's is drawn by the actor and the key."""
    games, steps = known.others.shape[:2]
    keys = jax.vmap(lambda a: jax.random.fold_in(at.key, a))(at.actor)
    game = jax.vmap(lambda key: jax.random.randint(key, (), 0, games))(keys)
    return jnp.asarray(known.others)[game, at.step % steps]


def reversed_ranks(at: Moment, known: Known | None) -> chex.Array:
    """The brightest cell takes the darkest's value, and so on: inverted, histogram kept."""
    flat = at.mask.reshape(len(at.mask), -1)
    rank = jnp.argsort(jnp.argsort(flat, axis=1), axis=1)
    back = jnp.sort(flat, axis=1)[:, ::-1]
    return jnp.take_along_axis(back, rank, axis=1).reshape(at.mask.shape)


def rescaled(at: Moment, known: Known | None) -> chex.Array:
    """1 - M times mean(M) / mean(1 - M): inverted, the frame's mean kept. May pass 1."""
    inverse = 1.0 - at.mask
    means = (m.mean(axis=(1, 2), keepdims=True) for m in (at.mask, inverse))
    kept, now = means
    return inverse * kept / jnp.maximum(now, 1e-6)


def _permuted(mask: chex.Array, keys: chex.Array) -> chex.Array:
    flat = mask.reshape(len(mask), -1)
    return jax.vmap(jax.random.permutation)(keys, flat).reshape(mask.shape)


CONTROLS: dict[str, Callable[[Moment, Known | None], chex.Array]] = {
    "ones": ones,
    "mean": mean,
    "shifted": shifted,
    "shuffled": shuffled,
    "noise": noise,
    "other": other,
    "reversed": reversed_ranks,
    "rescaled": rescaled,
}
NEEDS_KNOWN = ("mean", "other")
ONE_GAME = ("shuffled", "other")  # by the actor, and by the steps since its first


@dataclasses.dataclass(frozen=True, eq=False)
class ControlledAgent(Agent):
    """The agent with a control in place of its masks; plays wherever an `Agent` does."""

    control: str
    branch: str  # policy, value or both
    known: dict[str, Known]  # by branch; empty for the controls that take nothing

    @property
    def one_game(self) -> bool:
        """As `Agent.one_game`: in a second game it would not be what it says."""
        return self.control in ONE_GAME

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
        """As `Agent.step`, with other masks in the heads; the core does not know of them."""
        after, out = super().step(
            params, state, timestep, key, greedy=greedy, interventions=interventions
        )
        network = out.network
        for branch in branches(self.branch):
            mask, features = (getattr(network, f"{branch}_{x}")[0] for x in ("mask", "features"))
            # Beyond the actors' numbers, which `choose` folds in.
            stream = jax.random.fold_in(key, 2**30 + ("policy", "value").index(branch))
            at = Moment(mask, state.actor, state.step, stream)
            mask = CONTROLS[self.control](at, self.known.get(branch))
            answer = apply_head(params[branch], features, mask)
            said = {"logits": answer} if branch == "policy" else {"value": answer[:, 0]}
            said |= {f"{branch}_mask": mask}
            network = network.replace(**{name: x[None] for name, x in said.items()})
        action = self.choose(network.logits[0], state, key, greedy=greedy)
        return after, out.replace(action=action, network=network)


def controlled(agent: Agent, control: str, branch: str, known: dict[str, Known]) -> ControlledAgent:
    """The agent under a control.

    Raises:
      UserError: it lacks a mask that would be replaced.
    """
    for name in branches(branch):
        if not agent.spec.has_mask(name):
            raise UserError(f"mode {control}, branch {branch}: this agent has no {name} mask")
    return ControlledAgent(
        agent.spec, agent.network, agent.crop, control=control, branch=branch, known=known
    )
