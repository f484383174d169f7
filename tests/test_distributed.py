"""Several hosts, played by two processes with two devices each: one run, and how it ends."""

import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import with_devices
from samples import TINY_FLAGS
from test_training import rows_of

import train
from maskrl import checkpoint, config, hosts
from maskrl.training import Trainer

RUN = pathlib.Path("runs/Breakout-both-0")
FLAGS = [*TINY_FLAGS, "--core=none", "--actors-per-group=4", "--steps=240"]
ENDLESS = [*FLAGS, "--steps=1000000"]
EVALUATING = ["--eval-every=100", "--eval-episodes=2", "--eval-episode-steps=20"]
PATIENCE = 600  # seconds for anything that two processes do, on a machine with other work

# train.py, and what it trained: the parameters of every device in one file.
TRAIN = """
import sys
from maskrl.signals import Signals
SIGNALS = Signals("train.py")
import jax, numpy as np
import train
from maskrl import hosts, training

hosts.HEARTBEAT_SECONDS = 10
run = training.Trainer.train

def train_and_keep(self):
    run(self)
    leaves = [
        np.concatenate([shard.data for shard in x.addressable_shards])
        for x in jax.tree.leaves(self.a3c.state.params)
    ]
    np.savez("params.npz", *leaves, steps=self.counters.agent_steps)

training.Trainer.train = train_and_keep
sys.exit(train.main(sys.argv[1:], SIGNALS))
"""

UPDATE = (
    f"""
TESTS = {str(pathlib.Path(__file__).parent)!r}
"""
    + """
import sys
sys.path.insert(0, TESTS)
import jax, numpy as np
from jax.flatten_util import ravel_pytree
from maskrl import devices, hosts, learner
from samples import agent_with, random_state, random_unroll, tiny_config

path, *joining = sys.argv[1:]
if joining:
    coordinator, processes, process = (flag.partition("=")[2] for flag in joining)
    hosts.join(coordinator, int(processes), int(process))
assert jax.device_count() == 4
config = tiny_config(actors_per_group=4)
agent = agent_with(mask="both", core="none")
state, snapshot = random_state(agent, config)

unroll = hosts.share(random_unroll(agent, np.random.default_rng(0), 3, 4))
d = devices.Devices()
assert d.count == 4 // jax.process_count()
update = learner.make_update(agent, config, d)
new, metrics = update(d.replicate(state), d.replicate(snapshot), d.put(unroll))
moved = jax.tree.map(np.subtract, d.first(new.params), state.params)
np.savez(path, update=np.float64(ravel_pytree(moved)[0]), **d.first(metrics))
"""
)


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
            env=with_devices(devices),
        )


def joining(port: int, process: int) -> list[str]:
    return [f"--coordinator=localhost:{port}", "--processes=2", f"--process={process}"]


@pytest.fixture
def two_hosts(tmp_path):
    """`two_hosts(argv)` starts train.py on both, with no folder shared; both are ended at last."""
    started = []

    def begin(argv, code=TRAIN):
        port = free_port()
        for i in range(2):
            started.append(start(tmp_path / f"host{i}", code, [*argv, *joining(port, i)]))
        return started

    yield begin
    for process in started:
        process.kill()
        process.wait()


def output(folder) -> str:
    return (folder / "output").read_text()


def succeed(folders, processes, code=0):
    """All end with this exit code."""
    codes = [process.wait(PATIENCE) for process in processes]
    assert codes == [code] * len(codes), [output(folder) for folder in folders]


def wait_until_training(folder, processes):
    """Until the first host's progress line has moved."""
    deadline = time.monotonic() + PATIENCE
    while not re.search(r"[1-9][^ ]*/1\.00M", output(folder)):
        assert all(process.poll() is None for process in processes), output(folder)
        assert time.monotonic() < deadline, output(folder)
        time.sleep(0.2)


@pytest.mark.slow
def test_two_hosts_train_one_agent(tmp_path, two_hosts):
    """The same parameters on all four devices; the first host alone writes; one host goes on."""
    folders = [tmp_path / f"host{i}" for i in range(2)]
    succeed(folders, two_hosts([*FLAGS, *EVALUATING]))
    first, second = (np.load(folder / "params.npz") for folder in folders)
    assert first["steps"] == second["steps"] >= 240
    names = set(first.files) - {"steps"}
    assert len(names) > 5
    for name in names:
        copies = np.concatenate([first[name], second[name]])
        assert len(copies) == 4
        assert np.all(copies == copies[0])

    run = folders[0] / RUN
    assert not (folders[1] / "runs").exists()
    assert "steps/s" in output(folders[0])
    assert "steps/s" not in output(folders[1])
    assert int(rows_of(run)[-1]["agent_steps"]) == first["steps"]
    saved = [path.name for path in (run / "checkpoints").iterdir()]
    assert saved == [str(first["steps"])]
    evaluated = [row for row in rows_of(run) if row["eval_score_mean"]]
    assert len(evaluated) == 3  # two at intervals, one at the end
    assert checkpoint.load_agent(run / checkpoint.BEST)[2].score is not None

    alone = start(folders[0], TRAIN, ["--resume", RUN, "--steps=300"])
    succeed(folders[:1], [alone])
    # Every actor of both hosts went on from where it was.
    trainer = Trainer(
        config.read(run / "config.json"), run, device_count=1, resume=True, evaluate=None
    )
    steps = np.stack([group.state.step for group in trainer.a3c.groups])
    assert trainer.counters.agent_steps >= 300
    assert steps.shape == (2, 4)
    assert steps.min() >= 300 // 8
    assert steps.max() - steps.min() <= 3


@pytest.mark.slow
def test_hosts_go_on_with_the_run_of_one(tmp_path, two_hosts):
    """Only the first host has the checkpoint."""
    folders = [tmp_path / f"host{i}" for i in range(2)]
    succeed(folders[:1], [start(folders[0], TRAIN, [*FLAGS, "--steps=48"])])
    succeed(folders, two_hosts(["--resume", "--steps=96"]))
    first, second = (np.load(folder / "params.npz") for folder in folders)
    assert first["steps"] == second["steps"] >= 96
    np.testing.assert_array_equal(first["arr_0"], second["arr_0"])
    assert int(rows_of(folders[0] / RUN)[-1]["agent_steps"]) == first["steps"]


def test_two_hosts_update_like_one(tmp_path):
    """The same batch over 2 x 2 and over 1 x 4 devices: less than 1e-4 of its norm apart."""
    port = free_port()
    args = [joining(port, i) for i in range(2)]
    folders = [tmp_path / name for name in ("host0", "host1", "one")]
    processes = [start(folders[i], UPDATE, ["update.npz", *args[i]]) for i in range(2)]
    processes.append(start(folders[2], UPDATE, ["update.npz"], devices=4))
    try:
        succeed(folders, processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    first, second, one = (np.load(folder / "update.npz") for folder in folders)
    norm = np.linalg.norm(one["update"])
    assert norm > 1e-3
    np.testing.assert_array_equal(first["update"], second["update"])
    assert np.linalg.norm(first["update"] - one["update"]) < 1e-4 * norm
    for name in ("loss", "policy_loss", "value_loss", "gradient_norm"):
        np.testing.assert_allclose(first[name], one[name], rtol=1e-4, err_msg=name)


# An evaluation that is longer than the silence after which a host counts as lost.
SLEEPING = """
import time
from maskrl import evaluation

play = evaluation.Player.play

def slowly(*args, **kwargs):
    time.sleep(2 * hosts.HEARTBEAT_SECONDS)
    return play(*args, **kwargs)

evaluation.Player.play = slowly
"""


@pytest.mark.slow
def test_the_others_wait_for_a_long_evaluation(tmp_path, two_hosts):
    """Inside a collective, for longer than a lost host would get."""
    folders = [tmp_path / f"host{i}" for i in range(2)]
    code = TRAIN.replace("sys.exit(", f"{SLEEPING}\nsys.exit(")
    succeed(folders, two_hosts([*FLAGS, *EVALUATING], code))
    first, second = (np.load(folder / "params.npz") for folder in folders)
    assert first["steps"] == second["steps"] >= 240
    np.testing.assert_array_equal(first["arr_0"], second["arr_0"])
    assert sum(bool(row["eval_score_mean"]) for row in rows_of(folders[0] / RUN)) == 3


@pytest.mark.parametrize("killed", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_lost_host_ends_the_others(tmp_path, two_hosts, killed):
    """Killed like by a power cut: the other one says so, and how to go on, within a minute."""
    folders = [tmp_path / f"host{i}" for i in range(2)]
    processes = two_hosts(ENDLESS)
    wait_until_training(folders[0], processes)
    processes[killed].kill()
    assert processes[1 - killed].wait(60) not in (0, 2, 130)
    deadline = time.monotonic() + 10  # the line is another process's
    while f"--resume {RUN}" not in output(folders[1 - killed]):
        assert time.monotonic() < deadline, output(folders[1 - killed])
        time.sleep(0.1)
    assert "has failed; go on with" in output(folders[1 - killed])


@pytest.mark.parametrize(
    ("number", "to"),
    [(signal.SIGTERM, 1), pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow)],
)
def test_a_signal_to_one_host_stops_all(tmp_path, two_hosts, number, to):
    """All at the same step, and it is saved."""
    folders = [tmp_path / f"host{i}" for i in range(2)]
    processes = two_hosts(ENDLESS)
    wait_until_training(folders[0], processes)
    processes[to].send_signal(number)
    succeed(folders, [processes[to]], 128 + number)
    processes[1 - to].wait(PATIENCE)
    for folder in folders:
        assert "interrupted and saved, " in output(folder)
        assert f"go on with: python train.py --resume {RUN}" in output(folder)
    _, _, info = checkpoint.load_agent(folders[0] / RUN)
    assert info.agent_steps > 0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--coordinator=localhost:1"], "--coordinator, --processes and --process go together"),
        (joining(1, 2), "--process 2 is not one of --processes 2"),
        (["--coordinator=here", "--processes=2", "--process=0"], "must be HOST:PORT"),
        (["--coordinator=a..b:1", "--processes=2", "--process=1"], "--coordinator a..b:1: "),
        (joining(1, 1), "cannot reach the coordinator localhost:1"),
        (["--distributed"], "no cluster here"),
    ],
)
def test_bad_input(monkeypatch, capsys, tmp_path, argv, says):
    """One line, exit code 2, no folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hosts, "JOIN_SECONDS", 1)
    with pytest.raises(SystemExit) as caught:
        train.main([*FLAGS, *argv])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.py: error: ")
    assert says in line
    assert not list(tmp_path.iterdir())


def test_what_the_first_host_may_not_do_no_host_does(tmp_path, two_hosts):
    """The run's folder is there on the first host: all say so, with exit code 2."""
    folders = [tmp_path / f"host{i}" for i in range(2)]
    (folders[0] / RUN).mkdir(parents=True)
    (folders[0] / RUN / "config.json").touch()
    succeed(folders, two_hosts(FLAGS), 2)
    for folder in folders:
        assert f"train.py: error: {RUN} exists" in output(folder)


def test_what_another_process_holds_no_host_trains(tmp_path, two_hosts):
    folders = [tmp_path / f"host{i}" for i in range(2)]
    (folders[0] / RUN).mkdir(parents=True)
    with checkpoint.locked(folders[0] / RUN):
        succeed(folders, two_hosts(FLAGS), 2)
    for folder in folders:
        assert f"train.py: error: another process is training {RUN}" in output(folder)
