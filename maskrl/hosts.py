"""Several hosts: how they join, agree, share the actors, and end together.

Every host runs the same program, one process each, and holds its share of every group's actors:
`[B, ...]` is `[B / H, ...]` there. What crosses hosts is a collective: all of them must take the
same decisions in the same order, or they wait for each other for ever.
"""

import contextlib
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

JOIN_SECONDS = 300  # in which all hosts must have come
HEARTBEAT_SECONDS = 60  # of silence, after which a host counts as lost


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
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
    with _said_if_killed(f"train.py: error: not all processes came within {JOIN_SECONDS} s"):
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
        except UnicodeError as error:
            raise UserError(f"--coordinator {coordinator}: {error}") from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(f"cannot reach the coordinator {coordinator}: {error}") from error
            time.sleep(0.2)


def is_first() -> bool:
    """Whether this is the host that writes, evaluates and prints."""
    return jax.process_index() == 0


def from_first(function: Callable[[], T]) -> T:
    """What `function` returns, or the UserError that it raises, on the first host: on every host.

    Only there it is called. The value must be picklable.
    """
    if jax.process_count() == 1:
        return function()
    outcome: Any = None
    if is_first():
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


@contextlib.contextmanager
def ending_together(line: str) -> Iterator[None]:
    """Several hosts: if one is lost inside, or this one fails, says `line` and ends the process.

    Exit code 3, or the one that jax chooses: it may end the process from C++ where Python can say
    nothing any more. On one host, and for a `KeyboardInterrupt`, on which all hosts have agreed,
    this does nothing.
    """
    if jax.process_count() == 1:
        yield
        return
    with _said_if_killed(line):
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
def _said_if_killed(line: str) -> Iterator[None]:
    """Says `line` on stderr unless Python leaves the block: a shell waits for a word.

    Where jax ends the process from C++, no handler of Python's runs any more, and jax's own log
    does not say how to go on. The line must come from outside the process.
    """
    shell = subprocess.Popen(
        ["sh", "-c", 'read word || echo "$0" >&2', line],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is not for it
    )
    try:
        yield
    finally:
        shell.communicate(b"well\n")
