"""The recording's format: round trip, and every way in which a file can be wrong."""

import dataclasses
import json

import numpy as np
import pytest

from maskrl import recording
from maskrl.errors import UserError
from maskrl.recording import Recording


def sample(steps=5, **changes):
    """A recording of random numbers."""
    rng = np.random.default_rng(0)
    fields = {
        "game": "Breakout",
        "agent": "somewhere",
        "mask": "policy",
        "mode": "normal",
        "branch": "policy",
        "seed": 3,
        "agent_steps": 17,
        "action_names": ("NOOP", "FIRE", "RIGHT"),
        "view": (34, 194),
        "frames": rng.integers(256, size=(steps, 210, 160, 3), dtype=np.uint8),
        "logits": rng.normal(size=(steps, 3)).astype(np.float32),
        "action": rng.integers(3, size=steps).astype(np.int32),
        "value": rng.normal(size=steps).astype(np.float32),
        "reward": np.arange(steps, dtype=np.float32),
        "lives": np.full(steps, 5, np.int32),
        "life_start": np.arange(steps) == 0,
        "ram": rng.integers(256, size=(steps, 128), dtype=np.uint8),
        "policy_mask": rng.random((steps, 10, 10), np.float32),
        "policy_mask_logits": rng.normal(size=(steps, 10, 10)).astype(np.float32),
    }
    return Recording(**fields | changes)


def error(function, *args):
    """The message, one line, of the UserError that the call must raise."""
    with pytest.raises(UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_round_trip(tmp_path):
    before = sample()
    recording.write(before, tmp_path / "game.npz")
    after = recording.read(tmp_path / "game.npz")
    for field in dataclasses.fields(Recording):
        a, b = getattr(before, field.name), getattr(after, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        else:
            assert a == b
            assert type(a) is type(b)
    assert after.value_mask is None
    assert [p.name for p in tmp_path.iterdir()] == ["game.npz"]


def test_frames_of_the_console(tmp_path):
    """A byte for every pixel, in memory and on disk; they read as the colours they are."""
    rng = np.random.default_rng(0)
    colours = rng.integers(256, size=(128, 3), dtype=np.uint8)
    shown = colours[rng.integers(128, size=(5, 210, 160))]
    film = recording.Film(2)  # and it grows
    for frame in shown:
        film.add(frame.transpose(2, 0, 1))
    path = tmp_path / "game.npz"
    recording.write(sample(frames=film.frames()), path)
    frames = recording.read(path).frames
    assert len(frames) == 5
    assert frames.pixels.nbytes == 5 * 210 * 160
    np.testing.assert_array_equal(frames[:], shown)
    np.testing.assert_array_equal(frames[3], shown[3])
    np.testing.assert_array_equal(list(frames), shown)
    with np.load(path) as archive:
        assert "frames" not in archive
    edit(path, palette=frames.palette[:-1])
    assert "palette" in error(recording.read, path)
    edit(path, drop=("pixels",))
    assert "frames missing" in error(recording.read, path)


@pytest.mark.parametrize("step", [0, 1])
def test_frames_of_more_colours_than_a_byte_numbers(tmp_path, step):
    """The maximum of two of the console's screens can have others than its 128."""
    shown = np.zeros((3, 210, 160, 3), np.uint8)
    shown[:, 0, 0] = (1, 2, 3)
    shown[step:, :2, :150, 0] = np.arange(300).reshape(2, 150) % 256
    shown[step:, :2, :150, 1] = np.arange(300).reshape(2, 150) // 256
    film = recording.Film(2)
    for frame in shown:
        film.add(frame.transpose(2, 0, 1))
    np.testing.assert_array_equal(film.frames()[:], shown)
    recording.write(sample(3, frames=film.frames()), tmp_path / "game.npz")
    np.testing.assert_array_equal(recording.read(tmp_path / "game.npz").frames[:], shown)


def test_derived_quantities():
    """Score before each action; probabilities and entropy of two equal logits and one far off."""
    logits = np.tile(np.float32([0, 0, -100]), (5, 1))
    r = sample(logits=logits)
    assert len(r) == 5
    assert r.score.tolist() == [0, 0, 1, 3, 6]
    assert r.final_score == 10
    np.testing.assert_allclose(r.probabilities[0], [0.5, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(r.entropy, np.log(2), rtol=1e-5)
    assert list(r.masks()) == ["policy"]


def edit(path, drop=(), header=None, **arrays):
    """Rewrites a recording's archive without, or with other, entries."""
    with np.load(path) as archive:
        entries = {k: archive[k] for k in archive.files if k not in drop}
    if header is not None:
        entries["header"] = np.array(json.dumps(json.loads(str(entries["header"])) | header))
    np.savez_compressed(path, **entries | arrays)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"header": {"version": 99}}, "another version"),
        ({"header": {"opening": 10**400}}, "opening is 1000"),
        ({"header": {"opening": float("inf")}}, "opening is inf"),
        ({"unmasked_logits": np.zeros((5, 4), np.float32)}, "unmasked_logits"),
        ({"drop": ("header",)}, "no header"),
        ({"drop": ("ram",)}, "ram missing"),
        ({"drop": ("frames", "logits")}, "missing"),
        ({"drop": ("logits",), "header": {"logits": 3}}, "logits missing"),
        ({"drop": ("frames",), "header": {"frames": 3}}, "frames missing"),
        ({"reward": np.zeros(4, np.float32)}, r"reward is float32\[4\], not float32\[5\]"),
        ({"action": np.zeros(5)}, "action is float64"),
        ({"frames": np.zeros((0, 210, 160, 3), np.uint8)}, "no frames"),
        ({"policy_mask": np.zeros((5, 20, 20), np.float32)}, "policy_mask"),
    ],
)
def test_wrong_contents(tmp_path, change, says):
    path = tmp_path / "game.npz"
    recording.write(sample(), path)
    edit(path, **change)
    with pytest.raises(UserError, match=says):
        recording.read(path)
    assert str(path) in error(recording.read, path)


def test_a_recording_of_version_1_is_still_read(tmp_path):
    """It lacks what came later, and nothing else."""
    path = tmp_path / "game.npz"
    recording.write(sample(unmasked_logits=np.zeros((5, 3), np.float32)), path)
    edit(path, drop=("unmasked_logits",), header={"version": 1})
    with np.load(path) as archive:
        entries = dict(archive)
    header = json.loads(str(entries["header"]))
    del header["cut_off"]
    np.savez(path, **entries | {"header": np.array(json.dumps(header))})
    old = recording.read(path)
    assert old.unmasked_logits is None
    assert old.cut_off is False
    np.testing.assert_array_equal(old.frames, sample().frames)


@pytest.mark.parametrize("field", ["game", "view", "action_names", "seed"])
def test_missing_header_field(tmp_path, field):
    path = tmp_path / "game.npz"
    recording.write(sample(), path)
    with np.load(path) as archive:
        entries = dict(archive)
    header = json.loads(str(entries["header"]))
    del header[field]
    np.savez(path, **entries | {"header": np.array(json.dumps(header))})
    assert field in error(recording.read, path)


@pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.99])
def test_cut_off(tmp_path, part):
    path = tmp_path / "game.npz"
    recording.write(sample(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    assert str(path) in error(recording.read, path)


def test_damaged_in_the_middle(tmp_path):
    path = tmp_path / "game.npz"
    recording.write(sample(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 100] = bytes(100)
    path.write_bytes(data)
    assert str(path) in error(recording.read, path)


def test_foreign_files(tmp_path):
    text, array, pickled = (tmp_path / name for name in ("a.npz", "b.npy", "c.npz"))
    text.write_text("hello")
    np.save(array, np.zeros(3))
    np.savez(pickled, header=np.array([{"version": 1}], dtype=object))
    for path in (text, array, pickled, tmp_path):
        assert str(path) in error(recording.read, path)
    assert "there is no file" in error(recording.read, tmp_path / "absent.npz")


def test_write_refuses(tmp_path):
    """Wrong arrays, no frames, a folder that cannot be: an error, and no file."""
    bad = [sample(steps=0), sample(value=np.zeros(5)), sample(lives=np.zeros(4, np.int32))]
    for r in bad:
        error(recording.write, r, tmp_path / "game.npz")
    (tmp_path / "file").write_text("")
    error(recording.write, sample(), tmp_path / "file" / "game.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
