"""What a hostile tester broke: damage, full disks, two writers, signals; docs/reliability.md.

The short forms of `python -m benchmarks.reliability`, and a regression test for everything else.
"""

import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import with_devices
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import TINY_FLAGS, train_tiny
from test_recording import sample

import train
from benchmarks.reliability import damage, processes
from maskrl import checkpoint, config, envs, loggers, recording, run_state
from maskrl.archive import Archive
from maskrl.errors import Fault, UserError
from maskrl.training import Trainer, agent_of

TRAIN = str(pathlib.Path(__file__).parents[1] / "train.py")
SMALL = {"core": "none", "mask": "none"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with two checkpoints and a best agent."""
    run = tmp_path_factory.mktemp("runs") / "saved"
    train_tiny(run, **SMALL, eval_every=None)
    train_tiny(run, **SMALL, eval_every=None, resume=True, steps=160)
    assert len(checkpoint.Checkpointer(run).steps()) == 2
    return run


def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def flip(path, rng):
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def assert_held(cases, count):
    """So many attacks, and all of them were stood."""
    cases = list(cases)
    assert [case["failed"] for case in cases] == [""] * count
    return cases


def test_damage_is_never_loaded(saved, tmp_path, capfd):
    """Items 3 and 6: flipped bits, zeros, files cut off or gone, in agents and checkpoints.

    And nothing else is said: Orbax's threads would print tracebacks.
    """
    capfd.readouterr()
    cases = assert_held(damage.damaged(30, 0, tmp_path, saved), 30)
    assert {case["outcome"] for case in cases} >= {"refused", "the older one"}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["..", "", "../params", "/", "."])
def test_no_path_leaves_its_folder(saved, tmp_path, name):
    """Item 10: whoever wrote the description, and its checksum."""
    path = copy(saved, tmp_path) / "best" / "agent.json"
    content = json.loads(path.read_text())
    content["parts"]["params"]["folder"] = name
    del content["sha256"]
    path.write_text(checkpoint.sealed(content))
    with pytest.raises(UserError, match="not in its folder"):
        checkpoint.load_agent(path.parent)


def test_arrays_are_checked_as_well_as_files(saved, tmp_path):
    """As earlier versions wrote it, without a sum of the files: wrong numbers are refused, too."""
    run = copy(saved, tmp_path)
    for name in ("sha256", "files"):
        path = run / "best" / "agent.json"
        content = json.loads(path.read_text())
        content["parts"]["params"][name] = "0" * 64
        if name == "sha256":
            del content["parts"]["params"]["files"]
        del content["sha256"]
        path.write_text(checkpoint.sealed(content))
        with pytest.raises(UserError, match="do not agree with their checksum"):
            checkpoint.load_agent(run)


def test_the_next_older_checkpoint(saved, tmp_path, capsys):
    """Item 6: the newest is damaged, and an empty folder has a larger number."""
    run = copy(saved, tmp_path)
    older, newer = checkpoint.Checkpointer(run).steps()
    (run / "checkpoints" / "99999999").mkdir()
    files = [p for p in (run / "checkpoints" / str(newer)).rglob("*") if p.is_file()]
    flip(max(files, key=lambda p: p.stat().st_size), random.Random(1))
    trainer = Trainer(
        config.read(run / "config.json"), run, device_count=1, resume=True, evaluate=None
    )
    assert trainer.counters.agent_steps == older
    assert f"taking the checkpoint of step {older}" in capsys.readouterr().err
    assert checkpoint.Checkpointer(run).steps() == [older]


def test_all_checkpoints_are_damaged(saved, tmp_path):
    run = copy(saved, tmp_path)
    for step in checkpoint.Checkpointer(run).steps():
        (run / "checkpoints" / str(step) / "agent.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Trainer(config.read(run / "config.json"), run, device_count=1, resume=True)


def test_numbers_that_are_not_finite_are_not_saved(saved, tmp_path):
    """Item 5."""
    _, params, info = checkpoint.load_agent(saved)
    bad = jax.tree.map(lambda x: x * np.nan, params)
    with pytest.raises(checkpoint.SaveError, match="not finite"):
        checkpoint.save_agent(tmp_path / "agent", bad, info)


def test_checksums_for_an_earlier_version(saved, tmp_path, capsys):
    """What has none is refused, until it is given some; what has wrong ones never gets others."""
    run = copy(saved, tmp_path)
    path = run / "best" / "agent.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in content.items() if k not in ("parts", "sha256")}))
    with pytest.raises(UserError, match=r"python -m maskrl\.checkpoint"):
        checkpoint.load_agent(run)
    assert checkpoint.main([str(run)]) == 0
    assert json.loads(path.read_text()) == content
    path.write_text(json.dumps(content | {"score": 1e9}))
    with pytest.raises(SystemExit):
        checkpoint.main([str(run / "best")])


def test_leftovers_go(saved, tmp_path):
    """Item 9."""
    run = copy(saved, tmp_path)
    for name in ("7.part", "8.orbax-checkpoint-tmp"):
        (run / "checkpoints" / name / "params").mkdir(parents=True)
    checkpoint.Checkpointer(run).clean()
    assert all(p.name.isdigit() for p in (run / "checkpoints").iterdir())


def test_a_failed_save_is_said_and_tried_again(tmp_path, monkeypatch, capsys):
    """Item 2: training goes on; the exit is not 0 while the last save failed."""
    write = checkpoint._write

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(Fault, match=r"the last save failed: .*No space left"):
        train_tiny(tmp_path / "run", **SMALL)
    assert checkpoint.Checkpointer(tmp_path / "run").newest is None
    monkeypatch.setattr(checkpoint, "_write", write)
    assert train_tiny(tmp_path / "run", **SMALL, resume=True).counters.agent_steps >= 120


def test_a_folder_of_checkpoints_that_is_none_any_more(tmp_path):
    """Item 10: training goes on without it, and says so."""
    run = tmp_path / "run"

    def evaluate(params):
        (run / "checkpoints").rmdir()
        (run / "checkpoints").write_text("a file")
        return np.zeros(1)

    with pytest.raises(Fault, match="the last save failed"):
        train_tiny(run, **SMALL, eval_every=None, evaluate=evaluate)


@pytest.mark.parametrize("limit", [1000, 100_000])
def test_a_size_limit_ends_in_one_line(saved, tmp_path, limit, caplog):
    """Item 2, with Orbax itself failing: it logs no tracebacks."""
    _, params, info = checkpoint.load_agent(saved)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(checkpoint.SaveError):
            checkpoint.save_agent(tmp_path / "agent", params, info)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((tmp_path / "agent").iterdir())
    assert caplog.records == []


def test_a_best_agent_that_cannot_be_written_is_tried_again(saved, tmp_path, monkeypatch):
    """It is not forgotten, and no worse one takes its place meanwhile."""
    run = copy(saved, tmp_path)
    _, params, _ = checkpoint.load_agent(run / "best")
    settings = config.read(run / "config.json")
    archive, said = Archive(run, settings, agent_of(settings).spec), []

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", full)
        archive.keep_best(params, 7, 999.0, said.append)
    assert "No space left" in said[0]
    with pytest.raises(Fault, match="the best agent could not be written"):
        archive.check()
    archive.keep_best(params, 8, 500.0, said.append)
    assert checkpoint.load_agent(run / "best")[2].score == 0
    state = run_state.fresh(agent_of(settings), settings, jax.random.PRNGKey(0))
    assert archive.save(state, said.append)
    archive.check()
    assert checkpoint.load_agent(run / "best")[2].score == 999
    assert len(said) == 1


def test_a_checkpoint_that_cannot_be_put_aside(saved, tmp_path, monkeypatch):
    """One line, where the folder of a damaged checkpoint cannot be renamed."""
    run = copy(saved, tmp_path)
    newest = checkpoint.Checkpointer(run).newest
    (run / "checkpoints" / str(newest) / "agent.json").write_text("{")

    def read_only(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(pathlib.Path, "rename", read_only)
    with pytest.raises(UserError, match="Read-only file system"):
        Trainer(config.read(run / "config.json"), run, device_count=1, resume=True)


def test_a_damaged_best_agent_is_replaced(saved, tmp_path):
    """Its score does not count any more: the next evaluation writes another, if a worse one."""
    run = copy(saved, tmp_path)
    assert checkpoint.score_of(run / "best") == 0
    _, params, _ = checkpoint.load_agent(run / "best")
    for path in (run / "best" / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert checkpoint.score_of(run / "best") is None
    settings = config.read(run / "config.json")
    archive = Archive(run, settings, agent_of(settings).spec)
    archive.keep_best(params, 7, -1.0, pytest.fail)
    assert checkpoint.load_agent(run / "best")[2].score == -1.0


@pytest.mark.parametrize("name", ["run.lock", "config.json.part", "checkpoints"])
def test_what_a_killed_start_leaves_is_no_run(tmp_path, name):
    """Item 4: neither is it in the way of another start."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / name).touch()
    assert train.holds_nothing(run)
    (run / "checkpoints" / "120").mkdir()
    assert not train.holds_nothing(run)


def test_a_disk_that_is_full_at_the_start(tmp_path, monkeypatch):
    """One line when the log cannot be begun."""

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loggers, "EventsWriter", full)
    with pytest.raises(UserError, match="No space left"):
        loggers.Logger(tmp_path, 0, 100)


def test_points_are_on_disk_at_once(tmp_path):
    """Item 12: a kill loses no point of TensorBoard's."""
    log = loggers.Logger(tmp_path, 0, 100)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    before = events.stat().st_size
    log.row({"agent_steps": 10, "loss": 0.5})
    assert b"loss" in events.read_bytes()[before:]
    log.close()


def test_two_writers(tmp_path):
    """Item 7; the lock goes with its holder."""
    with (
        checkpoint.locked(tmp_path),
        pytest.raises(UserError, match="another process"),
        checkpoint.locked(tmp_path),
    ):
        pass
    with checkpoint.locked(tmp_path):
        pass


ROW = "10,1,1.5" + "," * (len(loggers.COLUMNS) - 3)


@pytest.mark.parametrize(
    ("tail", "damaged"),
    [("", 0), ("20,2", 1), ("\0" * 500, 1), (ROW.replace("10", ""), 1), (ROW + ",1,2,3", 1)],
)
def test_damaged_metrics(tmp_path, capsys, tail, damaged):
    """Item 8: whole rows stay, the others are said and kept aside."""
    path = tmp_path / "metrics.csv"
    path.write_text(",".join(loggers.COLUMNS) + f"\n{ROW}\n{tail}")
    log = loggers.Logger(tmp_path, 100, 200)
    log.row({"agent_steps": 30, "loss": 0.5})
    log.close()
    lines = path.read_text().splitlines()
    assert lines[1] == ROW
    assert lines[2].startswith("30,")
    assert len(lines) == 3
    assert (f"{damaged} damaged rows" in capsys.readouterr().out) == bool(damaged)


def test_metrics_without_a_header(tmp_path):
    (tmp_path / "metrics.csv").write_text(ROW + "\n")
    loggers.Logger(tmp_path, 100, 200).close()
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1] == ROW


def test_a_log_that_begins_anew_is_kept(tmp_path):
    """A run whose checkpoints are gone begins at step 0; what its log said stays beside it."""
    log = loggers.Logger(tmp_path, 0, 100)
    log.row({"agent_steps": 50, "score_mean": 3.0})
    log.close()
    before = (tmp_path / "metrics.csv").read_text()
    for _ in range(2):
        loggers.Logger(tmp_path, 0, 100).close()
        assert (tmp_path / "metrics.before.csv").read_text() == before
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1
    log = loggers.Logger(tmp_path, 0, 100)
    log.row({"agent_steps": 70, "score_mean": 5.0})
    log.close()
    again = (tmp_path / "metrics.csv").read_text()
    loggers.Logger(tmp_path, 0, 100).close()
    assert (tmp_path / "metrics.before.csv").read_text() == before
    assert (tmp_path / "metrics.before-2.csv").read_text() == again


def test_rows_wait_for_the_disk(tmp_path, monkeypatch):
    log = loggers.Logger(tmp_path, 0, 200)
    append = log._append

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "_append", full)
    log.row({"agent_steps": 10})
    monkeypatch.setattr(log, "_append", append)
    log.row({"agent_steps": 20})
    log.close()
    rows = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["10", "20"]


def test_environments_that_fail(tmp_path, monkeypatch):
    """An exception and a stall: one line, and what was learnt is saved."""
    recv, calls = envs.Environments._recv, []

    def fail(self):
        calls.append(self)
        if len(calls) == 40:
            self._answer(failure)
        return recv(self)

    def failure():
        raise RuntimeError("the console is gone")

    monkeypatch.setattr(envs.Environments, "_recv", fail)
    with pytest.raises(Fault, match=r"EnvPool, Breakout, 2 environments, seed .*console is gone"):
        train_tiny(tmp_path / "run", **SMALL)
    assert checkpoint.Checkpointer(tmp_path / "run").newest > 0
    monkeypatch.setattr(envs, "STALL_SECONDS", 0.1)
    calls[1]._answer(int)  # answers yet
    started = time.monotonic()
    with pytest.raises(Fault, match="no answer for"):
        calls[1]._answer(time.sleep, 5)
    calls[1].close()  # does not wait for what does not answer
    assert time.monotonic() - started < 4


@pytest.fixture(scope="module")
def readers(saved, tmp_path_factory):
    """{a whole file of a kind: what reads it}."""
    return damage.readers(tmp_path_factory.mktemp("fuzz"), saved, sample(2))


@pytest.mark.parametrize(
    "name",
    [
        *("recording.npz", "result.json", "config.json", "agent.json", "metrics.csv"),
        *("resealed/agent.json", "train_step.npz", "agent.dat"),
    ],
)
def test_fuzzed_files(readers, name):
    """Item 10: read, or refused in one line; nothing else."""
    found = [path for path in readers if str(path).endswith(f"/{name}")]
    if not found:
        pytest.skip("no PyTorch")
    path = min(found, key=lambda p: len(p.parts))
    whole = path.read_bytes()
    readers[path](path)

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def fuzz(rng):
        path.write_bytes(damage.changed(whole, path.suffix, rng)[1])
        assert damage.judge(lambda: readers[path](path))["failed"] == ""

    fuzz()


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 10_000, '{"config": {"groups": 2.5}}'])
def test_json_that_is_too_much(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError):
        config.read(tmp_path / "config.json")


def test_an_unused_array_is_not_unpacked(tmp_path):
    recording.write(sample(2), tmp_path / "game.npz")
    arrays = dict(np.load(tmp_path / "game.npz"))
    np.savez_compressed(tmp_path / "game.npz", **arrays, unused=np.zeros(10_000_000))
    kept = recording.read_archive(tmp_path / "game.npz", {"header"})
    assert list(kept) == ["header"]


def start(folder, *argv):
    with open(folder / "output", "a") as out:
        return subprocess.Popen(
            [sys.executable, TRAIN, *argv],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=with_devices(2),  # whatever the machine has
        )


def until(condition, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


ENDLESS = [*TINY_FLAGS, "--steps=1000000", "--core=none", "--run-dir=run", "--save-every=1"]


def test_killed_at_any_moment(tmp_path):
    """What kills would leave of one process, and two kills; each goes on with the newest whole."""
    assert_held(processes.moments(12, 0, tmp_path / "moments"), 12)
    cases = assert_held(processes.kills(2, 2, tmp_path / "kills"), 2)
    assert all(case["lost_seconds"] is None or case["lost_seconds"] < 60 for case in cases)


def test_asked_to_stop_at_any_moment(tmp_path):
    """Items 1 and 4: at the start nothing is left, later it is saved, and only then said."""
    assert_held(processes.signals(4, 0, tmp_path), 4)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts small disks")
def test_disks_that_fail(tmp_path):
    """Item 2: full, without inodes, read-only, immutable, limited; then mended, or not."""
    assert_held(processes.disks(10, 0, tmp_path), 10)


# A stop that is asked for is answered, and what is printed harms nothing, with nobody listening.
NOBODY = """
import os, signal, sys, time
from maskrl.signals import Outlet, Signals

signals = Signals("a program")
sys.stdout, sys.stderr = Outlet(sys.stdout), Outlet(sys.stderr)
asked = []
signals.ask(lambda: asked.append(True), lambda: "the end")
os.kill(os.getpid(), signal.SIGTERM)
while not asked:
    time.sleep(0.01)
for _ in range(3):
    print("to nobody", flush=True)
    print("to nobody", file=sys.stderr, flush=True)
sys.exit(signals.exit_code)
"""


def test_nobody_listens(tmp_path):
    """`train.py | tee`, and Ctrl-C has ended tee: the run is saved all the same."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", NOBODY], cwd=pathlib.Path(TRAIN).parent, stdout=write, stderr=write
    )
    os.close(write)
    os.close(read)
    assert process.wait(60) == 128 + signal.SIGTERM


SAVES = """
import os, pathlib, signal, sys, time
from maskrl.signals import ECHO, Signals

signals = Signals("a program")
asked = []
signals.ask(lambda: asked.append(True), lambda: "the end")
os.kill(os.getpid(), signal.SIGHUP)
while not asked:
    time.sleep(0.001)
os.kill(os.getpid(), signal.SIGHUP)
time.sleep(float(sys.argv[1]) * ECHO)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(ECHO)
print("saved")
sys.exit(signals.exit_code)
"""


@pytest.mark.parametrize(("later", "code"), [(0, signal.SIGHUP), (1.1, signal.SIGTERM)])
def test_an_echo_and_a_second_signal(later, code):
    """A terminal that is closed sends SIGHUP twice, by its shell and by the kernel."""
    done = subprocess.run(
        [sys.executable, "-c", SAVES, str(later)],
        cwd=pathlib.Path(TRAIN).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 128 + code
    assert ("saved" in done.stdout) == (code == signal.SIGHUP)
    assert ("SIGTERM: the end" in done.stderr) == (code == signal.SIGTERM)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGHUP]
)
def test_asked_to_stop(tmp_path, number):
    """Item 1: it says so once it has saved; the shell's exit code; killed, then resumed."""
    process = start(tmp_path, *ENDLESS)
    try:
        until(lambda: checkpoint.Checkpointer(tmp_path / "run").newest, process)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        output = (tmp_path / "output").read_text()
        assert "Traceback" not in output
        step = int(re.search(r"saved, the newest checkpoint is step (\d+)", output)[1])
        assert checkpoint.load_agent(tmp_path / "run")[2].agent_steps == step
        assert step == checkpoint.Checkpointer(tmp_path / "run").newest
    finally:
        process.kill()
        process.wait()


def test_stopped_at_the_start(tmp_path):
    """One line, no folder."""
    process = start(tmp_path, *ENDLESS)
    try:
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        output = (tmp_path / "output").read_text()
        if "nothing was" in output:
            assert len(output.split("\n")) <= 4
            assert not (tmp_path / "run").exists()
    finally:
        process.kill()
        process.wait()


def test_stopped_before_the_first_checkpoint(saved, tmp_path):
    """Item 4: from the configuration, at step 0."""
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(saved / "config.json", run)
    assert train_tiny(run, **SMALL, resume=True).counters.agent_steps >= 120
    os.rename(run, tmp_path / "done")
