"""Many devices: the same update as one; how many actors fit."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import CHECKOUT, with_devices

from maskrl import devices
from maskrl.errors import UserError

UPDATE = """
import sys
sys.path.insert(0, "tests")
import jax, numpy as np
from jax.flatten_util import ravel_pytree
from maskrl import learner
from maskrl.devices import Devices
from samples import agent_with, random_state, random_unroll, tiny_config

assert jax.local_device_count() == 8
shared = int(sys.argv[1])
config = tiny_config(actors_per_group=8, actors_per_update=shared)
agent = agent_with(mask="both", core="none")
state, snapshot = random_state(agent, config)
unroll = random_unroll(agent, np.random.default_rng(0), 3, 8)


def change(count):
    devices = Devices(count)
    assert devices.count == count
    update = learner.make_update(agent, config, devices)
    new, metrics = update(
        devices.replicate(state), devices.replicate(snapshot), devices.put(unroll)
    )
    for leaf in jax.tree.leaves(new.params):
        assert count == 1 or np.all(np.asarray(leaf) == np.asarray(leaf)[0])
    moved = jax.tree.map(np.subtract, devices.first(new.params), state.params)
    return np.float64(ravel_pytree(moved)[0]), devices.first(metrics)


one, metrics = change(1)
print(np.linalg.norm(one))
for count in (2, 8):
    several, theirs = change(count)
    print(np.linalg.norm(one - several) / np.linalg.norm(one))
    for name in ("loss", "policy_loss", "value_loss", "gradient_norm", "staleness"):
        np.testing.assert_allclose(theirs[name], metrics[name], rtol=1e-4, err_msg=name)
"""


def run_on_devices(count: int, code: str, *argv: str) -> str:
    """Runs the code in a process that has so many devices; its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env=with_devices(count),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TRAVEL = """
import jax, numpy as np
from maskrl.devices import Devices

devices, alone = Devices(3), Devices(1)
actors = {"numbers": np.arange(6, dtype=np.float32), "flags": np.arange(12).reshape(6, 2) > 4}
params = {"weights": np.ones((2, 3), np.float32), "updates": np.int32(7)}


def check(devices, actors, params):
    on = devices.put(actors)
    same = devices.replicate(params)
    traced = []

    def add(p, a):
        traced.append(a)
        return p, {**a, "numbers": a["numbers"] + p["updates"]}

    step = devices.compile(add)
    for _ in range(3):
        same, on = step(same, on)
    every = devices.compile(lambda a: (devices.gather(a["numbers"]), devices.most(a["numbers"][0])))
    gathered, most = devices.first(every(on))
    back, same = devices.merge(on), devices.first(same)
    np.testing.assert_array_equal(back["numbers"], actors["numbers"] + 21)
    np.testing.assert_array_equal(back["flags"], actors["flags"])
    np.testing.assert_array_equal(same["weights"], params["weights"])
    assert same["updates"] == 7 and len(traced) == 1
    return gathered.tolist(), most.tolist()


with jax.transfer_guard("disallow"):
    print(check(devices, actors, params))
    print(check(alone, actors, params))
assert devices.actors(2) == 6 and alone.actors(6) == 6
"""


def test_what_goes_to_the_devices_and_back():
    """On one and on several: nothing travels unsaid, and a function's own results compile once."""
    several, one = run_on_devices(3, TRAVEL).splitlines()
    everyone = [21.0 + n for n in range(6)]
    assert several == f"({everyone}, 25.0)"
    assert one == f"({everyone}, 21.0)"


@pytest.mark.parametrize("shared", [1, pytest.param(2, marks=pytest.mark.slow), 8])
def test_two_and_eight_devices_update_like_one(shared):
    """The same state, snapshot and unroll: less than 1e-4 of the update's own norm apart.

    Whether each actor's gradient is an update, or two or all of them share one.
    """
    norm, *differences = map(float, run_on_devices(8, UPDATE, str(shared)).split())
    assert norm > 1e-4
    assert len(differences) == 2
    assert max(differences) < 1e-4


@pytest.mark.parametrize(
    ("count", "actors", "fitting"), [(1, 7, 7), (8, 7, 8), (8, 8, 8), (8, 9, 16), (4, 1, 4)]
)
def test_unset_actors_are_rounded_up(monkeypatch, count, actors, fitting):
    monkeypatch.setattr("jax.device_count", lambda: count)
    assert devices.fit_actors(actors, explicit=False) == fitting


@pytest.mark.parametrize(
    ("count", "actors", "says"), [(8, 9, "8 or 16"), (8, 7, "take 8$"), (3, 10, "9 or 12")]
)
def test_explicit_actors_must_divide(monkeypatch, count, actors, says):
    monkeypatch.setattr("jax.device_count", lambda: count)
    with pytest.raises(UserError, match=f"{actors} does not divide by {count} devices: .*{says}"):
        devices.fit_actors(actors, explicit=True)
    assert devices.fit_actors(2 * count, explicit=True) == 2 * count


@pytest.mark.parametrize(
    ("count", "actors", "shared", "used"),
    [
        *((8, 7, 1, 7), (8, 1, 1, 1), (8, 9, 1, 3), (4, 6, 1, 3)),
        *((2, 6, 2, 1), (4, 12, 4, 3), (2, 8, 2, 2), (8, 8, 8, 8), (4, 12, 6, 4)),
    ],
)
def test_most_devices(monkeypatch, count, actors, shared, used):
    """Whole updates lie on a device, or whole devices make an update."""
    monkeypatch.setattr("jax.local_device_count", lambda: count)
    assert devices.most_devices(actors, shared) == used


def test_hosts_of_unlike_sizes(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.local_devices", lambda process_index: list(range(8 - process_index)))
    with pytest.raises(UserError, match=r"hosts have 7 or 8 devices: .*count=7"):
        devices.most_devices(12)


@pytest.mark.parametrize(("count", "rows", "used"), [(8, 8, 8), (6, 8, 4), (2, 7, 1), (3, 9, 3)])
def test_devices_that_divide_rows(monkeypatch, count, rows, used):
    """Of this host alone."""
    monkeypatch.setattr("jax.local_device_count", lambda: count)
    monkeypatch.setattr("jax.local_devices", lambda process_index=0: list(range(count)))
    monkeypatch.setattr(devices.Devices, "compile", lambda self, function: function)
    assert devices.Devices.dividing(rows).devices == list(range(used))


@pytest.mark.parametrize(
    ("count", "shared", "fitting"), [(2, 2, 8), (2, 7, 14), (1, 8, 8), (8, 8, 8), (4, 3, 12)]
)
def test_unset_actors_fit_updates(monkeypatch, count, shared, fitting):
    monkeypatch.setattr("jax.device_count", lambda: count)
    assert devices.fit_actors(7, False, shared) == fitting


def test_explicit_actors_must_fit_updates(monkeypatch):
    monkeypatch.setattr("jax.device_count", lambda: 2)
    with pytest.raises(
        UserError, match=r"6 does not divide by 2 devices in updates of 2: .*4 or 8"
    ):
        devices.fit_actors(6, True, 2)


@pytest.mark.parametrize(("cores", "sets", "each"), [(16, 4, 4), (2, 4, 1), (3, 2, 2), (8, 1, 8)])
def test_environments_share_the_cores_of_the_process(monkeypatch, cores, sets, each):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    assert devices.threads(sets) == each


@pytest.mark.parametrize(
    ("platforms", "plugins", "tuned"),
    [("cpu", True, True), (None, False, True), (None, True, False), ("cuda,cpu", False, False)],
)
def test_only_a_cpu_is_tuned(monkeypatch, platforms, plugins, tuned):
    """glibc's one arena would have an accelerator's threads wait for each other."""
    called = []
    libc = SimpleNamespace(mallopt=lambda option, value: called.append((option, value)))
    monkeypatch.setattr("ctypes.CDLL", lambda _: libc)
    settings = SimpleNamespace(jax_platforms=platforms, jax_num_cpu_devices=2)
    monkeypatch.setattr("jax.config", settings)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: ["cuda"] * plugins)
    devices.use_cores()
    assert bool(called) == tuned
    assert ((-8, 1) in called) == tuned


EVALUATE = """
import sys
sys.path.insert(0, "tests")
import jax
from maskrl import evaluation
from samples import agent_with

agent = agent_with()
params = agent.init_params(jax.random.PRNGKey(0))


def play():
    return evaluation.play(
        agent, params, 5, evaluation.How(sample=True, max_episode_steps=150)
    )


several = play()
first = jax.local_devices()[:1]
jax.local_devices = lambda **_: first
alone = play()
print(several.scores.tolist() == alone.scores.tolist())
print(several.lengths.tolist() == alone.lengths.tolist())
print(len(set(several.lengths.tolist())))
"""


def test_three_devices_play_the_same_games_as_one():
    """Five games, sampled, in tables that three devices do not divide."""
    scores, lengths, different = run_on_devices(3, EVALUATE).split()
    assert (scores, lengths) == ("True", "True")
    assert int(different) > 1


ACT = """
import sys
sys.path.insert(0, "tests")
import jax, numpy as np
from maskrl.actor import make_act
from maskrl.devices import Devices
from maskrl.types import TimeStep
from samples import agent_with, compilations

devices = Devices(2)
agent = agent_with()
params, key = devices.replicate(
    jax.tree.map(np.asarray, (agent.init_params(jax.random.PRNGKey(0)), jax.random.PRNGKey(1)))
)
state = devices.put(jax.tree.map(np.asarray, agent.init_state(np.arange(4))))
zeros = np.zeros(4, np.float32)
timestep = TimeStep(np.zeros((4, 210, 160), np.uint8), zeros, zeros, zeros > 0)
act = make_act(agent, devices)
with compilations() as compiled:
    for _ in range(3):
        state, *_ = act(params, state, devices.put(timestep), key)
        print(len(compiled))
"""


def test_acting_is_compiled_once():
    """The first state comes from the host, the others from the devices: the same executable."""
    first, second, third = map(int, run_on_devices(2, ACT).split())
    assert 0 < first == second == third
