"""The only place that knows how many accelerators and hosts there are.

On one device a function is `jit`ted and arrays keep their shape. On D devices it is `pmap`ped: an
array of actors `[B, ...]` becomes `[D, B / D, ...]`, parameters are replicated `[D, ...]`, and the
function gathers with `Devices.gather`.

On H hosts (`connect`) every host runs the same program, one process each, and holds its share of
the actors: `[B, ...]` is `[B / H, ...]` there, D are its own devices, and `Devices.gather`
gathers from those of all hosts. What crosses hosts is a collective: all hosts must take the same
decisions in the same order, or they wait for each other for ever.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from maskrl.errors import UserError

T = TypeVar("T")

_AXIS = "devices"
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h
JOIN_SECONDS = 300  # in which all hosts must have come
HEARTBEAT_SECONDS = 60  # of silence, after which a host counts as lost


class Devices:
    """The devices that a run uses: so many of every host, or of this one alone."""

    def __init__(self, count: int | None = None, *, alone: bool = False):
        self.devices = jax.local_devices()[:count]
        self.count = len(self.devices)
        self._hosts = [jax.process_index()] if alone else range(jax.process_count())
        self._one = self.count * len(self._hosts) == 1

    def compile(self, function: Callable) -> Callable:
        """`jit` on one device, `pmap` on several."""
        if self._one:
            return jax.jit(function)
        everywhere = [
            device
            for host in self._hosts
            for device in jax.local_devices(process_index=host)[: self.count]
        ]
        return jax.pmap(function, axis_name=_AXIS, devices=everywhere)

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
        return here if self._one else here * self.count * len(self._hosts)

    def replicate(self, tree: Any) -> Any:
        """Host arrays -> the same on every device."""
        if self._one:
            return jax.device_put(tree, self.devices[0])
        tree = jax.tree.map(lambda x: np.broadcast_to(x, (self.count, *np.shape(x))), tree)
        return self.compile(lambda x: x)(tree)

    def first(self, tree: Any) -> Any:
        """One device's copy of a replicated tree, as NumPy arrays."""
        return jax.tree.map(lambda x: np.asarray(x if self._one else x[0]), tree)

    def split(self, tree: Any) -> Any:
        """Arrays of this host's actors [B, ...] -> what a compiled function takes."""
        if self._one:
            return tree
        return jax.tree.map(lambda x: x.reshape(self.count, -1, *x.shape[1:]), tree)

    def put(self, tree: Any) -> Any:
        """As `split`, and onto the devices: what compiled functions return, and take back.

        From host arrays first and from their own results later, they would be compiled twice.
        """
        if self._one:
            return jax.device_put(tree, self.devices[0])
        return self.compile(lambda x: x)(self.split(tree))

    def merge(self, tree: Any) -> Any:
        """The inverse of `split`, as NumPy arrays."""
        if self._one:
            return jax.tree.map(np.asarray, tree)
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)

    def settle(self, tree: Any) -> None:
        """Waits for these results, if that is needed before something else is dispatched.

        CPUs of several hosts: a collective holds a thread of jax's pool until the other hosts have
        come to it. With more programs in the queue than threads, hosts can hold them for different
        ones, and wait for each other for ever.
        """
        if jax.process_count() > 1 and jax.default_backend() == "cpu":
            jax.block_until_ready(tree)


@contextlib.contextmanager
def last_will(line: str) -> Iterator[None]:
    """Several hosts: if one is lost inside, or this one fails, says `line` and ends the process.

    Exit code 3, or the one that jax chooses: it may end the process from C++ where Python can say
    nothing any more. On one host, and for a `KeyboardInterrupt`, on which all hosts have agreed,
    this does nothing.
    """
    if jax.process_count() == 1:
        yield
        return
    with _testament(line):
        try:
            yield
        except Exception as error:
            if isinstance(error, UserError | jax.errors.JaxRuntimeError):
                print(str(error).partition("\n")[0], file=sys.stderr)
            else:
                traceback.print_exc()
            sys.stdout.flush()
            # A proper exit waits for all hosts to come to theirs.
            os._exit(3)


@contextlib.contextmanager
def _testament(line: str) -> Iterator[None]:
    """Says `line` on stderr unless Python leaves the block: a shell waits for a word."""
    shell = subprocess.Popen(
        ["sh", "-c", 'read word || echo "$0" >&2', line],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
    )
    try:
        yield
    finally:
        shell.communicate(b"well\n")


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the run's other hosts; comes before everything that asks jax for its devices.

    Args:
      coordinator: HOST:PORT at which process 0 listens.
      processes: how many there are, one per host.
      process: which of them this one is. All three None: jax asks the cluster (a TPU pod, SLURM,
        Open MPI, Kubernetes).

    Raises:
      UserError: only some are given, or out of range; nobody listens; there is no cluster to ask.
    """
    given = [x is not None for x in (coordinator, processes, process)]
    if any(given):
        if not all(given):
            raise UserError("--coordinator, --processes and --process go together")
        if not 0 <= process < processes:
            raise UserError(f"--process {process} is not one of --processes {processes}, from 0")
        _reach(coordinator, wait=process > 0)
    # jax installs a handler of SIGTERM that only takes note of it.
    handler = signal.getsignal(signal.SIGTERM)
    with _testament(f"train.py: error: not all processes came within {JOIN_SECONDS} s"):
        try:
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                initialization_timeout=JOIN_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
        except (ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            hint = "" if coordinator else " (no cluster here? give --coordinator)"
            raise UserError(f"cannot join the other processes: {reason}{hint}") from error
    signal.signal(signal.SIGTERM, handler)


def _reach(coordinator: str, wait: bool) -> None:
    """Raises UserError unless this is an address and, if told to wait, somebody listens there.

    jax itself, if nobody does, ends the process from C++.
    """
    host, _, port = coordinator.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"--coordinator {coordinator}: must be HOST:PORT")
    deadline = time.monotonic() + JOIN_SECONDS
    while wait:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=JOIN_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(f"cannot reach the coordinator {coordinator}: {error}") from error
            time.sleep(0.2)


def on_signals(stop: Callable[[], None]) -> None:
    """Makes SIGTERM a KeyboardInterrupt; of several hosts, both it and Ctrl-C call `stop`.

    There, an interrupt wherever the program happens to be would leave the others waiting. A second
    signal ends the process.
    """
    if jax.process_count() == 1:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return

    def ask(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)


def is_first_host() -> bool:
    """Whether this is the host that writes, evaluates and prints."""
    return jax.process_index() == 0


def from_first_host(function: Callable[[], T]) -> T:
    """What `function` returns, or the UserError that it raises, on the first host: on every host.

    Only there it is called. The value must be picklable.
    """
    if jax.process_count() == 1:
        return function()
    outcome: Any = None
    if is_first_host():
        try:
            outcome = function()
        except UserError as error:
            outcome = error
    # As bytes: jax would make float32 of float64.
    message = np.frombuffer(pickle.dumps(outcome), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(message.size)))
    outcome = pickle.loads(multihost_utils.broadcast_one_to_all(np.resize(message, size)).tobytes())
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def share(tree: Any) -> Any:
    """Arrays of a group's actors [B, ...] -> those of this host [B / H, ...]."""
    hosts, host = jax.process_count(), jax.process_index()
    return jax.tree.map(lambda x: np.split(x, hosts)[host], tree)


def gather(tree: Any) -> Any:
    """The inverse of `share`: every host gets the arrays of all, at most 32 bits a number."""
    return multihost_utils.process_allgather(tree, tiled=True)


def total(numbers: np.ndarray) -> np.ndarray:
    """The sum over all hosts, elementwise; int32."""
    return multihost_utils.process_allgather(np.asarray(numbers, np.int32)).sum(axis=0)


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
    """The largest number of devices of every host over which a group of so many actors divides.

    Raises:
      UserError: there is not even one for every host.
    """
    hosts = jax.process_count()
    if actors % hosts:
        raise UserError(f"{actors} actors per group do not divide by {hosts} hosts")
    return max(d for d in range(1, jax.local_device_count() + 1) if actors // hosts % d == 0)


def fit_actors(actors: int, explicit: bool) -> int:
    """The actors per group that divide over all devices of all hosts.

    Args:
      actors: wanted.
      explicit: whether the user asked for this number; else it is rounded up.

    Raises:
      UserError: the number was asked for and does not divide.
    """
    count = jax.device_count()
    above = -(-actors // count) * count
    if explicit and above != actors:
        nearest = f"{above - count} or {above}" if above > count else f"{above}"
        raise UserError(
            f"--actors-per-group {actors} does not divide by {count} devices: take {nearest}"
        )
    return above
