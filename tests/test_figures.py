import itertools
import pathlib

import matplotlib
import numpy as np
import pytest
from golden_pictures import TOLERANCE, difference, moment
from matplotlib.backends.backend_agg import FigureCanvasAgg
from recordings import made_up

from maskrl.errors import UserError
from maskrl.explain import figures
from maskrl.explain.__main__ import main, pairs
from maskrl.explain.frames import choose, parse
from maskrl.explain.overlay import layers, overlay
from maskrl.explain.report import explain
from maskrl.recording import write


def pictures(figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.axes for image in axes.images]


def words(figure) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in figure.texts)


def all_figures(layout=figures.NATURAL):
    game = made_up(300)
    shown = layers(game)
    chosen = parse("3-10", game)  # two lines of frames, every action
    row = figures.gallery_row(game, shown["policy"], choose(game, 6))
    scales = {name: layer.scale for name, layer in shown.items()}
    before, after = moment(game, 5), moment(game, 9)
    return {
        "policy": figures.policy_figure(game, shown["policy"], chosen, layout),
        "value": figures.value_figure(game, shown["value"], chosen, layout),
        "bare": figures.value_figure(game, None, choose(game, 2), layout),
        "gallery": figures.gallery([row] * 2, "policy", layout),
        "consecutive": figures.consecutive(game, shown, 3, chosen[1], layout),
        "reaction": figures.reaction(
            before, after, game.view, game.action_names, "Oxygen low", scales
        ),
    }


@pytest.mark.parametrize(
    "name", ["policy", "value", "gallery", "consecutive", "narrow", "reaction"]
)
def test_golden(name):
    assert difference(name) <= TOLERANCE


def written(figure):
    """Every text that is drawn: words, labels, ticks, legends."""
    found = list(figure.texts)
    for axes in figure.axes:
        if not axes.axison:
            continue
        found += [*axes.texts, axes.xaxis.label, axes.yaxis.label]
        if axes.get_legend() is not None:
            found += axes.get_legend().get_texts()
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
    return [text for text in found if text.get_text()]


LAYOUTS = [figures.NATURAL, *(figures.Layout(width, False) for width in (2.5, 3.5, 5.5, 7.0))]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_words_fit_and_can_be_read(layout):
    """None overlap, leave the page or are under six points; the page is as wide as asked for."""
    for name, figure in all_figures(layout).items():
        if layout.width is not None and name != "reaction":
            assert figure.get_size_inches()[0] == pytest.approx(layout.width)
        for text in figure.findobj(matplotlib.text.Text):
            assert text.get_fontsize() >= 6 or not text.get_text(), (name, text)
        figure.set_dpi(200)  # as `save` writes it
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # labels are placed only then
        renderer = canvas.get_renderer()
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in written(figure)]
        for text, box in boxes:
            corners = [*box.min, *(figure.bbox.max - box.max)]
            assert min(corners) >= 0, (name, text)
        for (one, box), (other, other_box) in itertools.combinations(boxes, 2):
            assert not box.overlaps(other_box), (name, one, other)


def test_long_names_stay_in_their_column():
    """Of consecutive frames, and at the reaction picture's bars."""
    names = ("DOWNRIGHTFIRE",) * 6
    game = made_up(action_names=names)
    for layout in LAYOUTS:
        figure = figures.consecutive(game, layers(game), 3, layout=layout)
        renderer = FigureCanvasAgg(figure).get_renderer()
        written = [t for t in figure.texts if t.get_text().replace("\n", "") == names[0]]
        assert len(written) == 15
        images = [a for a in figure.axes if a.images and a.images[0].get_array().shape[0] == 210]
        width = images[0].get_window_extent(renderer).width
        assert all(t.get_window_extent(renderer).width <= width + 1 for t in written)
    before, after = moment(game, 5), moment(game, 9)
    scales = {name: layer.scale for name, layer in layers(game).items()}
    figure = figures.reaction(before, after, game.view, names, "Oxygen low", scales)
    renderer = FigureCanvasAgg(figure).get_renderer()
    bars = next(a for a in figure.axes if a.get_title(loc="left"))
    panels = [a.get_window_extent(renderer).x1 for a in figure.axes if a.images]
    labels = [label.get_window_extent(renderer).x0 for label in bars.get_yticklabels()]
    assert min(labels) > max(x for x in panels if x < bars.get_window_extent(renderer).x0)


def test_pictures_are_the_frames_and_the_masks_over_them():
    game = made_up()
    layer = layers(game)["policy"]
    drawn = pictures(figures.policy_figure(game, layer, parse("5,9", game)))
    for t in (5, 9):
        masked = overlay(game.frames[t], [layer.at(t)], game.view)
        for expected in (game.frames[t], masked):
            assert any(np.array_equal(expected, picture) for picture in drawn)


def test_every_picture_carries_its_scale():
    for name, figure in all_figures().items():
        assert ("contrast-stretched scale, 0.12 to 0.8" in words(figure)) == (name != "bare")


def test_value_curve_has_a_green_broken_line_at_every_life_and_stage():
    ram = np.zeros((40, 128), np.uint8)
    ram[[0, 5, 25], 17] = 36
    game = made_up(40, ram=ram)
    figure = figures.value_figure(game, layers(game)["value"], choose(game, 3))
    curve = next(axes for axes in figure.axes if axes.get_ylabel() == "state value")
    lines = [line for line in curve.lines if line.get_linestyle() in ("--", ":")]
    assert sorted(line.get_xdata()[0] for line in lines) == [5, 10, 20, 25, 30]
    assert {matplotlib.colors.to_hex(line.get_color()) for line in lines} == {"#1a8a3a"}


def test_captions_say_why():
    game = made_up(300)
    chosen = choose(game, 4)
    text = words(figures.policy_figure(game, layers(game)["policy"], chosen))
    assert all(frame.reason in text for frame in chosen)
    caption = figures.caption(game, "policy mask", chosen)
    assert all(frame.reason in caption for frame in chosen)
    assert "made up" in caption  # the agent is named
    assert "SpaceInvaders · Mask A3C (policy and value mask) · normal play · made up" in text


def test_consecutive_stops_with_the_game():
    game = made_up(20)
    figure = figures.consecutive(game, layers(game), 15)
    assert "5 consecutive steps, 15 to 19" in words(figure)


def test_reaction_of_an_agent_without_masks():
    game = made_up(mask="none")
    before, after = moment(game, 5), moment(game, 9)
    figure = figures.reaction(before, after, game.view, game.action_names, "A fish", {})
    assert any(np.array_equal(after.frame, picture) for picture in pictures(figure))


def test_files(tmp_path):
    game = made_up()
    figure = figures.policy_figure(game, layers(game)["policy"], choose(game, 2))
    with matplotlib.rc_context({"pdf.compression": 0}):
        png, pdf = figures.save(figure, tmp_path / "new" / "game-policy")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"/FontFile2" in pdf.read_bytes()  # text as text, in a TrueType font
    assert b"/Width 160" in pdf.read_bytes()  # a frame as it is, not resampled
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        figures.save(figure, tmp_path / "file" / "game")


def test_explain_writes_everything(tmp_path):
    write(made_up(20), tmp_path / "one.npz")
    write(made_up(20, mask="policy", game="Breakout"), tmp_path / "two.npz")
    written = explain(
        [[tmp_path / "one.npz"], [tmp_path / "two.npz"]], tmp_path / "out", frames="2,5"
    )
    names = {path.name for path in written}
    for stem in ("one", "two"):
        for name in (
            ".html",
            ".mp4",
            "-policy.txt",
            ".gif",
            "-policy.png",
            "-policy.pdf",
            "-value.png",
        ):
            assert stem + name in names
    assert "gallery-policy.pdf" in names
    assert "gallery-value.pdf" not in names
    assert names == {path.name for path in (tmp_path / "out").iterdir()}


def test_explain_inverted_play_beside_the_normal_one(tmp_path):
    write(made_up(20), tmp_path / "game.npz")
    write(made_up(12, mode="inverse"), tmp_path / "turned.npz")
    written = explain([[tmp_path / "game.npz", tmp_path / "turned.npz"]], tmp_path / "out")
    names = {path.name for path in written}
    assert {"game.html", "game.mp4", "turned.mp4", "game-policy.png"} <= names
    assert not names & {"turned.html", "turned.gif", "turned-policy.png"}


def test_explain_without_masks(tmp_path):
    write(made_up(20, mask="none"), tmp_path / "bare.npz")
    names = {path.name for path in explain([[tmp_path / "bare.npz"]], tmp_path)}
    assert "bare-value.png" in names
    assert "bare-policy.png" not in names


def test_explain_refuses(tmp_path):
    write(made_up(5, mask="value"), tmp_path / "game.npz")
    for arguments, message in (
        ({"branch": "policy"}, "has no policy mask"),
        ({"frames": "7"}, "not within 0-4"),
    ):
        with pytest.raises(UserError, match=message):
            explain([[tmp_path / "game.npz"]], tmp_path / "out", **arguments)
    for name, length in (("long", 41), ("short", 40)):
        write(made_up(length), tmp_path / f"{name}.npz")
    groups = [[tmp_path / "long.npz"], [tmp_path / "short.npz"]]
    for arguments, message in (
        ({"frames": "40"}, "not within 0-39"),
        ({"frames": "0-39", "layout": figures.Layout(6)}, "40 frames in a row need a page of 9.9"),
    ):
        with pytest.raises(UserError, match=message):
            explain(groups, tmp_path / "none", **arguments)
    assert not (tmp_path / "none").exists()  # said before the first one is drawn
    for mask in ("policy", "value"):
        write(made_up(41, mask=mask), tmp_path / f"{mask}.npz")
    groups = [[tmp_path / "policy.npz"], [tmp_path / "value.npz"]]
    wide = {"frames": "0-39", "layout": figures.Layout(6), "parts": ("gallery",)}
    with pytest.raises(UserError, match="a gallery needs two games"):  # and so has no long row
        explain(groups, tmp_path / "out", **wide)
    with pytest.raises(UserError, match="same file name"):
        explain([[tmp_path / "game.npz", tmp_path / "a" / "game.npz"]], tmp_path / "out")
    with pytest.raises(UserError, match="cannot write"):
        explain([[tmp_path / "game.npz"]], tmp_path / "game.npz")


def test_command_draws_a_gallery_from_recordings(tmp_path, capsys):
    games = ("SpaceInvaders", "Breakout", "Seaquest")
    for game in games:
        write(made_up(30, game=game), tmp_path / f"{game}-normal-seed0.npz")
    paths = [str(tmp_path / f"{game}-normal-seed0.npz") for game in games]
    out = tmp_path / "out"
    flags = ["--only", "gallery", "--width", "7", "--output", str(out)]
    assert main([*paths, *flags]) == 0
    assert {path.name for path in out.iterdir()} == {
        f"gallery-{branch}.{kind}" for branch in ("policy", "value") for kind in ("png", "pdf")
    }
    with pytest.raises(SystemExit) as end:
        main([*paths, *flags, "--width", "1"])
    assert end.value.code == 2
    assert "--width 1: from 2.5 to 40 inches" in capsys.readouterr().err


def test_a_gallery_holds_all_its_frames(tmp_path):
    """On the page and in their row, whatever their number; or it is refused."""
    game = made_up(80)
    layer = layers(game)["policy"]

    def right_end(count, layout):
        row = figures.gallery_row(game, layer, parse(f"0-{count - 1}", game))
        figure = figures.gallery([row] * 2, "policy", layout)
        frames = [a for a in figure.axes if a.images[0].get_array().shape[0] == 210]
        assert len(frames) == 2 * count
        return max(a.get_position().x1 for a in frames)

    for count, width in ((10, None), (60, None), (10, 7.0), (27, 7.0), (28, 7.3)):
        assert right_end(count, figures.Layout(width)) < 1
    with pytest.raises(UserError, match=r"28 frames in a row need a page of 7\.3 inches"):
        right_end(28, figures.Layout(7.0))


def test_a_gallery_of_one_game_is_refused(tmp_path, capsys):
    write(made_up(30), tmp_path / "game.npz")
    for name in ("one", "other"):
        write(made_up(30, mask="none"), tmp_path / f"{name}.npz")
    for names in (["game"], ["one", "other"], ["game", "one"]):
        paths = [str(tmp_path / f"{name}.npz") for name in names]
        with pytest.raises(SystemExit) as end:
            main([*paths, "--only", "gallery", "--output", str(tmp_path / "out")])
        assert end.value.code == 2
        assert "a gallery needs two games with the same mask" in capsys.readouterr().err


def test_inverted_plays_are_drawn_beside_their_normal_ones():
    paths = [
        pathlib.Path(f"a/Pong-{mode}-seed{n}.npz") for n in (0, 1) for mode in ("inverse", "normal")
    ]
    assert pairs(paths) == [[paths[1], paths[0]], [paths[3], paths[2]]]
    assert pairs(paths[:1]) == [paths[:1]]
    assert pairs([pathlib.Path("game.npz")]) == [[pathlib.Path("game.npz")]]


def test_several_plays_of_one_game_share_an_explorer(tmp_path):
    for seed in (0, 1):
        write(made_up(20, seed=seed), tmp_path / f"game-{seed}.npz")
    groups = [[tmp_path / f"game-{seed}.npz"] for seed in (0, 1)]
    written = explain(groups, tmp_path / "out", parts=("explorer",))
    assert [path.name for path in written] == ["explorer.html"]
