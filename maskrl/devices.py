"""The only place that knows how many accelerators there are.

On one device a function is `jit`ted and arrays keep their shape. On D devices it is `pmap`ped: an
array of actors `[B, ...]` becomes `[D, B / D, ...]`, parameters are replicated `[D, ...]`, and the
function averages with `Devices.mean`.
"""

import ctypes
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from maskrl.errors import UserError

_AXIS = "devices"
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


class Devices:
    """The local devices that a run uses."""

    def __init__(self, count: int | None = None):
        self.devices = jax.local_devices()[:count]
        self.count = len(self.devices)

    def compile(self, function: Callable) -> Callable:
        """`jit` on one device, `pmap` on several."""
        if self.count == 1:
            return jax.jit(function)
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


def use_cores() -> None:
    """Makes the most of a CPU; call it before JAX starts.

    One device of JAX's CPU backend leaves cores idle between its matrix products, so every core (up
    to a power of two, at most 8) becomes a device, unless the user has said how many. And glibc
    keeps what is freed: an update gives back some 200 MB, and the system would have to clear these
    pages anew for the next one.
    """
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if jax.config.jax_num_cpu_devices < 0 and not chosen:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        jax.config.update("jax_num_cpu_devices", 1 << (min(cores, 8).bit_length() - 1))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_ARENA_MAX, 1)):
            mallopt(option, value)


def most_devices(actors: int) -> int:
    """The largest number of local devices over which a group of so many actors divides."""
    return max(d for d in range(1, jax.local_device_count() + 1) if actors % d == 0)


def fit_actors(actors: int, explicit: bool) -> int:
    """The actors per group that divide over all local devices.

    Args:
      actors: wanted.
      explicit: whether the user asked for this number; else it is rounded up.

    Raises:
      UserError: the number was asked for and does not divide.
    """
    count = jax.local_device_count()
    above = -(-actors // count) * count
    if explicit and above != actors:
        nearest = f"{above - count} or {above}" if above > count else f"{above}"
        raise UserError(
            f"--actors-per-group {actors} does not divide by {count} devices: take {nearest}"
        )
    return above
