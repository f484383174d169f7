"""Progress on a terminal of 60 columns, and in a file."""

import gc
import io
import sys

import pytest

from maskrl import cli


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_file_lines_come_now_and_then(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in cli.progress(range(5000), desc="games", unit=" games"):
        pass
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    assert 1 <= len(lines) <= 3  # the first, the last
    assert lines[0].startswith("games:   0% 0/5000")
    assert "100% 5000/5000" in lines[-1]


def test_a_line_at_every_interval(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(cli, "_SELDOM", 0)
    with cli.progress(total=3, unit=" steps") as bar:
        for _ in range(3):
            bar.update()
    lines = [line.split("%")[0].strip() for line in stream.getvalue().splitlines()]
    assert lines == sorted(lines, key=int)
    assert {"0", "33", "67", "100"} <= set(lines)


def test_a_stream_that_is_closed_first(monkeypatch, tmp_path):
    """A line that is collected late says nothing to a stream that is no more."""
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    stream = open(tmp_path / "log", "w")  # noqa: SIM115, it is closed before the line is collected
    monkeypatch.setattr(sys, "stderr", stream)
    bar = cli.progress(total=1)
    bar.close()
    stream.close()
    del bar
    gc.collect()
    assert complaints == []


@pytest.mark.parametrize(
    ("total", "starts"), [(8_000_000, " 12% 960k/8.00M"), (None, "960k steps")]
)
def test_a_line_says_it_in_60_columns(monkeypatch, total, starts):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    bar = cli.progress(total=total, initial=960_000, unit=" steps", unit_scale=True)
    bar.ncols, bar.dynamic_ncols = 60, None
    bar.start_t -= 1000
    bar.set_postfix({"life": "0.12", "score": "505.0"})
    line = stream.getvalue().split("\r")[-1].rstrip()
    assert line.startswith(starts)
    assert line.endswith("life=0.12, score=505.0")
    assert len(line) <= 60
    bar.close()
