"""The original's agents: its numbers, the import, and files that are not what they should be."""

import pathlib
import pickle
import zipfile

import jax
import numpy as np
import pytest
from samples import agent_with

from maskrl import checkpoint
from maskrl import official as ours
from maskrl.errors import UserError

GAMES = ("Breakout", "MsPacman", "SpaceInvaders")


def state_dict(prefix="", mask="both", core="convlstm", actions=4):
    """Random arrays with the original's names and shapes."""
    rng = np.random.default_rng(0)
    shapes = {
        "conv1": (32, 1, 5, 5),
        "conv2": (32, 32, 3, 3),
        "conv3": (64, 32, 3, 3),
        "convlstm1.conv": (256, 128, 3, 3),
        "a_conv": (32, 64, 1, 1),
        "c_conv": (32, 64, 1, 1),
        "att_conv_a1": (1, 64, 1, 1),
        "att_conv_c1": (1, 64, 1, 1),
        "actor_linear": (actions, 3200),
        "critic_linear": (1, 3200),
    }
    if core == "none":
        del shapes["convlstm1.conv"]
    if mask not in ("both", "policy"):
        del shapes["att_conv_a1"]
    if mask not in ("both", "value"):
        del shapes["att_conv_c1"]
    arrays = {}
    for name, shape in shapes.items():
        arrays[f"{prefix}{name}.weight"] = rng.normal(size=shape).astype(np.float32)
        arrays[f"{prefix}{name}.bias"] = rng.normal(size=shape[0]).astype(np.float32)
    return arrays


def save_dat(path, arrays):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()}, path)


def fails(capsys, *argv) -> str:
    """The one line on stderr of a command that must end with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        ours.main([str(a) for a in argv])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("maskrl.official: error: ")
    assert captured.out == ""
    return captured.err


# With the original's data.


@pytest.mark.parametrize("game", GAMES)
def test_compare(official, game):
    """Every number that the original computed on an unroll of real frames, to `TOLERANCE`."""
    data = ours.read_train_step(official / f"{game}_train_step.npz")
    params = ours.convert({k[6:]: v for k, v in data.items() if k.startswith("param/")})
    errors = ours.compare(params, data, game)
    assert ours.too_large(errors, game) == {}
    if jax.__version__.startswith("0.10."):  # where rounding decides as it did for the original
        assert {k: v for k, v in errors.items() if not v <= ours.TOLERANCE} == {}
    names = "pixels obs h logits values policy_mask value_mask entropy"
    names += " policy_loss value_loss total_loss"
    assert set(names.split()) < set(errors)
    leaves = len(jax.tree.leaves(params))
    for kind in ("grad/", "step/"):
        assert sum(name.startswith(kind) for name in errors) == leaves == 20


def agent_file(folder: pathlib.Path, game: str) -> pathlib.Path:
    return next(folder.glob(f"{game}NoFrameskip*.dat"))


def test_check_and_import(official, tmp_path, capsys):
    """`check` passes; `import` writes an agent that loads, with the file's parameters."""
    pytest.importorskip("torch")
    dat, numbers = agent_file(official, "Breakout"), official / "Breakout_train_step.npz"
    assert ours.main(["check", str(dat), str(numbers)]) == 0
    out = capsys.readouterr().out
    assert "Breakout: passed" in out
    assert "grad/gates.kernel" in out

    assert ours.main(["import", str(dat), str(tmp_path / "agent")]) == 0
    agent, params, info = checkpoint.load_agent(tmp_path / "agent")
    assert (info.game, info.num_actions, info.mask, info.core) == (
        "Breakout",
        4,
        "both",
        "convlstm",
    )
    assert info.frames == "rgb"
    assert agent == agent_with(frames="rgb")
    expected = ours.convert(ours.read_state_dict(dat))
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_check_fails_for_a_perturbed_weight(official, tmp_path, capsys):
    """One weight of one layer, by 1 %."""
    pytest.importorskip("torch")
    arrays = ours.read_state_dict(agent_file(official, "Breakout"))
    arrays["conv3.weight"] = arrays["conv3.weight"] * 1.01
    save_dat(tmp_path / "Breakout-v4.dat", arrays)
    numbers = official / "Breakout_train_step.npz"
    assert ours.main(["check", str(tmp_path / "Breakout-v4.dat"), str(numbers)]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_check_fails_for_nan(official):
    """An error that is no number is not within the tolerance."""
    data = ours.read_train_step(official / "Breakout_train_step.npz")
    params = ours.convert({k[6:]: v for k, v in data.items() if k.startswith("param/")})
    data["logits"] = data["logits"] * np.nan
    errors = ours.compare(params, data, "Breakout")
    assert "logits" in ours.too_large(errors, "Breakout")


# Without.


@pytest.mark.parametrize(
    ("mask", "core"),
    [("both", "convlstm"), ("policy", "convlstm"), ("value", "convlstm"), ("none", "none")],
)
def test_convert_variants(mask, core):
    params = ours.convert(state_dict(mask=mask, core=core))
    _, info = ours.agent_of(params, "Breakout", "test")
    assert (info.mask, info.core, info.num_actions) == (mask, core, 4)


def test_convert_permutes():
    """One weight of each kind of layer, looked up by hand."""
    arrays = state_dict()
    params = ours.convert(arrays)
    assert params["conv2"]["kernel"][0, 2, 5, 7] == arrays["conv2.weight"][7, 5, 0, 2]
    assert (
        params["gates"]["kernel"][1, 0, 100, 200]
        == (arrays["convlstm1.conv.weight"][200, 100, 1, 0])
    )
    # Theirs is [channel, row, column], ours [row, column, channel]: channel 3, row 4, column 5.
    assert (
        params["policy"]["kernel"][(4 * 10 + 5) * 32 + 3, 2]
        == (arrays["actor_linear.weight"][2, 3 * 100 + 4 * 10 + 5])
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"conv1.weight": None}, "conv1.weight is missing"),
        ({"conv1.bias": None}, "conv1.bias is missing"),
        ({"conv9.weight": np.zeros(3, np.float32)}, "conv9.weight is unknown"),
        ({"conv2.weight": np.zeros((32, 32), np.float32)}, "conv2.weight has the wrong rank"),
        ({"conv2.bias": np.full(32, np.nan, np.float32)}, "not finite"),
        ({"actor_linear.weight": np.zeros((4, 100), np.float32)}, "100 inputs, not 3200"),
        ({"conv2.weight": np.zeros((32, 32, 5, 5), np.float32)}, "another shape"),
        ({"critic_linear.bias": np.zeros(2, np.float32)}, "another shape"),
        ({"actor_linear.bias": np.zeros(5, np.float32)}, "another shape"),
    ],
)
def test_wrong_arrays(change, says):
    arrays = {k: v for k, v in (state_dict() | change).items() if v is not None}
    with pytest.raises(UserError, match=says):
        ours.agent_of(ours.convert(arrays), "Breakout", "test")


def test_numbers_of_an_agent_with_other_actions(monkeypatch, capsys):
    monkeypatch.setattr(ours, "read_state_dict", lambda path: state_dict())
    numbers = {"game": np.array("Breakout"), "logits": np.zeros((20, 9), np.float32)}
    monkeypatch.setattr(ours, "read_train_step", lambda path: numbers)
    says = fails(capsys, "check", "agent.dat", "numbers.npz")
    assert "numbers.npz is not of an agent with 4 actions" in says


def test_numbers_of_another_network(tmp_path, monkeypatch, capsys):
    """Another memory's shape is one line; so is an archive that lacks what is compared last."""
    monkeypatch.setattr(ours, "read_state_dict", lambda path: state_dict())
    path = tmp_path / "numbers.npz"
    shapes = {"frames": (21, 210, 160, 3), "pixels": (21, 80, 80), "obs": (21, 80, 80)}
    shapes |= {"normaliser0": (3,), "h0": (32, 10, 10), "c0": (32, 10, 10), "h": (20, 32, 10, 10)}
    shapes |= {"logits": (20, 4), "values": (21,), "rewards": (20,), "entropy": (20,)}
    shapes |= {name: () for name in ("policy_loss", "value_loss", "total_loss")}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    arrays |= {"game": np.array("Breakout"), "actions": np.zeros(20, np.int32)}
    arrays["normaliser0"][2] = 1  # a first frame's
    np.savez(path, **arrays)
    assert f"{path} is not of this agent: " in fails(capsys, "check", "agent.dat", path)  # no bytes
    arrays["frames"] = arrays["frames"].astype(np.uint8)
    np.savez(path, **arrays)
    says = fails(capsys, "check", "agent.dat", path)
    assert f"{path} is not of this agent: " in says
    assert "32" in says
    del arrays["total_loss"]
    np.savez(path, **arrays)
    assert "total_loss is missing" in fails(capsys, "check", "agent.dat", path)


class Hostile:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.write_text, (pathlib.Path(self.path), "executed"))


def test_hostile_pickle_is_really_hostile(tmp_path):
    """What the next test is about: a plain load would write the file."""
    pickle.loads(pickle.dumps(Hostile(tmp_path / "written")))
    assert (tmp_path / "written").exists()


@pytest.mark.parametrize("archive", [False, True])
def test_hostile_pickle(tmp_path, capsys, archive):
    """In the old format and in the zip of today: one line, and nothing ran."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "Breakout-v4.dat"
    torch.save(
        {"conv1.weight": Hostile(tmp_path / "written")},
        path,
        _use_new_zipfile_serialization=archive,
    )
    assert zipfile.is_zipfile(path) == archive
    fails(capsys, "import", path, tmp_path / "agent")
    assert [p.name for p in tmp_path.iterdir()] == ["Breakout-v4.dat"]


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.95])
def test_cut_off(tmp_path, capsys, part):
    path = tmp_path / "Breakout-v4.dat"
    save_dat(path, state_dict())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert str(path) in fails(capsys, "import", path, tmp_path / "agent")
    assert not (tmp_path / "agent").exists()


def test_foreign_files(tmp_path, capsys):
    """Text, a tensor alone, a dict of numbers, an object, a folder, nothing at all."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "Breakout-v4.dat"
    for make in (
        lambda: path.write_text("hello, this is a text of some length\n" * 10),
        lambda: torch.save(torch.zeros(3), path),
        lambda: torch.save({"conv1.weight": 3}, path),
        lambda: torch.save({3: torch.zeros(3)}, path),
        lambda: torch.save([1, 2], path),
        lambda: save_dat(path, {}),
        lambda: save_dat(path, {"fc.weight": np.zeros((3, 3), np.float32)}),
        path.unlink,
        path.mkdir,
    ):
        make()
        fails(capsys, "import", path, tmp_path / "agent")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_import_of_another_shape(tmp_path, capsys):
    path = tmp_path / "Breakout-v4.dat"
    save_dat(path, state_dict() | {"conv2.weight": np.zeros((16, 32, 3, 3), np.float32)})
    assert "conv2/kernel" in fails(capsys, "import", path, tmp_path / "agent")


def test_import_never_overwrites(tmp_path, capsys):
    path = tmp_path / "Breakout-v4.dat"
    save_dat(path, state_dict())
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "precious").write_text("kept")
    assert "exists" in fails(capsys, "import", path, tmp_path / "agent")
    assert (tmp_path / "agent" / "precious").read_text() == "kept"


def test_import_below_a_file(tmp_path, capsys):
    path = tmp_path / "Breakout-v4.dat"
    save_dat(path, state_dict())
    fails(capsys, "import", path, path / "agent")


def test_game_of_an_import(tmp_path, capsys):
    """From the file's name, or `--game`; an unknown one is an error."""
    path = tmp_path / "agent.dat"
    save_dat(path, state_dict(actions=6))
    assert "--game" in fails(capsys, "import", path, tmp_path / "agent")
    assert "Breakout" in fails(capsys, "import", path, tmp_path / "agent", "--game", "Breakot")
    assert ours.main(["import", str(path), str(tmp_path / "a"), "--game", "space_invaders"]) == 0
    assert checkpoint.load_agent(tmp_path / "a")[2].game == "SpaceInvaders"


def test_bad_train_steps(tmp_path, capsys):
    """Cut off, another archive, an array, text, absent."""
    dat = tmp_path / "Breakout-v4.dat"
    dat.write_bytes(b"")
    path = tmp_path / "step.npz"
    np.savez(path, game="Breakout", frames=np.zeros((100, 100)))
    whole = path.read_bytes()
    assert "is missing" in fails(capsys, "check", dat, path)
    for content in (whole[: len(whole) // 2], b"text", b""):
        path.write_bytes(content)
        assert str(path) in fails(capsys, "check", dat, path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    assert str(path) in fails(capsys, "check", dat, path)
    fails(capsys, "check", dat, tmp_path / "absent.npz")
    fails(capsys, "check", dat)
    fails(capsys)
