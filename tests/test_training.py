"""The loop: staleness, reproducibility, what is counted, saving, resuming, interruption."""

import csv
import os
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from samples import TINY, agent_with, compilations, random_unroll, tiny_config, train_tiny
from test_devices import run_on_devices

from benchmarks import ship
from maskrl import archive, checkpoint, evaluation, schedule, training
from maskrl.a3c import A3C
from maskrl.actor import ActorGroup
from maskrl.archive import Archive
from maskrl.envs import Environments
from maskrl.errors import UserError
from maskrl.metrics import CHECKED, LAYERS, Metrics, NotFinite
from maskrl.schedule import Clock, Every
from maskrl.study.run import Budget


def rows_of(run):
    """The rows of metrics.csv."""
    with open(run / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def everything(trainer):
    """What a run must go on with, as a tree of NumPy arrays."""
    return jax.tree.map(
        np.asarray,
        {
            "learner": trainer.a3c.state,
            "start": trainer.a3c._start,
            "recent": trainer._metrics.recent(),
            "snapshots": [group.snapshot for group in trainer.a3c.groups],
            "normalisers": [group.state.normaliser for group in trainer.a3c.groups],
            "actors": [group.state.actor for group in trainer.a3c.groups],
            "steps": [group.state.step for group in trainer.a3c.groups],
        },
    )


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def differ(a, b):
    return any(np.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A tiny run; tests that change its folder copy it."""
    return train_tiny(tmp_path_factory.mktemp("runs") / "first")


def copy_of(trainer, tmp_path):
    return shutil.copytree(trainer.run, tmp_path / "run")


def test_two_runs_are_identical(first, tmp_path):
    """One seed, one device: bit by bit, optimiser and normalisers too; another seed is another."""
    assert_same(everything(first), everything(train_tiny(tmp_path / "second")))
    assert differ(first.a3c.params, train_tiny(tmp_path / "third", seed=1).a3c.params)


def test_a_run_learns_something(first):
    """Its parameters moved from where they started, and are finite."""
    key, _ = jax.random.split(jax.random.PRNGKey(0))
    start = first.agent.init_params(key)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first.a3c.params, start)
    assert all(0 < m < 1 for m in jax.tree.leaves(moved))


def test_counters(first):
    """4 actors, 120 steps, 3 an unroll: a gradient of every actor, and of what follows a life."""
    c = first.counters
    assert c.agent_steps >= 120
    assert c.agent_steps < 120 + 2 * 4
    # An actor's unroll is an update, and a life's end within it makes one more; the groups' last
    # unrolls may be under way.
    assert 36 <= c.updates <= 60
    assert c.sessions == 1
    last = rows_of(first.run)[-1]
    assert int(last["agent_steps"]) == c.agent_steps
    assert int(last["updates"]) == c.updates
    assert float(last["seconds"]) == pytest.approx(c.seconds, rel=0.2)
    for column in ("loss", "policy_loss", "value_loss", "entropy", "gradient_norm_median"):
        assert np.isfinite(float(last[column]))
    assert float(last["steps_per_second"]) > 0


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_staleness(tmp_path, groups):
    """G groups of b actors that share an update: G - 1, as soon as every group had its first.

    And where each of two actors' gradients is an update, 2 (G - 1) and one more.
    """
    settings = {"groups": groups, "actors_per_group": 2, "core": "none", "steps": 120}
    for shared, wanted in ((2, {groups - 1}), (1, {2 * groups - 2, 2 * groups - 1})):
        run = tmp_path / str(shared)
        # Lives longer than the run: none ends, so none makes an update of its own.
        train_tiny(run, log_seconds=1e-6, actors_per_update=shared, game="Seaquest", **settings)
        seen = [r for r in rows_of(run) if r["staleness_max"]]
        steady = [r for r in seen if int(r["updates"]) > 2 * groups]
        assert len(steady) > 4
        for row in steady:
            found = {int(row["staleness_min"]), int(row["staleness_max"])}
            assert found <= wanted
            assert row["staleness_mean"] == f"{np.mean(list(wanted)):g}"


def test_sync_every(tmp_path, monkeypatch):
    """Two groups that copy after every second unroll: by hand 0, 1, 2, 3, then 1, 1, 3, 3."""
    seen = []
    update = Metrics.update

    def watch(self, numbers, agent_steps):
        seen.extend(numbers["staleness"][~np.isnan(numbers["staleness"])].astype(int).tolist())
        update(self, numbers, agent_steps)

    monkeypatch.setattr(Metrics, "update", watch)
    settings = {"game": "Seaquest", "actors_per_group": 1, "core": "none", "steps": 80}
    train_tiny(tmp_path / "run", sync_every=2, **settings)
    assert seen[:12] == [0, 1, 2, 3, 1, 1, 3, 3, 1, 1, 3, 3]


def test_sync_every_goes_on_with_the_run(tmp_path):
    """Two sessions of an unroll each: a run that is often stopped copies all the same."""
    for steps, copied in ((6, False), (12, True)):
        trainer = train_tiny(
            tmp_path / "run", steps > 6, sync_every=2, actors_per_group=1, steps=steps
        )
        assert (max(int(group.snapshot.updates) for group in trainer.a3c.groups) > 0) == copied


def test_snapshots_are_the_newest_parameters_of_their_time(first):
    """The group that learnt last holds the shared parameters; the other's are older."""
    last, other = sorted(first.a3c.groups, key=lambda g: -int(g.snapshot.updates))
    assert last.snapshot.updates == first.counters.updates
    # By the two actors' gradients of the last unroll, and those after a life's end.
    assert 2 <= first.counters.updates - other.snapshot.updates <= 4
    assert_same(last.snapshot.params, first.a3c.state.params)
    assert differ(other.snapshot.params, first.a3c.state.params)


def test_ignored_rows_are_no_agent_steps(tmp_path, monkeypatch):
    """Games cut off after 4 steps: every fifth row starts a game, and is not counted."""
    received = []

    class Watched(Environments):
        def recv(self):
            row = super().recv()
            received.append(row.timestep.is_first.copy())
            return row

    monkeypatch.setattr(training, "Environments", Watched)
    trainer = train_tiny(tmp_path / "run", max_episode_steps=4, core="none", steps=60)
    firsts = np.sum(received)
    assert firsts > 5
    assert trainer.counters.agent_steps == np.size(received) - firsts
    assert trainer.counters.games >= firsts


@pytest.mark.parametrize("actors", [1, 3])
def test_other_numbers_of_actors(tmp_path, actors):
    """One and three (as many as colours) work as well as two."""
    trainer = train_tiny(tmp_path / "run", actors_per_group=actors, core="none", steps=40)
    assert trainer.counters.updates > 0


def test_resume_goes_on_with_everything(first, tmp_path, monkeypatch):
    """State bit by bit where it was; counters, curve and optimiser go on; other environments."""
    run, seeds = copy_of(first, tmp_path), []

    class Watched(Environments):
        def __init__(self, game, num_envs, seed, **kwargs):
            seeds.append(seed)
            super().__init__(game, num_envs, seed, **kwargs)

    monkeypatch.setattr(training, "Environments", Watched)
    old_rows = rows_of(run)
    resumed = training.Trainer(
        tiny_config(steps=200), run, device_count=1, resume=True, evaluate=None, log_seconds=0.001
    )
    assert_same(everything(resumed), everything(first))
    assert resumed.counters.agent_steps == first.counters.agent_steps
    assert resumed.counters.updates == first.counters.updates
    assert resumed.counters.seconds == pytest.approx(first.counters.seconds)
    assert resumed.counters.sessions == 2
    resumed.train()

    assert resumed.counters.agent_steps >= 200
    rows = rows_of(run)
    assert rows[: len(old_rows)] == old_rows
    assert len(rows) > len(old_rows)
    for name in ("agent_steps", "updates", "seconds"):
        numbers = [float(row[name]) for row in rows]
        assert numbers == sorted(numbers if name == "updates" else set(numbers))
    # Optax counts the optimiser's steps.
    assert int(resumed.a3c.state.updates) == resumed.counters.updates
    counts = [x for x in jax.tree.leaves(resumed.a3c.state.optimiser) if x.ndim == 0]
    assert counts
    assert all(int(count) == resumed.counters.updates for count in counts)

    train_tiny(tmp_path / "fresh")  # the first session again, for its seeds
    second, new = seeds[:2], seeds[2:4]
    assert len({*second, *new}) == 4


def test_the_next_update_after_a_resume(first, tmp_path):
    """On the same batch: bit by bit the parameters that it would have made."""
    settings = tiny_config(steps=200)
    resumed = training.Trainer(
        settings, copy_of(first, tmp_path), device_count=1, resume=True, evaluate=None
    )
    unroll = random_unroll(first.agent, np.random.default_rng(0), 3, 2)
    after = []
    for trainer in (first, resumed):
        a3c, devices = trainer.a3c, trainer.a3c._devices
        state, snapshot = (
            devices.replicate(devices.first(x)) for x in (a3c.state, a3c.groups[0].snapshot)
        )
        after.append(devices.first(a3c._update(state, snapshot, devices.put(unroll))[0]))
    assert_same(*after)
    assert differ(after[0].params, first.a3c.params)


def test_resumed_run_is_stale_from_the_start(first, tmp_path):
    """The stalest group goes first, with the snapshot it had."""
    run = copy_of(first, tmp_path)
    resumed = train_tiny(run, resume=True, steps=160)
    row = rows_of(run)[-1]
    # Two actors' updates of the other group, and the actor's before; a life's end adds to them.
    assert float(row["staleness_max"]) <= 2 + 1 + 2
    assert float(row["staleness_mean"]) > 1
    assert resumed.counters.updates > first.counters.updates


def test_resume_of_a_finished_run_adds_nothing(first, tmp_path):
    run = copy_of(first, tmp_path)
    resumed = train_tiny(run, resume=True)
    assert_same(everything(resumed), everything(first))
    assert len(rows_of(run)) == len(rows_of(first.run))


def test_checkpoint_on_other_numbers_of_devices(first, tmp_path):
    """A run of one device goes on with two, and from there with one again."""
    run = copy_of(first, tmp_path)
    run_on_devices(
        2,
        f"""
import sys, pathlib
sys.path.insert(0, "tests")
import jax, numpy as np
from samples import tiny_config, train_tiny
from maskrl.training import Trainer
from test_training import guarded

Trainer.train = guarded(Trainer.train)
run = pathlib.Path({str(run)!r})
t = train_tiny(run, resume=True, device_count=2, steps=160)
assert t.a3c.groups[0]._devices.count == 2
assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(t.a3c.state.params))
assert t.counters.agent_steps >= 160
np.save(run / "conv1.npy", t.a3c.params["conv1"]["kernel"])
""",
    )
    resumed = training.Trainer(
        tiny_config(steps=200), run, device_count=1, resume=True, evaluate=None
    )
    kernel = np.load(run / "conv1.npy")
    np.testing.assert_array_equal(resumed.a3c.params["conv1"]["kernel"], kernel)
    assert np.any(kernel != first.a3c.params["conv1"]["kernel"])
    assert resumed.a3c.groups[0].state.normaliser.count.shape == (2,)
    resumed.train()
    assert resumed.counters.agent_steps >= 200


@pytest.mark.parametrize("method", ["receive", "act", "send", "collected"])
def test_interruption_saves(tmp_path, monkeypatch, method):
    """Ctrl-C wherever the loop is: all that was learnt is saved, and the run goes on."""
    calls, original = [], getattr(ActorGroup, method)

    def interrupted(self):
        calls.append(self)
        if len(calls) == 11:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(ActorGroup, method, interrupted)
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_tiny(run, core="none")
    resumed = train_tiny(run, resume=True, core="none")
    assert resumed.counters.sessions == 2
    assert resumed.counters.agent_steps >= 120
    assert resumed.counters.updates > 0


def test_evaluation_at_intervals_keeps_the_best(tmp_path):
    """Scores 1, 3, 2: the second agent is kept; the clock stands still meanwhile."""
    seen = []

    def evaluate(params):
        seen.append(jax.tree.map(np.array, params))
        return np.array([1.0, 3.0, 2.0][len(seen) - 1 : len(seen)])

    run = tmp_path / "run"
    trainer = train_tiny(run, evaluate=evaluate, eval_every=40, steps=120, core="none")
    assert len(seen) == 3
    _, best, info = checkpoint.load_agent(run)
    assert_same(best, seen[1])
    assert info.score == 3
    rows = [r for r in rows_of(run) if r["eval_score_mean"]]
    assert [float(r["eval_score_mean"]) for r in rows] == [1, 3, 2]
    assert int(rows[-1]["agent_steps"]) == trainer.counters.agent_steps  # the last one, too
    assert all(0 < float(r["eval_share"]) < 1 for r in rows)


def test_best_never_becomes_worse(tmp_path):
    """A later session's best is compared with the score on disk."""
    run = tmp_path / "run"
    train_tiny(run, evaluate=lambda params: np.array([5.0]), eval_every=None, core="none")
    best = checkpoint.load_agent(run)[2]
    train_tiny(
        run,
        evaluate=lambda params: np.array([4.0]),
        eval_every=None,
        core="none",
        resume=True,
        steps=160,
    )
    assert checkpoint.load_agent(run)[2] == best
    train_tiny(
        run,
        evaluate=lambda params: np.array([6.0]),
        eval_every=None,
        core="none",
        resume=True,
        steps=200,
    )
    assert checkpoint.load_agent(run)[2].score == 6
    assert checkpoint.load_agent(run)[2].agent_steps >= 200


def test_evaluations_of_a_run_that_is_often_preempted(tmp_path):
    """Sessions of 40 steps, an evaluation every 60: at 80 and at 120, and at the end."""
    run, seen = tmp_path / "run", []

    class Preempted(training.Trainer):
        def _count(self, *flags):
            votes = super()._count(*flags)
            if flags and self.counters.agent_steps >= 40 * self.counters.sessions:
                self.stop()
            return votes

    def evaluate(params):
        seen.append(trainer.counters.agent_steps)
        return np.zeros(1)

    run.mkdir()
    settings = tiny_config(eval_every=60, core="none", steps=180)
    for session in range(5):
        trainer = Preempted(settings, run, device_count=1, resume=session > 0, evaluate=evaluate)
        try:
            trainer.train()
            break
        except KeyboardInterrupt:
            continue
    assert trainer.counters.agent_steps >= 180
    assert len(seen) == 3
    assert all(s // 60 == n for n, s in enumerate(seen, 1))


def guarded(train):
    """`Trainer.train`, in which nothing travels to a device or back unless it is said."""

    def guarded_train(self):
        with jax.transfer_guard("disallow"):
            with pytest.raises(RuntimeError, match="Disallowed host-to-device transfer"):
                jax.jit(lambda x: -x)(np.zeros(3))
            train(self)

    return guarded_train


def test_what_is_compiled_and_what_travels(tmp_path, monkeypatch):
    """Three evaluations, rows of the log, checkpoints: all is compiled when the first is over."""
    after = []
    play = evaluation.Player.play

    def watched(*args, **kwargs):
        games = play(*args, **kwargs)
        after.append(len(compiled))
        return games

    monkeypatch.setattr(evaluation.Player, "play", watched)
    monkeypatch.setattr(training.Trainer, "train", guarded(training.Trainer.train))
    settings = tiny_config(
        eval_every=40, eval_episodes=2, eval_episode_steps=6, steps=120, core="none"
    )
    (tmp_path / "run").mkdir()
    trainer = training.Trainer(
        settings, tmp_path / "run", device_count=1, resume=False, log_seconds=1e-6
    )
    with compilations() as compiled:
        trainer.train()
    assert len(after) == 3
    assert 0 < after[0] == len(compiled)
    seconds = [float(r["eval_seconds"]) for r in rows_of(trainer.run) if r["eval_seconds"]]
    assert len(seconds) == 3
    assert sum(seconds) == pytest.approx(trainer.counters.evaluation_seconds, rel=1e-3)


@pytest.mark.parametrize("name", CHECKED)
def test_what_must_be_a_number(name):
    """A gradient that was not there is no fault: its staleness is NaN, too."""
    one = np.float32([1, np.nan])
    numbers = {"loss": one, "gradient_norm": one, "staleness": one, "parameter_norm": np.float32(1)}
    Metrics().update(numbers, 0)
    wrong = np.float32(np.inf) if name == "parameter_norm" else np.float32([np.inf, np.nan])
    with pytest.raises(NotFinite, match=f"near step 70 the {name.replace('_', ' ')}"):
        Metrics().update(numbers | {name: wrong}, 70)


def test_the_last_evaluation_is_made_once_more_if_it_was_interrupted(tmp_path):
    """Ctrl-C in it, then a resume with no step left: the best agent is kept, and that is saved."""
    run, calls = tmp_path / "run", []

    def evaluate(params):
        calls.append(params)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return np.array([5.0])

    with pytest.raises(KeyboardInterrupt):
        train_tiny(run, evaluate=evaluate, eval_every=None, core="none")
    assert not (run / "best").exists()
    settings = tiny_config(eval_every=None, core="none")
    for _ in range(2):
        training.Trainer(settings, run, device_count=1, resume=True, evaluate=evaluate).train()
    assert checkpoint.score_of(run / "best") == 5.0
    assert len(calls) == 2
    assert sum(bool(row["eval_score_mean"]) for row in rows_of(run)) == 1


def test_schedule_of_evaluations():
    """Every 250,000 steps up to 2 million, every 500,000 from there; or as told; or never."""
    steps, due = 0, []
    while steps < 3_500_000:
        every = Every(tiny_config(eval_every=None).evaluation_interval(steps), steps)
        steps = next(s for s in range(steps, 10**9, 250_000) if every.due(s))
        due.append(steps)
    assert due == [*range(250_000, 2_000_001, 250_000), 2_500_000, 3_000_000, 3_500_000]
    every = Every(tiny_config(eval_every=10).evaluation_interval(25), 25)
    assert [every.due(29), every.due(30)] == [False, True]
    every.done(31)
    assert [every.due(39), every.due(40)] == [False, True]
    every.done(40, 100)
    assert [every.due(99), every.due(100)] == [False, True]
    assert not Every(tiny_config(eval_every=0).evaluation_interval(25), 25).due(10**12)


def test_a_clock_of_training(monkeypatch):
    """It goes on from where a run was; pauses do not count, and of a halt hardly anything does."""
    now = 100.0
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=lambda: now))
    clock = Clock(5.0)
    now += 2
    assert clock.seconds == 7
    with clock.paused():
        now += 30
        assert clock.seconds == 7
        now += 30
    now += 1
    assert clock.seconds == 8
    now += 3600  # SIGSTOP
    assert clock.seconds == 8 + Clock.MOST


def test_numbers_that_are_none_end_the_run(tmp_path, monkeypatch):
    """One update after the damage the run ends; its newest checkpoint is the one before."""
    run = tmp_path / "run"
    trainer = train_tiny(run, core="none")
    good = trainer.counters.agent_steps
    bad = training.Trainer(
        tiny_config(core="none", steps=400), run, device_count=1, resume=True, evaluate=None
    )
    nowhere = jax.tree.map(lambda x: x * np.nan, bad.a3c.state.params)
    bad.a3c.state = bad.a3c.state.replace(params=nowhere)
    before = int(bad.a3c.state.updates)
    with pytest.raises(NotFinite, match=r"near step \d+ the .* no finite number"):
        bad.train()
    assert int(bad.a3c.state.updates) - before < 10
    assert checkpoint.Checkpointer(run).restore_agent()[2].agent_steps == good


def test_from_an_agent(first, tmp_path, capsys):
    """Its parameters and steps, a fresh optimiser; the card says so; what does not fit is said.

    So, too, if the run was killed before its first checkpoint.
    """
    run = tmp_path / "new"
    steps = first.counters.agent_steps
    origin = str(first.run)
    begun = train_tiny(run, resume=True, origin=origin, steps=steps + 40, seed=1)
    assert f"has no checkpoint yet: it begins again with {origin}" in capsys.readouterr().out
    assert steps + 40 <= begun.counters.agent_steps < steps + 60
    assert begun.counters.updates < first.counters.updates
    assert_same(begun.a3c._start, first.a3c.params)
    assert differ(begun.a3c.params, first.a3c.params)
    rows = rows_of(run)
    assert int(rows[0]["agent_steps"]) > steps
    torsos = [{n: p[n] for n in LAYERS["torso"]} for p in (begun.a3c.params, first.a3c.params)]
    way = jax.tree.leaves(jax.tree.map(np.subtract, *torsos))
    moved = np.sqrt(sum(np.sum(x**2) for x in way))
    assert float(rows[-1]["moved_torso"]) == pytest.approx(moved, rel=1e-4)
    assert checkpoint.load_agent(run)[2].source == "maskrl, run new, from first"
    for saved in ("", "best", "checkpoints/120"):
        assert archive.name_of(first.run / saved) == "first"
    for changes, says in (
        ({"core": "none"}, "its core is convlstm, the run's is none"),
        ({"game": "Pong"}, "its game is Breakout"),
        ({"steps": steps}, f"it has {steps} agent steps already"),
    ):
        with pytest.raises(UserError, match=says):
            train_tiny(tmp_path / "refused", origin=origin, **changes)


def test_no_evaluation(tmp_path):
    """Told not to: no best agent, and the newest is loaded."""
    trainer = train_tiny(tmp_path / "run", eval_every=0, core="none", evaluate=None)
    assert not (tmp_path / "run" / checkpoint.BEST).exists()
    _, params, info = checkpoint.load_agent(tmp_path / "run")
    assert_same(params, trainer.a3c.params)
    assert info.agent_steps == trainer.counters.agent_steps


def test_saves_at_intervals(tmp_path, monkeypatch):
    """The newest two checkpoints are kept."""
    monkeypatch.setattr(Clock, "seconds", property(lambda self: next(ticks)))
    ticks = iter(np.arange(0.0, 1e6))
    train_tiny(tmp_path / "run", save_every=10, core="none")
    kept = [p for p in os.listdir(tmp_path / "run" / "checkpoints") if p.isdigit()]
    assert len(kept) == 2


def test_when_it_saves(tmp_path, monkeypatch):
    """After a minute, and every minute until it has worked; then every ten."""
    now, saved, save, tick = [0.0], [], Archive.save, A3C.tick

    def ticking(self):
        now[0] += 5
        return tick(self)

    def failing_twice(self, *args):
        saved.append(now[0])
        return len(saved) > 2 and save(self, *args)

    monkeypatch.setattr(Clock, "seconds", property(lambda self: now[0]))
    monkeypatch.setattr(A3C, "tick", ticking)
    monkeypatch.setattr(Archive, "save", failing_twice)
    train_tiny(tmp_path / "run", core="none", steps=1200, log_seconds=1e9)
    assert saved[:4] == [60, 120, 180, 600]  # at multiples of the interval


def test_the_runs_evaluations(monkeypatch):
    """Games that no one else plays, of the run's own length; stopped at once if it is."""
    seen = []

    class Seen(evaluation.Player):
        def __init__(self, agent, episodes, how):
            seen.append((episodes, how))
            super().__init__(agent, episodes, how)

    monkeypatch.setattr(evaluation, "Player", Seen)
    agent, config = agent_with(), tiny_config(seed=1, eval_episodes=3, eval_episode_steps=9)
    play = training.evaluation_of(agent, config, lambda: True)
    ((episodes, how),) = seen
    assert (episodes, how.mode, how.sample, how.max_episode_steps) == (3, "normal", False, 9)
    of_others = {config.seed, ship.SEED, Budget.seed, *range(100)}
    assert evaluation.environment_seed(how.seed) not in set(
        map(evaluation.environment_seed, of_others)
    )
    with pytest.raises(KeyboardInterrupt):
        play(agent.init_params(jax.random.PRNGKey(0)))


def test_tensorboard_events(first):
    (events,) = first.run.glob("events.out.tfevents.*")
    written = events.read_bytes()
    for part in (b"play/life_reward", b"gradients/below_eps", b"settings", b'"game": "Breakout"'):
        assert part in written
    assert TINY["game"] == first.config.game


@pytest.mark.parametrize(("mask", "branches"), [("both", 2), ("value", 1), ("none", 0)])
def test_every_evaluation_shows_the_masks(tmp_path, mask, branches):
    trainer = train_tiny(tmp_path / "run", eval_every=50, mask=mask)
    (events,) = trainer.run.glob("events.out.tfevents.*")
    written = events.read_bytes()
    evaluations = written.count(b"evaluation/eval_score_mean")
    assert evaluations >= 2
    assert written.count(b"\x89PNG") == branches * evaluations
    assert (b"masks/policy" in written) == (mask == "both")
    assert (b"masks/value" in written) == (mask != "none")
