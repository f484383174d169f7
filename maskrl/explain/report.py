"""Everything that is drawn of a recording, in one call."""

import pathlib
from collections.abc import Sequence

from tqdm import tqdm

from maskrl.errors import UserError
from maskrl.explain import figures, video
from maskrl.explain.explorer import write_explorer
from maskrl.explain.frames import choose, parse
from maskrl.explain.overlay import layers
from maskrl.recording import read

CHOSEN = 6  # frames in a figure, when nobody asks for others


def explain(
    groups: Sequence[Sequence[str | pathlib.Path]],
    output: str | pathlib.Path,
    branch: str = "both",
    frames: str | None = None,
    contrast: bool = True,
) -> list[pathlib.Path]:
    """Writes the explorer, videos and figures of recorded games.

    A group is the recording of a game, NAME.npz, and perhaps one of its inverted play, OTHER.npz.
    Of each group: NAME.html (the explorer, of both side by side); NAME.mp4 and OTHER.mp4 (the
    games); NAME.gif (an excerpt); and as .png and .pdf NAME-policy (the paper's Figure 2),
    NAME-value (Figure 3) and NAME-consecutive (Figures 13 to 18). Of several groups also
    gallery-policy and gallery-value (Figures 4 to 12). What needs a mask that the agent lacks is
    left out. One group is in memory at a time.

    Args:
      groups: paths of recordings, each with a file name of its own.
      output: the folder to write to; it is made if it is not there.
      branch: which masks to draw: policy, value, or both (those that the agent has).
      frames: the frames of the figures, such as "100,250,900-905"; None chooses telling ones.
      contrast: stretch the masks' colours over each recording, or span 0 to 1.

    Returns:
      The files that were written.

    Raises:
      UserError: a recording that cannot be read, a mask that the agent lacks, a frame that a
        recording lacks, two recordings of one file name, or a folder that cannot be written.
    """
    stems = [pathlib.Path(path).stem for group in groups for path in group]
    if len(set(stems)) < len(stems):
        raise UserError("two of the recordings have the same file name: rename one")
    output = pathlib.Path(output)
    written: list[pathlib.Path] = []
    rows: dict[str, list[figures.Row]] = {"policy": [], "value": []}
    for group in tqdm(groups, desc="explain", unit="game"):
        recordings = [read(path) for path in group]
        recording, stem = recordings[0], pathlib.Path(group[0]).stem
        shown = layers(recording, branch, contrast)
        chosen = parse(frames, recording) if frames else choose(recording, CHOSEN)
        top = chosen[0] if frames else choose(recording, 1)[0]
        start = max(min(top.index - 9, len(recording) - figures.CONSECUTIVE), 0)
        drawn = {
            "value": figures.value_figure(recording, shown.get("value"), chosen),
            "consecutive": figures.consecutive(recording, shown, start, top),
        }
        if "policy" in shown:
            drawn["policy"] = figures.policy_figure(recording, shown["policy"], chosen)
        for name, figure in drawn.items():
            written += figures.save(figure, output / f"{stem}-{name}")
        for name, layer in shown.items():
            rows[name].append(figures.gallery_row(recording, layer, chosen))
        written.append(write_explorer(recordings, output / f"{stem}.html", branch, contrast))
        written.append(video.write_gif(recording, shown, output / f"{stem}.gif"))
        for path, game in zip(group, recordings, strict=True):
            target = output / f"{pathlib.Path(path).stem}.mp4"
            written.append(video.write_mp4(game, layers(game, branch, contrast), target))
    for name, games in rows.items():
        if len(games) > 1:
            written += figures.save(figures.gallery(games, name), output / f"gallery-{name}")
    return written
