"""What a study found: tables, figures and one page, from the files that `run` has left.

Whatever part of the study is done is reported, with its sample size. Intervals hold 95 % and are
over games (`measures.bootstrap`).
"""

import base64
import dataclasses
import html
import io
import pathlib

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from maskrl import files
from maskrl.recording import read_archive
from maskrl.study import collect, measures, objects, run
from maskrl.study.methods import METHODS
from maskrl.study.probe import TARGETS
from maskrl.study.run import Subject
from maskrl.tables import GAMES, PAPER_DECREASE, decrease

matplotlib.rcParams["text.parse_math"] = False  # a name with a $ is no mathematics


@dataclasses.dataclass(frozen=True)
class Table:
    """A table and what its numbers mean."""

    name: str  # of its file
    title: str
    words: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def interval(number: tuple[float, float, float], digits: int = 2) -> str:
    """`0.12 [0.05, 0.20]`; without brackets where nothing is known of the spread."""
    whole, low, high = number
    text = f"{whole:.{digits}f}"
    return f"{text} [{low:.{digits}f}, {high:.{digits}f}]" if np.isfinite(low) else text


# --------------------------------------------------------------------------- the tables


def control_scores(subject: Subject, what: str = "scores") -> dict[str, np.ndarray]:
    """{control: scores (or lengths) of its games}, in the order of `run.PLAYED`."""
    found = {}
    for name in run.PLAYED:
        parts = sorted((subject.folder / "controls").glob(f"{name}-[0-9]*.json"))
        if parts:
            found[name] = np.concatenate([_numbers(part, what) for part in parts])
    return found


def _numbers(path: pathlib.Path, what: str) -> np.ndarray:
    with collect.reading(path):
        numbers = np.array(files.read_json(path)[what], float)
        if numbers.ndim != 1:
            raise ValueError(f"{what} are no list of numbers")
        return numbers


def of_normal(scores: dict[str, np.ndarray], name: str) -> measures.Number | None:
    """A control's mean score in % of the normal one, and its interval.

    None where a share says nothing: no normal games, or scores below 0 or without a point.
    """
    normal = scores.get("normal")
    if normal is None or normal.mean() <= 0 or min(normal.min(), scores[name].min()) < 0:
        return None
    return tuple(100 * x for x in measures.bootstrap_ratio(scores[name], normal))


def controls_table(subjects: list[Subject]) -> Table:
    """The inverse test beside its controls."""
    rows = []
    for subject in subjects:
        scores, lengths = control_scores(subject), control_scores(subject, "lengths")
        for name, played in scores.items():
            share = of_normal(scores, name)
            mean = measures.bootstrap(played, np.arange(len(played)))
            steps = f"{lengths[name].mean():.0f}"
            share = "-" if share is None else interval(share, 0)
            rows.append((subject.name, name, f"{len(played)}", steps, interval(mean, 1), share))
    return Table(
        "controls",
        "Is it the place that matters?",
        "Mean score of whole games in which the policy's mask was replaced, and what share of the "
        "normal mean that is (the two samples of games drawn independently; - where there are "
        "scores below 0). ones: no mask; mean: "
        "its time mean; shifted: 5 cells off both ways; shuffled: cells permuted, one permutation "
        "a game; noise: permuted anew at every step; other: another game's mask; inverse: the "
        "paper's 1 - M; reversed: brightest cell for darkest, the histogram kept; rescaled: 1 - M "
        "with the mean of M (one factor for all logits: in greedy play it can differ from inverse "
        "by the biases only); random: uniform actions.",
        ("agent", "mask", "games", "mean steps", "mean score", "% of normal"),
        rows,
    )


def decrease_table(subjects: list[Subject]) -> Table:
    """The paper's Table 3 with a column for every control: the decrease of the mean score in %."""
    rows = []
    for subject in subjects:
        scores = control_scores(subject)
        if "normal" not in scores:
            continue
        game, mask = subject.info.game, subject.info.mask
        paper = "-"
        if game in GAMES and mask in PAPER_DECREASE:
            paper = f"{PAPER_DECREASE[mask][GAMES.index(game)][1]:.1f}"
        means = {name: float(played.mean()) for name, played in scores.items()}
        ours = (
            f"{lost:.1f} ({len(scores[name])})"
            if name in means and (lost := decrease(game, means["normal"], means[name])) is not None
            else "-"
            for name in run.PLAYED[1:]
        )
        rows.append((subject.name, f"{len(scores['normal'])}", paper, *ours))
    return Table(
        "decrease",
        "The paper's Table 3 with its controls",
        "Decrease of the mean score in %, against the normal games (intervals: the table above, "
        "100 less its last column; Fishing Derby's are the paper's 1 - 1 / (normal - score + 1)); "
        "in brackets the games played. The paper gives inversion alone.",
        ("agent", "normal games", "inverse, the paper's", *run.PLAYED[1:]),
        rows,
    )


def read_maps(subject: Subject) -> dict[str, np.ndarray]:
    """What has been measured, the chunks one after the other; empty if nothing has.

    The methods stand in the order of `run.method_names`, for every target: what trivial maps do is
    computed once, for both.
    """
    chunks = _chunks(subject.folder / "maps")
    if not chunks:
        return {}
    names = [n for n in chunks[0] if not n.startswith("maps.")]
    with collect.reading(subject.folder / "maps"):
        found = {name: np.concatenate([c[name] for c in chunks]) for name in names}
        return found | {name: _with_trivial(subject, found, name) for name in names if "." in name}


def _chunks(folder: pathlib.Path) -> list[dict[str, np.ndarray]]:
    """The arrays of every chunk in the folder that has moments."""
    chunks = []
    for path in sorted(folder.glob("*.npz")):
        with collect.reading(path):
            chunk = read_archive(path)
            if len(chunk["index"]):
                chunks.append(chunk)
    return chunks


def _with_trivial(subject: Subject, found: dict[str, np.ndarray], name: str) -> np.ndarray:
    """An array [N, M, ...] of a target's methods, with the trivial ones at its end."""
    what, target = name.split(".")
    missing = len(run.method_names(subject.agent.spec, target)) - found[name].shape[1]
    first = found[f"{what}.{TARGETS[0]}"]
    return np.concatenate([found[name], first[:, first.shape[1] - missing :]], axis=1)


def gains(found: dict[str, np.ndarray], target: str) -> np.ndarray:
    """How much better than none each map orders the screen, float [N, M]; higher is better.

    `action`: area under insertion minus area under deletion, of the chosen action's probability.
    `value`: area under deletion minus area under insertion, of the change of V. The mean of the
    backgrounds; a random order has 0 in the mean (see `measures.SHARES`).
    """
    curve = found[f"{'value' if target == 'value' else 'probability'}.{target}"]
    deletion, insertion = np.moveaxis(measures.area(curve).mean(axis=-1), -1, 0)
    return deletion - insertion if target == "value" else insertion - deletion


def methods_table(subjects: list[Subject], target: str) -> Table:
    """Every method's measures for a target."""
    rows = []
    for subject in subjects:
        found = read_maps(subject)
        if not found:
            continue
        game = collect.read_game(subject.folder / "games.npz")[found["index"]]
        names = run.method_names(subject.agent.spec, target)
        gain, small = gains(found, target), found[f"cells.{target}"]
        kept = found[f"kept.{target}"][:, :, 1].mean(axis=2)  # insertion, mean of backgrounds
        steady = measures.rank_correlation(small[::2], small[1::2])
        for m, name in enumerate(names):
            cells = [
                subject.name,
                METHODS[name].words,
                f"{len(game)} of {len(set(game))} games",
                interval(measures.bootstrap(gain[:, m], game), 3),
                "-",
            ]
            if "mask" in names and name != "mask":
                difference = gain[:, names.index("mask")] - gain[:, m]
                cells[-1] = interval(measures.bootstrap(difference, game), 3)
            for share in (0.1, 0.35):
                at = measures.SHARES.index(share)
                cells.append(interval(measures.bootstrap(100 * kept[:, m, at], game), 0))
            cells.append(interval(measures.bootstrap(steady[:, m], game[::2])))
            rows.append(tuple(cells))
    what = "the value" if target == "value" else "the chosen action"
    unit = "change of V" if target == "value" else "probability of the chosen action"
    return Table(
        f"methods-{target}",
        f"Which map finds what decides {what}?",
        f"gain: the areas between insertion and deletion of the screen's cells in the map's order "
        f"({unit}; mean over black, blur and time mean as background; a random order has 0 in the "
        "mean, higher is better). mask - this: the mask's gain minus this method's, on the same "
        "frames; below zero the mask is worse. kept: frames whose most probable action stays the "
        "chosen one when only the top 10 % or 35 % of the screen is shown. stability: rank "
        "correlation with the map of the next step.",
        (
            *("agent", "method", "frames", "gain", "mask - this", "kept at 10 %", "kept at 35 %"),
            "stability",
        ),
        rows,
    )


def objects_table(subjects: list[Subject]) -> Table:
    """The masks' mass on things, against chance and against the mask's own time mean."""
    rows = []
    for subject in subjects:
        path = subject.folder / "games.npz"
        if not path.exists():
            continue
        seen = collect.read(path)
        kinds = {kind: (cells, np.ones(len(cells), bool)) for kind, cells in seen.objects.items()}
        if "oxygen" in seen.facts:
            low = seen.facts["oxygen"] < LOW_OXYGEN
            kinds["oxygen, low"] = seen.objects["oxygen"], low
            kinds["oxygen, not low"] = seen.objects["oxygen"], ~low
        for branch, mask in seen.masks.items():
            still = mask.mean(axis=0, keepdims=True)
            for kind, (cells, when) in kinds.items():
                there = when & cells.any(axis=(1, 2))
                if not there.any():
                    continue
                shares = np.stack(
                    [
                        objects.share_on(mask[there], cells[there]),
                        cells[there].mean(axis=(1, 2)),
                        objects.share_on(np.broadcast_to(still, mask[there].shape), cells[there]),
                    ],
                    axis=1,
                )
                near = objects.around(cells[there])
                wide = np.stack(
                    [objects.share_on(mask[there], near), near.mean(axis=(1, 2))], axis=1
                )
                game = seen.step_game[there]
                rows.append(
                    (
                        subject.name,
                        branch,
                        kind,
                        f"{there.sum()} of {len(set(game))} games",
                        f"{100 * shares[:, 0].mean():.1f}",
                        f"{100 * shares[:, 1].mean():.1f}",
                        interval(measures.bootstrap(shares, game, lambda m: m[..., 0] / m[..., 1])),
                        interval(measures.bootstrap(wide, game, lambda m: m[..., 0] / m[..., 1])),
                        interval(measures.bootstrap(shares, game, lambda m: m[..., 0] / m[..., 2])),
                    )
                )
    return Table(
        "objects",
        "Where do the masks look?",
        "Share of the mask's mass on the cells that a thing touches, in %, and the share of the "
        "screen that these cells are (chance). times chance: 1 is a mask that knows nothing of the "
        "thing. one cell around: the same with the cells next to it, for a mask's cell has seen "
        "more of the screen than itself. times still: against the mask's own time mean on the same "
        "cells; 1 is a mask that does not follow the thing.",
        (
            *("agent", "mask", "thing", "steps", "mass", "chance", "times chance"),
            *("one cell around", "times still"),
        ),
        rows,
    )


LOW_OXYGEN = 16  # of 64


def sanity_table(subjects: list[Subject]) -> Table:
    """How much of a map is left when layers are made anew."""
    rows = []
    for subject in subjects:
        done = _chunks(subject.folder / "sanity")
        if not done:
            continue
        games = {game for d in done for game in d["game"]}
        # Frames of a chunk share the layers that were made anew: these differ more than frames do.
        network = np.repeat(np.arange(len(done)), [len(d["game"]) for d in done])
        sample = f"{len(network)} of {len(games)} games, {len(done)} networks"
        for target in TARGETS:
            alike = {
                what: np.concatenate([d[f"{what}.{target}"] for d in done])
                for what in ("correlation", "ssim")
            }
            for m, name in enumerate(run.computed(subject.agent.spec, target)):
                if METHODS[name].kind == "trivial":
                    continue
                for s, stage in enumerate(done[0]["stages"]):
                    numbers = (
                        interval(measures.bootstrap(x[:, m, s], network)) for x in alike.values()
                    )
                    words = METHODS[name].words
                    rows.append((subject.name, target, words, str(stage), sample, *numbers))
    return Table(
        "sanity",
        "Does the map depend on what was learnt?",
        "Rank correlation and structural similarity (SSIM) of a map with itself after layers were "
        "made anew, cumulatively from the output to the input (Adebayo et al. 2018); intervals are "
        "over the networks so made, 8 frames each (more: --sanity). A map that "
        "stays as it was does not depend on them. A mask is made below its branch's features and "
        "dense layer, so that these cannot change it: 1 there says nothing for it. Trivial maps "
        "do not depend on the network at all.",
        ("agent", "target", "method", "anew down to", "frames", "rank correlation", "SSIM"),
        rows,
    )


def agreement(subject: Subject, target: str) -> tuple[list[str], np.ndarray] | None:
    """(methods, their maps' mean rank correlations [M, M]), or None if nothing is measured."""
    found = read_maps(subject)
    if not found:
        return None
    small = found[f"cells.{target}"]
    pairs = measures.rank_correlation(small[:, :, None], small[:, None])
    return run.method_names(subject.agent.spec, target), pairs.mean(axis=0)


# --------------------------------------------------------------------------- the figures


def controls_figure(subjects: list[Subject]) -> Figure:
    """What share of the normal score is left under each control, a panel per agent."""
    subjects = [subject for subject in subjects if control_scores(subject)]
    figure = Figure(figsize=(3.2 * len(subjects) + 1.0, 3.6), layout="constrained")
    panels = figure.subplots(1, len(subjects), squeeze=False, sharey=True, sharex=True)[0]
    for axes, subject in zip(panels, subjects, strict=True):
        scores = control_scores(subject)
        axes.axvline(100, color="#bbbbbb", linewidth=1)
        for y, name in enumerate(run.PLAYED):
            share = of_normal(scores, name) if name in scores else None
            if share is None:
                axes.annotate(
                    "no share of normal" if name in scores else "not played", (0.02, y),
                    xycoords=("axes fraction", "data"), fontsize=7,
                    va="center", color="#777777",
                )  # fmt: skip
                continue
            mean, low, high = share
            if np.isfinite([low, high]).all():
                axes.plot([low, high], [y, y], color="#555555")
            axes.plot(mean, y, "o", color="#c0392b" if name == "inverse" else "#1f4e79")
            axes.annotate(
                f"{len(scores[name])} games", (1.0, y), xycoords=("axes fraction", "data"),
                fontsize=6, xytext=(-3, 5), textcoords="offset points", ha="right", color="#777777",
            )  # fmt: skip
        axes.set_yticks(range(len(run.PLAYED)), run.PLAYED)
        axes.set_title(subject.name, fontsize=10)
        axes.set_xlabel("mean score, % of normal", fontsize=9)
        axes.set_xlim(left=0)
    panels[0].set_ylim(len(run.PLAYED) - 0.5, -0.9)  # downwards; the first row's words need room
    return figure


def curves_figure(subject: Subject, found: dict[str, np.ndarray]) -> Figure:
    """Insertion and deletion of the chosen action's probability, mean of the backgrounds.

    Bands for the mask and for a random order; the other methods' intervals are in the table.
    """
    names = run.method_names(subject.agent.spec, "action")
    shown = [n for n in ("mask", "blur", "sarfa", "rise", "gradient", "random") if n in names]
    game = collect.read_game(subject.folder / "games.npz")[found["index"]]
    curve = found["probability.action"].mean(axis=3)  # [N, M, way, share]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for way, axes in enumerate(figure.subplots(1, 2, sharey=True)):
        for name in shown:
            points = curve[:, names.index(name), way]
            bands = np.array([measures.bootstrap(p, game) for p in points.T])
            x = 100 * np.array(measures.SHARES)
            style = {"mask": {"linewidth": 2.5, "color": "black"}, "random": {"color": "#888888"}}
            (line,) = axes.plot(x, bands[:, 0], label=METHODS[name].words, **style.get(name, {}))
            if name in style and np.isfinite(bands).all():
                axes.fill_between(x, bands[:, 1], bands[:, 2], alpha=0.15, color=line.get_color())
        better = ("falls fast", "rises fast")[way]
        axes.set_title(f"{measures.WAYS[way]}: of a good map it {better}", fontsize=9)
        axes.set_xlabel(f"% of the screen's cells, {('deleted', 'shown')[way]}", fontsize=9)
    figure.axes[0].set_ylabel("probability of the chosen action", fontsize=9)
    figure.suptitle(f"{subject.name}, {len(game)} frames of {len(set(game))} games", fontsize=10)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right")
    return figure


def maps_figure(subject: Subject) -> Figure | None:
    """All methods' maps of the chosen action on three telling frames of different games.

    Telling: what is on the screen decides most, by the chosen action's probability on the frame
    less that on the backgrounds. Every map from black, its least, to yellow, its greatest.
    """
    chunks = [c for c in _chunks(subject.folder / "maps") if "maps.action" in c]
    if not chunks:
        return None
    index, maps, curve = (
        np.concatenate([c[name] for c in chunks])
        for name in ("index", "maps.action", "probability.action")
    )
    seen = collect.read(subject.folder / "games.npz")
    whole, empty = (curve[:, 0, 0, :, share].mean(axis=1) for share in (0, -1))  # any method's
    rows = best_of_games(whole - empty, seen.game[index], 3)
    names = run.method_names(subject.agent.spec, "action")
    shown = [name for name in names if name != "uniform"]
    columns = -(-(len(shown) + 1) // 2)
    figure = Figure(figsize=(1.45 * columns, 3.6 * len(rows)), layout="constrained")
    grid = figure.subplots(2 * len(rows), columns, squeeze=False)
    view = slice(subject.agent.crop.top, subject.agent.crop.bottom)
    for axes in grid.ravel():
        axes.set_axis_off()
    for lines, row in zip(grid.reshape(len(rows), -1), rows, strict=True):
        at = index[row]
        lines[0].imshow(seen.frame[at][view], aspect="auto")
        lines[0].set_title(f"game {seen.game[at]}, step {seen.step[at]}", fontsize=7)
        for axes, name in zip(lines[1:], shown, strict=False):
            drawn = maps[row, names.index(name)].astype(float)
            axes.imshow(drawn, cmap="inferno", aspect="auto")
            axes.set_title(_short(name), fontsize=7)
    return figure


def best_of_games(worth: np.ndarray, game: np.ndarray, most: int) -> np.ndarray:
    """The moment of most worth of each game, of the `most` games whose best is the greatest."""
    order = np.argsort(-worth, kind="stable")
    firsts = np.unique(game[order], return_index=True)[1]
    return order[np.sort(firsts)[:most]]


def _short(name: str) -> str:
    """What a method is called where there is little room."""
    return METHODS[name].words.removeprefix("the agent's own ")


def agreement_figure(names: list[str], matrix: np.ndarray, title: str) -> Figure:
    """A table of rank correlations, in colours and numbers."""
    keep = [n for n, name in enumerate(names) if name != "uniform"]  # which has no order
    words, matrix = [_short(names[n]) for n in keep], matrix[np.ix_(keep, keep)]
    figure = Figure(figsize=(7.6, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix, vmin=-1, vmax=1, cmap="coolwarm")
    axes.set_xticks(range(len(words)), words, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(words)), words, fontsize=8)
    for i, j in np.ndindex(matrix.shape):
        text = f"{round(float(matrix[i, j]), 1) + 0.0:.1f}"
        axes.text(j, i, text, ha="center", va="center", fontsize=7)
    axes.set_title(title, fontsize=9)
    return figure


# --------------------------------------------------------------------------- the page


LIMITS = (
    "Two methods are told apart where the interval of `mask - this` excludes 0, a control and "
    "normal play where that of `% of normal` excludes 100; more games (--games, --episodes) narrow "
    "them. There are many intervals: one in twenty misses its number by chance. The cells deleted "
    "by insertion and deletion make screens that no game shows; three backgrounds differ in how. "
    "The memory is held fixed: a map of what the memory holds is not asked for. Perturbation "
    "methods are judged by perturbations, which favours them."
)


def write(subjects: list[Subject], folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes report.html, report.md, a CSV per table and a PNG per figure; returns their paths.

    Raises:
      UserError: a file cannot be written.
    """
    study = files.read_json(folder / "study.json")
    budget = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in study["budget"].items())
    tables = [
        controls_table(subjects),
        decrease_table(subjects),
        *(methods_table(subjects, target) for target in TARGETS),
        objects_table(subjects),
        sanity_table(subjects),
    ]
    tables = [table for table in tables if table.rows]
    figures = {}
    if any(control_scores(subject) for subject in subjects):
        figures["controls"] = controls_figure(subjects)
    for subject in subjects:
        found, agreed = read_maps(subject), agreement(subject, "action")
        if not found:
            continue
        figures[f"curves-{subject.name}"] = curves_figure(subject, found)
        if (drawn := maps_figure(subject)) is not None:
            figures[f"maps-{subject.name}"] = drawn
        figures[f"agreement-{subject.name}"] = agreement_figure(
            *agreed, f"{subject.name}: rank correlation of the maps of the chosen action"
        )
    head = f"Budget asked for: {budget}. Every table gives the sample that there is. {LIMITS}"
    page = [f"<h1>Do the masks explain?</h1><p>{html.escape(head)}</p>"]
    text = [f"# Do the masks explain?\n\n{head}\n"]
    written = []
    for table in tables:
        page.append(_html(table))
        text.append(_markdown(table))
        path = folder / f"{table.name}.csv"
        lines = (",".join(f'"{cell}"' for cell in row) for row in (table.columns, *table.rows))
        files.write(path, "\n".join(lines) + "\n")
        written.append(path)
    for name, figure in figures.items():
        data = io.BytesIO()
        figure.savefig(data, dpi=110)
        path = folder / f"{name}.png"
        with files.whole(path) as partial:
            partial.write_bytes(data.getvalue())
        written.append(path)
        image = base64.b64encode(data.getvalue()).decode()
        page.append(f'<h3>{name}</h3><img alt="{name}" src="data:image/png;base64,{image}">')
        text.append(f"![{name}]({name}.png)\n")
    files.write(folder / "report.html", _STYLE + "\n".join(page))
    files.write(folder / "report.md", "\n".join(text))
    return [folder / "report.html", folder / "report.md", *written]


_STYLE = """<!doctype html><meta charset="utf-8"><title>Do the masks explain?</title>
<style>body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;font-size:13px}td,th{border-bottom:1px solid #ddd;padding:2px 9px;
text-align:left}img{max-width:100%}</style>
"""


def _html(table: Table) -> str:
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    rows = "".join(line(row, "td") for row in table.rows)
    words = f"<h2>{html.escape(table.title)}</h2><p>{html.escape(table.words)}</p>"
    return f"{words}<table>{line(table.columns, 'th')}{rows}</table>"


def _markdown(table: Table) -> str:
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    rows = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"## {table.title}\n\n{table.words}\n\n{rows}\n"
