"""Results of evaluations -> the paper's Tables 1, 2 and 3, its numbers beside ours.

A result is a JSON file as `evaluate.py` writes it. A trial is an agent: one run's, at some of its
steps. Of several trials of a game and a variant the one with the best mean counts, as in the paper
(the best of five), and the table says of how many; a normal and an inverted score that stand
together are one trial's. Games of unlike step limits never share a table.
"""

import csv
import dataclasses
import io
import pathlib
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from maskrl import files
from maskrl.config import BEGAN_WITH, EPISODE_STEPS, RUN
from maskrl.errors import UserError

GAMES = ("Breakout", "MsPacman", "SpaceInvaders", "BeamRider", "FishingDerby", "Seaquest")
VARIANTS = {"none": "A3C", "policy": "Policy Mask", "value": "Value Mask", "both": "Mask A3C"}
KEYS = (
    *("game", "mask", "mode", "branch", "source", "episodes", "max", "mean", "std", "median"),
    *("scores", "lengths", "agent_steps", "seed", "sample", "max_episode_steps"),
)
AGENT = "agent"  # key of a result that came with an agent: the name of the agent's folder
NEAR = (0.8, 1.2)  # times the agent's steps: where the original's games are taken from
Cell = tuple[float | None, float | None]  # (max, mean), or (decrease of max, of mean) in %
NONE: Cell = (None, None)

# The paper's Table 1: (max, mean) over 100 games, in the order of GAMES.
PAPER_NORMAL: dict[str, tuple[Cell, ...]] = {
    "none": (
        *((864, 662.0), (5380, 4573.3), (19505, 18531.8)),
        *((34748, 28341.1), (41, 32.1), (2760, 2728.2)),
    ),
    "policy": (
        *((864, 595.8), (6330, 4833.8), (19860, 19102.8)),
        *((32604, 28495.3), (41, 37.5), (2820, 2784.0)),
    ),
    "value": (
        *((864, 606.9), (4830, 4044.5), (19675, 18537.8)),
        *((35108, 28205.7), (43, 36.1), (2820, 2786.4)),
    ),
    "both": (
        *((864, 640.0), (6610, 5314.1), (19810, 19212.5)),
        *((34448, 27671.1), (41, 34.3), (17150, 6701.9)),
    ),
}
# Table 2: the policy mask inverted, and uniform actions.
PAPER_INVERSE: dict[str, tuple[Cell, ...]] = {
    "policy": (
        *((4, 2.2), (290, 268.9), (805, 306.9)),
        *((4996, 1554.2), (-49, -75.7), (280, 158.2)),
    ),
    "both": (
        *((5, 1.8), (410, 194.4), (915, 420.2)),
        *((6380, 2063.9), (-49, -74.7), (420, 280.6)),
    ),
}
PAPER_RANDOM: tuple[Cell, ...] = (
    *((None, 1.2), (1080, 247.8), (460, 142.1)),
    *((852, 356.5), (-85, -93.1), (300, 82.8)),
)
# Table 3: the decrease from normal to inverse, in %.
PAPER_DECREASE: dict[str, tuple[Cell, ...]] = {
    "policy": (
        *((99.53, 99.63), (95.41, 94.43), (95.94, 98.39)),
        *((84.67, 94.54), (98.90, 99.12), (90.07, 94.31)),
    ),
    "both": (
        *((99.42, 99.71), (93.79, 96.34), (95.38, 97.80)),
        *((81.47, 92.54), (98.90, 99.09), (97.55, 95.81)),
    ),
}


def decrease(game: str, normal: float, inverse: float) -> float | None:
    """Table 3's decrease in %: 1 - inverse / normal; None where it means nothing.

    Fishing Derby's scores are negative; there the paper's numbers follow
    1 - 1 / (normal - inverse + 1), which knows no increase. Elsewhere a share of a score that is
    not above 0 says nothing.
    """
    if game == "FishingDerby":
        return 100 * (1 - 1 / (normal - inverse + 1)) if inverse <= normal else None
    return 100 * (1 - inverse / normal) if normal > 0 <= inverse else None


def read_results(paths: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
    """Reads result files.

    Raises:
      UserError: one of them is not a result.
    """
    results = []
    for path in paths:
        try:
            result = files.read_json(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not a result: {error}") from error
        missing = [key for key in KEYS if not isinstance(result, dict) or key not in result]
        if missing:
            raise UserError(f"{path} is not a result: {missing[0]} is missing")
        wrong = [key for key in KEYS if not _is_of_kind(key, result[key])]
        if wrong:
            raise UserError(f"{path} is not a result: {wrong[0]} is of the wrong type")
        results.append(result)
    return results


def _is_of_kind(key: str, value: Any) -> bool:
    """Whether this is what `evaluate.py` writes under this key: text, a number, or numbers."""
    if key in ("game", "mask", "mode", "branch", "source"):
        return isinstance(value, str)
    if key == "sample":
        return isinstance(value, bool)
    numbers = value if key in ("scores", "lengths") else [value]
    return isinstance(numbers, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e15 for x in numbers
    )


@dataclasses.dataclass(frozen=True)
class Trial:
    """An agent, and its results by mode: normal, inverse, random, and the study's controls.

    Its lineage is what all agents share that went on from one another: the name of the agent that
    its run began with, else of its run.
    """

    game: str
    mask: str
    source: str
    agent_steps: int
    lineage: str
    results: dict[str, dict[str, Any]]

    def cell(self, mode: str) -> Cell:
        """(max, mean) of its games."""
        result = self.results[mode]
        return result["max"], result["mean"]


def trials(results: list[dict[str, Any]], limit: int) -> list[Trial]:
    """The agents of results whose games end at this step limit.

    Of an agent's results of the same kind (other seeds) the one with the most games counts, of
    equal ones the first: it has not been chosen by its score. The paper's games are greedy, and it
    inverts the policy's mask: other results have no place in its tables.
    """
    found: dict[tuple, dict[str, dict[str, Any]]] = {}
    lineages: dict[tuple, str] = {_who(r): r[AGENT] for r in results if r.get(AGENT)}
    # A user's runs may have the names of those that the project's agents come from.
    began_with = dict(_run(result) for result in results if _who(result) not in lineages)
    for result in results:
        if result["max_episode_steps"] != limit or result["sample"]:
            continue
        if result["mode"] not in ("normal", "random") and result["branch"] != "policy":
            continue
        who = _who(result)
        known = found.setdefault(who, {})
        if who not in lineages:
            (root, origin), left = _run(result), dict(began_with)
            while origin:  # each link once: names may make a circle
                root, origin = origin, left.pop(origin, "")
            lineages[who] = root
        before = known.get(result["mode"])
        if before is None or result["episodes"] > before["episodes"]:
            known[result["mode"]] = result
    return [Trial(*who, lineages[who], known) for who, known in found.items()]


def _who(result: dict[str, Any]) -> tuple:
    return tuple(result[key] for key in ("game", "mask", "source", "agent_steps"))


def _run(result: dict[str, Any]) -> tuple[str, str]:
    """The run that a result's agent comes from, and the agent that it began with, if any."""
    run, _, origin = result["source"].removeprefix(RUN).partition(BEGAN_WITH)
    return run, origin


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One cell of one of the paper's tables.

    Attributes:
      table: 1, 2 or 3.
      row, game: where it stands.
      ours: (max, mean) of `source`'s games; in Table 3 their decrease in %.
      paper: the same of the paper, at 100 million steps.
      games: played for it (in Table 3: for each of the two scores).
      agent_steps: that the agent was trained for.
      source: the agent.
      trials: of how many it is the best.
      all_mean, all_error: of the trials' means, and half of its 95 % interval (Student's t).
      original: the mean of the original's games at about the same steps.
    """

    table: int
    row: str
    game: str
    ours: Cell = NONE
    paper: Cell = NONE
    games: int | None = None
    agent_steps: int | None = None
    source: str = ""
    trials: int = 0
    all_mean: float | None = None
    all_error: float | None = None
    original: float | None = None


def lines(
    results: list[dict[str, Any]], limit: int, original: pathlib.Path | None = None
) -> list[Line]:
    """The three tables, cell by cell.

    Args:
      limit: agent steps at which the games that are compared are cut off. The paper's numbers stand
        beside ours only where it is the paper's.
      original: `learning_curves.csv` of the original (game, agent_steps, score), if it is there.
    """
    known = trials(results, limit)
    rows = [(1, name, mask, "normal", PAPER_NORMAL[mask]) for mask, name in VARIANTS.items()]
    for mask in ("policy", "both"):
        name = VARIANTS[mask]
        rows.append((2, f"{name} normal", mask, "normal", PAPER_NORMAL[mask]))
        rows.append((2, f"{name} inverse", mask, "inverse", PAPER_INVERSE[mask]))
    rows.append((2, "random", None, "random", PAPER_RANDOM))
    modes = {mode for trial in known for mode in trial.results}
    controls = sorted(modes - {"normal", "inverse", "random"})
    for mask in ("policy", "both"):
        name = VARIANTS[mask]
        rows.append((3, name, mask, "inverse", PAPER_DECREASE[mask]))
        rows += [(3, f"{name}: {mode}", mask, mode, (NONE,) * len(GAMES)) for mode in controls]
    made = []
    for table, row, mask, mode, paper in rows:
        needed = {mode} if mask is None else {"normal", mode}
        if table == 2 and mask:
            needed.add("inverse")
        for game, theirs in zip(GAMES, paper, strict=True):
            able = [
                trial
                for trial in known
                if trial.game == game
                and mask in (None, trial.mask)
                and needed <= trial.results.keys()
            ]
            # Agents of one lineage are one trial: the one that was trained longest.
            by_steps = sorted(able, key=lambda trial: trial.agent_steps)
            newest = {trial.lineage: trial for trial in by_steps}
            able = list(newest.values())
            line = Line(
                table=table, row=row, game=game, paper=theirs if limit == EPISODE_STEPS else NONE
            )
            made.append(_filled(line, able, mode, original if mask == "both" else None))
    return made


def _filled(line: Line, able: list[Trial], mode: str, original: pathlib.Path | None) -> Line:
    """The line with the best of these trials, if there is any."""
    if not able:
        return line
    if mode == "random":  # nothing was learnt, so nothing may be chosen by its luck
        best = max(able, key=lambda t: t.results[mode]["episodes"])
        games = best.results[mode]["episodes"]
        return dataclasses.replace(line, ours=best.cell(mode), games=games, source=best.source)
    best = max(able, key=lambda t: t.results["normal"]["mean"])
    ours, games = best.cell(mode), best.results[mode]["episodes"]
    if line.table == 3:
        normal = best.cell("normal")
        games = min(games, best.results["normal"]["episodes"])
        ours = tuple(decrease(line.game, n, i) for n, i in zip(normal, ours, strict=True))
    means = [trial.results[mode]["mean"] for trial in able]
    spread = {}
    if line.table == 1 and len(means) > 1:
        half = stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)
        spread = {"all_mean": float(np.mean(means)), "all_error": float(half)}
    if original and mode == "normal":
        spread["original"] = original_score(original, line.game, best.agent_steps)
    return dataclasses.replace(
        line,
        ours=ours,
        games=games,
        agent_steps=best.agent_steps,
        source=best.source,
        trials=len(able),
        **spread,
    )


def original_score(path: pathlib.Path, game: str, agent_steps: int) -> float | None:
    """The mean of the original's single greedy games near some agent steps; None without any.

    Raises:
      UserError: not such a file.
    """
    steps, scores = files.read_columns(path, "agent_steps", "score", game=game)
    near = (steps > NEAR[0] * agent_steps) & (steps < NEAR[1] * agent_steps)
    return float(scores[near].mean()) if near.any() else None


TITLES = {
    1: "Table 1: score, max / mean",
    2: "Table 2: policy mask inverted, max / mean",
    3: "Table 3: decrease by inversion, and by the study's controls, in %, max / mean",
}
HEAD = ("game", "variant", "steps", "games", "ours", "paper", "original")


def sections(
    results: list[dict[str, Any]], original: pathlib.Path | None = None
) -> list[tuple[str, list[Line]]]:
    """(heading, lines) for every step limit, the paper's first, and for each of its tables."""
    limits = {result["max_episode_steps"] for result in results}
    made = []
    for limit in sorted(limits, key=lambda n: (n != EPISODE_STEPS, n)):
        found = lines(results, limit, original)
        alike = "as the paper's" if limit == EPISODE_STEPS else "not to be compared with the paper"
        for table, title in TITLES.items():
            heading = f"{title} (games of up to {limit:,} agent steps, {alike})"
            made.append((heading, [line for line in found if line.table == table]))
    return made


def text(results: list[dict[str, Any]], original: pathlib.Path | None = None) -> str:
    """The tables for a terminal of 80 columns; cells without a result of ours are left out."""
    made = []
    for heading, found in sections(results, original):
        filled = [line for line in found if line.games]
        if filled:
            columns = zip(HEAD, *map(_cells, filled), strict=True)
            columns = [column for column in columns if any(column[1:])]
            made += ["", *textwrap.wrap(heading, 79), ""]
            made += aligned(zip(*columns, strict=True), words=2)
            made += [f"{line.game}, {line.row}: {_all(line)}" for line in filled if _all(line)]
    return "\n".join([*made[1:], ""])


def aligned(rows: Iterable[Sequence[str]], words: int = 0, gap: str = " ") -> list[str]:
    """Rows as lines: columns as wide as their widest cells, the first `words` ones flush left."""
    padded = []
    for n, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        padded.append([c.ljust(width) if n < words else c.rjust(width) for c in column])
    return [gap.join(row).rstrip() for row in zip(*padded, strict=True)]


def markdown(results: list[dict[str, Any]], original: pathlib.Path | None = None) -> str:
    """The tables as Markdown: every cell of the paper's, ours beside it where there is one."""
    made = [
        "Steps: agent steps that ours was trained for; the paper's: 100 million. Original: the "
        "mean of the original's games at about the same steps (one run).",
    ]
    for heading, found in sections(results, original):
        made += ["", f"### {heading}", "", f"| {' | '.join(HEAD)} | agent |", "| --- " * 8 + "|"]
        for line in found:
            agent = ", ".join(filter(None, [line.source, _all(line)]))
            made.append(f"| {' | '.join([*_cells(line), agent])} |")
    return "\n".join(made) + "\n"


def comma_separated(results: list[dict[str, Any]], original: pathlib.Path | None = None) -> str:
    """The tables as CSV, one row per cell."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    names = [f.name for f in dataclasses.fields(Line) if f.name not in ("ours", "paper")]
    writer.writerow(["limit", *names, "max", "mean", "paper_max", "paper_mean"])
    for limit in sorted({result["max_episode_steps"] for result in results}):
        for line in lines(results, limit, original):
            row = [getattr(line, name) for name in names]
            writer.writerow([limit, *row, *line.ours, *line.paper])
    return stream.getvalue()


def _cells(line: Line) -> tuple[str, ...]:
    """A line's cells under `HEAD`."""
    steps = "" if line.agent_steps is None else f"{line.agent_steps / 1e6:.2f}M"
    theirs = "" if line.original is None else _number(line.original)
    games = "" if line.games is None else str(line.games)
    return line.game, line.row, steps, games, _text(line.ours), _text(line.paper), theirs


def _text(cell: Cell) -> str:
    if all(number is None for number in cell):
        return "-"
    return " / ".join("-" if n is None else _number(n) for n in cell)


def _number(n: float) -> str:
    """A score, or a share in %: four digits, of thousands five."""
    return f"{n:.{5 if abs(n) >= 1000 else 4}g}"


def _all(line: Line) -> str:
    """What is said of the trials that are not the best."""
    if line.trials < 2:
        return ""
    best = f"best of {line.trials}"
    if line.all_mean is None:
        return best
    return f"{best}; mean of all {line.all_mean:.5g} \u00b1 {line.all_error:.3g} (95 %)"
