"""Both scripts from the command line: a run, its evaluation, the tables; and every bad input."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import sys
import time

import jax
import numpy as np
import pytest
from samples import TINY_FLAGS, agent_with

import evaluate
import train
from benchmarks import ship
from maskrl import checkpoint, devices, evaluation, tables
from maskrl.checkpoint import AgentInfo
from maskrl.envs import OPENING
from maskrl.run_state import Counters
from maskrl.study import run

RUN = "runs/Breakout-both-0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a tiny run was trained; tests get copies of it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert train.main(TINY_FLAGS) == 0
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """The current folder: a copy of `trained`."""
    folder = shutil.copytree(trained, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


def contents(folder):
    """Every file below the folder, and its bytes."""
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(capsys, program, argv) -> str:
    """The one line on stderr of a command that must end with exit code 2, and change nothing."""
    capsys.readouterr()
    before = contents(pathlib.Path())
    with pytest.raises(SystemExit) as caught:
        {"train.py": train, "evaluate.py": evaluate}[program].main([str(a) for a in argv])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert err.startswith(f"{program}: error: ")
    assert contents(pathlib.Path()) == before
    return err


def test_train_evaluate_table(here, capsys):
    """The user's first hour, with no argument but the mode."""
    run = here / RUN
    saved = json.loads((run / "config.json").read_text())
    assert saved["config"]["unroll_length"] == 3
    (session,) = saved["sessions"]
    assert set(session["versions"]) >= {"jax", "flax", "optax", "envpool", "numpy", "maskrl"}
    assert "command" in session
    assert (run / "metrics.csv").exists()
    assert list(run.glob("events.out.tfevents.*"))

    short = ["--max-episode-steps", "20", "--episodes", "3"]
    for mode in ("normal", "inverse", "inverse"):
        assert evaluate.main(["--mode", mode, *short]) == 0
    assert evaluate.main(["--mode", "random", "--game", "breakout", *short]) == 0
    results = sorted((here / "results").glob("*.json"))
    assert len(results) == 4  # the second inverse one did not overwrite the first
    read = [json.loads(path.read_text()) for path in results]
    assert sorted(r["mode"] for r in read) == ["inverse", "inverse", "normal", "random"]
    for r in read:
        assert (r["game"], r["episodes"], r["seed"]) == ("Breakout", 3, 0)
        assert len(r["lengths"]) == 3
        # A second life's opening takes its steps from the limit.
        assert all(20 - len(OPENING) <= length <= 20 for length in r["lengths"])
        assert r["max"] == max(r["scores"])
        assert r["mean"] == pytest.approx(np.mean(r["scores"]))
        assert r["std"] == pytest.approx(np.std(r["scores"]))
        assert r["median"] == np.median(r["scores"])
    inverse = read[[r["mode"] for r in read].index("inverse")]
    assert (inverse["mask"], inverse["branch"]) == ("both", "policy")
    assert 120 <= inverse["agent_steps"] < 128

    said = capsys.readouterr()
    rows = [line for line in said.out.splitlines() if line.split()[:1] in (["game"], ["Breakout"])]
    assert len(rows) == 8
    assert max(map(len, rows)) <= 80
    assert "\r" not in said.err  # it is no terminal
    assert evaluate.main(["--mode", "table"]) == 0
    printed = capsys.readouterr().out
    assert "games of up to 20 agent steps, not to be compared" in printed
    assert "Breakout Mask A3C inverse" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert (here / "results" / "tables.md").read_text().count("###") == 3
    assert "paper_mean" in (here / "results" / "tables.csv").read_text()


def test_which_agent_of_a_run_is_taken(here, capsys):
    """The best by evaluation; that there is a newer one is said, and that can be had."""
    _, params, info = checkpoint.load_agent(here / RUN)
    best = dataclasses.replace(info, agent_steps=7, score=3.0)
    checkpoint.save_agent(here / RUN / "best", params, best)
    argv = ["--mode", "random", "--episodes", "1", "--max-episode-steps", "3", "--agent"]
    evaluate.main([*argv, RUN])
    out = capsys.readouterr().out
    assert f"agent: {RUN} (Breakout, mask both, step 7, the best by evaluation, 3.0)" in out
    newer = f"{RUN}/checkpoints/{info.agent_steps}"
    assert f"there is a newer one: --agent {newer}" in out
    evaluate.main([*argv, newer])
    out = capsys.readouterr().out
    assert f"step {info.agent_steps})" in out
    assert "newer one" not in out


def test_evaluations_at_once(here, monkeypatch):
    """Of two that chose the same name the later one takes another."""
    steps = checkpoint.load_agent(here / RUN)[2].agent_steps
    path = here / "results" / f"Breakout-both-normal-{steps}-seed5.json"
    played = evaluation.Player.play

    def meanwhile(*args, **kwargs):
        path.write_text("of another")
        return played(*args, **kwargs)

    monkeypatch.setattr(evaluation.Player, "play", meanwhile)
    argv = ["--seed", "5", "--episodes", "1", "--max-episode-steps", "3"]
    assert evaluate.main(argv) == 0
    assert path.read_text() == "of another"
    assert json.loads(path.with_stem(f"{path.stem}-2").read_text())["seed"] == 5


def test_output_and_agent_are_taken(here):
    """`--agent` takes a run's folder, `--output` any file, in a folder that is made."""
    argv = ["--agent", RUN, "--output", "a/b/c.json", "--episodes", "1", "--seed", "4", "--sample"]
    argv += ["--precision", "bfloat16"]
    assert evaluate.main([*argv, "--max-episode-steps", "5"]) == 0
    result = json.loads((here / "a/b/c.json").read_text())
    assert result["seed"] == 4
    assert result["precision"] == "bfloat16"
    assert result["sample"] is True


def test_resume(here, capsys):
    """The newest run without a name; a named one; some settings may be other ones."""
    assert train.main(["--resume", "--steps", "160"]) == 0
    assert checkpoint.load_agent(here / RUN)[2].agent_steps >= 160
    saved = json.loads((here / RUN / "config.json").read_text())
    assert saved["config"]["steps"] == 160
    assert len(saved["sessions"]) == 2
    other = ["--steps", "200", "--precision", "bfloat16", "--learning-rate", "3e-5"]
    other += ["--game", "breakout-v5"]
    ended = int(checkpoint.Checkpointer(here / RUN).newest)
    assert train.main(["--resume", RUN, *other]) == 0
    assert checkpoint.load_agent(here / RUN)[2].agent_steps >= 200
    now = json.loads((here / RUN / "config.json").read_text())
    changed = {"steps": 200, "precision": "bfloat16", "learning_rate": 3e-5}
    assert now["config"] == saved["config"] | changed
    rates = [(s["agent_steps"], s["learning_rate"]) for s in now["sessions"]]
    assert [rates[0], rates[2]] == [(0, 1e-4), (ended, 3e-5)]
    changes = ship.changes_of(here / RUN)
    assert changes["learning_rate"] == [(0, 1e-4), (ended, 3e-5)]
    assert changes["precision"] == [(0, "float32"), (ended, "bfloat16")]
    with pytest.raises(SystemExit):
        train.main(["--resume", RUN, "--steps", "40"])
    assert "200" in capsys.readouterr().err
    assert json.loads((here / RUN / "config.json").read_text()) == now


def test_interrupted_run_says_how_to_go_on(here, monkeypatch, capsys):
    """Ctrl-C during an evaluation: exit code 130, everything saved."""

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation.Player, "play", interrupted)
    argv = [*TINY_FLAGS, "--run-dir", "runs/other", "--eval-every", "60", "--core", "none"]
    assert train.main(argv) == 130
    assert "--resume runs/other" in capsys.readouterr().out
    assert 60 <= checkpoint.load_agent(here / "runs/other")[2].agent_steps < 120


def test_preset(here, monkeypatch):
    """`paper` is its 35 workers, 5 groups of 7, with its numbers; flags override it."""
    seen = []

    class Trainer:
        counters = Counters()

        def __init__(self, settings, run, **kwargs):
            seen.append(settings)

        def train(self):
            pass

        def stop(self):
            pass

    monkeypatch.setattr("maskrl.training.Trainer", Trainer)
    assert train.main(["--preset", "paper", "--game", "pong", "--seed", "3"]) == 0
    s = seen[0]
    assert (s.groups, s.actors_per_group, s.actors_per_update) == (5, 7, 1)
    assert (s.unroll_length, s.discount, s.gae_lambda, s.steps) == (20, 0.99, 1.0, 100_000_000)
    assert (s.entropy_cost, s.value_cost, s.max_episode_steps) == (0.01, 0.5, 10_000)
    assert (here / "runs/Pong-both-3/config.json").exists()


def name(argument):
    """A test's name: its flags."""
    return " ".join(argument) if isinstance(argument, list) else ""


TRAIN = [
    (["--nonsense"], "nonsense"),
    (["--game", "Brekout"], "Breakout"),
    (["--game", ""], "no game"),
    (["--mask", "some"], "mask"),
    (["--core", "gru"], "core"),
    (["--frames", "red"], "frames"),
    (["--preset", "fast"], "preset"),
    (["--steps", "-5"], "--steps"),
    (["--steps", "many"], "--steps"),
    (["--steps", "1e5"], "--steps"),
    (["--steps", "11"], "at least 12"),
    (["--groups", "0"], "--groups"),
    (["--actors-per-group", "-1"], "--actors-per-group"),
    (["--unroll-length", "0"], "--unroll-length"),
    (["--sync-every", "0"], "--sync-every"),
    (["--seed", "-1"], "--seed"),
    (["--learning-rate", "-1"], "--learning-rate"),
    (["--learning-rate", "inf"], "--learning-rate"),
    (["--entropy-cost", "inf"], "--entropy-cost"),
    (["--seed", "99999999999999999999"], "--seed"),
    (["--max-episode-steps", "99999999999"], "--max-episode-steps"),
    (["--actors-per-group", "100000000"], "--actors-per-group"),
    (["--run-dir", "runs/" + "x" * 300], "cannot make"),
    (["--learning-rate", "nan"], "--learning-rate"),
    (["--adam-eps", "0"], "--adam-eps 0.0: must be at least 1e-12"),
    (["--discount", "1.5"], "--discount"),
    (["--gae-lambda", "-0.5"], "--gae-lambda"),
    (["--entropy-cost", "nan"], "--entropy-cost"),
    (["--save-every", "0"], "--save-every"),
    (["--eval-episodes", "0"], "--eval-episodes"),
    ([], "exists: go on with --resume"),
    (["--run-dir", "file/below"], "cannot make"),
    (["--run-dir", "file"], "exists"),
]


@pytest.mark.parametrize(("argv", "says"), TRAIN, ids=name)
def test_train_refuses(here, capsys, argv, says):
    """A new run with the tiny settings but for one; `runs/Breakout-both-0` is there."""
    (here / "file").write_text("a file")
    assert says in refused(capsys, "train.py", [*TINY_FLAGS, *argv])


RESUME = [
    (["--resume", "--groups", "3"], "--groups 3 (the run has 2)"),
    (
        ["--resume", RUN, "--mask", "none", "--seed", "1"],
        "--mask none (the run has both), --seed 1",
    ),
    (["--resume", "--game", "Pong"], "--game Pong (the run has Breakout)"),
    (["--resume", "--run-dir", "runs/new"], "leave out"),
    (["--resume", "--preset", "paper"], "leave out"),
    (["--resume", "runs/absent"], "is not a run"),
    (["--resume", "empty"], "is not a run"),
    (["--resume", "file"], "file"),
    (["--resume", "--steps", "0"], "--steps"),
]


@pytest.mark.parametrize(("argv", "says"), RESUME, ids=name)
def test_resume_refuses(here, capsys, argv, says):
    (here / "file").write_text("a file")
    (here / "empty").mkdir()
    assert says in refused(capsys, "train.py", argv)


def test_resume_without_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "no run" in refused(capsys, "train.py", ["--resume"])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"config": {}}', '{"config": {"groups": "two"}}', '{"config": 3}']
)
def test_resume_with_a_damaged_configuration(here, capsys, text):
    """Cut off, of another kind; `{}` has the defaults' 14 actors, which the checkpoint has not."""
    (here / RUN / "config.json").write_text(text)
    refused(capsys, "train.py", ["--resume", RUN])


def test_resume_of_another_variant(here, capsys):
    """A configuration that was changed behind the checkpoint's back."""
    path = here / RUN / "config.json"
    saved = json.loads(path.read_text())
    saved["config"]["mask"] = "none"
    path.write_text(json.dumps(saved))
    refused(capsys, "train.py", ["--resume", RUN])


EVALUATE = [
    (["--mode", "explain", "--frames", "3,9x"], "'9x' is no frame"),
    (["--mode", "explain", "--frames", "99999"], "not within 0-10000"),
    (["--mode", "explain", "--width", "1"], "--width 1: from 2.5"),
    (["--mode", "explain", "--drawing", "fog"], "--drawing"),
    (["--no-title"], "--no-title is for --mode explain"),
    (["--frames", "3"], "--frames is for --mode explain"),
    (["--mode", "study", "--frames", "3"], "--frames is for --mode explain"),
    (["--moments", "3"], "--moments is for --mode study"),
    (["--mode", "inverse", "--original", "."], "--original is for --mode table"),
    (["--mode", "study", "--seed", "3"], "--mode study knows no --seed"),
    (["--mode", "table", "--sample"], "--mode table knows no --sample"),
    (["--mode", "random", "--sample"], "--mode random knows no --sample"),
    (["--nonsense"], "nonsense"),
    (["--mode", "upside-down"], "--mode"),
    (["--branch", "middle"], "--branch"),
    (["--episodes", "0"], "--episodes"),
    (["--episodes", "-3"], "--episodes"),
    (["--episodes", "some"], "--episodes"),
    (["--max-episode-steps", "0"], "--max-episode-steps"),
    (["--seed", "-1"], "--seed"),
    (["--seed", "9" * 20], "--seed must be from 0 to"),
    (["--branch", "value"], "--mode normal knows no --branch"),
    (["--mode", "table", "--max-episode-steps", "5"], "--mode table knows no --max-episode-steps"),
    (["--agent", "absent"], "neither a run nor an agent"),
    (["--agent", "empty"], "neither a run nor an agent"),
    (["--agent", "file"], "file"),
    (["--agent", "foreign"], "agent.json"),
    (["--agent", RUN, "--game", "Pong"], "plays Breakout, not Pong"),
    (["--game", "Pong"], "train.py --game Pong"),
    (["--game", "Pnog"], "Pong"),
    (["--mode", "random", "--game", "xyzzyxyzzy"], "no game"),
    (["--output", "file"], "exists"),
    (["--output", "file/below.json"], "cannot write"),
    (["--output", "empty"], "exists"),
    (["--agent", "unmasked", "--mode", "inverse"], "no policy mask"),
    (["--agent", "unmasked", "--mode", "inverse", "--branch", "both"], "no policy mask"),
    (["--agent", "mislabelled"], "shape"),
    (["--agent", "of-another-game", "--episodes", "1"], "6 actions"),
    (["--agent", "of-another-game", "--mode", "study"], "6 actions"),
    (["--mode", "table"], "no results"),
    (["--agent", "unmasked", "--mode", "ones"], "no policy mask"),
    (["--agent", "unmasked", "--mode", "other"], "no policy mask"),
    (["--mode", "other", "--episodes", "101", "--max-episode-steps", "3"], "at most 100 games"),
    (["--mode", "mean", "--max-episode-steps", "3"], "too short: at least 4"),
    (["--agent", RUN, "unmasked"], "several agents are for --mode study"),
    (["--agent", "unmasked", "unmasked", "--mode", "study"], "the same name"),
    (["--agent", "unmasked", "--mode", "study", "--moments", "0"], "--moments 0: from 1 to 10,000"),
    (["--agent", "unmasked", "--mode", "study", "--moments", "9" * 9], "--moments 999999999: from"),
    (["--agent", "unmasked", "--mode", "study", "--look-steps", "3"], "--look-steps 3: from 4 to"),
    (["--agent", "unmasked", "--mode", "study", "--study-seed", "-1"], "--study-seed -1: from 0"),
    (["--agent", "unmasked", "--mode", "study", "--study-seed", "9" * 20], "--study-seed 99"),
    (["--agent", "unmasked", "--mode", "study", "--output", "file"], "file"),
]


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    """Folders that are no agents, or not the ones that are asked for."""
    folder = tmp_path_factory.mktemp("agents")
    (folder / "empty").mkdir()
    (folder / "file").write_text("a file")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "agent.json").write_text("not JSON")
    fields = {"game": "Breakout", "core": "none", "frames": "luminance", "agent_steps": 0}
    fields["source"] = "a test"
    for name, actions, mask, says in (
        ("unmasked", 4, "none", "none"),
        ("mislabelled", 4, "none", "both"),
        ("of-another-game", 6, "none", "none"),
    ):
        params = agent_with(num_actions=actions, mask=mask, core="none").init_params(
            jax.random.PRNGKey(0)
        )
        info = AgentInfo(num_actions=actions, mask=says, **fields)
        checkpoint.save_agent(folder / name, jax.tree.map(np.asarray, params), info)
    return folder


@pytest.mark.parametrize(("argv", "says"), EVALUATE, ids=name)
def test_evaluate_refuses(here, agents, capsys, argv, says):
    shutil.copytree(agents, here, dirs_exist_ok=True)
    assert says in refused(capsys, "evaluate.py", argv)
    assert not (here / "results").exists() or not any((here / "results").iterdir())


def test_evaluate_without_agents(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "train.py --game" in refused(capsys, "evaluate.py", [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_reports_what_there_is(here, monkeypatch, capsys, number):
    """Exit code 130, no traceback, a report of the jobs that are done."""

    def interrupted(subjects, budget):
        (folder := subjects[0].folder / "controls").mkdir(parents=True)
        (folder / "normal-00.json").write_text('{"scores": [7, 9], "lengths": [1, 2]}')
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr(run, "run", interrupted)
    monkeypatch.setattr(devices, "use_cores", lambda: None)
    argv = ["evaluate.py", "--agent", RUN, "--mode", "study", "--output", "study"]
    monkeypatch.setattr(sys, "argv", argv)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            evaluate.program()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    assert "| Breakout-both-0 | normal | 2 |" in (here / "study" / "report.md").read_text()


def test_the_agent_trained_longest_is_taken(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spec = {"num_actions": 4, "mask": "none", "core": "none"}
    params = agent_with(**spec).init_params(jax.random.PRNGKey(0))
    for name, steps in (("Breakout-a", 2), ("Breakout-b", 3), ("Breakout-c", 1)):
        info = AgentInfo(game="Breakout", **spec, agent_steps=steps, source="a test")
        checkpoint.save_agent(pathlib.Path("agents") / name, jax.tree.map(np.asarray, params), info)
    assert evaluate.main(["--episodes", "1", "--max-episode-steps", "2"]) == 0
    assert "agents/Breakout-b" in capsys.readouterr().out


def test_table_of_a_damaged_result(here, capsys):
    (here / "results").mkdir()
    (here / "results" / "a.json").write_text('{"game": "Breakout"}')
    assert "a.json is not a result" in refused(capsys, "evaluate.py", ["--mode", "table"])


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("file/t.md", "cannot write"),
        ("t.csv", "the tables are Markdown"),
        ("old.md", "old.csv exists"),
        ("new.md", "original_training_lives.csv"),
    ],
)
def test_tables_refused(here, capsys, output, says):
    words = {key: "word" for key in ("game", "mask", "mode", "branch", "source")}
    result = {key: 1.0 for key in tables.KEYS} | words
    result |= {"sample": False, "scores": [1.0], "lengths": [1]}
    (here / "results").mkdir()
    (here / "results" / "a.json").write_text(json.dumps(result))
    for name in ("file", "old.csv"):
        (here / name).write_text("old")
    argv = ["--mode", "table", "--original", "nothing", "--output", output]
    assert says in refused(capsys, "evaluate.py", argv)
    assert (here / "old.csv").read_text() == "old"
    assert not list(here.glob("*.md"))


def parts_of(here):
    """The files of the newest checkpoint that hold parameters, or say where they are."""
    newest = max((here / RUN / "checkpoints").iterdir(), key=lambda p: int(p.name))
    params = [p for p in sorted((newest / "params").rglob("*")) if p.is_file()]
    return params, sorted(p for p in (newest / "training").rglob("*") if p.is_file())


def test_cut_off_checkpoint(here, capsys):
    """The largest file of the parameters, and of the rest, halved in its turn."""
    for files, program, argv in zip(
        parts_of(here),
        ("evaluate.py", "train.py"),
        (["--agent", RUN], ["--resume", RUN, "--steps", "200"]),
        strict=True,
    ):
        largest = max(files, key=lambda p: p.stat().st_size)
        whole = largest.read_bytes()
        largest.write_bytes(whole[: len(whole) // 2])
        assert "cannot restore" in refused(capsys, program, argv)
        largest.write_bytes(whole)


def test_emptied_checkpoint(here, capsys):
    """Every file of the checkpoint emptied."""
    for files in parts_of(here):
        for path in files:
            path.write_bytes(b"")
    refused(capsys, "evaluate.py", ["--agent", RUN])
    refused(capsys, "train.py", ["--resume", RUN, "--steps", "200"])


def test_run_without_checkpoints(here, capsys):
    shutil.rmtree(here / RUN / "checkpoints")
    (here / RUN / "checkpoints").mkdir()
    assert "no checkpoint" in refused(capsys, "evaluate.py", ["--agent", RUN])
    assert train.main(["--resume", RUN]) == 0  # from its configuration, at step 0
    assert "it begins at step 0" in capsys.readouterr().out
