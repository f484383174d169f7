"""Campaigns of runs, with a stand-in for `train.py`; and an agent that comes with the project."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest
from samples import train_tiny

from benchmarks import campaign, ship
from maskrl import checkpoint, config, curves, evaluation, tables
from maskrl.config import Config
from maskrl.errors import UserError

# Trains nothing: "saves" 10 steps at once, and 100 when asked to stop; the run of seed 9 fails.
TRAIN = """
import pathlib, signal, sys, time
flags = dict(zip(sys.argv[1::2], sys.argv[2::2]))
run = pathlib.Path(flags.get("--run-dir") or flags["--resume"])
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
(run / "config.json").touch()
def save(steps):
    saved = run / "checkpoints" / str(steps)
    saved.mkdir(exist_ok=True)
    (saved / "agent.json").touch()
def stop(*_):
    save(100)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
with open(run / "calls", "a") as file:
    print(*sys.argv[1:], file=file)
if run.name.endswith("-9"):
    sys.exit(1)
save(10)
time.sleep(60)
"""


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    """The folder of the stand-in."""
    (tmp_path / "train.py").write_text(TRAIN)
    monkeypatch.setattr(campaign, "CHECKOUT", tmp_path)
    return tmp_path


def listed(folder, *lines):
    path = folder / "list.txt"
    path.write_text("\n".join(lines))
    return path


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_list_is_read(tmp_path):
    path = listed(
        tmp_path,
        "# first",
        "--game breakout --steps 5 --precision bfloat16",
        "",
        "--game Pong --mask none --seed 3 --steps 7  # last",
    )
    first, last = campaign.read(path, tmp_path / "runs")
    assert first.folder == tmp_path / "runs" / "Breakout-both-0"
    assert first.flags[-2:] == ["--precision", "bfloat16"]
    assert (last.folder.name, last.steps) == ("Pong-none-3", 7)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["--game Breakout"], "line 1: .*--steps"),
        (["", "--game Brakeout --steps 1"], "line 2: .*Breakout"),
        (["--game Pong --steps 1", "--game pong --steps 2"], "line 2: .*twice"),
        (["--game Pong --steps 1 --run-dir here"], "line 1: .*leave out"),
        (["--game Pong '--steps 1"], "line 1: .*quotation"),
        (["--game Pong --steps -5"], "line 1: --steps -5"),
    ],
)
def test_wrong_lists(tmp_path, lines, says):
    with pytest.raises(UserError, match=says):
        campaign.read(listed(tmp_path, *lines), tmp_path)


def test_two_runs_at_a_time_until_all_are_done(trainer):
    """A core each; the third begins where the first ends; one that fails thrice is given up."""
    path = listed(
        trainer,
        *(
            f"--game Pong --seed {seed} --steps {100 if seed < 9 else 5} --eval-every 0"
            for seed in (0, 9, 1)
        ),
    )
    core = min(os.sched_getaffinity(0))
    runs = campaign.read(path, trainer / "runs")
    first, failing, last = runs
    going = campaign.carry_on(runs, [core, core], nice=7)
    next(going)
    assert [run.core for run in runs] == [core, core, None]
    assert last.process is None
    until(lambda: first.saved == 10)
    assert os.sched_getaffinity(first.process.pid) == {core}
    assert os.getpriority(os.PRIO_PROCESS, first.process.pid) == 7
    first.process.send_signal(signal.SIGTERM)
    until(lambda: next(going) or (last.process and last.saved == 10))
    until(lambda: next(going) or failing.given_up)
    campaign.stop(runs)
    assert list(going) == []
    assert first.done
    assert last.done
    assert len((failing.folder / "calls").read_text().splitlines()) == campaign.TRIES
    assert "given up" in failing.status()


def test_it_goes_on_with_what_there_is(trainer):
    run = campaign.read(listed(trainer, "--game Pong --steps 1000"), trainer / "runs")[0]
    calls = run.folder / "calls"
    for number in (1, 2):
        run.begin(None, 5)
        until(lambda: calls.exists() and len(calls.read_text().splitlines()) == number)  # noqa: B023
        campaign.stop([run])
        assert run.ended()
    new, resumed = calls.read_text().splitlines()
    assert new == f"--game Pong --steps 1000 --run-dir {run.folder}"
    assert resumed == f"--game Pong --steps 1000 --resume {run.folder}"


def test_a_run_that_goes_on_has_its_own_preset():
    flags = ["--preset", "paper", "--game", "Pong", "--preset=paper", "--seed", "3"]
    assert campaign.without_preset(flags) == ["--game", "Pong", "--seed", "3"]


@pytest.mark.parametrize("flags", ["", " --eval-every 7", " --eval-every 0"])
def test_a_run_is_done_when_its_end_has_been_evaluated(tmp_path, flags):
    """Unless nothing is evaluated at all."""
    run = campaign.read(listed(tmp_path, f"--game Pong --steps 9{flags}"), tmp_path)[0]
    saved = run.folder / "checkpoints" / "9"
    saved.mkdir(parents=True)
    assert run.saved == 0  # not written whole
    (saved / checkpoint.AGENT).touch()
    metrics = run.folder / "metrics.csv"
    metrics.write_text("agent_steps,eval_score_mean\n5,1.0\n9,\n")
    assert run.done == flags.endswith(" 0")
    metrics.write_text("agent_steps,eval_score_mean\n5,1.0\n9,2.0\n")
    assert run.done


@pytest.mark.parametrize("jobs", ["0", "1000"])
def test_runs_at_a_time(tmp_path, capsys, jobs):
    """At least one, and at most one on each core."""
    with pytest.raises(SystemExit) as caught:
        campaign.main([str(listed(tmp_path, "--game Pong --steps 5")), "--jobs", jobs])
    assert caught.value.code == 2
    assert f"--jobs {jobs}: " in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_given_up(trainer):
    """Rather than waited for without end, as if another process trained there."""
    runs = campaign.read(listed(trainer, "--game Pong --seed 9 --steps 100"), trainer / "runs")
    (runs[0].folder / checkpoint.LOCK).mkdir(parents=True)
    going = campaign.carry_on(runs, [None], nice=5)
    until(lambda: next(going, "over") == "over")
    assert runs[0].given_up


def test_a_run_that_outlived_its_campaign_is_left_alone(trainer):
    """Until it has ended; its core counts as taken."""
    path = listed(trainer, "--game Pong --steps 100", "--game Pong --seed 1 --steps 100")
    runs = campaign.read(path, trainer / "runs")
    runs[0].folder.mkdir(parents=True)
    with checkpoint.locked(runs[0].folder):
        going = campaign.carry_on(runs, [None, None], nice=5)
        next(going)
        assert runs[0].process is None
        assert "elsewhere" in runs[0].status()
        assert runs[1].process is not None
    next(going)
    assert runs[0].process is not None
    until(lambda: all(run.saved == 10 for run in runs))
    campaign.stop(runs)


def test_status(tmp_path):
    """Steps and speed of the newest row, the last evaluation, the hours left."""
    run = campaign.read(listed(tmp_path, "--game Pong --steps 4600"), tmp_path)[0]
    run.folder.mkdir()
    (run.folder / "metrics.csv").write_text(
        "agent_steps,steps_per_second,life_reward,eval_score_mean\n"
        "500,2,0.5,\n900,,,7.25\n1000,1,0.75,\n"
    )
    status = run.status()
    for part in ("Pong-both-0", "waiting", "0.001 of", "1 steps/s", "0.75", "7.2", "1.0 h left"):
        assert part in status


@pytest.fixture
def signals():
    """Those that the command takes for itself are given back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_stopping_the_command(trainer, monkeypatch, capsys):
    """SIGTERM to the campaign: its runs save and end, and so does it."""
    path = listed(trainer, "--game Pong --steps 1000")
    run = campaign.read(path, trainer / "runs")[0]

    def wait(_):
        if run.saved == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)

    monkeypatch.setattr(campaign, "time", SimpleNamespace(**vars(time) | {"sleep": wait}))
    assert campaign.main([str(path), "--runs", str(trainer / "runs"), "--jobs", "1"]) == 130
    assert run.saved == 100
    assert "Pong-both-0" in capsys.readouterr().out


@pytest.mark.usefixtures("signals")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a core for each of two runs")
def test_a_log_that_cannot_be_written(trainer, monkeypatch, capsys):
    """One line; what goes on already is asked to end."""
    path = listed(trainer, "--game Pong --steps 1000", "--game Pong --seed 1 --steps 1000")
    runs = campaign.read(path, trainer / "runs")
    (trainer / "runs" / "Pong-both-1.log").mkdir(parents=True)
    monkeypatch.setattr(campaign, "read", lambda *_: runs)
    with pytest.raises(SystemExit) as caught:
        campaign.main([str(path), "--jobs", "2"])
    assert caught.value.code == 2
    assert f"cannot write in {trainer / 'runs'}: Is a directory" in capsys.readouterr().err
    assert runs[0].process.poll() is not None
    assert runs[1].process is None


def test_a_damaged_log_ends_no_campaign(tmp_path):
    """What is torn, no text or no number is no row; the run itself mends it when it goes on."""
    log = tmp_path / "metrics.csv"
    whole = b"agent_steps,life_reward,eval_score_mean\n10,1.5,7\n20,2.5,\n"
    for damage in (b"", b"3x,1,9\n", b"30,x,9\n", b"30,1,nan\n", b"\xff\xfe,1,9\n", b"30,1", b"9"):
        log.write_bytes(whole + damage)
        assert campaign._last_row(log, "eval_score_mean")["eval_score_mean"] == "7"
    log.write_bytes(whole + b"30,nan,9\n")  # a life's reward, where no life has ended yet
    assert campaign._last_row(log, "eval_score_mean")["eval_score_mean"] == "9"
    assert campaign._last_row(tmp_path / "none.csv", "eval_score_mean") == {}


def test_an_agent_is_shipped(tmp_path, monkeypatch, capsys):
    """The better run's agent with its games, its card, its curve; tables and curves read them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    run = tmp_path / "runs" / "Breakout-both-0"
    train_tiny(run, eval_every=60, log_seconds=0.01, core="none")
    worse = tmp_path / "runs" / "Breakout-both-1"
    seed = {"seed": 1, "evaluate": lambda params: np.full(1, -1.0)}
    train_tiny(worse, eval_every=60, core="none", **seed)
    monkeypatch.setattr(ship, "EPISODES", 2)
    short = {
        name: evaluation.How(mode=how.mode, sample=how.sample, seed=5, max_episode_steps=30)
        for name, how in ship.PLAYS.items()
    }
    monkeypatch.setattr(ship, "PLAYS", short)
    (tmp_path / "original.csv").write_text("game,agent_steps,score\nBreakout,60,3.5\n")
    assert ship.main([str(worse), str(run), "--original", "original.csv"]) == 0
    folder = tmp_path / "agents" / "Breakout-both"
    _, _, info = checkpoint.load_agent(folder)
    results = tables.read_results(sorted(folder.glob("results/*.json")))
    assert {(r["mode"], r["sample"]) for r in results} == {
        ("normal", False),
        ("normal", True),
        ("inverse", False),
        ("random", False),
    }
    assert all(r["agent_steps"] == info.agent_steps for r in results)
    card = json.loads((folder / "card.json").read_text())
    assert card["chosen"].startswith("the best of the run's evaluations, 30 greedy games")
    assert 0 < card["hours"] < 1
    assert card["config"]["seed"] == 0
    assert curves.by_game([folder]).keys() <= {"Breakout"}
    text = (tmp_path / "agents" / "README.md").read_text()
    behind = "(**below half of the original at equal steps, random play taken off**)"
    assert f"| Breakout-both {behind} | {info.agent_steps:,} |" in text
    assert "python train.py --game Breakout --core none" in text
    assert "runs: 2 (Breakout-both-1: -1, Breakout-both-0: 0)" in text
    assert "learning rate" not in text
    assert str(tmp_path) not in text + (folder / "card.json").read_text()
    assert (card["original"], card["before"]) == (3.5, None)
    assert ship.main(["--cards"]) == 0
    assert (tmp_path / "agents" / "README.md").read_text() == text
    assert "did better" not in capsys.readouterr().out
    assert ship.main([str(worse)]) == 0
    says = "note: agents/Breakout-both did better in its own run's evaluations: 0.0 (-1.0)"
    assert says in capsys.readouterr().out
    (run / "metrics.csv").write_text("agent_steps,seconds\n")
    for named, says in ((folder, "is an agent, not the run"), (run, "metrics.csv has no rows")):
        with pytest.raises(SystemExit, match="2"):
            ship.main([str(named)])
        assert says in capsys.readouterr().err
    # The config has the last session's rate, the command is the first's.
    changes = {"learning_rate": [[0, 1e-4], [1_000_000, 3e-5]]}
    changes |= {"precision": [[0, "float32"], [500_000, "bfloat16"]]}
    changed = card | {"changes": changes}
    changed["config"] |= {"learning_rate": 3e-5, "precision": "bfloat16"}
    (folder / "card.json").write_text(json.dumps(changed))
    text = ship.cards()
    assert not {"--learning-rate", "--precision"} & set(text.split())
    said = "`, learning rate 3e-05 from 1,000,000 steps on, precision bfloat16 from 500,000 steps"
    assert f"{said} on; the best of" in text
    (folder / "results" / "greedy.json").unlink()
    with pytest.raises(UserError, match="agents/Breakout-both: its card or results are not whole"):
        ship.cards()


def test_what_a_run_began_with(tmp_path):
    """Named by its steps and the commit that brought it, even when another has taken its place."""
    agent = tmp_path / "agent"
    agent.mkdir()

    def git(*arguments):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *name, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def run(origin, *sessions):
        for session in sessions:
            config.write(Config(origin=origin), tmp_path / "config.json", session)
        return ship.origin_of(tmp_path)

    assert run(None, {"agent_steps": 0}) is None
    (tmp_path / "config.json").unlink()
    began = {"agent_steps": 1_000_012}
    assert run("gone", began, {"agent_steps": 2_000_000}) == "gone of 1,000,012 steps"
    (tmp_path / "config.json").unlink()
    assert run("gone", {"command": "an earlier version's"}) == "gone"
    (tmp_path / "config.json").unlink()
    git("init")
    commits = []
    for steps in (500_000, 1_000_012, 3_000_000):
        (agent / "agent.json").write_text(f'{{\n  "agent_steps": {steps},\n  "score": 1\n}}')
        git("add", "agent")
        git("commit", "-m", "agent")
        commits.append(git("rev-parse", "--short", "HEAD"))
    assert run(str(agent), began) == f"{agent} of 1,000,012 steps (commit {commits[1]})"


def test_a_log_goes_on_from_that_of_the_origin(tmp_path):
    """What came after the start is left out; the seconds go on; an agent's log is whole already."""
    names = ("agent_steps", "seconds", "eval_score_mean")

    def folder(name, origin, rows, kind):
        (tmp_path / name).mkdir()
        settings = dataclasses.asdict(Config(origin=origin and str(tmp_path / origin)))
        (tmp_path / name / f"{kind}.json").write_text(json.dumps({"config": settings}))
        lines = [",".join(map(str, row)) for row in (names, *rows)]
        (tmp_path / name / "metrics.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / name

    folder("gone", None, [(1, 1, "")], "config")
    folder("agent", "gone", [(10, 5, ""), (20, 10, 7), (40, 20, "")], "card")
    folder("first", "agent", [(30, 1, ""), (60, 4, "")], "config")
    last = folder("last", "first", [(50, 2, ""), (70, 3, 9)], "config")
    rows = [tuple(float(row[n] or "nan") for n in names[:2]) for row in ship.log_of(last)]
    assert rows == [(10, 5), (20, 10), (30, 11), (50, 13), (70, 14)]
    for part in ("best", "checkpoints/20"):
        (tmp_path / "agent" / part).mkdir(parents=True)
        later = folder(f"after-{part[:4]}", f"agent/{part}", [(30, 1, "")], "config")
        assert [row["agent_steps"] for row in ship.log_of(later)] == ["10", "20", "30"]
    (tmp_path / "first" / "metrics.csv").unlink()
    assert len(ship.log_of(last)) == 2
    (last / "metrics.csv").unlink()
    with pytest.raises(UserError, match="cannot read agent_steps, seconds"):
        ship.log_of(last)


def test_flags_of_a_card():
    """Those that differ from the defaults, or from the preset where gradients are not cut."""
    assert ship._flags(Config(game="Breakout")) == ["--game", "Breakout"]
    paper = Config(game="Breakout", seed=3, **config.PRESETS["paper"])
    assert ship._flags(paper) == ["--preset", "paper", "--game", "Breakout", "--seed", "3"]


def test_metrics_are_thinned(tmp_path, monkeypatch):
    """Evaluations and spikes stay, and of the others as many per step where there were few."""
    monkeypatch.setattr(ship, "ROWS", 10)
    monkeypatch.setattr(ship, "SPIKES", 1)
    steps = [*range(0, 900, 100), *range(900, 1001)]  # the first of an agent that was thinned
    rows = [
        {
            "agent_steps": n,
            "eval_score_mean": 5 if n == 933 else "",
            "gradient_norm_max": "" if n == 933 else 3000 if n == 950 else n,
        }
        for n in steps
    ]
    ship.thin(rows, tmp_path / "few.csv")
    with open(tmp_path / "few.csv", newline="") as file:
        kept = [int(row["agent_steps"]) for row in csv.DictReader(file)]
    assert kept == [*range(0, 901, 100), 933, 950, 1000]
