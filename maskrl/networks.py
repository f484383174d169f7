"""The network of Mask-Attention A3C: torso, ConvLSTM core, mask-attention, heads (Flax Linen).

One module serves acting (T = 1), learning and explaining; it returns everything by name. Images are
NHWC. Sizes and initialisation are those of the paper (*Visual Explanation using Attention Mechanism
in Actor-Critic-based Deep Reinforcement Learning*, section 3) and of its published weights.
"""

import dataclasses
import math
from typing import Any

import chex
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from maskrl.kernels import KERNELS
from maskrl.types import Carry, Params

CORE_CHANNELS = 64
MASK_CELLS = 10


class Interventions(flax.struct.PyTreeNode):
    """What is done to each branch's mask M before it multiplies the features.

    `keep` leaves it, `invert` takes 1 - M, `ones` takes all ones (no mask), `given` takes the map
    in `policy_map` / `value_map`, float32, broadcastable to [T, B, 10, 10].
    """

    policy: str = flax.struct.field(pytree_node=False, default="keep")
    value: str = flax.struct.field(pytree_node=False, default="keep")
    policy_map: chex.Array | None = None
    value_map: chex.Array | None = None


# What the three layers of the torso and the core saved (`maskrl.kernels`), [T, B, ...]; None for
# kernels that save nothing.
Saved = tuple[Any, ...]
NOTHING_SAVED: Saved = (None,) * 4


class NetworkOutput(flax.struct.PyTreeNode):
    """Everything the network computes, `[T, B, ...]`. Absent masks are None."""

    logits: chex.Array  # [T, B, A]
    value: chex.Array  # [T, B]
    policy_mask: chex.Array | None  # [T, B, 10, 10], as applied (after the intervention)
    value_mask: chex.Array | None
    policy_mask_logits: chex.Array | None  # [T, B, 10, 10], before the sigmoid
    value_mask_logits: chex.Array | None
    policy_features: chex.Array  # [T, B, 10, 10, 32], before the mask
    value_features: chex.Array
    torso: chex.Array  # [T, B, 10, 10, 64]
    hidden: chex.Array  # [T, B, 10, 10, 64], the core's output
    saved: Saved  # for the gradients; see `Network.__call__`


def glorot_uniform_conv(gain: float) -> jax.nn.initializers.Initializer:
    """Uniform Glorot over the receptive field, times `gain`; the original's convolutions."""
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def uniform_bias(fan_in: int) -> jax.nn.initializers.Initializer:
    """Uniform within 1 / sqrt(fan_in): PyTorch's default, which the original keeps."""

    def init(key: chex.PRNGKey, shape: tuple[int, ...], dtype=jnp.float32) -> chex.Array:
        bound = 1 / math.sqrt(fan_in)
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def normalised_rows(length: float) -> jax.nn.initializers.Initializer:
    """Dense kernel [in, out] of normal numbers whose every output's weights have this length."""

    def init(key: chex.PRNGKey, shape: tuple[int, ...], dtype=jnp.float32) -> chex.Array:
        kernel = jax.random.normal(key, shape, dtype)
        return length * kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)

    return init


class Conv(nn.Module):
    """A convolution's parameters, `kernel` [k, k, in, out] and `bias` [out]; the caller applies."""

    size: int
    inputs: int
    outputs: int
    gain: float = math.sqrt(2)

    def setup(self):
        shape = (self.size, self.size, self.inputs, self.outputs)
        self.kernel = self.param("kernel", glorot_uniform_conv(self.gain), shape)
        self.bias = self.param("bias", uniform_bias(self.size**2 * self.inputs), (self.outputs,))


class Network(nn.Module):
    """Mask-Attention A3C and its ablations.

    Attributes:
      num_actions: A.
      mask_policy, mask_value: whether the branch has a mask (the paper's four variants).
      core: "convlstm", or "none" for a network without memory (the torso feeds the heads).
      kernels: how it computes, a name in `maskrl.kernels.KERNELS`; the result is the same, up to
        rounding.
    """

    num_actions: int
    mask_policy: bool = True
    mask_value: bool = True
    core: str = "convlstm"
    kernels: str = "plain"

    def setup(self):
        self.conv1 = Conv(5, 1, 32)
        self.conv2 = Conv(3, 32, 32)
        self.conv3 = Conv(3, 32, CORE_CHANNELS)
        if self.core == "convlstm":
            self.gates = Conv(3, 2 * CORE_CHANNELS, 4 * CORE_CHANNELS, gain=1.0)
        self.policy = Head(self.num_actions, self.mask_policy, row_length=0.01)
        self.value = Head(1, self.mask_value, row_length=1.0)

    def __call__(
        self,
        observation: chex.Array,
        carry: Carry,
        is_first: chex.Array,
        interventions: Interventions = Interventions(),  # noqa: B008, it is immutable
        saved: Saved = NOTHING_SAVED,
    ) -> tuple[NetworkOutput, Carry]:
        """Observations float32 [T, B, 80, 80, 1] -> output `[T, B, ...]`, carry after row T - 1.

        Args:
          carry: the state before row 0; reset wherever `is_first`, bool [T, B], says so.
          interventions: what is done to the masks.
          saved: `NetworkOutput.saved` of the same rows, parameters and carry, if they have been
            computed before: only the heads are then computed again, and the gradients are the same.
        """
        chex.assert_rank([observation, is_first], [5, 2])
        steps, batch = is_first.shape

        def images(tree):
            return jax.tree.map(lambda x: x.reshape(steps * batch, *x.shape[2:]), tree)

        def rows(tree):
            return jax.tree.map(lambda x: x.reshape(steps, batch, *x.shape[1:]), tree)

        kernels = KERNELS[self.kernels]
        *saved_torso, saved_core = saved

        torso, kept = images(observation), []
        for conv, known in zip((self.conv1, self.conv2, self.conv3), saved_torso, strict=True):
            torso, known = kernels.conv_pool(torso, conv.kernel, conv.bias, images(known))
            kept.append(rows(known))
        if self.core == "convlstm":
            from_x, from_h = jnp.split(self.gates.kernel, 2, axis=2)
            x_gates = kernels.conv_same(torso, from_x) + self.gates.bias
            hidden, (h, c), saved_core = kernels.convlstm_unroll(
                rows(x_gates), from_h, carry.hidden, carry.cell, is_first, saved_core
            )
            carry = Carry(hidden=h, cell=c)
        else:
            hidden = rows(torso)

        logits, p = self.policy(hidden, interventions.policy, interventions.policy_map)
        value, v = self.value(hidden, interventions.value, interventions.value_map)
        output = NetworkOutput(
            logits=logits,
            value=value[..., 0],
            policy_mask=p.mask,
            value_mask=v.mask,
            policy_mask_logits=p.mask_logits,
            value_mask_logits=v.mask_logits,
            policy_features=p.features,
            value_features=v.features,
            torso=rows(torso),
            hidden=hidden,
            saved=(*kept, saved_core),
        )
        return output, carry


@dataclasses.dataclass(frozen=True)
class HeadDetails:
    """What a head computed on the way, see `NetworkOutput`."""

    features: chex.Array
    mask: chex.Array | None
    mask_logits: chex.Array | None


class Head(nn.Module):
    """One branch: `dense(flatten(relu(conv1x1(h)) * M))`, `M = sigmoid(conv1x1(h))` if masked."""

    outputs: int
    masked: bool
    row_length: float

    def setup(self):
        self.features = Conv(1, CORE_CHANNELS, 32)
        if self.masked:
            self.mask = Conv(1, CORE_CHANNELS, 1)
        shape = (MASK_CELLS * MASK_CELLS * 32, self.outputs)
        self.kernel = self.param("kernel", normalised_rows(self.row_length), shape)
        self.bias = self.param("bias", nn.initializers.zeros, (self.outputs,))

    def __call__(
        self, hidden: chex.Array, intervention: str, given: chex.Array | None
    ) -> tuple[chex.Array, HeadDetails]:
        steps, batch = hidden.shape[:2]
        # A 1 x 1 convolution is a matrix product over the channels.
        features = nn.relu(hidden @ self.features.kernel[0, 0] + self.features.bias)
        mask = mask_logits = None
        masked = features
        if self.masked:
            mask_logits = (hidden @ self.mask.kernel[0, 0] + self.mask.bias)[..., 0]
            mask = intervene(nn.sigmoid(mask_logits), intervention, given)
            masked = features * mask[..., None]
        elif intervention != "keep":
            raise ValueError(f"cannot {intervention} the mask of a branch that has none")
        out = masked.reshape(steps, batch, -1) @ self.kernel + self.bias
        return out, HeadDetails(features, mask, mask_logits)


class WhatIf(flax.struct.PyTreeNode):
    """What a branch would say, everything before its mask as it was."""

    unmasked: chex.Array  # [T, B, outputs], with a mask of ones
    inverted: chex.Array  # [T, B, outputs], with 1 less the mask
    cells: chex.Array  # [T, B, 10, 10, outputs]: what each cell adds; less it, the cell is off


def what_if(head: Params, features: chex.Array, mask: chex.Array) -> WhatIf:
    """A branch's answers to other masks than the one that was applied.

    Args:
      head: the branch's parameters (`params["policy"]` or `params["value"]`).
      features: [T, B, 10, 10, 32], before the mask.
      mask: [T, B, 10, 10], as applied.
    """
    kernel = head["kernel"].reshape(*features.shape[2:], -1)
    whole = jnp.einsum("tbyxc,yxco->tbyxo", features, kernel)  # of each cell, let through whole
    cells = whole * mask[..., None]
    unmasked = whole.sum(axis=(2, 3)) + head["bias"]
    inverted = (whole - cells).sum(axis=(2, 3)) + head["bias"]
    return WhatIf(unmasked, inverted, cells)


def intervene(mask: chex.Array, intervention: str, given: chex.Array | None) -> chex.Array:
    """The mask [T, B, 10, 10] after the intervention; see `Interventions`."""
    match intervention:
        case "keep":
            return mask
        case "invert":
            return 1.0 - mask
        case "ones":
            return jnp.ones_like(mask)
        case "given":
            return jnp.broadcast_to(given, mask.shape)
    raise ValueError(f"no intervention {intervention!r}: keep, invert, ones or given")
