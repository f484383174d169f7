"""The network at moments of play whose memory is held fixed: what every method and measure asks.

A `Scene` is B moments as the agent met them. A `Probe` answers what the network would say to other
observations at the same moments; what the memory adds to the gates is computed once per scene, and
not once per question. Methods and measures need no more than `Probe`'s methods, so a toy with the
same ones can take its place.
"""

import dataclasses
from typing import NamedTuple, Protocol

import chex
import flax.struct
import jax
import jax.numpy as jnp

from maskrl import losses
from maskrl.agent import Agent
from maskrl.kernels import KERNELS
from maskrl.networks import MASK_CELLS
from maskrl.preprocess import SIZE
from maskrl.types import Carry, Params

TARGETS = ("action", "value")
BRANCHES = ("policy", "value")
CELL = SIZE // MASK_CELLS  # pixels of a mask's cell


class Scene(flax.struct.PyTreeNode):
    """B moments of play."""

    observation: chex.Array  # float32 [B, 80, 80, 1], the network's input
    previous: chex.Array  # float32 [B, 80, 80, 1], the input one step before
    mean: chex.Array  # float32 [B, 80, 80, 1], the time mean of the agent's inputs
    black: chex.Array  # float32 [B], what a black pixel is after normalisation
    carry: Carry  # [B, 10, 10, 64], before the moment
    is_first: chex.Array  # bool [B]: the memory is empty
    action: chex.Array  # int32 [B], what the agent chose


class Answer(NamedTuple):
    """What the network says, [B, ...]; masks that it lacks are None."""

    logits: chex.Array  # [B, A]
    value: chex.Array  # [B]
    policy_mask: chex.Array | None  # [B, 10, 10]
    value_mask: chex.Array | None


class Probe(Protocol):
    """The network at B moments: three parts, their composition, and a short cut."""

    def torso(self, observation: chex.Array) -> chex.Array:
        """[B, 80, 80, 1] -> [B, 10, 10, 64]."""

    def core(self, torso: chex.Array) -> chex.Array:
        """[B, 10, 10, 64] -> the core's output [B, 10, 10, 64]."""

    def heads(self, hidden: chex.Array) -> Answer:
        """[B, 10, 10, 64] -> the answer."""

    def __call__(self, observation: chex.Array) -> Answer:
        """[B, 80, 80, 1] -> the answer."""

    def near(self, known: "Known", observation: chex.Array, cell: chex.Array) -> Answer:
        """The answer, less its masks, to observations that differ from the known ones in one cell.

        Args:
          known: of the observations without the difference; see `know`.
          observation: [B, 80, 80, 1].
          cell: int32 [2], row and column in the 10 x 10 grid.
        """

    def know(self, observation: chex.Array) -> "Known":
        """What `near` takes."""


class Known(NamedTuple):
    """What the network computed on the way to an answer."""

    answer: Answer
    torso: chex.Array  # [B, 10, 10, 64]
    gates: chex.Array | None  # [B, 10, 10, 256], of a network with memory
    masked: tuple[chex.Array, ...]  # by branch [B, 10, 10, 32], what its dense layer sees


REACH = 2  # cells: a cell of the frame reaches the core's cells at most so far away


@dataclasses.dataclass(frozen=True)
class NetworkProbe:
    """The agent's own network at the moments of a scene; see `Probe`."""

    params: Params
    kernels: str
    from_memory: chex.Array | None  # [B, 10, 10, 256], what the carry adds to the gates
    cell: chex.Array | None  # [B, 10, 10, 64]

    def torso(self, observation: chex.Array) -> chex.Array:
        conv_pool, x = KERNELS[self.kernels].conv_pool, observation
        for name in ("conv1", "conv2", "conv3"):
            x, _ = conv_pool(x, self.params[name]["kernel"], self.params[name]["bias"], None)
        return x

    def gates(self, torso: chex.Array) -> chex.Array:
        gates = self.params["gates"]
        return self._conv_x(torso) + gates["bias"] + self.from_memory

    def _conv_x(self, torso: chex.Array) -> chex.Array:
        from_x, _ = jnp.split(self.params["gates"]["kernel"], 2, axis=2)
        return KERNELS[self.kernels].conv_same(torso, from_x)

    def core(self, torso: chex.Array) -> chex.Array:
        if self.from_memory is None:
            return torso
        return _hidden(self.gates(torso), self.cell)

    def heads(self, hidden: chex.Array) -> Answer:
        logits, policy_mask = _head(self.params["policy"], hidden)
        value, value_mask = _head(self.params["value"], hidden)
        return Answer(logits, value[:, 0], policy_mask, value_mask)

    def __call__(self, observation: chex.Array) -> Answer:
        return self.heads(self.core(self.torso(observation)))

    def know(self, observation: chex.Array) -> Known:
        torso = self.torso(observation)
        gates = None if self.from_memory is None else self.gates(torso)
        hidden = torso if gates is None else _hidden(gates, self.cell)
        masked = tuple(_masked(self.params[b], hidden)[0] for b in BRANCHES)
        return Known(self.heads(hidden), torso, gates, masked)

    def near(self, known: Known, observation: chex.Array, cell: chex.Array) -> Answer:
        """See `Probe.near`.

        A cell's pixels change its own torso cell and the eight around it (receptive fields are 24
        pixels wide), and the core's cells within `REACH`. So the torso runs on a window of 5 x 5
        cells, and everything after it, too; the dense layers, being linear, take the difference.
        """
        size = 2 * REACH + 1
        start = jnp.clip(cell - REACH, 0, MASK_CELLS - size)

        def window(x: chex.Array, pixels: int = 1) -> chex.Array:
            at = (0, *(start * pixels), 0)
            return jax.lax.dynamic_slice(x, at, (len(x), *(2 * (size * pixels,)), x.shape[-1]))

        part, before = self.torso(window(observation, CELL)), window(known.torso)
        # The torso pads the window's border as it pads the screen's: cells there are wrong, unless
        # the two are one. None of them lies next to the cell.
        there = jnp.abs(start[:, None] + jnp.arange(size) - cell[:, None]) <= 1
        change = jnp.where((there[0][:, None] & there[1])[..., None], part - before, 0.0)
        if known.gates is None:
            hidden = before + change
        else:
            hidden = _hidden(window(known.gates) + self._conv_x(change), window(self.cell))
        said = []
        whole = (known.answer.logits, known.answer.value[:, None])
        for branch, masked, said_before in zip(BRANCHES, known.masked, whole, strict=True):
            head = self.params[branch]
            more = _masked(head, hidden)[0] - window(masked)
            kernel = window(head["kernel"].reshape(1, MASK_CELLS, MASK_CELLS, -1))
            kernel = kernel.reshape(-1, head["kernel"].shape[-1])
            said.append(said_before + more.reshape(len(more), -1) @ kernel)
        return Answer(said[0], said[1][:, 0], None, None)


def _hidden(gates: chex.Array, cell: chex.Array) -> chex.Array:
    """The ConvLSTM's output from its gates [..., 256] (before their functions) and its cell."""
    i, f, o, g = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell)


def probe(agent: Agent, params: Params, scene: Scene, *, plain: bool = False) -> NetworkProbe:
    """The agent's network at a scene.

    Args:
      plain: use the kernels whose gradients reach the frame (`maskrl.kernels`).
    """
    kernels = "plain" if plain else agent.network.kernels
    if agent.network.core == "none":
        return NetworkProbe(params, kernels, None, None)
    empty = scene.is_first[:, None, None, None]
    hidden, cell = (jnp.where(empty, 0.0, x) for x in (scene.carry.hidden, scene.carry.cell))
    _, from_h = jnp.split(params["gates"]["kernel"], 2, axis=2)
    return NetworkProbe(params, kernels, KERNELS[kernels].conv_same(hidden, from_h), cell)


def apply_head(head: Params, features: chex.Array, mask: chex.Array | None) -> chex.Array:
    """A branch's output [B, n] from its features [B, 10, 10, 32] and its mask [B, 10, 10]."""
    return _dense(head, features if mask is None else features * mask[..., None])


def _dense(head: Params, masked: chex.Array) -> chex.Array:
    return masked.reshape(len(masked), -1) @ head["kernel"] + head["bias"]


def _head(head: Params, hidden: chex.Array) -> tuple[chex.Array, chex.Array | None]:
    """One branch: its output and its mask (`maskrl.networks.Head`)."""
    masked, mask = _masked(head, hidden)
    return _dense(head, masked), mask


def _masked(head: Params, hidden: chex.Array) -> tuple[chex.Array, chex.Array | None]:
    """A branch's features times its mask, [B, h, w, 32], and its mask."""
    features = jax.nn.relu(hidden @ head["features"]["kernel"][0, 0] + head["features"]["bias"])
    if "mask" not in head:
        return features, None
    logits = hidden @ head["mask"]["kernel"][0, 0] + head["mask"]["bias"]
    mask = jax.nn.sigmoid(logits[..., 0])
    return features * mask[..., None], mask


def explained(answer: Answer, action: chex.Array, target: str) -> chex.Array:
    """The numbers [B] that are explained.

    `action`: the log-probability of the chosen action, int [B]; `value`: V.
    """
    if target == "value":
        return answer.value
    return losses.log_probability(answer.logits, action)
