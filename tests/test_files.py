"""A file or a folder is there whole or not at all."""

import os
import pathlib

import pytest

from maskrl import files
from maskrl.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "result.json"
    files.write(path, "old")

    def fail(error):
        with files.whole(path) as partial:
            partial.write_text("half of the n")
            raise error

    for error in (UserError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
        assert path.read_text() == "old"
        assert names(tmp_path) == ["result.json"]
    files.write(path, "ünew")
    assert path.read_text(encoding="utf-8") == "ünew"
    assert names(tmp_path) == ["result.json"]


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "new" / "best"
    (path.parent / "best.part").mkdir(parents=True)  # of a process that was killed
    (path.parent / "best.part" / "rubbish").touch()
    for content in ("old", "new"):
        with files.whole(path) as partial:
            (partial / "params").mkdir(parents=True)
            (partial / "params" / content).write_text(content)
            assert not (path / "params" / content).exists()
        assert names(path / "params") == [content]
        assert names(path.parent) == ["best"]


def test_everything_is_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    """What a power cut would leave: the file's contents first, then its name, then the folder."""
    done = []
    sync, replace = os.fsync, pathlib.Path.replace

    def note_sync(number):
        done.append(os.fstat(number).st_ino)
        sync(number)

    def note_replace(self, target):
        done.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(pathlib.Path, "replace", note_replace)
    files.write(tmp_path / "file", "text")
    assert done == [(tmp_path / "file").stat().st_ino, "name", tmp_path.stat().st_ino]


def test_unwritable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*below: "):
        files.write(tmp_path / "file" / "below", "text")
    assert names(tmp_path) == ["file"]


def test_nothing_is_overwritten(tmp_path):
    """Nor begun where nothing can be written: what takes hours would be lost at its end."""
    (tmp_path / "file").touch()
    files.check_new(tmp_path / "new")
    files.check_new(None)
    with pytest.raises(UserError, match="file exists: name another"):
        files.check_new(tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot write .*: File name too long"):
        files.check_new(tmp_path / ("x" * 300))
    assert not files.exists(tmp_path / ("x" * 300))
    files.check_writable(tmp_path / "a" / "new")
    files.check_writable(tmp_path / "file")
    assert names(tmp_path / "a") == []
    assert names(tmp_path) == ["a", "file"]
    with pytest.raises(UserError, match=r"cannot write .*below: "):
        files.check_writable(tmp_path / "file" / "below")
