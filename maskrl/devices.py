"""The only place that knows how many accelerators there are.

On one device a function is `jit`ted and arrays keep their shape. On D devices it is `pmap`ped: an
array of actors `[B, ...]` becomes `[D, B / D, ...]`, parameters are replicated `[D, ...]`, and the
function gathers with `Devices.gather`.

On H hosts (`hosts`) D are a host's own devices, its actors are `[B / H, ...]`, and
`Devices.gather` gathers from the devices of all hosts.

What goes to the devices and back is said: `put`, `replicate`, `merge`, `first`. Compiled functions
take and return arrays that are there, so that nothing travels unseen.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from maskrl.errors import UserError

_AXIS = "devices"
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


class Devices:
    """The devices that a run uses: so many of every host, or of this one alone."""

    def __init__(self, count: int | None = None, *, alone: bool = False):
        self.devices = jax.local_devices()[:count]
        self.count = len(self.devices)
        hosts = [jax.process_index()] if alone else range(jax.process_count())
        everywhere = [
            device
            for host in hosts
            for device in jax.local_devices(process_index=host)[: self.count]
        ]
        self._everywhere = everywhere
        self._one = len(everywhere) == 1
        self._place = self.compile(lambda tree: tree)

    @classmethod
    def dividing(cls, rows: int) -> "Devices":
        """Of this host alone, the most over which so many rows divide."""
        counts = range(1, jax.local_device_count() + 1)
        return cls(max(d for d in counts if rows % d == 0), alone=True)

    def compile(self, function: Callable) -> Callable:
        """`jit` on one device, `pmap` on several.

        The function takes arrays that `put` and `replicate` gave, or that compiled functions
        returned.
        """
        if self._one:
            return jax.jit(function)
        return jax.pmap(function, axis_name=_AXIS, devices=self._everywhere)

    def gather(self, tree: Any) -> Any:
        """Inside a compiled function: arrays [n, ...] of every device -> [D n, ...] of all.

        In the order of the actors' numbers, if each device's are.
        """
        if self._one:
            return tree
        return jax.tree.map(lambda x: jax.lax.all_gather(x, _AXIS, tiled=True), tree)

    def most(self, x: jax.Array) -> jax.Array:
        """Inside a compiled function: the greatest of the devices' numbers."""
        return x if self._one else jax.lax.pmax(x, _AXIS)

    def actors(self, here: int) -> int:
        """So many actors on every device are how many in all."""
        return here * len(self._everywhere)

    def put(self, tree: Any) -> Any:
        """Host arrays of this host's actors [B, ...], onto the devices."""
        if self._one:
            return jax.device_put(tree, self.devices[0])
        return self._put_rows(jax.tree.map(lambda x: x.reshape(self.count, -1, *x.shape[1:]), tree))

    def replicate(self, tree: Any) -> Any:
        """Host arrays, the same onto every device."""
        if self._one:
            return jax.device_put(tree, self.devices[0])
        return self._put_rows(
            jax.tree.map(lambda x: np.broadcast_to(x, (self.count, *np.shape(x))), tree)
        )

    def _put_rows(self, tree: Any) -> Any:
        """Arrays [D, ...] of this host, a row onto each of its devices, as pmap lays them."""
        with jax.transfer_guard("allow"):
            return self._place(tree)

    def merge(self, tree: Any) -> Any:
        """The inverse of `put`, as NumPy arrays, in one fetch."""
        if self._one:
            return jax.device_get(tree)
        shards = jax.tree.map(lambda x: [shard.data for shard in x.addressable_shards], tree)
        return jax.tree.map(
            lambda x, parts: np.concatenate([part.reshape(x.shape[1:]) for part in parts]),
            tree,
            jax.device_get(shards),
        )

    def first(self, tree: Any) -> Any:
        """One device's copy of a replicated tree, as NumPy arrays, in one fetch."""
        if self._one:
            return jax.device_get(tree)
        copies = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))
        return jax.tree.map(lambda x, copy: copy.reshape(x.shape[1:]), tree, copies)

    def settle(self, tree: Any) -> None:
        """Waits for these results, if that is needed before something else is dispatched.

        CPUs of several hosts: a collective holds a thread of jax's pool until the other hosts have
        come to it. With more programs in the queue than threads, hosts can hold them for different
        ones, and wait for each other for ever.
        """
        if jax.process_count() > 1 and jax.default_backend() == "cpu":
            jax.block_until_ready(tree)


def use_cores() -> None:
    """Makes the most of a CPU; call it before JAX starts.

    One device of JAX's CPU backend leaves cores idle between its matrix products, so every core (up
    to a power of two, at most 8) becomes a device, unless the user has said how many. And glibc
    keeps what is freed: an update gives back some 200 MB, and the system would have to clear these
    pages anew for the next one. Beside an accelerator no such arrays are on the host, and threads
    do better with memory of their own.
    """
    if _accelerated():
        return
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if jax.config.jax_num_cpu_devices < 0 and not chosen:
        jax.config.update("jax_num_cpu_devices", 1 << (min(_cores(), 8).bit_length() - 1))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_ARENA_MAX, 1)):
            mallopt(option, value)


def _accelerated() -> bool:
    """Whether jax will use something else than the CPU, told without starting it."""
    if jax.config.jax_platforms:
        return not jax.config.jax_platforms.startswith("cpu")
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or importlib.util.find_spec("libtpu") is not None


def _cores() -> int:
    """Of the machine's, those that SLURM, a container or taskset leaves to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def threads(sets: int) -> int:
    """For each of so many sets of environments that step at the same time.

    A thread per core that this process may use, over all sets together; rounded up.
    """
    return -(-_cores() // sets)


def divides(actors: int, count: int, actors_per_update: int) -> bool:
    """Whether a group divides over so many devices: its actors, and those that share an update.

    Of these either whole updates lie on a device, or whole devices make an update.
    """
    here, rest = divmod(actors, count)
    b = actors_per_update
    return not rest and (here % b == 0 or b % here == 0)


def most_devices(actors: int, actors_per_update: int = 1) -> int:
    """The largest number of devices of every host over which a group of so many actors divides.

    Raises:
      UserError: there is not even one for every host, or hosts have more than others.
    """
    hosts = jax.process_count()
    of_hosts = {len(jax.local_devices(process_index=host)) for host in range(hosts)}
    if len(of_hosts) > 1:  # jax's pmap wants them alike
        raise UserError(
            f"hosts have {' or '.join(map(str, sorted(of_hosts)))} devices: where these are cores, "
            f"start all with XLA_FLAGS=--xla_force_host_platform_device_count={min(of_hosts)}"
        )
    if actors % hosts:
        raise UserError(f"{actors} actors per group do not divide by {hosts} hosts")
    counts = [
        d
        for d in range(1, jax.local_device_count() + 1)
        if divides(actors, d * hosts, actors_per_update)
    ]
    if not counts:
        raise UserError(
            f"{actors} actors per group, {actors_per_update} of them per update, do not divide by "
            f"{hosts} hosts"
        )
    return max(counts)


def fit_actors(actors: int, explicit: bool, actors_per_update: int = 1) -> int:
    """The actors per group that divide over all devices of all hosts, and into updates.

    Args:
      actors: wanted.
      explicit: whether the user asked for this number; else it is rounded up.

    Raises:
      UserError: the number was asked for and does not divide.
    """
    count, b = jax.device_count(), actors_per_update

    def fits(n: int) -> bool:
        return n % b == 0 and divides(n, count, b)

    above = next(n for n in range(actors, actors + 2 * count * b) if fits(n))
    if explicit and above != actors:
        below = next((n for n in range(actors, 0, -1) if fits(n)), None)
        nearest = f"{below} or {above}" if below else f"{above}"
        updates = f" in updates of {b}" if b > 1 else ""
        raise UserError(
            f"--actors-per-group {actors} does not divide by {count} devices{updates}: take "
            f"{nearest}"
        )
    return above
