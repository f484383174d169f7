"""The episode explorer, opened in a browser as a person would open it."""

import base64
import dataclasses
import io
import pathlib
import shutil
import time

import numpy as np
import pytest
from PIL import Image
from recordings import made_up

from maskrl.errors import UserError
from maskrl.explain.explorer import CHUNK, write_explorer
from maskrl.explain.frames import choose
from maskrl.explain.overlay import ABSOLUTE, contrast_scale, overlay

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PIXELS = """
const canvas = document.querySelectorAll(`canvas[data-panel=${arguments[0]}]`)[arguments[1]];
return canvas.toDataURL("image/png").split(",")[1];
"""
SCRUB = """
const [step, done] = arguments, scrub = document.getElementById("scrub"), start = performance.now();
scrub.value = step;
scrub.dispatchEvent(new Event("input"));
const wait = () => document.getElementById("curves").dataset.step == step
  ? done(performance.now() - start) : requestAnimationFrame(wait);
wait();
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, 1280 x 900."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no chromium and chromedriver: install Debian's packages of these names")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, "--window-size=1280,900"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.set_script_timeout(20)
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, tmp_path):
    """Writes an explorer and opens it; in the end, the browser must have had nothing to say."""

    def open_page(*recordings, **options) -> "Page":
        path = write_explorer(recordings, tmp_path / "game.html", **options)
        return Page(browser, path)

    yield open_page
    assert browser.get_log("browser") == []


class Page:
    """An opened explorer."""

    def __init__(self, browser, path: pathlib.Path):
        self.browser = browser
        start = time.perf_counter()
        browser.get(path.as_uri())
        self.wait_for(0)
        self.opened_in = time.perf_counter() - start

    def run(self, script: str, *arguments):
        return self.browser.execute_script(script, *arguments)

    def find(self, css: str):
        return self.browser.find_element("css selector", css)

    def wait_for(self, step: int) -> None:
        deadline = time.perf_counter() + 20
        while (self.cursor() or {}).get("step") != str(step):
            assert time.perf_counter() < deadline, f"step {step} is not drawn: {self.cursor()}"
            time.sleep(0.01)

    def cursor(self) -> dict:
        return self.run("return {...document.getElementById('curves').dataset}")

    def scrub(self, step: int) -> float:
        """Goes to a step; milliseconds until it is drawn."""
        return self.browser.execute_async_script(SCRUB, step)

    def press(self, *keys: str) -> None:
        self.find("body").send_keys(*keys)

    def pixels(self, panel: str, play: int = 0) -> np.ndarray:
        """The canvas, uint8 [210, 160, 3]."""
        png = base64.b64decode(self.run(PIXELS, panel, play))
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def choose(self, name: str) -> None:
        self.find(f"input[value={name}]").find_element("xpath", "..").click()
        self.run("return new Promise(requestAnimationFrame)")

    def set(self, name: str, value) -> None:
        self.run(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind));"
            "return new Promise(requestAnimationFrame)",
            *(name, value),
        )


def test_frames_and_masks_are_exact(show):
    game = made_up(CHUNK + 30)
    page = show(game)
    for step in (0, 17, CHUNK - 1, CHUNK, CHUNK + 29, 3):
        page.scrub(step)
        np.testing.assert_array_equal(page.pixels("game"), game.frames[step])
        for name, mask in game.masks().items():
            want = overlay(game.frames[step], mask[step], game.view, contrast_scale(mask))
            np.testing.assert_allclose(page.pixels(name).astype(int), want, atol=1)


def test_planted_cell_is_at_its_pixels(show):
    mask = np.zeros((40, 10, 10), np.float32)
    mask[5, 2, 7] = 1
    game = made_up(policy_mask=mask, frames=np.full((40, 210, 160, 3), 77, np.uint8))
    page = show(game, contrast=False)
    page.set("opacity", 100)
    page.scrub(5)
    bright = page.pixels("policy").astype(int).sum(axis=2) > 400
    rows, columns = np.nonzero(bright)
    top, bottom = game.view
    cell = (bottom - top) / 10
    assert (columns.min(), columns.max()) == (7 * 16, 8 * 16 - 1)
    assert rows.min() == pytest.approx(top + 2 * cell, abs=0.51)
    assert rows.max() + 1 == pytest.approx(top + 3 * cell, abs=0.51)
    assert bright.sum() == (np.ptp(rows) + 1) * 16
    outside = np.r_[:top, bottom:210]
    assert (page.pixels("policy")[outside] == 77).all()


def test_settings_change_the_picture(show):
    game = made_up()
    page = show(game)
    page.scrub(8)
    page.set("scale", "absolute")
    page.set("opacity", 30)
    want = overlay(game.frames[8], game.value_mask[8], game.view, ABSOLUTE, 0.3)
    np.testing.assert_allclose(page.pixels("value").astype(int), want, atol=1)
    page.choose("both")
    assert not page.find("canvas[data-panel=policy]").is_displayed()
    both = page.pixels("both").astype(int)
    policy = overlay(game.frames[8], game.policy_mask[8], game.view, ABSOLUTE, 0.3).astype(int)
    first, last = game.view[0], game.view[1] - 1  # the first cell's policy, the last one's value
    np.testing.assert_allclose(both[first, 0], policy[first, 0], atol=1)
    np.testing.assert_allclose(both[last, 159], want[last, 159], atol=1)


def test_scrubbing_moves_the_cursor(show):
    page = show(made_up(300))
    places = []
    for step in (0, 60, 299):
        page.scrub(step)
        places.append(float(page.cursor()["x"]))
        assert f"step {step} of 300" in page.find("#step").text
    assert places == sorted(set(places))
    curves = page.find("#curves")
    webdriver.ActionChains(page.browser).move_to_element(curves).click().perform()
    assert 100 < int(page.find("#scrub").get_attribute("value")) < 200


def test_keys(show):
    game = made_up(400)
    page = show(game)
    telling = [frame.index for frame in choose(game, 10)]
    steps = {
        Keys.ARROW_RIGHT: 1,
        Keys.END: 399,
        Keys.ARROW_LEFT: 398,
        Keys.HOME: 0,
        "n": next(step for step in telling if step > 0),
    }
    for key, step in steps.items():
        page.press(key)
        page.wait_for(step)
    reason = next(frame.reason for frame in choose(game, 10) if frame.index == step)
    assert reason in page.find("#step").text
    page.scrub(200)
    page.press(Keys.SHIFT, Keys.ARROW_RIGHT)
    page.wait_for(215)
    page.press("p")
    page.wait_for(max(step for step in telling if step < 215))
    page.press("?")
    assert page.find("#help").is_displayed()
    page.press(Keys.ESCAPE)
    assert not page.find("#help").is_displayed()
    page.press(" ")
    assert page.find("#play").text == "Pause"
    time.sleep(0.5)
    page.press(" ")
    assert page.find("#play").text == "Play"
    assert page.cursor()["step"] != str(step)


def test_numbers_and_the_chosen_action(show):
    game = made_up()
    page = show(game)
    page.scrub(9)
    chosen = page.find(".actions .chosen")
    assert game.action_names[game.action[9]] in chosen.text
    assert f"{game.probabilities[9, game.action[9]]:.2f}" in chosen.text
    time.sleep(0.4)  # said once the page stands still
    assert f"value {game.value[9]:.2f}" in page.find("#state").get_attribute("textContent")


def test_telling_frames_are_listed(show):
    page = show(made_up(400))
    buttons = page.browser.find_elements("css selector", "#telling button")
    assert len(buttons) == 10
    buttons[3].click()
    step = buttons[3].text.split()[1]
    page.wait_for(int(step))
    assert buttons[3].get_attribute("aria-current") == "step"


def test_two_games_side_by_side(show):
    long = made_up(90)
    short = made_up(30, mode="inverse", policy_mask=1 - long.policy_mask[:30])
    page = show(long, short)
    page.scrub(20)
    for play, game in enumerate((long, short)):
        np.testing.assert_array_equal(page.pixels("game", play), game.frames[20])
    overs = page.browser.find_elements("css selector", ".over")
    assert [over.is_displayed() for over in overs] == [False, False]
    page.scrub(60)
    assert [over.is_displayed() for over in overs] == [False, True]
    assert "Game over after 30 steps" in overs[1].text
    np.testing.assert_array_equal(page.pixels("game", 0), long.frames[60])
    np.testing.assert_array_equal(page.pixels("game", 1), short.frames[29])
    assert "policy mask inverted" in page.find("#plays").text


def test_agent_without_masks(show):
    page = show(made_up(mask="none"))
    assert not page.find(".tools").is_displayed()
    assert page.pixels("game").any()


def test_more_colours_than_a_byte_numbers(show):
    frames = np.random.default_rng(0).integers(0, 256, (5, 210, 160, 3), np.uint8)
    page = show(made_up(5, frames=frames))
    page.scrub(4)
    np.testing.assert_array_equal(page.pixels("game"), frames[4])


def test_phone_and_theme(show):
    page = show(made_up(90), made_up(30, mode="inverse"))
    size = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert page.run("return document.documentElement.scrollWidth") <= 375
        page.choose("policy")
        assert page.run("return document.documentElement.scrollWidth") <= 375
        before = page.find("body").value_of_css_property("background-color")
        page.find("#theme").click()
        assert page.find("body").value_of_css_property("background-color") != before
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_text_of_a_recording_is_no_markup(show):
    page = show(made_up(agent="</title><script>alert(1)</script>"))
    assert "</title><script>" in page.find("h1").text


def test_refuses(tmp_path):
    game = made_up(3)
    for recordings, words in (
        ([], "one recording or two, not 0"),
        ([game] * 3, "one recording or two, not 3"),
        ([game, dataclasses.replace(game, game="Breakout")], "Breakout and SpaceInvaders"),
        ([made_up(3, mask="value")], "no policy mask"),
    ):
        with pytest.raises(UserError, match=words):
            write_explorer(recordings, tmp_path / "game.html", branch="policy")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_explorer([game], tmp_path / "file" / "game.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_explorer([game], tmp_path / "folder.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.html"]


@pytest.mark.slow
def test_ten_thousand_frames(browser, tmp_path):
    """Opens in under 5 seconds, scrubs without stalls, and is under 30 MB."""
    rng = np.random.default_rng(0)
    frames = np.zeros((10_000, 210, 160, 3), np.uint8)
    y, x = 20, 20
    for frame in frames:  # objects that move, as a game's do
        y, x = (y + 3) % 180, (x + 2) % 140
        frame[150:160, ::8] = 180
        frame[y : y + 12, x : x + 8] = (200, 72, 72)
        for row, column in rng.integers(0, 150, (10, 2)):
            frame[row : row + 6, column : column + 4] = (72, 160, 72)
    masks = {
        f"{name}_mask": rng.random((10_000, 10, 10), np.float32) for name in ("policy", "value")
    }
    path = write_explorer([made_up(10_000, frames=frames, **masks)], tmp_path / "long.html")
    page = Page(browser, path)
    waits = [page.scrub(step) for step in rng.integers(0, 10_000, 60).tolist()]
    size = path.stat().st_size / 1e6
    print(
        f"\n{size:.1f} MB, opened in {page.opened_in:.2f} s; jumps: median "
        f"{np.median(waits):.0f} ms, worst {max(waits):.0f} ms"
    )
    assert size < 30
    assert page.opened_in < 5
    assert np.median(waits) < 200
    assert max(waits) < 1000
    np.testing.assert_array_equal(
        page.pixels("game"), frames[int(page.find("#scrub").get_attribute("value"))]
    )
