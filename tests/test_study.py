"""The study of the masks, on toys whose answers are known by construction."""

import collections
import contextlib
import csv
import dataclasses
import functools
import pathlib
import random
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import agent_with, random_timestep
from scipy import ndimage

from benchmarks.reliability import damage
from maskrl import evaluation
from maskrl.checkpoint import AgentInfo
from maskrl.envs import Environments
from maskrl.errors import UserError
from maskrl.reaction import MEMORY
from maskrl.study import collect, controls, measures, objects, report, run
from maskrl.study.controls import CONTROLS, Moment, controlled
from maskrl.study.methods import METHODS, attributions, cells
from maskrl.study.probe import TARGETS, Answer, Known, Scene, apply_head, explained, probe
from maskrl.types import Carry

CELL = (3, 6)  # the toy looks at one pixel of this cell
PIXEL = (CELL[0] * 8 + 4, CELL[1] * 8 + 4)


class OnePixel:
    """One pixel decides between two actions, and is the value; the rest of the screen is idle."""

    def torso(self, observation):
        picked = jnp.zeros(observation.shape).at[:, PIXEL[0], PIXEL[1]].set(1.0) * observation
        return picked.reshape(-1, 10, 8, 10, 8).sum(axis=(2, 4))[..., None]

    def core(self, torso):
        return torso

    def heads(self, hidden):
        light = hidden.sum(axis=(1, 2, 3))
        mask = cells(jnp.zeros((len(light), 80, 80)).at[:, PIXEL[0], PIXEL[1]].set(64.0))
        return Answer(jnp.stack([0 * light, light], axis=1), light, mask, mask)

    def __call__(self, observation):
        return self.heads(self.core(self.torso(observation)))

    def know(self, observation):
        return Known(self(observation), None, None, None)

    def near(self, known, observation, cell):
        return self(observation)


def scene(batch=2, seed=0):
    """Dark noise with a bright deciding pixel."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 0.1, (batch, 80, 80, 1)).astype(np.float32)
    x[:, PIXEL[0], PIXEL[1]] = 3.0
    carry = rng.normal(size=(2, batch, 10, 10, 64)).astype(np.float32)
    return Scene(
        observation=jnp.array(x),
        previous=jnp.zeros_like(x),
        mean=jnp.full_like(x, 0.05),
        black=jnp.zeros(batch),
        carry=Carry(hidden=jnp.array(carry[0]), cell=jnp.array(carry[1])),
        is_first=jnp.arange(batch) == 1,
        action=jnp.ones(batch, jnp.int32),
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "name", [n for n, e in METHODS.items() if e.kind in ("own", "gradient", "perturbation")]
)
def test_every_method_finds_the_pixel_that_decides(name, target):
    at = scene()
    maps = METHODS[name].map(OnePixel(), at, target, jax.random.PRNGKey(0))
    assert maps.shape == (2, 80, 80)
    assert np.all(maps >= 0)
    top = np.argmax(np.asarray(cells(maps)).reshape(2, -1), axis=1)
    assert top.tolist() == [CELL[0] * 10 + CELL[1]] * 2


def test_gradients_by_hand():
    """d log softmax / d light = p(other); times the light; the integral is the difference."""
    at, key = scene(), jax.random.PRNGKey(0)
    other = 1 / (1 + np.exp(3.0))
    peak = {n: float(METHODS[n].map(OnePixel(), at, "action", key)[0][PIXEL]) for n in (
        "gradient", "gradient-x-input", "integrated")}  # fmt: skip
    assert peak["gradient"] == pytest.approx(other, rel=1e-4)
    assert peak["gradient-x-input"] == pytest.approx(3 * other, rel=1e-4)
    assert peak["integrated"] == pytest.approx(np.log(1 - other) - np.log(0.5), rel=1e-2)


def test_trivial_maps_do_not_ask():
    at, key = scene(), jax.random.PRNGKey(0)
    for name, entry in METHODS.items():
        if entry.kind == "trivial":
            assert entry.map(None, at, "action", key).shape == (2, 80, 80), name
    moved = METHODS["moved"].map(None, at, "action", key)
    assert np.unravel_index(np.argmax(moved[0]), (80, 80)) == PIXEL


def test_curves_of_a_map_that_is_right_and_of_one_that_is_wrong():
    """The pixel goes first, or last: the probability falls at the first share, or at the last."""
    at = scene()
    right = cells(METHODS["mask"].map(OnePixel(), at, "action", jax.random.PRNGKey(0)))
    rank = measures.ranks(jnp.stack([right, -right]), jax.random.PRNGKey(1))
    curve = {k: np.asarray(v) for k, v in measures.curves(OnePixel(), at, rank).items()}
    high = 1 / (1 + np.exp(-3.0))
    black = curve["probability"][:, :, 0, :, 0]  # [map, way, share]
    np.testing.assert_allclose(black[0, 0], [high] + [0.5] * 7, rtol=1e-5)
    np.testing.assert_allclose(black[0, 1], [0.5] + [high] * 7, rtol=1e-5)
    np.testing.assert_allclose(black[1, 0], [high] * 7 + [0.5], rtol=1e-5)
    np.testing.assert_allclose(curve["value"][0, 0, 0, 1:, 0], 3.0, rtol=1e-5)
    assert curve["kl"][0, 1, 0, 1:].max() < 1e-6
    for target, what in (("action", "probability"), ("value", "value")):
        found = {f"{what}.{target}": np.moveaxis(curve[what], -1, 0)}
        better, worse = report.gains(found, target).T
        assert better.min() > 0.4
        assert worse.max() < -0.4
    assert measures.area(black[0, 1]) == pytest.approx(0.985 * high + 0.0075, rel=1e-3)


def test_maps_compared():
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(80, 80))
    assert measures.rank_correlation(a, a**3) == pytest.approx(1)
    assert measures.rank_correlation(a, -a) == pytest.approx(-1)
    assert measures.rank_correlation(a, np.ones_like(a)) == 0
    assert measures.ssim(a, 2 * a + 1) == pytest.approx(1)
    assert abs(measures.ssim(a, rng.uniform(size=(80, 80)))) < 0.2
    assert measures.ssim(0 * a, 0 * a) == measures.rank_correlation(0 * a, 0 * a) == 0


def test_intervals_are_over_games():
    """A thousand frames of two games say no more than two numbers."""
    values, games = np.repeat([0.0, 1.0], 500), np.repeat([0, 1], 500)
    assert measures.bootstrap(values, games) == (0.5, 0.0, 1.0)
    _, low, high = measures.bootstrap(values, np.arange(1000))
    assert 0.46 < low < high < 0.54
    assert measures.bootstrap(values, np.zeros(1000))[1] == -np.inf


@pytest.mark.parametrize("core", ["convlstm", "none"])
def test_the_probe_says_what_the_agent_says(core):
    agent = agent_with(core=core)
    params, at = agent.init_params(jax.random.PRNGKey(0)), scene()
    expected, _ = agent.apply(params, at.observation[None], at.carry, at.is_first[None])
    for plain in (False, True):
        answer = probe(agent, params, at, plain=plain)(at.observation)
        for name, value in answer._asdict().items():
            np.testing.assert_allclose(value, getattr(expected, name)[0], atol=1e-5)


@pytest.mark.parametrize("core", ["convlstm", "none"])
@pytest.mark.parametrize("cell", [(0, 0), (1, 8), (4, 5), (9, 2)])
def test_a_changed_cell_is_computed_only_where_it_reaches(core, cell):
    """At corners, at edges and in the middle the answer is that of the whole frame."""
    agent = agent_with(core=core)
    at, see = scene(), probe(agent, agent.init_params(jax.random.PRNGKey(0)), scene())
    there = np.zeros((10, 10))
    there[cell] = 1
    changed = at.observation + 3 * np.kron(there, np.ones((8, 8)))[None, :, :, None]
    near = see.near(see.know(at.observation), changed, jnp.array(cell))
    whole = see(changed)
    assert not np.allclose(whole.value, see(at.observation).value, atol=1e-4)
    np.testing.assert_allclose(near.logits, whole.logits, atol=1e-5)
    np.testing.assert_allclose(near.value, whole.value, atol=1e-5)


def test_attributions_are_complete():
    """Sundararajan et al. 2017, proposition 1: they add up to the difference from black."""
    agent, at = agent_with(), scene()
    params = agent.init_params(jax.random.PRNGKey(0))
    params["policy"]["kernel"] *= 100  # a fresh policy hardly depends on the screen
    see = probe(agent, params, at, plain=True)
    black = jnp.zeros_like(at.observation)
    for target in ("action", "value"):
        added = attributions(see, at, target).sum(axis=(1, 2, 3))
        ends = (explained(see(x), at.action, target) for x in (at.observation, black))
        whole, none = ends
        assert np.all(np.abs(whole - none) > 1e-5)
        # They are a sum over a few steps, and no integral.
        largest = np.max(np.abs(whole - none))
        np.testing.assert_allclose(added, whole - none, rtol=0, atol=0.1 * largest)


def test_what_was_asked_serves_every_target_and_method():
    """Blur and SARFA ask about the same spots, for the action and for the value: once."""
    at, asked, known = scene(), [], {}
    entry = METHODS["blur"]
    counted = dataclasses.replace(entry, ask=lambda *a: (asked.append(1), entry.ask(*a))[1])
    sarfa = dataclasses.replace(METHODS["sarfa"], ask=counted.ask)
    for method in (counted, sarfa):
        for target in ("action", "value"):
            method.map(OnePixel(), at, target, jax.random.PRNGKey(0), known)
    assert len(asked) == 1


def test_moments_have_random_masks_of_their_own():
    """Or how alike two neighbours' maps are would depend on how many share a device."""
    asked = METHODS["rise"].ask(OnePixel(), scene(), jax.random.PRNGKey(0))
    assert np.abs(asked.places[:, 0] - asked.places[:, 1]).mean() > 0.1


@pytest.mark.parametrize("length", [7, 40])
def test_moments_are_drawn_evenly_from_games_of_any_length(length):
    """Whole pairs, never the last half one; all there are, or every pair as often as another."""
    times = collections.Counter()
    for seed in range(300):
        draw = collect.Draw(4, np.random.default_rng(seed))
        for step in range(length):
            if draw.wants(step):
                draw.add({"step": step})
        pairs = [(a["step"], b["step"]) for a, b in draw.pairs]
        assert all(b == a + 1 and a % 2 == 0 for a, b in pairs)
        assert len(set(pairs)) == min(length // 2, 4)
        times.update(a for a, _ in pairs)
    expected = 300 * min(1, 4 / (length // 2))
    assert all(abs(n - expected) < 5 * expected**0.5 for n in times.values())
    assert len(times) == length // 2


def test_a_random_order_gains_nothing():
    """Whatever the network answers to a share of the screen, insertion undoes deletion."""
    shares = np.array(measures.SHARES)
    shown = np.stack([1 - shares, shares])  # deletion, insertion
    answers = np.stack([1 - np.exp(-shown / scale) for scale in (0.02, 0.2, 5.0)])
    areas = measures.area(answers)
    np.testing.assert_allclose(areas[:, 0], areas[:, 1], rtol=1e-12)
    assert np.ptp(areas) > 0.5


def moment(batch=3):
    mask = np.random.default_rng(0).uniform(size=(batch, 10, 10)).astype(np.float32)
    return Moment(jnp.array(mask), jnp.arange(batch), jnp.full(batch, 7), jax.random.PRNGKey(0))


def test_controls_by_hand():
    at = moment()
    others = np.random.default_rng(1).uniform(size=(2, 5, 10, 10)).astype(np.float32)
    known = controls.Known(mean=others.mean(axis=(0, 1)), others=others)
    made = {name: np.asarray(f(at, known)) for name, f in CONTROLS.items()}
    mask = np.asarray(at.mask)
    flat = lambda m: np.sort(m.reshape(len(m), -1), axis=1)  # noqa: E731
    for name in ("shifted", "shuffled", "noise", "reversed"):
        np.testing.assert_allclose(flat(made[name]), flat(mask))  # place changes, strength stays
        assert not np.allclose(made[name], mask)
    np.testing.assert_array_equal(made["shifted"][:, 5:, 5:], mask[:, :5, :5])
    np.testing.assert_array_equal(made["ones"], 1)
    np.testing.assert_array_equal(made["mean"][1], known.mean)
    games = [[np.array_equal(m, game) for game in others[:, 2]].index(True) for m in made["other"]]
    keys = (at._replace(key=jax.random.PRNGKey(n)) for n in range(9))
    again = {tuple(np.asarray(CONTROLS["other"](key, known))[:, 0, 0].tolist()) for key in keys}
    assert len(games) == 3
    assert len(again) > 2  # which game's is drawn anew with every key
    np.testing.assert_allclose(
        made["rescaled"].mean(axis=(1, 2)), mask.mean(axis=(1, 2)), rtol=1e-5
    )
    order = measures.rank_correlation(made["reversed"], mask)
    np.testing.assert_allclose(order, -1, atol=1e-6)
    later = at._replace(step=at.step + 1)
    np.testing.assert_array_equal(CONTROLS["shuffled"](later, known), made["shuffled"])
    assert not np.array_equal(CONTROLS["noise"](later, known), made["noise"])


def test_a_controlled_agent_plays_by_the_controls_mask():
    """An agent whose play depends on one cell: the mask of another place changes its logits."""
    agent = agent_with()
    params = jax.tree.map(np.array, agent.init_params(jax.random.PRNGKey(0)))
    kernel = np.zeros((10, 10, 32, 4), np.float32)
    kernel[2, 2, :, 1] = 1.0
    params["policy"]["kernel"] = kernel.reshape(-1, 4)
    state, step = agent.init_state(np.arange(2)), random_timestep(np.random.default_rng(0), 2, True)
    key = jax.random.PRNGKey(0)
    for name in ("ones", "shifted"):
        played = controlled(agent, name, "policy", {})
        _, out = played.step(params, state, step, key, greedy=True)
        _, plain = agent.step(params, state, step, key, greedy=True)
        features, mask = plain.network.policy_features[0], plain.network.policy_mask[0]
        seen = np.ones(2) if name == "ones" else np.asarray(mask[:, 7, 7])
        cell = np.asarray(features[:, 2, 2].sum(axis=-1)) * seen
        np.testing.assert_allclose(out.network.logits[0, :, 1], cell, rtol=1e-4, atol=1e-5)
        # An action that is better than what the one logit is worth, and worse than the other.
        between = (out.network.logits + plain.network.logits)[0, 0, 1] / 2
        moved = params | {"policy": params["policy"] | {"bias": np.array([-9, 0, between, -9.0])}}
        actions = [
            who.step(moved, state, step, key, greedy=True)[1].action[0] for who in (agent, played)
        ]
        assert sorted(actions) == [1, 2]
    np.testing.assert_allclose(
        apply_head(params["policy"], features, mask), plain.network.logits[0], atol=1e-5
    )


def test_a_control_of_one_game_plays_no_second_one(monkeypatch):
    """In an environment: "the same step" and "one permutation a game" would not be true of it."""
    monkeypatch.setattr(evaluation, "MAX_ENVIRONMENTS", 2)
    for name in CONTROLS:
        agent = controlled(agent_with(), name, "policy", {})
        evaluation.Player(agent, 2)
        if name in ("shuffled", "other"):
            with pytest.raises(UserError, match="at most 2 games"):
                evaluation.Player(agent, 3)
        else:
            evaluation.Player(agent, 3)


def test_ratio_of_two_samples():
    assert measures.bootstrap_ratio(np.full(5, 3.0), np.full(7, 6.0)) == (0.5, 0.5, 0.5)
    whole, low, high = measures.bootstrap_ratio(np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    assert (whole, low, high) == (1.0, 0.5, 1.5)
    assert measures.bootstrap_ratio(np.ones(1), np.ones(9))[1] == -np.inf
    # Of two games one brought no point: a quarter of all draws are of that game alone.
    assert measures.bootstrap_ratio(np.ones(2), np.array([0.0, 2.0])) == (1.0, 0.5, np.inf)


def test_share_of_the_normal_score():
    """In %; of scores below 0, or without normal games or points, there is none."""
    few, many = np.array([1.0, 1.0]), np.array([4.0, 4.0])
    scores = {"normal": many, "ones": few, "inverse": np.array([-1.0, 3.0])}
    assert report.of_normal(scores, "ones") == (25.0, 25.0, 25.0)
    assert report.of_normal(scores, "inverse") is None
    assert report.of_normal({"ones": few}, "ones") is None
    assert report.of_normal({"normal": 0 * many, "ones": few}, "ones") is None
    assert report.of_normal({"normal": -many, "ones": few}, "ones") is None


def test_layers_made_anew():
    params = {"conv1": {"kernel": 1, "bias": 1}, "policy": {"kernel": 1, "bias": 1, "mask": 1}}
    fresh = jax.tree.map(lambda x: x + 1, params)
    assert run.replaced(params, fresh, "conv1")["conv1"] == {"kernel": 2, "bias": 2}
    head = run.replaced(params, fresh, "policy.kernel")["policy"]
    assert head == {"kernel": 2, "bias": 2, "mask": 1}


def test_few_moments_are_of_many_games():
    game = np.repeat([0, 1, 2], [4, 4, 2])
    assert game[run.in_turns(game)[:6]].tolist() == [0, 0, 1, 1, 2, 2]
    assert sorted(run.in_turns(game)) == list(range(10))


def test_the_better_map_is_said_to_be_better(monkeypatch):
    """The mask finds the screen's part that decides, all other methods the part that does not."""
    spec = agent_with().spec
    names = run.method_names(spec, "action")
    kept = np.zeros((4, len(names), 2, 3, len(measures.SHARES)))
    kept[:, :, 0] = 1  # deleted first, what does not decide changes nothing
    kept[:, names.index("mask")] = kept[:, 0, ::-1][0]
    small = np.random.default_rng(0).uniform(size=(4, len(names), 10, 10))
    found = {"index": np.arange(4), "cells.action": small}
    found |= {"probability.action": kept, "kept.action": kept}
    monkeypatch.setattr(report, "read_maps", lambda subject: found)
    monkeypatch.setattr(collect, "read_game", lambda path: np.array([0, 0, 1, 1]))
    agent = types.SimpleNamespace(spec=spec)
    subject = types.SimpleNamespace(name="a", agent=agent, folder=pathlib.Path())
    table = report.methods_table([subject], "action")
    at = {name: n for n, name in enumerate(table.columns)}
    for name, row in zip(names, table.rows, strict=True):
        gain, less = row[at["gain"]].split()[0], row[at["mask - this"]].split()[0]
        assert (float(gain) > 0.5) == (name == "mask")
        assert row[at["kept at 10 %"]].split()[0] == ("100" if name == "mask" else "0")
        assert less == "-" if name == "mask" else float(less) > 1


def test_no_part_of_a_controls_games_is_another_part(tmp_path):
    """Nor are they the games that were looked at; every control plays the same ones."""
    budget, seeds = run.Budget(seed=7), []

    class Player:
        def play(self, params, seed):
            seeds.append(seed)
            return types.SimpleNamespace(scores=np.zeros(1), lengths=np.zeros(1))

    subject = types.SimpleNamespace(params=None)
    for control in ("normal", "shifted"):
        for part in range(5):
            run._play(subject, budget, lambda *_: Player(), control, part, tmp_path / "part.json")
    assert len({7, *seeds[:5]}) == 6
    assert seeds[:5] == seeds[5:]


def test_moments_are_what_was_played():
    """With memory, input and masks of their steps the network chooses what was chosen there."""
    agent = agent_with(num_actions=4)
    params = jax.tree.map(np.array, agent.init_params(jax.random.PRNGKey(0)))
    params["policy"]["kernel"] *= 100
    found = collect.collect(agent, params, 2, 16, 3, 24)
    scene, every = found.scene, np.flatnonzero(found.step_game == 1)[0]
    said = probe(agent, params, scene)(scene.observation)
    np.testing.assert_array_equal(said.logits.argmax(-1), scene.action)
    at = found.step + np.where(found.game == 1, every, 0)
    for branch in ("policy", "value"):
        mask = getattr(said, f"{branch}_mask")
        np.testing.assert_allclose(mask, found.masks[branch][at], atol=1e-5)
        assert np.abs(np.diff(mask, axis=0)).max() > 1e-3  # so that another memory would be seen


SMALL = {"frames": 4, "games": 2, "look_steps": 12, "episodes": 2, "max_episode_steps": 8}


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study killed at its third job, and gone on with; (folder, subject, files of each turn)."""
    folder, budget = tmp_path_factory.mktemp("study"), run.Budget(**SMALL, sanity=2)
    agent = agent_with()
    params = jax.tree.map(np.asarray, agent.init_params(jax.random.PRNGKey(0)))
    info = AgentInfo(**dataclasses.asdict(agent.spec), agent_steps=0, source="fresh")
    subject = run.Subject("fresh", agent, params, info, folder / "fresh")
    run.settle(folder, budget, {"fresh": "fresh"}, "float32")

    def done():
        found = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]
        return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in found}

    real, calls = run._play, []

    def dying(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_play", dying)
        with pytest.raises(KeyboardInterrupt):
            run.run([subject], budget)
    first = done()
    run.run([subject], budget)
    second = done()
    run.run([subject], budget)
    return folder, subject, (first, second, done())


@pytest.mark.slow
def test_a_killed_study_goes_on(studied):
    """What was done before is not done again, and nothing is missing; a third run does nothing."""
    folder, _, (first, second, third) = studied
    assert 1 <= len(first) < len(second)
    assert {name: second[name] for name in first} == first
    assert third == second
    played = {p.stem for p in (folder / "fresh" / "controls").glob("*.json")}
    assert played == {f"{control}-00" for control in run.PLAYED}
    found = np.load(folder / "fresh" / "maps" / "0000.npz")
    methods = len(run.computed(agent_with().spec, "value"))
    assert found["probability.value"].shape == (4, methods, 2, 3, len(measures.SHARES))


@pytest.mark.slow
def test_a_study_of_another_budget_is_refused(studied):
    folder, *_ = studied
    agents = {"fresh": "fresh"}
    run.settle(folder, run.Budget(**SMALL, sanity=2), agents, "float32")
    small = run.Budget(**SMALL, sanity=2)
    for budget, others, precision in (
        (run.Budget(), agents, "float32"),
        (small, agents, "bfloat16"),
        (small, {"fresh": "fresh, step 7"}, "float32"),
    ):
        with pytest.raises(UserError, match="another"):
            run.settle(folder, budget, others, precision)


@pytest.mark.slow
def test_the_report_says_its_samples(studied):
    """Every table and figure, from the files; each row with as many cells as there are columns."""
    folder, subject, _ = studied
    written = {p.name for p in report.write([subject], folder)}
    tables = ("controls", "decrease", "methods-action", "methods-value", "objects", "sanity")
    figures = ("controls", "curves-fresh", "maps-fresh", "agreement-fresh")
    assert written == {
        *("report.html", "report.md"),
        *(f"{name}.csv" for name in tables),
        *(f"{name}.png" for name in figures),
    }
    for name in tables:
        with open(folder / f"{name}.csv", newline="") as file:
            head, *rows = csv.reader(file)
        assert rows
        assert all(len(row) == len(head) for row in rows), name
    text = (folder / "report.md").read_text()
    assert "4 of 2 games" in text
    values = [x for x in text.split("## Which map finds what decides the value")[1].splitlines()]
    assert any("what moved" in x for x in values)  # computed once, for the action
    page = (folder / "report.html").read_text()
    assert page.count("<img ") == len(figures)
    assert 'src="data:' in page
    assert "http" not in page


def test_jobs_that_have_a_file_are_not_done_again(tmp_path, monkeypatch):
    done = []
    jobs = [((i,), tmp_path / f"{i}", "", lambda p: (done.append(p.name), p.touch())) for i in "ab"]
    monkeypatch.setattr(run, "_jobs", lambda subject, budget: jobs)
    (tmp_path / "a").touch()
    for _ in range(2):
        run.run([types.SimpleNamespace()], run.Budget())
    assert done == ["b"]


def test_processes_share_a_study(tmp_path, monkeypatch):
    """A job is done once; what another one is at is left for last, and done if that one dies."""
    done, begun, killed = [], threading.Event(), threading.Event()

    def work(path):
        if path.name == "b" and not begun.is_set():  # the first process's, and its last
            begun.set()
            killed.wait(60)
            raise KeyboardInterrupt
        done.append(path.name)
        path.touch()
        if path.name == "c":
            killed.set()

    jobs = [((i,), tmp_path / i, "", work) for i in "abc"]
    monkeypatch.setattr(run, "_jobs", lambda subject, budget: jobs)
    study = functools.partial(run.run, [types.SimpleNamespace()], run.Budget())

    def first():
        with contextlib.suppress(KeyboardInterrupt):
            study()

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(60)
    study()
    thread.join()
    assert done == ["a", "c", "b"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


def test_pictured_moments_are_the_best_of_different_games():
    worth = np.array([0.1, 0.9, 0.8, 0.3, 0.2, 0.5])
    game = np.array([4, 4, 4, 0, 0, 2])
    assert report.best_of_games(worth, game, 3).tolist() == [1, 5, 3]
    assert report.best_of_games(worth, game, 2).tolist() == [1, 5]
    assert report.best_of_games(worth[:3], game[:3], 3).tolist() == [1]


def test_damaged_files_are_refused_in_one_line(tmp_path):
    """Whatever is in them, they are read, or the line says which to delete."""
    subject = types.SimpleNamespace(folder=tmp_path, agent=agent_with())
    moments = collect.Moments(
        scene=scene(),
        frame=np.zeros((2, 210, 160, 3), np.uint8),
        game=np.zeros(2, int),
        step=np.arange(2),
        step_game=np.zeros(3, int),
        masks={"policy": np.zeros((3, 10, 10), np.float32)},
        objects={"ball": np.zeros((3, 10, 10), bool)},
        facts={},
    )
    moments.save(tmp_path / "games.npz")
    missing = len(run.method_names(subject.agent.spec, "action"))
    curves = np.zeros((2, missing, 3), np.float32)
    arrays = {"insertion.action": curves, "insertion.value": curves[:, 1:]}
    for folder in ("maps", "controls"):
        (tmp_path / folder).mkdir()
    run._save(tmp_path / "maps" / "0000.npz", index=np.arange(2), **arrays)
    control = tmp_path / "controls" / "ones-00.json"
    control.write_text('{"scores": [1.0, 2.0], "lengths": [3, 4]}')
    readers = {
        tmp_path / "games.npz": lambda: collect.read(tmp_path / "games.npz"),
        tmp_path / "maps" / "0000.npz": lambda: report.read_maps(subject),
        control: lambda: report.control_scores(subject),
    }
    rng = random.Random(0)
    for path, read in readers.items():
        whole, said = path.read_bytes(), []
        read()
        for _ in range(100):
            path.write_bytes(damage.changed(whole, path.suffix, rng)[1])
            try:
                read()
            except UserError as error:
                said.append(str(error))
        path.write_bytes(whole)
        assert len(said) > 20
        assert all("delete it" in line and "\n" not in line for line in said)


def test_things_by_memory():
    """Places as they were seen on real frames: the ball at column 122, rows 141 to 145."""
    ram = np.zeros(128, np.uint8)
    ram[[72, 99, 101]] = 181, 171, 133
    frame = np.zeros((210, 160, 3), np.uint8)
    places, _ = objects.find("Breakout", frame, ram)
    rows, columns = (np.flatnonzero(places["ball"].any(axis=a)) for a in (1, 0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (141, 146, 122, 125)
    assert not places["bricks"].any()
    # Cells of 16 x 16 pixels from row 34 on: its last row is the first of the next cell.
    cells_ = np.argwhere(objects.touched(places["ball"], (34, 194)))
    assert cells_.tolist() == [[6, 7], [7, 7]]
    # Of 188 rows, 18.8 to a cell, the nineteenth's centre lies in the first cell, as in pictures.
    for row, cell in ((18, 0), (19, 1), (187, 9)):
        place = np.zeros((210, 160), bool)
        place[8 + row, 0] = True
        assert np.argwhere(objects.touched(place, (8, 196))).tolist() == [[cell, 0]]
    share = objects.share_on(np.ones((1, 10, 10)), np.arange(100).reshape(1, 10, 10) < 7)
    assert share == pytest.approx(0.07)


COLOURS = {
    "Breakout": {"ball": (200, 72, 72), "paddle": (200, 72, 72)},
    "MsPacman": {"Ms. Pac-Man": (210, 164, 74)},
    "Seaquest": {"submarine": (187, 187, 53)},
}


@pytest.mark.parametrize("game", list(objects.FINDERS))
def test_finders_on_real_frames(game):
    """200 random steps: a thing found by memory has its own colour in its box, hardly around it.

    What is found by colour is checked against the memory where that knows it.
    """
    envs, rng = Environments(game, 1, 5, rgb=True), np.random.default_rng(0)
    row, hits, around = envs.reset(), collections.defaultdict(list), collections.defaultdict(list)
    for _ in range(200):
        frame, ram = row.timestep.frame[0].transpose(1, 2, 0), row.ram[0]
        places, _ = objects.find(game, frame, ram)
        for kind, colour in COLOURS.get(game, {}).items():
            place = places[kind]
            if place.any():
                own = (frame == colour).all(axis=-1)
                hits[kind].append(own[place].mean())
                around[kind].append(
                    own[ndimage.binary_dilation(place, iterations=8) & ~place].mean()
                )
        if game == "SpaceInvaders" and places["cannon"].any():
            columns = np.flatnonzero(places["cannon"].any(axis=0))
            at = int(ram[MEMORY[game]["player-x"][0]])
            hits["cannon"].append(columns[0] <= at + 4 <= columns[-1] + 4 and len(columns) <= 12)
        envs.send(rng.integers(envs.num_actions, size=1))
        row = envs.recv()
    envs.close()
    assert hits
    for kind, shares in hits.items():
        assert len(shares) > 20, kind
        assert np.median(shares) > 0.3, (kind, np.median(shares))
    for kind, shares in around.items():
        assert np.median(shares) < 0.1, (kind, np.median(shares))
