"""What every test shares: one device, one compilation cache, the original's data."""

import os
import pathlib
import signal

CHECKOUT = pathlib.Path(__file__).parents[1]

# Before jax is imported: the tolerances are those of float32 on the CPU, and compiled functions are
# kept, so that subprocesses and later sessions do not compile them again.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CHECKOUT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Subprocesses import the checkout, wherever they run.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import pytest  # noqa: E402

from maskrl.signals import SIGNALS  # noqa: E402

# As from a terminal: behind `&` and `nohup` some would be ignored, by the processes that tests
# start, too.
for number in SIGNALS:
    default = signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
    signal.signal(number, default)


def with_devices(count: int) -> dict[str, str]:
    """The environment of a process that has so many devices, and compiles as this one does."""
    flags = os.environ.get("XLA_FLAGS", "")
    return os.environ | {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}"}


@pytest.fixture(scope="session")
def official() -> pathlib.Path:
    """The folder with the original's agents and numbers (`MASKRL_OFFICIAL`)."""
    folder = pathlib.Path(os.environ.get("MASKRL_OFFICIAL", CHECKOUT.parent / "shared/official"))
    if not list(folder.glob("*_train_step.npz")):
        pytest.skip(f"no data of the original in {folder}: set MASKRL_OFFICIAL")
    return folder
