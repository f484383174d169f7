"""Several hosts, played by two processes with two devices each: one run, and how it ends."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import CHECKOUT
from samples import TINY_FLAGS
from test_training import rows_of

from maskrl import checkpoint

RUN = pathlib.Path("runs/Breakout-both-0")
FLAGS = [*TINY_FLAGS, "--core=none", "--actors-per-group=4", "--steps=240"]
ENDLESS = [*FLAGS, "--steps=1000000"]
PATIENCE = 120  # seconds for anything that two processes do

# train.py, and what it trained: the parameters of every device in one file.
TRAIN = """
import sys
import jax, numpy as np
import train
from maskrl import devices, training

devices.HEARTBEAT_SECONDS = devices.JOIN_SECONDS = 10
run = training.Trainer.train

def train_and_keep(self):
    run(self)
    leaves = jax.tree.leaves(self.state.params)
    np.savez("params.npz", *leaves, steps=self.counters.agent_steps)

training.Trainer.train = train_and_keep
sys.exit(train.main(sys.argv[1:]))
"""

UPDATE = """
import sys
sys.path.insert(0, "tests")
import jax, numpy as np
from jax.flatten_util import ravel_pytree
from maskrl import devices, learner
from maskrl.agent import make_agent
from samples import random_collected, tiny_config

path, *joining = sys.argv[1:]
if joining:
    devices.connect(joining[0], int(joining[1]), int(joining[2]))
assert jax.device_count() == 4
config = tiny_config(actors_per_group=4)
agent = make_agent("Breakout", 4, "both", "convlstm")
shared, snapshot = (agent.init_params(jax.random.PRNGKey(seed)) for seed in (0, 1))
state = learner.LearnerState(shared, learner.make_optimiser(config).init(shared))
state, snapshot = jax.tree.map(np.asarray, (state, snapshot))


def share(tree):  # actors are the second axis of nothing here: every array is [B, ...]
    return devices.share(tree)


collected = random_collected(agent, np.random.default_rng(0), 3, 4)
d = devices.Devices()
assert d.count == 4 // jax.process_count()
update = learner.make_update(agent, config, d)
new, metrics = update(d.replicate(state), d.replicate(snapshot), *d.split(share(collected)))
moved = jax.tree.map(np.subtract, d.first(new.params), state.params)
np.savez(path, update=np.float64(ravel_pytree(moved)[0]), **d.first(metrics))
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start(folder, code, argv, devices=2) -> subprocess.Popen:
    """A process with so many devices, in a folder of its own; its output is in `output`."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "output", "w") as output:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, argv)],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        )


def joining(port: int, process: int) -> list[str]:
    return [f"--coordinator=localhost:{port}", "--processes=2", f"--process={process}"]


@pytest.fixture
def hosts(tmp_path):
    """`hosts(argv)` starts train.py on two hosts that share no folder; both are ended at last."""
    started = []

    def begin(argv):
        port = free_port()
        for i in range(2):
            started.append(start(tmp_path / f"host{i}", TRAIN, [*argv, *joining(port, i)]))
        return started

    yield begin
    for process in started:
        process.kill()
        process.wait()


def output(folder) -> str:
    return (folder / "output").read_text()


def wait_until_training(folder, processes):
    """Until there are updates: metrics.csv is written after ten seconds, the progress line before."""
    deadline = time.monotonic() + PATIENCE
    while not re.search(r" [1-9]\d*(\.\d+)?k?/1.00M", output(folder)):
        assert all(p.poll() is None for p in processes), output(folder)
        assert time.monotonic() < deadline, output(folder)
        time.sleep(0.2)


def test_two_hosts_train_one_agent(tmp_path, hosts):
    """The same parameters on all four devices; written by the first only; one host goes on."""
    for process in hosts(FLAGS):
        assert process.wait(PATIENCE) == 0, [output(tmp_path / f"host{i}") for i in range(2)]
    first, second = (np.load(tmp_path / f"host{i}" / "params.npz") for i in range(2))
    assert first["steps"] == second["steps"] >= 240
    for name in first.files:
        for leaf in (first[name], second[name]):
            np.testing.assert_array_equal(leaf, np.broadcast_to(first[name].flat[:1], leaf.shape)
                                          if leaf.ndim == 0 else np.broadcast_to(first[name][:1], leaf.shape))

    run = tmp_path / "host0" / RUN
    assert not (tmp_path / "host1" / "runs").exists()
    assert "steps/s" not in output(tmp_path / "host1")
    assert int(rows_of(run)[-1]["agent_steps"]) == first["steps"]
    _, params, info = checkpoint.load_agent(run)
    assert info.agent_steps == first["steps"]
    np.testing.assert_array_equal(params["conv1"]["kernel"], first[...])
