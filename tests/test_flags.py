"""Random command lines: wrong ones end in one line and leave nothing behind, right ones train."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.reliability import flags


def check(make, failing, folder, count):
    """Draws so many lines; hypothesis finds the shortest that fails."""

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def each(rng):
        here = folder / str(len(list(folder.iterdir())))
        here.mkdir()
        argv = make(rng)
        assert failing(here, argv) == "", argv

    each()


def test_wrong_ones_leave_nothing_behind(tmp_path):
    check(flags.wrong, flags.refused, tmp_path, 150)


def test_a_right_one_trains(tmp_path):
    check(flags.right, flags.trained, tmp_path, 1)


@pytest.mark.slow
def test_many_right_ones_train(tmp_path):
    check(flags.right, flags.trained, tmp_path, 40)


def test_every_setting_is_drawn():
    """A new setting has a range of small values here, or a reason why not."""
    computed = {"steps", "origin", "eval_episode_steps"}
    assert set(flags.SMALL) | computed == {field.name for field in flags.FIELDS}
