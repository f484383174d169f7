"""Draws recordings, without an agent or an environment: explorer, videos, figures, galleries.

    python -m maskrl.explain results/*/*-normal-seed0.npz --output pictures --only gallery
    python -m maskrl.explain GAME-normal-seed0.npz GAME-inverse-seed0.npz --output pictures

A recording NAME-inverse-... is drawn beside NAME-normal-..., if both are named.
"""

import pathlib
import sys

from maskrl.cli import Parser
from maskrl.errors import exit_on_user_error
from maskrl.explain import report


def pairs(paths: list[pathlib.Path]) -> list[list[pathlib.Path]]:
    """Every recording, together with that of its inverted play."""
    other = {
        path: path.with_name(path.name.replace("-normal", "-inverse"))
        for path in paths
        if "-normal" in path.name
    }
    beside = set(other.values()) & set(paths)
    return [
        [path, other[path]] if other.get(path) in beside else [path]
        for path in paths
        if path not in beside
    ]


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser("python -m maskrl.explain", __doc__)
    parser.add_argument("recordings", type=pathlib.Path, nargs="+", help="files .npz")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        required=True,
        help="folder to write to; what was drawn there is replaced",
    )
    parser.add_argument(
        "--only", choices=report.PARTS, nargs="+", default=report.PARTS, help="what to make [all]"
    )
    parser.add_argument(
        "--branch", choices=("policy", "value", "both"), default="both", help="masks to draw [both]"
    )
    report.add_flags(parser)
    with exit_on_user_error("maskrl.explain"):
        args = parser.parse_args(argv)
        options = report.options(args)
        for path in report.explain(
            pairs(args.recordings), args.output, args.branch, parts=args.only, **options
        ):
            print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
