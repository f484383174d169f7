"""The explorer, opened from disk in a headless Chromium."""

import base64
import dataclasses
import io
import os
import pathlib
import shutil
import time

import numpy as np
import pytest
from PIL import Image
from recordings import made_up

from maskrl.errors import UserError
from maskrl.explain.explorer import write_explorer
from maskrl.explain.frames import choose
from maskrl.explain.overlay import ABSOLUTE, OPACITY, overlay

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
    "--window-size=1280,1000",
)
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser; `get` takes the address of a file."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(DRIVER, log_output=os.devnull)
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


def wait(browser, condition: str, seconds: float = 20):
    """Waits for a condition in JavaScript; the seconds that it took."""
    start = time.perf_counter()
    while not browser.execute_script(f"return {condition}"):
        assert time.perf_counter() - start < seconds, f"never: {condition}"
        time.sleep(0.01)
    return time.perf_counter() - start


def stands_at(step: int) -> str:
    """In JavaScript: picture and curves show this step."""
    frame = "document.querySelector('canvas.frame')"
    curves = "document.getElementById('curves')"
    return f"{frame}?.dataset.step === '{step}' && {curves}.dataset.step === '{step}'"


def open_explorer(browser, path: pathlib.Path) -> float:
    """Opens the page; the seconds until the first frame stands."""
    start = time.perf_counter()
    browser.get(path.absolute().as_uri())
    wait(browser, stands_at(0))
    return time.perf_counter() - start


def press(browser, keys: str):
    browser.find_element("tag name", "body").send_keys(keys)


def scrub(browser, step: int):
    browser.execute_script(
        "const bar = document.getElementById('scrub'); bar.value = arguments[0];"
        "bar.dispatchEvent(new Event('input'))",
        step,
    )


def picture(browser, panel: str, play: int = 0) -> np.ndarray:
    """uint8 [210, 160, 3]: the pixels of a panel's canvas."""
    url = browser.execute_script(
        "return document.querySelectorAll('section.play')[arguments[0]]"
        ".querySelector(`canvas[data-panel=${arguments[1]}]`).toDataURL()",
        play,
        panel,
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


def console_errors(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@needs_chromium
def test_every_frame_is_the_recording_s_pixel_by_pixel(browser, tmp_path):
    """Also where a chunk of frames ends, backwards, and with more colours than a byte numbers."""
    game = made_up(150)
    rng = np.random.default_rng(0)
    noise = dataclasses.replace(game, frames=rng.integers(0, 256, game.frames.shape, np.uint8))
    for recording in (game, noise):
        open_explorer(browser, write_explorer([recording], tmp_path / "game.html"))
        for step in (0, 1, 63, 64, 65, 149, 10):
            scrub(browser, step)
            wait(browser, stands_at(step))
            np.testing.assert_array_equal(picture(browser, "game"), recording.frames[step])
    assert console_errors(browser) == []


@needs_chromium
@pytest.mark.parametrize("view", [(34, 194), (8, 196), (2, 170)])
def test_a_planted_mask_lies_where_the_network_saw_it(browser, tmp_path, view):
    """One open cell, on the absolute scale: the very pixels of the Python overlay."""
    game = made_up(3)
    mask = np.zeros((3, 10, 10), np.float32)
    mask[1, 7, 2] = 1
    game = dataclasses.replace(game, policy_mask=mask, view=view)
    page = write_explorer([game], tmp_path / "game.html", contrast=False)
    open_explorer(browser, page)
    scrub(browser, 1)
    wait(browser, stands_at(1))
    drawn = picture(browser, "policy").astype(int)
    expected = overlay(game.frames[1], mask[1], view, ABSOLUTE, OPACITY).astype(int)
    assert np.abs(drawn - expected).max() <= 1
    top, bottom = view
    lit = np.argwhere(drawn.sum(axis=2) > 330)
    height = bottom - top
    inside = (lit[:, 0] >= top + 0.7 * height - 1) & (lit[:, 0] < top + 0.8 * height + 1)
    cell = lit[inside & (lit[:, 1] >= 32) & (lit[:, 1] < 48)]
    assert len(cell) >= 16 * (height // 10 - 1)


@needs_chromium
def test_keys_scrubbing_and_the_cursor(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    game = made_up(120)
    open_explorer(browser, write_explorer([game], tmp_path / "game.html"))
    cursor = "return Number(document.getElementById('curves').dataset.x)"
    at_start = browser.execute_script(cursor)
    for keys, step in (
        (Keys.ARROW_RIGHT, 1),
        (Keys.SHIFT + Keys.ARROW_RIGHT + Keys.NULL, 16),
        (Keys.ARROW_LEFT, 15),
        (Keys.END, 119),
        (Keys.HOME, 0),
    ):
        press(browser, keys)
        wait(browser, stands_at(step))
    for frame in choose(game, 3):
        press(browser, "n")
        wait(browser, stands_at(frame.index))
    scrub(browser, 60)
    wait(browser, stands_at(60))
    assert browser.execute_script(cursor) > at_start + 50
    chosen = browser.find_element("css selector", ".actions .chosen .name").text
    assert chosen == game.action_names[game.action[60]]
    press(browser, " ")
    wait(browser, "Number(document.getElementById('curves').dataset.step) > 62")
    press(browser, "?")
    wait(browser, "document.getElementById('help').open")
    assert console_errors(browser) == []


@needs_chromium
def test_clicking_the_curves_jumps(browser, tmp_path):
    from selenium.webdriver import ActionChains

    open_explorer(browser, write_explorer([made_up(100)], tmp_path / "game.html"))
    curves = browser.find_element("id", "curves")
    ActionChains(browser).move_to_element(curves).click().perform()
    wait(browser, "Number(document.getElementById('curves').dataset.step) > 30")
    step = int(curves.get_attribute("data-step"))
    assert 40 <= step <= 60
    wait(browser, stands_at(step))


@needs_chromium
def test_normal_and_inverted_play_side_by_side(browser, tmp_path):
    """In step; the shorter one says that it is over."""
    normal, inverse = made_up(90), made_up(30, mode="inverse")
    open_explorer(browser, write_explorer([normal, inverse], tmp_path / "game.html"))
    scrub(browser, 20)
    wait(browser, stands_at(20))
    np.testing.assert_array_equal(picture(browser, "game", 1), inverse.frames[20])
    over = browser.find_elements("css selector", ".over")
    assert [element.is_displayed() for element in over] == [False, False]
    scrub(browser, 80)
    wait(browser, stands_at(80))
    assert [element.is_displayed() for element in over] == [False, True]
    np.testing.assert_array_equal(picture(browser, "game", 1), inverse.frames[29])


@needs_chromium
@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("mask", ["both", "value", "none"])
def test_nothing_is_wider_than_the_page(browser, tmp_path, width, mask):
    """Neither on a phone nor on a desk, with the masks that there are."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        open_explorer(browser, write_explorer([made_up(60, mask=mask)], tmp_path / "game.html"))
        size = "[document.documentElement.scrollWidth, window.innerWidth]"
        content, window = browser.execute_script(f"return {size}")
        assert content <= window == width
        assert console_errors(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_chromium
@pytest.mark.slow
def test_ten_thousand_frames(browser, tmp_path):
    """Opens in under 5 s and scrubs without stalls; prints what it measured."""
    length = 10_000
    game = made_up(length)
    path = write_explorer([game], tmp_path / "game.html")
    size = path.stat().st_size / 1e6
    opened = open_explorer(browser, path)
    rng = np.random.default_rng(0)
    jumps = []
    for step in rng.integers(0, length, 50):
        scrub(browser, int(step))
        jumps.append(wait(browser, stands_at(int(step))))
    print(f"{size:.1f} MB, open {opened:.2f} s, jump {np.median(jumps):.3f} to {max(jumps):.3f} s")
    assert size < 30
    assert opened < 5
    assert max(jumps) < 1


def test_bad_input(tmp_path):
    game = made_up(5)
    (tmp_path / "file").touch()
    for recordings, path, message in (
        ([], "game.html", "one recording or two, not 0"),
        ([game] * 3, "game.html", "one recording or two, not 3"),
        ([game, made_up(5, game="Breakout")], "game.html", "one game, not"),
        ([game], "file/game.html", "cannot write"),
    ):
        with pytest.raises(UserError, match=message):
            write_explorer(recordings, tmp_path / path)
    with pytest.raises(UserError, match="no policy mask"):
        write_explorer([made_up(5, mask="value")], tmp_path / "game.html", branch="policy")
    assert not (tmp_path / "game.html").exists()
