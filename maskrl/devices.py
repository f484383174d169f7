"""The only place that knows how many accelerators there are.

On one device a function is `jit`ted and arrays keep their shape. On D devices it is `pmap`ped: an
array of actors `[B, ...]` becomes `[D, B / D, ...]`, parameters are replicated `[D, ...]`, and the
function averages with `Devices.mean`.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from maskrl.errors import UserError

_AXIS = "devices"


class Devices:
    """The local devices that a run uses."""

    def __init__(self, count: int | None = None):
        self.devices = jax.local_devices()[:count]
        self.count = len(self.devices)

    def compile(self, function: Callable, static_argnames: tuple[str, ...] = ()) -> Callable:
        """`jit` on one device, `pmap` on several; statics go by keyword and are few."""
        if self.count == 1:
            return jax.jit(function, static_argnames=static_argnames)
        return jax.pmap(function, axis_name=_AXIS, devices=self.devices)

    def mean(self, tree: Any) -> Any:
        """Inside a compiled function: the average over the devices."""
        return tree if self.count == 1 else jax.lax.pmean(tree, _AXIS)

    def replicate(self, tree: Any) -> Any:
        """Host arrays -> the same on every device."""
        if self.count == 1:
            return jax.device_put(tree, self.devices[0])
        return jax.tree.map(lambda x: np.broadcast_to(x, (self.count, *np.shape(x))), tree)

    def first(self, tree: Any) -> Any:
        """One device's copy of a replicated tree, as NumPy arrays."""
        return jax.tree.map(lambda x: np.asarray(x if self.count == 1 else x[0]), tree)

    def split(self, tree: Any) -> Any:
        """Arrays of actors [B, ...] -> what a compiled function takes."""
        if self.count == 1:
            return tree
        return jax.tree.map(lambda x: x.reshape(self.count, -1, *x.shape[1:]), tree)

    def merge(self, tree: Any) -> Any:
        """The inverse of `split`, as NumPy arrays."""
        if self.count == 1:
            return jax.tree.map(np.asarray, tree)
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)


def fit_devices(actors: int, explicit: bool) -> tuple[int, int]:
    """Actors per group and devices that go together: (actors, devices).

    Args:
      actors: wanted per group.
      explicit: whether the user asked for this number; else it is rounded up.

    Raises:
      UserError: the number was asked for and does not divide by the devices.
    """
    count = jax.local_device_count()
    if actors % count == 0:
        return actors, count
    if actors == 1:
        return 1, 1
    above = -(-actors // count) * count
    if not explicit:
        return above, count
    below = above - count
    nearest = f"{below} or {above}" if below else f"{above}"
    raise UserError(
        f"--actors-per-group {actors} does not divide by {count} devices: take {nearest}"
    )
