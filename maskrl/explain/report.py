"""Everything that is drawn of recordings, in one call."""

import argparse
import concurrent.futures
import pathlib
from collections.abc import Collection, Sequence

from maskrl.cli import progress
from maskrl.config import branches
from maskrl.errors import UserError
from maskrl.explain import figures, video
from maskrl.explain.explorer import write_explorer
from maskrl.explain.figures import Layout
from maskrl.explain.frames import choose, parse
from maskrl.explain.overlay import STYLES, layers
from maskrl.recording import Recording, read

CHOSEN = 6  # frames in a figure, when nobody asks for others
PARTS = ("figures", "gallery", "explorer", "videos")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say how `explain` draws; see `options`."""
    add = parser.add_argument
    add("--frames", help="to explain: the figures' frames, e.g. 100,250,900-905 [telling ones]")
    add("--absolute", action="store_true", help="to explain: draw masks from 0 to 1, unstretched")
    add(
        "--drawing",
        choices=STYLES,
        default=STYLES[0],
        help=f"to explain: how masks are drawn [{STYLES[0]}]",
    )
    add("--width", type=float, help="to explain: the figures' width in inches [what they need]")
    add("--no-title", action="store_true", help="to explain: figures without headings")


def options(args: argparse.Namespace) -> dict:
    """The arguments of `explain` that these flags stand for.

    Raises:
      UserError: a width that no figure can have.
    """
    least, most = figures.NARROWEST, figures.WIDEST
    if args.width is not None and not least <= args.width <= most:
        raise UserError(f"--width {args.width:g}: from {least:g} to {most:g} inches")
    return {
        "frames": args.frames,
        "contrast": not args.absolute,
        "style": args.drawing,
        "layout": Layout(args.width, not args.no_title),
    }


def explain(
    groups: Sequence[Sequence[str | pathlib.Path]],
    output: str | pathlib.Path,
    branch: str = "both",
    frames: str | None = None,
    contrast: bool = True,
    style: str = STYLES[0],
    layout: Layout = figures.NATURAL,
    parts: Collection[str] = PARTS,
) -> list[pathlib.Path]:
    """Writes the explorer, videos and figures of recorded games.

    A group is the recording of a game, NAME.npz, and perhaps one of its inverted play, OTHER.npz;
    both share the masks' scale. Of each group: NAME.html (the explorer, of both side by side; of
    several groups of one game instead explorer.html, of them all); NAME.mp4 and OTHER.mp4 (the
    games); NAME.gif (an excerpt); and as .png and .pdf, with a caption as .txt, NAME-policy (the
    paper's Figure 2), NAME-value (Figure 3) and NAME-consecutive (Figures 13 to 18). Of several
    groups also gallery-policy and gallery-value (Figures 4 to 12). What needs a mask that the agent
    lacks is left out. One group is in memory at a time.

    Args:
      groups: paths of recordings, each with a file name of its own.
      output: the folder to write to; it is made if it is not there.
      branch: which masks to draw: policy, value, or both (those that the agent has).
      frames: the frames of the figures, such as "100,250,900-905"; None chooses telling ones.
      contrast: stretch the masks' scale over each group, or span 0 to 1.
      style: how masks are drawn, one of STYLES.
      layout: the figures' width, and whether they have headings.
      parts: what to make, of PARTS.

    Returns:
      The files that were written.

    Raises:
      UserError: a recording that cannot be read, a mask that the agent lacks, a frame that a
        recording lacks, two recordings of one file name, a folder that cannot be written, or too
        few games for a gallery, where nothing else is to be made.
    """
    paths = [pathlib.Path(path) for group in groups for path in group]
    if len({path.stem for path in paths}) < len(paths):
        raise UserError("two of the recordings have the same file name: rename one")
    output = pathlib.Path(output)
    if frames and len(groups) > 1:  # what is wrong with them is said before anything is drawn
        counts: dict[str, list[int]] = {"policy": [], "value": []}
        for recording in (read(group[0]) for group in groups):
            chosen = len(parse(frames, recording))
            for name in recording.masks().keys() & set(branches(branch)):
                counts[name].append(chosen)
        for of_games in counts.values():
            if "gallery" in parts and len(of_games) > 1:
                figures.gallery_room(max(of_games), layout)
    rows: dict[str, list[figures.Row]] = {"policy": [], "value": []}
    games = set()

    def draw(group: Sequence[str | pathlib.Path]) -> list[pathlib.Path]:
        recordings = [read(path) for path in group]
        recording, stem = recordings[0], pathlib.Path(group[0]).stem
        games.add(recording.game)
        drawn = [layers(game, branch, contrast, style, beside=recordings) for game in recordings]
        chosen = parse(frames, recording) if frames else choose(recording, CHOSEN)
        made = []
        # Most of a video is another process's work, the encoder's: there is time for the rest.
        with concurrent.futures.ThreadPoolExecutor(1) as beside:
            if "figures" in parts:
                what = recording, drawn[0], chosen, output / stem, layout
                made.append(beside.submit(_write_figures, *what))
            if "explorer" in parts and len(groups) == 1:
                page = output / f"{stem}.html", branch, contrast, style
                made.append(beside.submit(lambda: [write_explorer(recordings, *page)]))
            if "gallery" in parts:
                for name, layer in drawn[0].items():
                    rows[name].append(figures.gallery_row(recording, layer, chosen))
            videos = []
            if "videos" in parts:
                gif = output / f"{stem}.gif"
                made.append(beside.submit(lambda: [video.write_gif(recording, drawn[0], gif)]))
                for path, game, shown in zip(group, recordings, drawn, strict=True):
                    target = output / f"{pathlib.Path(path).stem}.mp4"
                    videos.append(video.write_mp4(game, shown, target))
        return [path for future in made for path in future.result()] + videos

    written = [
        path
        for group in progress(groups, desc="explain", unit=" games", disable=len(groups) == 1)
        for path in draw(group)
    ]
    if "explorer" in parts and len(groups) > 1:
        alike = len(games) == 1
        for group in [paths] if alike else groups:
            page = output / ("explorer.html" if alike else f"{pathlib.Path(group[0]).stem}.html")
            written.append(write_explorer(map(read, group), page, branch, contrast, style))
    for name, of_games in rows.items():
        if len(of_games) > 1:
            figure = figures.gallery(of_games, name, layout)
            written += figures.save(figure, output / f"gallery-{name}")
    if not written:  # all else can be drawn of any game
        raise UserError("a gallery needs two games with the same mask")
    return written


def _write_figures(recording: Recording, drawn, chosen, stem: pathlib.Path, layout: Layout) -> list:
    """The figures of one game, and their captions."""
    top = chosen[0]
    start = max(min(top.index - 9, len(recording) - figures.CONSECUTIVE), 0)
    consecutive = figures.consecutive(recording, drawn, start, top, layout)
    made = {
        "value": (
            figures.value_figure(recording, drawn.get("value"), chosen, layout),
            f"{'value mask at ' if 'value' in drawn else ''}chosen frames, and the state value",
        ),
        "consecutive": (consecutive, f"consecutive steps from {start} on"),
    }
    if "policy" in drawn:
        made["policy"] = (
            figures.policy_figure(recording, drawn["policy"], chosen, layout),
            "policy mask and action at chosen frames",
        )
    written = []
    for name, (figure, words) in made.items():
        target = pathlib.Path(f"{stem}-{name}")
        frames = [top] if name == "consecutive" else chosen
        written += figures.save(figure, target, figures.caption(recording, words, frames))
    return written
