"""Results of evaluations -> the paper's Tables 1, 2 and 3, its numbers beside ours.

A result is a JSON file as `evaluate.py` writes it. Of several trials (runs, seeds) of a game,
variant and mode the one with the best mean counts, as in the paper (the best of five).
"""

import csv
import io
import pathlib
from collections.abc import Iterable
from typing import Any

from maskrl import files
from maskrl.errors import UserError

GAMES = ("Breakout", "MsPacman", "SpaceInvaders", "BeamRider", "FishingDerby", "Seaquest")
VARIANTS = {"none": "A3C", "policy": "Policy Mask", "value": "Value Mask", "both": "Mask A3C"}
KEYS = (
    *("game", "mask", "mode", "branch", "episodes", "max", "mean", "std", "median"),
    *("scores", "lengths", "agent_steps", "seed"),
)
Cell = tuple[float | None, float | None]  # (max, mean), or (decrease of max, of mean) in %

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


def decrease(game: str, normal: float, inverse: float) -> float:
    """Table 3's decrease in %: 1 - inverse / normal.

    Fishing Derby's scores are negative; there the paper's numbers follow
    1 - 1 / (normal - inverse + 1).
    """
    if game == "FishingDerby":
        return 100 * (1 - 1 / (normal - inverse + 1))
    return 100 * (1 - inverse / normal)


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
    if key in ("game", "mask", "mode", "branch"):
        return isinstance(value, str)
    numbers = value if key in ("scores", "lengths") else [value]
    return isinstance(numbers, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e15 for x in numbers
    )


def best(results: list[dict[str, Any]], game: str, mode: str, mask: str | None) -> Cell:
    """(max, mean) of the best trial, (None, None) without any; `mask` None: of any variant."""
    trials = [
        r
        for r in results
        if r["game"] == game
        and r["mode"] == mode
        and (mask is None or r["mask"] == mask)
        and not r.get("sample")  # the paper's games are greedy
        and (mode != "inverse" or r["branch"] == "policy")
    ]
    trial = max(trials, key=lambda r: r["mean"], default=None)
    return (trial["max"], trial["mean"]) if trial else (None, None)


def tables(results: list[dict[str, Any]]) -> dict[str, list[tuple[str, list[Cell], list[Cell]]]]:
    """The three tables: {title: [(row's name, our cells, the paper's cells), ...]}."""
    ours = {
        (mode, mask): [best(results, game, mode, mask) for game in GAMES]
        for mode in ("normal", "inverse")
        for mask in VARIANTS
    }
    random = [best(results, game, "random", None) for game in GAMES]
    table1 = [
        (name, ours["normal", mask], list(PAPER_NORMAL[mask])) for mask, name in VARIANTS.items()
    ]
    table2, table3 = [], []
    for mask in ("policy", "both"):
        name = VARIANTS[mask]
        normal, inverse = ours["normal", mask], ours["inverse", mask]
        table2.append((f"{name}, normal", normal, list(PAPER_NORMAL[mask])))
        table2.append((f"{name}, inverse", inverse, list(PAPER_INVERSE[mask])))
        decreases = [
            tuple(
                None if a is None or b is None or not a else decrease(game, a, b)
                for a, b in zip(n, i, strict=True)
            )
            for game, n, i in zip(GAMES, normal, inverse, strict=True)
        ]
        table3.append((name, decreases, list(PAPER_DECREASE[mask])))
    table2.append(("random", random, list(PAPER_RANDOM)))
    return {
        "Table 1: score, max / mean": table1,
        "Table 2: inverted policy mask, max / mean": table2,
        "Table 3: decrease by inversion in %, max / mean": table3,
    }


def _text(cell: Cell, digits: int) -> str:
    if all(number is None for number in cell):
        return "-"
    return " / ".join("-" if n is None else f"{n:.{digits}f}" for n in cell)


def markdown(results: list[dict[str, Any]]) -> str:
    """The tables as Markdown; in each cell ours, and the paper's below it."""
    lines = ["In each cell: ours, then (the paper's)."]
    for title, rows in tables(results).items():
        digits = 2 if "%" in title else 1
        lines += ["", f"### {title}", "", "| | " + " | ".join(GAMES) + " |"]
        lines.append("| --- |" + " --- |" * len(GAMES))
        for name, ours, paper in rows:
            cells = [
                f"{_text(o, digits)}<br>({_text(p, digits)})"
                for o, p in zip(ours, paper, strict=True)
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plain(results: list[dict[str, Any]]) -> str:
    """The tables for a terminal, within 80 columns: a line for each game."""
    lines = []
    for title, rows in tables(results).items():
        digits = 2 if "%" in title else 1
        lines += ["", title]
        for name, ours, paper in rows:
            lines.append(f"{name:<26}{'ours':>26}{'paper':>26}")
            for game, o, p in zip(GAMES, ours, paper, strict=True):
                lines.append(f"  {game:<24}{_text(o, digits):>26}{_text(p, digits):>26}")
    return "\n".join(lines[1:]) + "\n"


def comma_separated(results: list[dict[str, Any]]) -> str:
    """The tables as CSV, one row per cell."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["table", "row", "game", "max", "mean", "paper_max", "paper_mean"])
    for title, rows in tables(results).items():
        for name, ours, paper in rows:
            for game, o, p in zip(GAMES, ours, paper, strict=True):
                writer.writerow([title.split(":")[0], name, game, *o, *p])
    return text.getvalue()
