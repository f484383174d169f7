"""The episode explorer, opened in a browser as a person would open it."""

import base64
import dataclasses
import io
import itertools
import json
import pathlib
import re
import shutil
import socket
import subprocess
import time
import xml.etree.ElementTree

import numpy as np
import pytest
from golden_pictures import FOLDER, TOLERANCE, difference, most_different
from PIL import Image
from recordings import made_up, things

from maskrl.errors import UserError
from maskrl.explain import quantities, sights
from maskrl.explain.explorer import CHUNK, write_explorer
from maskrl.explain.frames import choose
from maskrl.explain.overlay import STYLES, Drawn, cover, layers, overlay
from maskrl.recording import Film

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
import websocket  # noqa: E402, selenium's own
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin  # noqa: E402
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
    """Headless Chromium, 1400 x 900."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.skip("no chromium and chromedriver: install Debian's packages of these names")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, "--window-size=1400,900"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    driver.set_script_timeout(20)
    size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield driver
    driver.quit()


@pytest.fixture
def show(browser, tmp_path):
    """Writes an explorer and opens it; in the end, the browser must have had nothing to say."""

    def open_page(*recordings, address="", step=0, **options) -> "Page":
        path = write_explorer(recordings, tmp_path / "game.html", **options)
        return Page(browser, path, address, step)

    yield open_page
    assert browser.get_log("browser") == []


class Page:
    """An opened explorer."""

    def __init__(self, browser, path: pathlib.Path, address: str = "", step: int = 0):
        self.browser = browser
        browser.get("about:blank")  # another address of the same page is no new page
        start = time.perf_counter()
        browser.get(path.as_uri() + address)
        self.wait_for(step)
        self.opened_in = time.perf_counter() - start
        self.path = path

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

    def choose(self, *names: str) -> None:
        """Shows these panels."""
        for box in self.all("#show input"):
            if box.is_selected() != (box.get_attribute("value") in names):
                box.find_element("xpath", "..").click()
        self.run("return new Promise(requestAnimationFrame)")

    def all(self, css: str) -> list:
        return self.browser.find_elements("css selector", css)

    def box(self, css: str) -> dict:
        """Where an element stands: top, bottom, left, right."""
        return self.run(
            "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", css
        )

    def click(self, name: str) -> None:
        self.find(f"#{name}").click()
        self.run("return new Promise(requestAnimationFrame)")

    def state(self, name: str):
        """A field of the page's state, as its address tells it."""
        time.sleep(0.5)  # written once the page stands still
        return self.run(
            "return new URLSearchParams(location.hash.slice(1)).get(arguments[0])", name
        )

    def on_curves(self, *moves: tuple[str, float, float]) -> None:
        """Acts on the time line, at parts of its plot's width and of its height."""
        box, gutter = self.box("#curves"), 132
        chain = webdriver.ActionChains(self.browser)
        chain.w3c_actions.pointer_action._duration = 0
        for act, across, down in moves:
            x = box["left"] + gutter + across * (box["width"] - gutter - 46)
            chain.w3c_actions.pointer_action.move_to_location(
                round(x), round(box["top"] + down * box["height"])
            )
            if act == "down":
                chain.w3c_actions.pointer_action.pointer_down()
            elif act == "up":
                chain.w3c_actions.pointer_action.pointer_up()
        chain.perform()
        self.run("return new Promise(requestAnimationFrame)")

    def set(self, name: str, value) -> None:
        self.run(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind));"
            "return new Promise(requestAnimationFrame)",
            *(name, value),
        )


def what_ifs(length: int, **fields):
    """A game with what would be without the mask, and with its cells switched off."""
    game = made_up(length, **fields)
    rng = np.random.default_rng(1)
    cells = rng.normal(size=(length, 10, 10, 6)).astype(np.float16) / 10
    without = (game.logits + rng.normal(size=(length, 6))).astype(np.float32)
    return dataclasses.replace(
        game,
        unmasked_logits=without,
        inverted_logits=-without,
        unmasked_value=game.value + 1,
        inverted_value=game.value - 1,
        cell_logits=cells,
        cell_values=cells[..., 0] if game.value_mask is not None else None,
    )


def test_frames_and_masks_are_exact(show):
    game = made_up(CHUNK + 30)
    page = show(game)
    page.choose("game", "policy", "value", "both")
    shown = layers(game)
    for step in (0, 17, CHUNK - 1, CHUNK, CHUNK + 29, 3):
        page.scrub(step)
        np.testing.assert_array_equal(page.pixels("game"), game.frames[step])
        for name in ("policy", "value", "both"):
            of = [shown[name].at(step)] if name != "both" else [m.at(step) for m in shown.values()]
            want = overlay(game.frames[step], of, game.view)
            np.testing.assert_allclose(page.pixels(name).astype(int), want, atol=1)


@pytest.mark.parametrize("style", STYLES)
def test_styles_are_drawn_as_everywhere(show, style):
    game = made_up()
    page = show(game)
    page.choose("policy", "both")
    page.set("style", style)
    page.set("scale", "absolute")
    page.set("strength", 30)
    page.scrub(8)
    drawn = [layer.at(8) for layer in layers(game, contrast=False, style=style).values()]
    for name, masks in (("policy", drawn[:1]), ("both", drawn)):
        want = overlay(game.frames[8], masks, game.view, 0.3)
        np.testing.assert_allclose(page.pixels(name).astype(int), want, atol=1)


def test_planted_cell_is_at_its_pixels(show):
    mask = np.zeros((40, 10, 10), np.float32)
    mask[5, 2, 7] = 1
    game = made_up(policy_mask=mask, frames=np.full((40, 210, 160, 3), 77, np.uint8))
    page = show(game, contrast=False, style="colours")
    page.set("strength", 100)
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


def test_everything_is_on_one_screen(show):
    """At 1400 x 900 and with the console's 18 actions: nothing is below, nothing scrolls."""
    sides = ("", "UP", "RIGHT", "LEFT", "DOWN", "UPRIGHT", "UPLEFT", "DOWNRIGHT", "DOWNLEFT")
    names = tuple((side + fire) or "NOOP" for fire in ("", "FIRE") for side in sides)
    logits = np.random.default_rng(0).normal(size=(90, 18)).astype(np.float32)
    one = made_up(90, action_names=names, logits=logits)
    page = show(one, dataclasses.replace(one, mode="inverse"))
    for games in ("1", ""):
        page.set("second-game", games)
        time.sleep(0.3)
        heights = page.run(
            "return [document.documentElement.scrollHeight, innerHeight, "
            "document.querySelector('.side').scrollHeight, "
            "document.querySelector('.side').clientHeight]"
        )
        assert heights[0] <= heights[1]
        assert heights[2] <= heights[3]
        assert page.box("#curves")["bottom"] <= 900
        assert len(page.all(".stick:first-child .key > span")) == 18 * (1 + bool(games))
    tall = page.box("canvas[data-panel=policy]")["height"]
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 1900, "height": 1200, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        time.sleep(0.3)
        assert page.box("canvas[data-panel=policy]")["height"] > 1.2 * tall
    finally:
        size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_hovering_reads_the_cell_and_moves_nothing(show):
    game = made_up()
    page = show(game)
    before = {css: page.box(css) for css in (".frame", "#curves", "#moments")}
    box = page.box("canvas[data-panel=policy]")
    zoom = box["width"] / 160
    assert box["height"] == pytest.approx(210 * zoom, abs=1)
    for row, column in ((0, 0), (4, 7), (9, 9)):
        top, bottom = game.view
        y = box["top"] + zoom * (top + (row + 0.5) * (bottom - top) / 10)
        x = box["left"] + zoom * (column + 0.5) * 16
        chain = webdriver.ActionChains(page.browser)
        chain.w3c_actions.pointer_action.move_to_location(round(x), round(y))
        chain.perform()
        words = page.find("canvas[data-panel=policy]").find_element("xpath", "..").text
        assert (
            f"row {row + 1}, column {column + 1}: {game.policy_mask[0, row, column]:.3f}" in words
        )
        assert before == {css: page.box(css) for css in before}


def test_scrubbing_moves_the_cursor(show):
    page = show(made_up(300))
    places = []
    for step in (0, 60, 299):
        page.scrub(step)
        places.append(float(page.cursor()["x"]))
        assert f"step {step} of 300" in page.find("#step").text
    assert places == sorted(set(places))
    page.on_curves(("down", 0.5, 0.05), ("up", 0.5, 0.05))
    assert int(page.find("#scrub").get_attribute("value")) == pytest.approx(150, abs=2)


def test_time_line_zooms_and_pans(show):
    page = show(made_up(1000))
    page.scrub(500)
    page.click("zoom-in")
    assert page.state("window") == "250,750"
    page.press("+")
    assert page.state("window") == "375,625"
    page.click("zoom-out")
    assert page.state("window") == "250,750"
    page.press("0")
    assert page.state("window") is None
    box = page.box("#curves")
    origin = ScrollOrigin.from_element(page.find("#curves"))
    webdriver.ActionChains(page.browser).scroll_from_origin(origin, 0, -600).perform()
    time.sleep(0.2)
    start, stop = map(int, page.state("window").split(","))
    assert 200 < stop - start < 600
    assert start < 500 < stop
    assert page.box("#curves") == box
    page.click("whole")
    assert page.state("window") is None
    page.scrub(0)
    page.set("scrub", 999)
    page.wait_for(999)


def test_brush_shows_means(show):
    game = made_up(200)
    page = show(game)
    page.on_curves(("down", 0.25, 0.05), ("move", 0.4, 0.05), ("up", 0.5, 0.05))
    start, stop = map(int, page.state("brush").split(","))
    assert (start, stop) == (pytest.approx(50, abs=2), pytest.approx(100, abs=2))
    layer = layers(game)["policy"]
    mean = layer.mask[start : stop + 1].mean(axis=0)
    want = overlay(game.frames[0], [Drawn(mean, layer.scale)], game.view)
    np.testing.assert_allclose(page.pixels("policy").astype(int), want, atol=2)
    policy = game.probabilities[start : stop + 1].mean(axis=0)
    assert f"{policy.max():.2f}" in page.find(".facts table").text
    page.click("zoom-brush")
    window = list(map(int, page.state("window").split(",")))
    assert window == [start, stop]
    page.press(Keys.ESCAPE)
    assert page.state("brush") is None


def test_a_brush_ends_with_the_play(show, browser):
    """A shorter play has its own part of it; one that ended before has none."""
    games = made_up(200), made_up(60, value=np.linspace(-1, 1, 60, dtype=np.float32))
    page = show(*games, address="#step=5&brush=50,100&show=policy", step=5)
    means = ["mean of 50\N{EN DASH}100", "mean of 50\N{EN DASH}59"]
    captions = [caption.text for caption in page.all("figcaption b") if caption.is_displayed()]
    assert captions == [f"{mean}, policy mask" for mean in means]
    assert [words.text for words in page.all(".facts .chosen")] == means
    layer = layers(games[1], beside=games)["policy"]
    mean = layer.mask[50:60].mean(axis=0)
    want = overlay(games[1].frames[5], [Drawn(mean, layer.scale)], games[1].view)
    np.testing.assert_allclose(page.pixels("policy", 1).astype(int), want, atol=2)
    value = f"{games[1].value[50:60].mean():.2f}"
    assert value in page.all(".facts .value")[1].text

    page = Page(browser, page.path, "#step=5&brush=70,100&show=policy", 5)
    captions = [caption.text for caption in page.all("figcaption b") if caption.is_displayed()]
    assert captions == ["mean of 70\N{EN DASH}100, policy mask", "ended before 70, policy mask"]
    assert page.all(".facts .chosen")[1].text == "ended before 70"
    assert page.all(".facts .value")[1].text == "value"  # of no steps
    np.testing.assert_array_equal(page.pixels("policy", 1), games[1].frames[5])


def test_a_cell_has_its_course_and_its_highest_moments(show):
    game = what_ifs(400)
    page = show(game)
    page.on_curves(("down", 0.5, 0.55), ("up", 0.5, 0.55))  # in the image of cells by time
    cell = int(page.state("cell"))
    assert 0 <= cell < 100
    assert f"row {cell // 10 + 1}, column {cell % 10 + 1}" in page.find("#selection-words").text
    highest = quantities.highest(game.policy_mask, 5, 30)[cell]
    page.set("kind", "cell")
    listed = [int(item.text.split()[1]) for item in page.all("#moments-list .moment")]
    assert listed == sorted(set(highest.tolist()))
    step = choose(game, 16)[3].index
    page.scrub(step)
    off = np.exp(quantities.cells_off(game, step)[cell])
    words = page.find(".facts").text
    assert "cell off" in words
    assert f"{off[game.action[step]] / off.sum():.2f}" in words
    value = game.value[step] - game.cell_values[step].ravel()[cell]
    assert float(rows(page)["value"][-1]) == pytest.approx(value, abs=0.006)
    page.click("clear")
    assert page.state("cell") is None


def surrounded(page, game, step: int) -> list[int]:
    """The cells in which the bare game has a line around a sight."""
    changed = (page.pixels("game") != game.frames[step]).any(axis=-1)
    return np.unique(cover(game.view)[changed]).tolist()


def borders(of_kind: np.ndarray) -> list[int]:
    """Of these cells, bool [100], those that are beside another one, or at the view's edge."""
    cells = np.pad(of_kind.reshape(10, 10), 1)
    inner = cells[:-2, 1:-1] & cells[2:, 1:-1] & cells[1:-1, :-2] & cells[1:-1, 2:]
    return np.flatnonzero(of_kind & ~inner.ravel()).tolist()


def test_what_is_looked_at(show, browser):
    """The legend of kinds: their shares, where they are and when, by pointer and by keys."""
    game, kinds = things()
    page = show(game)
    page.choose("game", "policy")
    page.scrub(23)
    page.click("tab-sights")
    assert not page.find("#moments").is_displayed()
    found, (label,) = sights.group([sights.see(game, game.masks())])
    mask = game.policy_mask.reshape(len(game), -1)
    items = page.all("#sights-list .sight")
    assert len(items) == len(found) == 4
    for item, share in zip(items, sights.summary(mask, label, 4), strict=True):
        webdriver.ActionChains(browser).move_to_element(item).perform()
        words = page.find("#sight-facts").text
        of_mask, of_screen = (
            f"{100 * part:.{int(part < 0.095)}f}".removesuffix(".0")
            for part in (share.mask, share.screen)
        )
        assert f"{of_mask} % of the policy mask on {of_screen} % of the screen" in words
        assert f"high in {100 * share.steps:.0f} % of steps" in words
        assert words in item.get_attribute("aria-label")
        assert item.text == f"\N{MULTIPLICATION SIGN}{share.mask / share.screen:.1f}"
    webdriver.ActionChains(browser).move_to_element(page.find("h1")).perform()

    before = {css: page.box(css) for css in (".frame", "#curves", "#sights-list li:last-child")}
    curves = "return document.getElementById('curves').toDataURL()"
    still = page.run(curves)
    assert surrounded(page, game, 23) == []
    for number, item in enumerate(items):
        webdriver.ActionChains(browser).move_to_element(item).perform()
        page.run("return new Promise(requestAnimationFrame)")
        assert surrounded(page, game, 23) == borders(label[23] == number)
        assert page.run(curves) != still
    assert before == {css: page.box(css) for css in before}
    webdriver.ActionChains(browser).move_to_element(page.find("h1")).perform()
    page.run("return new Promise(requestAnimationFrame)")
    assert surrounded(page, game, 23) == []

    shot = int(label[kinds == 2][0])
    page.run("document.querySelectorAll('#sights-list .sight')[arguments[0]].focus()", shot)
    page.run("return new Promise(requestAnimationFrame)")
    assert surrounded(page, game, 23) == borders(kinds[23] == 2)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.state("sight") == str(shot)
    chosen = browser.switch_to.active_element  # the list is built anew, the focus stays
    assert chosen.get_attribute("aria-pressed") == "true"
    highest = quantities.highest(sights.shares(mask, label, 4), 5, 30)[shot]
    times = page.all("#sight-facts button")
    assert [int(button.text) for button in times] == sorted(set(highest.tolist()))
    times[-1].click()
    page.wait_for(max(highest))
    address = page.run("return location.hash")
    page.press(Keys.ESCAPE)
    assert page.state("sight") is None
    again = Page(browser, page.path, f"#step=23&sight={shot}", 23)
    assert again.find("#sights").is_displayed()
    again.choose("game")
    assert surrounded(again, game, 23) == borders(kinds[23] == 2)
    assert f"sight={shot}" in address
    again.press("l")
    assert again.find("#moments").is_displayed()


def test_a_kind_that_is_not_there_has_no_moments(tmp_path):
    """In the second play there is but the sky."""
    game, _ = things()
    sky = np.full_like(game.frames, (0, 0, 120))
    path = write_explorer([game, dataclasses.replace(game, frames=sky)], tmp_path / "a.html")
    header = re.search('id="header">(.*?)</script>', path.read_text(encoding="utf-8"))[1]
    first, second = (one["lookedAt"]["policy"] for one in json.loads(header)["recordings"])
    assert all(of["highest"] for of in first)
    assert [bool(of["highest"]) for of in second] == [of["mask"] > 0 for of in second]
    assert sum(of["mask"] > 0 for of in second) == 1


def test_the_time_line_shows_when_a_kind_is_looked_at(show):
    """A click on a row of the image chooses its kind; games side by side share the kinds."""
    (game, _), (other, _) = things(), things(1)
    page = show(game, dataclasses.replace(other, mode="inverse", seed=0))
    page.set("second-game", "")
    bands = 4 + 2.6 + 1.3 + 3  # curves, cells by time, what is looked at, curves
    third = (4 + 2.6 + 1.3 * 2.5 / 4) / bands  # of its four rows
    height = page.box("#curves")["height"]
    down = (2 + third * (height - 20)) / height
    page.on_curves(("down", 0.5, down), ("up", 0.5, down))
    assert page.state("sight") == "2"
    assert page.find("#sights").is_displayed()
    page.set("second-game", "1")
    time.sleep(0.3)
    assert len(page.all("#sights-list .sight")) == 4
    assert len(page.all("#sights-list li:first-child span")) == 2  # a number for each play


def test_plays_share_the_scale_of_what_is_looked_at(show, tmp_path):
    """The greatest share of the mask on a kind, which the time line's height stands for."""
    (game, _), (other, _) = things(), things(1)
    other = dataclasses.replace(other, mode="inverse", policy_mask=other.policy_mask**3)
    page = show(game, other, address="#step=9&plays=0,1&sight=1", step=9)
    header = json.loads(page.run("return document.getElementById('header').textContent"))
    mosts = [one["lookedAt"]["policy"][1]["most"] for one in header["recordings"]]
    assert round(100 * mosts[0]) != round(100 * mosts[1])
    words = list(xml.etree.ElementTree.parse(saved(page, tmp_path, "svg")).getroot().itertext())
    said = [word for word in words if word.endswith(" %")]
    assert said[1::2] == [f"{100 * max(mosts):.0f} %"] * 2  # beside what each has now


def test_what_would_be_without_the_mask(show):
    game = what_ifs(60)
    page = show(game)
    page.click("all-actions")
    page.scrub(33)
    rows = {row.text.split()[0]: row.text.split()[1:] for row in page.all(".facts tbody tr")}
    unmasked = np.exp(game.unmasked_logits[33]) / np.exp(game.unmasked_logits[33]).sum()
    inverted = np.exp(game.inverted_logits[33]) / np.exp(game.inverted_logits[33]).sum()
    for index, name in enumerate(game.action_names):
        numbers = (game.probabilities[33, index], unmasked[index], inverted[index])
        assert rows[name] == [f"{number:.2f}" for number in numbers]
    value = float(rows["value"][1].replace("\N{MINUS SIGN}", "-"))
    assert value == pytest.approx(game.value[33] + 1, abs=0.006)
    hangs = quantities.divergence(game.logits, game.unmasked_logits)[33]
    assert f"{hangs:.3f}".rstrip("0") in page.find(".hangs").text
    assert len(page.all(".facts tbody tr")) == 7
    page.click("all-actions")
    assert len(page.all(".facts tbody tr")) == 5


def rows(page) -> dict[str, list[str]]:
    """The table of the facts: its numbers by the row's name, and what stands above the numbers."""
    found = {}
    for row in page.all(".facts tr"):
        name, *cells = row.find_elements("css selector", "th, td")
        found[name.text] = [cell.text.replace("\N{MINUS SIGN}", "-") for cell in cells]
    return found


@pytest.mark.parametrize("branch", ["policy", "value", "both"])
def test_the_agents_own_mask_in_inverted_play(show, branch):
    """A branch that was not inverted was played with it."""
    game = what_ifs(60, mode="inverse", branch=branch)
    page = show(game, step=0)
    page.scrub(33)
    table = rows(page)
    assert table[""] == ["played", "no mask", "M"]
    inverted = np.exp(game.inverted_logits[33]) / np.exp(game.inverted_logits[33]).sum()
    own = game.probabilities[33] if branch == "value" else inverted
    index = int(own.argmax())
    assert table[game.action_names[index]][2] == f"{own[index]:.2f}"
    value = game.value[33] if branch == "policy" else game.inverted_value[33]
    assert float(table["value"][2]) == pytest.approx(value, abs=0.006)


def test_what_would_be_without_the_values_mask_alone(show):
    made = what_ifs(60, mask="value")
    game = dataclasses.replace(made, unmasked_logits=None, inverted_logits=None, cell_logits=None)
    page = show(game)
    page.scrub(33)
    table = rows(page)
    assert table[""] == ["played", "no mask", "1 - M"]
    action = game.action_names[game.probabilities[33].argmax()]
    assert table[action] == [f"{game.probabilities[33].max():.2f}", "", ""]
    values = [game.value[33], game.unmasked_value[33], game.inverted_value[33]]
    assert [float(cell) for cell in table["value"]] == pytest.approx(values, abs=0.006)
    assert page.find(".facts .hangs").text == ""


def test_an_old_recording_has_no_what_ifs(show):
    page = show(made_up(60))
    assert "no mask" not in page.find(".facts").text
    assert page.find(".facts .hangs").text == ""


def test_curves_can_be_chosen(show):
    page = show(made_up(60))
    page.find(".timeline summary").click()
    names = [label.text for label in page.all("#bands label")]
    assert "state value" in names
    assert "advantage" in names
    before = page.run("return document.getElementById('curves').toDataURL()")
    for box in page.all("#bands input"):
        box.click()
        assert page.cursor()["step"] == "0"
    assert page.run("return document.getElementById('curves').toDataURL()") != before
    page.press("0")
    page.set("branch", "value")
    assert page.state("branch") == "value"
    assert page.state("curves") == ""
    page.all("#bands input")[1].click()
    chosen = page.state("curves")
    again = Page(page.browser, page.path, f"#curves={chosen}")
    shown = [box.is_selected() for box in again.all("#bands input")]
    assert shown == [n == 1 for n in range(len(names))]
    assert again.state("curves") == chosen


def test_keys(show):
    game = made_up(400)
    page = show(game)
    steps = [int(item.text.split()[1]) for item in page.all("#moments-list .moment")]
    wanted = {
        Keys.ARROW_RIGHT: 1,
        Keys.END: 399,
        Keys.ARROW_LEFT: 398,
        Keys.HOME: 0,
        "n": next(step for step in steps if step > 0),
    }
    for key, step in wanted.items():
        page.press(key)
        page.wait_for(step)
    page.scrub(200)
    page.press(Keys.SHIFT, Keys.ARROW_RIGHT)
    page.wait_for(215)
    page.press("p")
    page.wait_for(max(step for step in steps if step < 215))
    page.press("?")
    assert page.find("#help").is_displayed()
    page.press(Keys.ESCAPE)
    assert not page.find("#help").is_displayed()
    before = page.cursor()["step"]
    page.press(" ")
    assert page.find("#play").text == "Pause"
    time.sleep(0.5)
    page.press(" ")
    assert page.find("#play").text == "Play"
    assert page.cursor()["step"] != before


def test_transport(show):
    page = show(made_up(400))
    page.click("on")
    page.wait_for(1)
    page.click("back")
    page.wait_for(0)
    page.click("next")
    first = next(
        step
        for item in page.all("#moments-list .moment")
        if (step := int(item.text.split()[1])) > 0
    )
    page.wait_for(first)
    page.click("on")
    page.click("previous")
    page.wait_for(first)
    page.set("speed", "16")
    page.click("play")
    page.wait_for(399)  # and stops there
    assert page.find("#play").text == "Play"


def test_numbers_and_the_chosen_action(show):
    game = made_up()
    page = show(game)
    page.scrub(9)
    chosen = page.find(".facts .chosen")
    assert game.action_names[game.action[9]] in chosen.text
    assert f"{game.probabilities[9, game.action[9]]:.2f}" in chosen.text
    assert len(page.all(".pressed")) == 1
    title = page.find(".pressed").get_attribute("title")
    assert title.split()[0] == game.action_names[game.action[9]]
    time.sleep(0.4)  # said once the page stands still
    assert f"value {game.value[9]:.2f}" in page.find("#state").get_attribute("textContent")


def test_the_present_moment_is_in_sight(show, browser):
    """On a small screen, too, where the list shows three of them."""
    page = show(made_up(400))
    size = {"width": 1366, "height": 650, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for _ in range(6):
            page.press("n")
            page.run("return new Promise(requestAnimationFrame)")
            seen, here = page.box("#moments-list"), page.box("#moments-list [aria-current]")
            assert seen["top"] <= here["top"] <= here["bottom"] <= seen["bottom"]
    finally:
        size |= {"width": 1400, "height": 900}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_moments_are_listed_filtered_and_sorted(show):
    game = made_up(400)
    page = show(game)
    found = choose(game, 16)
    assert [int(item.text.split()[1]) for item in page.all("#moments-list .moment")] == [
        frame.index for frame in found
    ]
    third = page.all("#moments-list .moment")[3]
    third.click()
    page.wait_for(found[3].index)
    assert third.get_attribute("aria-current") == "step"
    assert found[3].reason in page.find("#step").text
    for button, step in zip(
        page.all("#moments-list li")[3].find_elements("css selector", ".pair button"),
        (found[3].before, found[3].after),
        strict=True,
    ):
        button.click()
        page.wait_for(step)
    page.set("kind", "life")
    lives = [frame.index for frame in found if frame.kind == "life"]
    assert len(lives) >= 3
    assert [int(item.text.split()[1]) for item in page.all("#moments-list .moment")] == lives
    page.set("kind", "all")
    page.set("order", "kind")
    kinds = [item.get_attribute("class") for item in page.all("#moments-list li")]
    assert kinds == sorted(kinds, key=kinds.index)  # each kind together
    assert kinds[0] == "life"
    time.sleep(1)  # small pictures come when there is time
    small = "return document.querySelector('.thumb').getContext('2d').getImageData(9,9,1,1).data[2]"
    assert page.run(small) > 0


def test_a_note_beyond_a_shorter_play_has_its_last_frame(show):
    """And the small pictures after it are drawn, too."""
    games = made_up(40), made_up(90)
    address = '#notes=[{"step":80,"text":"late"}]'
    page = show(*games, address=address)
    time.sleep(2)
    blank = (
        "return [...document.querySelectorAll('#moments-list .thumb')].filter((thumb) =>"
        " !thumb.getContext('2d').getImageData(9, 9, 1, 1).data[3]).length"
    )
    assert "step 80" in page.find("#moments-list").text
    assert page.run(blank) == 0


def test_a_moment_brings_its_pictures_on_the_screen(show):
    page = show(made_up(400))
    size = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        time.sleep(0.3)
        for css in ("#moments-list .moment", "#sights-list .sight"):
            last = page.all(css)[-1]
            page.run("arguments[0].scrollIntoView()", last)
            page.run("arguments[0].click()", last)
            time.sleep(0.3)
            box = page.box("#plays")
            assert box["top"] >= -1
            assert box["bottom"] <= 800
            page.run("document.getElementById('tab-sights').click()")
    finally:
        restore(page)


def restore(page) -> None:
    size = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def test_two_games_side_by_side(show):
    long = made_up(90)
    short = made_up(30, mode="inverse", policy_mask=1 - long.policy_mask[:30])
    page = show(long, short)
    page.choose("game", "policy")
    page.scrub(20)
    for play, game in enumerate((long, short)):
        np.testing.assert_array_equal(page.pixels("game", play), game.frames[20])
        shown = layers(game, beside=[long, short])["policy"]  # one scale for both
        want = overlay(game.frames[20], [shown.at(20)], game.view)
        np.testing.assert_allclose(page.pixels("policy", play).astype(int), want, atol=1)
    captions = [caption.text for caption in page.all("figcaption b") if caption.is_displayed()]
    assert captions == ["game", "policy mask", "game", "1 \N{MINUS SIGN} M, policy mask"]
    overs = page.all(".over")
    assert [over.is_displayed() for over in overs] == [False, False]
    page.scrub(60)
    assert [over.is_displayed() for over in overs] == [False, True]
    assert "Game over after 30 steps" in overs[1].text
    np.testing.assert_array_equal(page.pixels("game", 0), long.frames[60])
    np.testing.assert_array_equal(page.pixels("game", 1), short.frames[29])


def test_several_games(show):
    """Chosen by score or length, any two compared; the address opens them again."""
    games = [made_up(length, seed=seed) for seed, length in enumerate((90, 40, 120))]
    page = show(*games)
    assert len(page.all(".play")) == 1
    choices = [option.text for option in page.all("#first-game optgroup:first-child option")]
    scores = [int(words.split(": ")[1].split()[0]) for words in choices]
    assert scores == sorted(scores, reverse=True)
    page.set("first-game", "2")
    page.set("second-game", "1")
    time.sleep(0.3)
    page.choose("game")
    page.scrub(25)
    for play, game in enumerate((games[2], games[1])):
        np.testing.assert_array_equal(page.pixels("game", play), game.frames[25])
    assert page.state("plays") == "2,1"


def test_a_note_is_of_its_step_and_of_its_play(show, browser):
    """Taken while the game plays; then its play is the second one, then on no side, then back."""
    page = show(made_up(300), made_up(200, mode="inverse"))
    page.set("second-game", "")
    page.press(Keys.SPACE)
    time.sleep(0.5)
    page.press("m")
    step = int(page.find("#note-step").text.split()[-1])
    time.sleep(0.5)
    page.find("#note-text").send_keys("here", Keys.ENTER)
    assert step > 0
    assert json.loads(page.state("notes")) == [{"step": step, "text": "here", "play": 0}]
    for first, second, listed in (("1", "0", f"step {step} here\nnormal play"), ("1", "", "")):
        page.set("first-game", first)
        page.set("second-game", second)
        time.sleep(0.3)
        page.set("kind", "note")
        texts = [item.text for item in page.all("#moments-list .note .moment")]
        assert texts == [listed] * bool(listed)


def test_plays_of_one_name_are_told_apart(show):
    page = show(made_up(30), made_up(40, seed=7), address="#plays=0,1")
    legend = [item.text for item in page.all("#legend li")][:2]
    assert legend == ["normal play, seed 0", "normal play, seed 7"]


def test_a_game_that_plays_can_be_changed(show):
    """It plays on while the next one is unpacked."""
    page = show(*(made_up(length, seed=length) for length in (1500, 2000)), address="#plays=0")
    page.set("speed", "16")
    page.press(Keys.SPACE)
    page.set("first-game", "1")
    time.sleep(0.5)
    step = int(page.cursor()["step"])
    time.sleep(0.5)
    assert int(page.cursor()["step"]) > step
    page.press(Keys.SPACE)
    assert "of 2000" in page.find("#step").text


def test_clicks_beside_the_curves_are_none(show):
    page = show(made_up(300), address="#step=100&brush=120,150", step=100)
    for across in (-0.05, 1.02):
        page.on_curves(("down", across, 0.1), ("up", across, 0.1))
        assert (page.state("step"), page.state("brush")) == ("100", "120,150")
    page.on_curves(("down", 0, 0.1), ("up", 0, 0.1))
    assert (page.state("step"), page.state("brush")) == ("0", None)


def test_a_letter_finds_a_menus_entry(show):
    page = show(made_up(90))
    for key in "n+m":
        page.find("#kind").send_keys(key)
    assert (page.state("step"), page.state("window")) == ("0", None)
    assert not page.find("#noting").is_displayed()


def test_a_longer_play_is_shown_whole(show):
    """Unless one had zoomed."""
    page = show(made_up(90), made_up(300, seed=7), address="#plays=0")
    page.set("second-game", "1")
    assert page.state("window") is None
    page.set("second-game", "")
    page.press("+")
    zoomed = page.state("window")
    page.set("second-game", "1")
    assert page.state("window") == zoomed


def test_values_are_of_the_step_under_the_pointer(show):
    """Also when the time line moves under it."""
    page = show(made_up(400), address="#step=120&window=100,200", step=120)
    page.on_curves(("move", 0.25, 0.1))
    page.wait_for(120)
    assert page.cursor()["read"] == "125"
    page.press(Keys.END)
    page.wait_for(399)
    start, end = map(int, page.state("window").split(","))
    assert int(page.cursor()["read"]) == pytest.approx(start + 0.25 * (end - start), abs=1)


def test_a_touchpad_turns_the_wheel_little_by_little(show):
    page = show(made_up(300), address="#step=100&window=80,120", step=100)
    turn = (
        "for (let n = 0; n < 100; n++) document.getElementById('curves').dispatchEvent("
        "new WheelEvent('wheel', {...arguments[0], clientX: 700, clientY: 700}))"
    )
    spans = []
    for delta in ({"deltaX": 10}, {"deltaX": -10}, {"deltaY": 4}):
        page.run(turn, delta)
        spans.append([int(step) for step in page.state("window").split(",")])
    assert spans[:2] == [[130, 170], [80, 120]]
    assert spans[2][1] - spans[2][0] == pytest.approx(40 * 1.0015**400, abs=4)


def test_the_address_opens_a_moment_with_its_notes(show, browser):
    game = made_up(300)
    page = show(
        game, address="#step=123&style=contours&show=value&cell=37&window=100,200", step=123
    )
    assert "step 123" in page.find("#step").text
    assert page.find("#style").get_attribute("value") == "contours"
    assert not page.find("canvas[data-panel=policy]").is_displayed()
    page.press("m")
    page.find("#note-text").send_keys("it turns & flees", Keys.ENTER)
    page.set("kind", "note")
    assert "it turns & flees" in page.find("#moments-list").text
    page.state("step")
    address = page.run("return location.hash")
    page.press(Keys.ESCAPE)
    again = Page(browser, pathlib.Path(page.path), address, 123)
    again.set("kind", "note")
    assert "it turns & flees" in again.find("#moments-list").text
    again.find("#moments-list .pair button").click()
    assert again.state("notes") is None
    again.press("m")
    again.find("#note-text").send_keys("no", Keys.ESCAPE)
    assert again.state("notes") is None
    again.press("m")
    again.find("#note-text").send_keys("mine", Keys.ENTER)
    assert again.state("notes") is not None
    again.run("location.hash = '#step=20'")  # another address of the same page
    again.wait_for(20)
    assert again.state("notes") is None
    broken = Page(
        browser, pathlib.Path(page.path), "#step=9999&cell=400&notes=[&show=x&plays=7", 299
    )
    assert broken.find("#failure").get_attribute("hidden") is not None


@pytest.mark.parametrize(
    "words",
    [
        *("brush=7", "brush=9,5", "brush=-5,7", "brush=1.5,7", "brush=x,y"),
        *("window=7", "window=5,5", "window=100,50", "window=-50,100", "window=1,2,3"),
        *("plays=-1", "plays=0.5", "plays=", 'notes=[{"step":-5,"text":"x"}]'),
    ],
)
def test_an_address_that_nobody_wrote_opens_the_page(show, words):
    page = show(made_up(200), address=f"#step=5&{words}", step=5)
    assert page.find("#failure").get_attribute("hidden") is not None
    name = words.split("=")[0]
    assert page.state(name) == ("0" if name == "plays" else None)
    page.scrub(7)


def saved(page, folder, kind: str) -> pathlib.Path:
    """The file that the page's menu writes."""
    folder = folder / kind
    page.browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}
    )
    page.find("header summary").click()
    page.find(f"#save-{kind}").click()
    page.run("document.querySelector('header details').open = false")
    deadline = time.perf_counter() + 20
    while not (found := list(folder.glob(f"*.{kind}"))):
        assert time.perf_counter() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    return found[0]


def test_saving_the_view(show, tmp_path):
    page = show(made_up(300, agent="A <& B"))
    page.scrub(100)
    paths = {kind: saved(page, tmp_path, kind) for kind in ("png", "svg")}
    assert {path.stem for path in paths.values()} == {"SpaceInvaders-step100"}
    with Image.open(paths["png"]) as picture:
        assert picture.width > 2000
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
    drawing = xml.etree.ElementTree.parse(paths["svg"]).getroot()
    words = " ".join(drawing.itertext())
    assert "A <& B" in words
    assert "step 100 of 300" in words
    assert "state value" in words
    kinds = [child.tag.split("}")[1] for child in drawing.iter()]
    assert f"{made_up(300).value[100]:.3f}".replace("-", "\N{MINUS SIGN}") in words  # the cursor's
    assert kinds.count("image") == 5  # three panels, the cells by time, what is looked at
    assert kinds.count("path") > 8


@pytest.mark.parametrize(
    "shown", [["policy", "value"], ["value", "both"], ["policy"]], ids="-".join
)
def test_saved_words_are_not_printed_over_words(show, tmp_path, shown):
    """Two plays, with a brush: what is too long for its picture is narrower."""
    games = made_up(200), made_up(200, mode="inverse")
    page = show(*games, address="#step=50&brush=20,120", step=50)
    page.choose(*shown)
    ends = page.run(
        "const place = document.createElement('div'); place.innerHTML = arguments[0];"
        "document.body.append(place);"
        "const words = [...place.querySelectorAll('svg > text')].map((text) => {"
        "  const { y, x, width } = text.getBBox(); return [y, x, x + width]; });"
        "place.remove(); return words",
        saved(page, tmp_path, "svg").read_text(),
    )
    # The title, of each play, of each of its pictures, what broken lines are.
    assert len(ends) == 4 + 4 * len(shown)
    for (y, _, end), (next_y, start, _) in itertools.pairwise(sorted(ends)):
        assert next_y != y or end <= start


def test_the_last_step_is_drawn_where_steps_are_dense(show, tmp_path):
    """Three for each pixel: the value is 0 until the end, and 5 there."""
    value = np.zeros(3600, np.float32)
    value[-1] = 5
    page = show(made_up(len(value), value=value))
    drawing = saved(page, tmp_path, "svg").read_text()
    paths = re.findall(r'<path d="(.*?)"', drawing)
    heights = [re.findall(r"[ML][\d.]+ ([\d.]+)", path) for path in paths]
    assert any(len({*of[:-1]}) == 1 and float(of[-1]) < float(of[0]) - 9 for of in heights if of)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.183, 0.228, ["0.2"]), (3.43, 3.57, ["3.5"]), (-0.7, 0.7, ["0"])],
)
def test_values_beside_a_curve(show, tmp_path, low, high, ticks):
    """With as many digits as they need, also where there is but one."""
    page = show(made_up(40, value=np.linspace(low, high, 40, dtype=np.float32)))
    words = list(xml.etree.ElementTree.parse(saved(page, tmp_path, "svg")).getroot().itertext())
    words = [word for word in words if word.strip()]
    assert words[words.index("state value") + 1 : words.index("advantage")] == ticks


def test_agent_without_masks(show):
    page = show(made_up(mask="none"))
    assert not page.find("#drawing").is_displayed()
    assert not page.find("#tab-sights").is_displayed()
    assert page.pixels("game").any()


def test_more_colours_than_a_byte_numbers(show):
    frames = np.random.default_rng(0).integers(0, 256, (5, 210, 160, 3), np.uint8)
    page = show(made_up(5, frames=frames))
    page.scrub(4)
    np.testing.assert_array_equal(page.pixels("game"), frames[4])


def test_a_film_of_more_colours_than_a_byte_numbers(show):
    colours = np.array([(n % 256, n // 256, 7) for n in range(300)], np.uint8)
    number = np.arange(210 * 160).reshape(210, 160) % 210
    frames = [colours[number + start] for start in (0, 45, 90)]
    film = Film(3)
    for frame in frames:
        film.add(frame.transpose(2, 0, 1))
    page = show(made_up(3, frames=film.frames()))
    for step, frame in enumerate(frames):
        page.scrub(step)
        np.testing.assert_array_equal(page.pixels("game"), frame)


def test_phone_and_theme(show):
    """Pictures and time line on one screen of a phone; text stays readable in both themes."""
    page = show(made_up(90), made_up(30, mode="inverse"))
    size = {"width": 375, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        time.sleep(0.3)
        for panels in (("policy", "value"), ("both",), ("game", "policy", "value")):
            page.choose(*panels)
            assert page.run("return document.documentElement.scrollWidth") <= 375
            assert page.box(".timeline")["bottom"] <= 800
        before = page.find("body").value_of_css_property("background-color")
        page.find("#theme").click()
        assert page.find("body").value_of_css_property("background-color") != before
    finally:
        restore(page)


SIZES = {"laptop": (1400, 900), "desk": (1900, 1200), "phone": (375, 800)}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_looks_as_it_did(show, size, theme):
    """The whole page, at a quarter of its size: fonts differ from machine to machine."""
    name, (width, height) = f"explorer-{size}-{theme}", SIZES[size]
    page = show(what_ifs(90), what_ifs(60, mode="inverse"))
    device = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        if page.run("return document.documentElement.dataset.theme") != theme:
            page.find("#theme").click()
        assert page.run("return document.documentElement.dataset.theme") == theme
        page.scrub(17)
        time.sleep(0.5)
        shown = Image.open(io.BytesIO(page.browser.get_screenshot_as_png())).convert("RGB")
    finally:
        restore(page)
    now = shown.reduce(4)
    if not (golden := FOLDER / f"{name}.png").exists():
        now.save(golden, optimize=True)
        pytest.fail(f"{golden} was missing and is written: look at it")
    assert difference(name, now) <= 2 * TOLERANCE
    assert most_different(name, now) <= 10 * TOLERANCE  # nothing is missing, whatever the fonts


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast_of_text(show, theme):
    """WCAG's AA: 4.5 to 1 for every colour of text on every background."""
    page = show(made_up())
    page.run("document.documentElement.dataset.theme = arguments[0]", theme)
    names = ("ink", "faint", "rank-0", "rank-1", "boundary", "back", "card", "pick")
    values = page.run(
        "const s = getComputedStyle(document.body);"
        "return arguments[0].map((name) => s.getPropertyValue('--' + name).trim())",
        names,
    )
    colour = dict(zip(names, map(luminance, values), strict=True))
    for text in names[:4]:
        for back in ("back", "card", "pick"):
            low, high = sorted((colour[text], colour[back]))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, back)


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2)."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_every_control_has_a_name(show):
    page = show(what_ifs(90))
    nameless = page.run(
        "return [...document.querySelectorAll('button, select, input, canvas, summary')]"
        ".filter((e) => !(e.ariaLabel || e.getAttribute('aria-label') || e.ariaHidden"
        " || e.textContent.trim() || e.closest('label') || e.closest('.scale')))"
        ".map((e) => e.outerHTML)"
    )
    assert nameless == []


def test_text_of_a_recording_is_no_markup(show):
    page = show(made_up(agent="</title><script>alert(1)</script>"))
    assert "</title><script>" in page.find("h1").text


def test_titles_tell_plays_apart(show):
    """The page's title says what all its recordings share; their names say how they differ."""
    game = made_up(30)
    title = "SpaceInvaders · Mask A3C (policy and value mask) · made up"
    for games, heading, names in (
        ([dataclasses.replace(game, mode="inverse")], title, ["policy mask inverted"]),
        (
            [game, dataclasses.replace(game, mode="inverse")],
            title,
            ["normal play", "policy mask inverted"],
        ),
        (
            [game, made_up(30, "none", agent="another")],
            "SpaceInvaders",
            [
                "made up · Mask A3C (policy and value mask) · normal play",
                "another · A3C (no mask) · normal play",
            ],
        ),
        (
            [game, dataclasses.replace(game, agent="another")],
            "SpaceInvaders · Mask A3C (policy and value mask)",
            ["made up · normal play", "another · normal play"],
        ),
        (
            [game, dataclasses.replace(game, agent_steps=5_000_000, sample=True)],
            title,
            ["normal play", "step 5,000,000 · normal play, sampled"],  # 0: not known
        ),
        (
            [game, dataclasses.replace(game, agent="another", agent_steps=5_000_000)],
            "SpaceInvaders · Mask A3C (policy and value mask)",
            ["made up · normal play", "another · normal play"],
        ),
    ):
        page = show(*games)
        assert page.browser.title == page.find("h1").text == heading
        assert [name.text for name in page.all(".facts h3")] == names


def test_refuses(tmp_path):
    game = made_up(3)
    for recordings, words in (
        ([], "at least one recording"),
        ([game, dataclasses.replace(game, game="Breakout")], "SpaceInvaders and Breakout"),
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


class Firefox:
    """Headless Firefox, driven by its own WebDriver BiDi port: Debian packages no geckodriver."""

    def __init__(self, program: str, profile: pathlib.Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        profile.mkdir()
        flags = ("--headless", "--no-remote", "--profile", str(profile))
        self.process = subprocess.Popen(
            [program, *flags, f"--remote-debugging-port={port}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.count = 0
        try:
            self.connect(port)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def connect(self, port: int) -> None:
        deadline = time.perf_counter() + 60
        while True:
            try:
                url = f"ws://127.0.0.1:{port}/session"
                self.socket = websocket.create_connection(url, suppress_origin=True, timeout=180)
                break
            except OSError:
                assert time.perf_counter() < deadline, "Firefox does not answer"
                time.sleep(0.2)
        self.call("session.new", capabilities={})
        self.page = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method: str, **parameters) -> dict:
        self.count += 1
        order = {"id": self.count, "method": method, "params": parameters}
        self.socket.send(json.dumps(order))
        while (answer := json.loads(self.socket.recv())).get("id") != self.count:
            pass
        assert answer["type"] == "success", answer
        return answer["result"]

    def value(self, script: str):
        """What a JavaScript expression gives."""
        target = {"context": self.page}
        done = self.call("script.evaluate", expression=script, target=target, awaitPromise=True)
        assert done["type"] == "success", done
        return done["result"].get("value")

    def wait_for(self, step: int) -> None:
        deadline = time.perf_counter() + 30
        while self.value("document.getElementById('curves')?.dataset.step") != str(step):
            assert time.perf_counter() < deadline, f"step {step} is not drawn"
            time.sleep(0.05)

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()


def test_firefox(tmp_path):
    """Opens at a moment, draws exactly, answers keys and controls, fits one screen."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if not program:
        pytest.skip("no Firefox: install Debian's firefox-esr")
    game = what_ifs(120)
    path = write_explorer([game], tmp_path / "game.html")
    firefox = Firefox(program, tmp_path / "profile")
    try:
        page = {"context": firefox.page}
        firefox.call("browsingContext.setViewport", **page, viewport={"width": 1400, "height": 900})
        firefox.call(
            "browsingContext.navigate", **page, url=f"{path.as_uri()}#step=41", wait="complete"
        )
        firefox.wait_for(41)
        assert firefox.value("document.documentElement.scrollHeight") <= 900
        right = [{"type": kind, "value": Keys.ARROW_RIGHT} for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": right}
        firefox.call("input.performActions", **page, actions=[keyboard])
        firefox.wait_for(42)
        for name, of in (("game", None), ("policy", layers(game)["policy"])):
            png = firefox.value(
                f"document.querySelector('canvas[data-panel={name}]').toDataURL().split(',')[1]"
            )
            drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
            frame = game.frames[42]
            want = frame if of is None else overlay(frame, [of.at(42)], game.view)
            np.testing.assert_allclose(drawn.astype(int), want, atol=1)
        assert "no mask" in firefox.value("document.querySelector('.facts').textContent")
        firefox.value("document.getElementById('tab-sights').click()")
        firefox.value("document.querySelector('#sights-list .sight').click()")
        assert firefox.value("document.querySelectorAll('#sight-facts button').length") > 0
        firefox.value("document.getElementById('play').click()")
        firefox.wait_for(119)
        firefox.value("document.getElementById('previous').click()")
        last = max(frame.index for frame in choose(game, 8) if frame.index < 119)
        firefox.wait_for(last)
    finally:
        firefox.close()


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
