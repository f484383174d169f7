"""Plays whole games with a trained agent: scores, and what the agent attended to.

    python evaluate.py --mode inverse
    python evaluate.py --agent runs/Breakout-both-0 --episodes 10
    python evaluate.py --mode explain
    python evaluate.py --mode table
    python evaluate.py --mode study --agent AGENT [AGENT ...]

The agent is the newest run's best, or one that comes with the project (`agents/`).
"""

import argparse
import dataclasses
import json
import pathlib
import signal

from maskrl import checkpoint, curves, devices, evaluation, files, recording, tables
from maskrl.agent import make_agent
from maskrl.checkpoint import RUNS, AgentInfo
from maskrl.cli import Parser, run_program
from maskrl.config import EPISODE_STEPS, MOST, PRECISIONS
from maskrl.envs import game_name, num_actions
from maskrl.errors import UserError, exit_on_user_error
from maskrl.evaluation import BRANCHES, How, Player
from maskrl.explain import report
from maskrl.explain.frames import numbers
from maskrl.study import report as study_report
from maskrl.study import run
from maskrl.study.collect import SETTLED, collect
from maskrl.study.controls import CONTROLS, NEEDS_KNOWN, controlled
from maskrl.study.run import Budget, Subject

KNOWN_GAMES, KNOWN_SEED = 5, 1_000_003  # whose masks `mean` and `other` take: no game's own
# What of a study's budget has a flag of its own (beside --episodes and --max-episode-steps).
STUDY_FLAGS = {
    "frames": ("moments", "moments of play at which an agent's maps are measured"),
    "games": ("games", "games of an agent that these moments come from"),
    "look_steps": ("look-steps", "agent steps after which such a game is cut off"),
    "sanity": ("sanity", "moments of an agent at which its layers are made anew"),
    "seed": ("study-seed", "seed of its games"),
}
BUDGETS = {  # what a study's numbers may be
    "frames": (1, 10_000),
    "games": (1, 1_000),
    "look_steps": (SETTLED + 2, 10_000_000),
    "episodes": (1, 100_000),
    "max_episode_steps": (1, 10_000_000),
    "sanity": (1, 10_000),
    "seed": (0, MOST),
}
FLAGS_OF = {  # of one mode alone
    "explain": ("frames", "absolute", "drawing", "width", "no_title"),
    "table": ("original",),
    "study": tuple(flag.replace("-", "_") for flag, _ in STUDY_FLAGS.values()),
}
UNKNOWN_TO = {  # flags that say nothing there
    "normal": ("branch",),
    "random": ("branch", "sample"),
    "table": (
        *("agent", "game", "branch", "episodes", "sample", "seed", "precision"),
        "max_episode_steps",
    ),
    "study": ("branch", "sample", "seed"),
}
AGENTS, RESULTS = pathlib.Path("agents"), pathlib.Path("results")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser("evaluate.py", __doc__)
    add = parser.add_argument
    add(
        "--agent",
        type=pathlib.Path,
        nargs="+",
        help="a run's or an agent's folder, to study several [the newest run]",
    )
    add("--game", help="the newest run of this game; with --mode random, no agent is needed")
    add(
        "--mode",
        choices=("normal", "inverse", *CONTROLS, "random", "explain", "table", "study"),
        default="normal",
        help="inverse: 1 - M; random: uniform actions; explain: recordings, videos, figures and "
        "the explorer; table: the paper's tables and each game's learning curves, of all there is; "
        "study: do the masks explain? (started more than once, the processes share the work); the "
        "others are the study's controls (maskrl.study.controls)",
    )
    add(
        "--branch",
        choices=BRANCHES,
        help="whose mask is inverted [policy, as in the paper], or drawn [both]",
    )
    add("--episodes", type=int, help="whole games [100; 1 to explain]")
    add("--sample", action="store_true", help="sample actions instead of the most probable one")
    add("--seed", type=int, default=0, help="of the environments and of sampling [0]")
    add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="of the inputs of matrix products on a CPU [float32]",
    )
    add(
        "--max-episode-steps",
        type=int,
        default=EPISODE_STEPS,
        help="agent steps [10000]",
    )
    report.add_flags(parser)
    add(
        "--original",
        type=pathlib.Path,
        metavar="FOLDER",
        help="for --mode table: the original's learning curves, to stand beside ours",
    )
    add("--output", type=pathlib.Path, help="file or, to explain, folder [a new one in results/]")
    for field in dataclasses.fields(Budget):
        if field.name in STUDY_FLAGS:
            flag, words = STUDY_FLAGS[field.name]
            add(f"--{flag}", type=int, metavar="N", help=f"to study: {words} [{field.default}]")
    args = parser.parse_args(argv)
    given = [name for name in vars(args) if getattr(args, name) != parser.get_default(name)]
    for mode, flags in FLAGS_OF.items():
        for name in given:
            if name in flags and args.mode != mode:
                raise UserError(f"--{name.replace('_', '-')} is for --mode {mode}")
    for name in UNKNOWN_TO.get(args.mode, ()):
        if name in given:
            raise UserError(f"--mode {args.mode} knows no --{name.replace('_', '-')}")
    args.agents = args.agent or []
    if len(args.agents) > 1 and args.mode != "study":
        raise UserError("several agents are for --mode study")
    args.agent = args.agents[0] if args.agents else None
    if args.mode == "study":
        return args
    explaining = args.mode == "explain"
    args.branch = args.branch or ("both" if explaining else "policy")
    args.episodes = (1 if explaining else 100) if args.episodes is None else args.episodes
    report.options(args)  # what is wrong with them is said before the games
    for name in ("episodes", "max_episode_steps"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    if args.frames:
        numbers(args.frames, args.max_episode_steps + 1)
    if not 0 <= args.seed <= MOST:
        raise UserError(f"--seed must be from 0 to {MOST}")
    files.check_new(args.output)
    return args


def find_agent(args: argparse.Namespace):
    """(agent, parameters, info) that the command line asks for."""
    game = game_name(args.game) if args.game else None
    if args.mode == "random" and game and not args.agent:
        info = AgentInfo(
            game=game,
            num_actions=num_actions(game),
            mask="none",
            core="none",
            agent_steps=0,
            source="uniform actions",
        )
        return make_agent(info), None, info
    folder = args.agent or checkpoint.newest_run(RUNS, game)
    if folder is None:
        ours = sorted(path.parent for path in AGENTS.glob(f"{game or '*'}-*/{checkpoint.AGENT}"))
        # The one trained longest: it plays best.
        folder = max(ours, key=lambda path: checkpoint.describe(path)[0].agent_steps, default=None)
    if folder is None:
        raise UserError(
            f"no agent{f' for {game}' if game else ''}: train one (python train.py --game "
            f"{game or 'Breakout'}), or name one by --agent"
        )
    agent, params, info = checkpoint.load_agent(folder, args.precision)
    if game and info.game != game:
        raise UserError(f"the agent in {folder} plays {info.game}, not {game}")
    best = "" if info.score is None else f", the best by evaluation, {info.score:.1f}"
    trained = f"step {info.agent_steps}" if info.agent_steps else info.source
    print(f"agent: {folder} ({info.game}, mask {info.mask}, {trained}{best})")
    newest = checkpoint.Checkpointer(folder).newest or 0
    if newest > info.agent_steps:
        print(f"there is a newer one: --agent {folder / checkpoint.CHECKPOINTS / str(newest)}")
    return agent, params, info


def how(args: argparse.Namespace, mode: str, seed: int, branch: str) -> How:
    """How games are to be played."""
    return How(
        mode=mode,
        branch=branch,
        sample=args.sample,
        seed=seed,
        max_episode_steps=args.max_episode_steps,
    )


def evaluate(args: argparse.Namespace) -> None:
    """Plays, prints the scores, and writes them."""
    agent, params, info = find_agent(args)
    output = args.output or files.free_name(
        RESULTS / f"{info.game}-{info.mask}-{args.mode}-{info.agent_steps}-seed{args.seed}.json"
    )
    files.check_writable(output)
    mode = args.mode
    if mode in CONTROLS:
        own, agent, mode = agent, controlled(agent, mode, args.branch, {}), "normal"
        evaluation.check_episodes(agent, args.episodes)  # before others are played for its masks
        if args.mode in NEEDS_KNOWN:
            seed = args.seed + KNOWN_SEED
            seen = collect(own, params, KNOWN_GAMES, KNOWN_GAMES, seed, args.max_episode_steps)
            agent = dataclasses.replace(agent, known=run.known_masks(seen))
    plan = how(args, mode, args.seed, args.branch)
    player = Player(agent, args.episodes, plan)
    games = player.play(params, progress=True)
    result = evaluation.result(info, plan, games)
    result |= {"mode": args.mode, "precision": args.precision}
    if not args.output:
        output = files.free_name(output)  # another evaluation may have taken it meanwhile
    files.write(output, json.dumps(result) + "\n")
    columns = ("game", "mask", "mode", "episodes", "max", "mean", "std", "median")
    cells = [f"{x:.1f}" if isinstance(x := result[c], float) else str(x) for c in columns]
    print("\n".join(tables.aligned([columns, cells], gap="  ")))
    print(f"written: {output}")


def explain(args: argparse.Namespace) -> None:
    """Records games, each also with the policy's mask inverted, and draws everything."""
    agent, params, info = find_agent(args)
    missing = [b for b in ("policy", "value") if args.branch == b and not info.has_mask(b)]
    if missing or info.mask == "none":
        raise UserError(f"this agent (mask {info.mask}) has no {(missing or ['any'])[0]} mask")
    folder = args.output or files.free_name(
        RESULTS / f"{info.game}-{info.mask}-explain-{info.agent_steps}"
    )
    files.check_writable(folder / "recording.npz")
    recorded = []
    modes = ("normal", "inverse") if info.has_mask("policy") else ("normal",)
    for seed in range(args.seed, args.seed + args.episodes):
        paths = [folder / f"{info.game}-{mode}-seed{seed}.npz" for mode in modes]
        for mode, path in zip(modes, paths, strict=True):
            game = evaluation.record(
                agent,
                params,
                how(args, mode, seed, "policy"),
                name=info.source,
                agent_steps=info.agent_steps,
                progress=True,
            )
            recording.write(game, path)
            print(f"{path}: {mode} play, score {game.final_score:g}, {len(game)} frames")
            del game  # before the next one is played
        recorded.append(paths)
    written = report.explain(recorded, folder, args.branch, **report.options(args))
    for path in written:
        print(f"written: {path}")


def table(args: argparse.Namespace) -> None:
    """Builds the paper's tables from all results, and a figure per game of all learning curves."""
    results = tables.read_results(sorted(RESULTS.glob("*.json")))
    for folder in sorted(AGENTS.glob("*")):
        came_with_it = tables.read_results(sorted(folder.glob(f"{RESULTS}/*.json")))
        results += [result | {tables.AGENT: folder.name} for result in came_with_it]
    if not results:
        raise UserError(f"no results in {RESULTS}/: python evaluate.py writes them")
    output = args.output or RESULTS / "tables.md"
    if output.suffix == ".csv":
        raise UserError(f"{output}: the tables are Markdown; the CSV stands beside it")
    runs = curves.by_game([*sorted(RUNS.glob("*")), *sorted(AGENTS.glob("*"))])
    pictures = {game: output.with_name(f"curve-{game}.png") for game in runs}
    written = [output, output.with_suffix(".csv"), *pictures.values()]
    for path in written:
        if args.output:
            files.check_new(path)
        files.check_writable(path)
    greedy = args.original and args.original / curves.GREEDY
    # Before anything is written: the original's files may not be there.
    figures = {game: curves.draw(folders, args.original) for game, folders in runs.items()}
    files.write(output, tables.markdown(results, greedy))
    files.write(output.with_suffix(".csv"), tables.comma_separated(results, greedy))
    for game, figure in figures.items():
        curves.save(figure, pictures[game])
    print(tables.text(results, greedy))
    for path in written:
        print(f"written: {path}")


def study(args: argparse.Namespace) -> None:
    """Studies agents, or goes on with it, and reports what there is, if interrupted, too.

    Several processes may do so at once: each job is done by one of them.
    """
    folder = args.output or RESULTS / "study"
    given = {name: getattr(args, flag.replace("-", "_")) for name, (flag, _) in STUDY_FLAGS.items()}
    given |= {"episodes": args.episodes, "max_episode_steps": args.max_episode_steps}
    budget = Budget(**{name: n for name, n in given.items() if n is not None})
    for name, number in dataclasses.asdict(budget).items():
        least, most = BUDGETS[name]
        if not least <= number <= most:
            flag = STUDY_FLAGS[name][0] if name in STUDY_FLAGS else name.replace("_", "-")
            raise UserError(f"--{flag} {number}: from {least:,} to {most:,}")
    subjects, agents = [], {}
    for path in args.agents or [None]:
        args.agent = path
        agent, params, info = find_agent(args)
        evaluation.check_actions(agent.spec)
        name = path.resolve().name if path else info.game
        if name in agents:
            raise UserError(f"two of the agents' folders have the same name, {name}: rename one")
        agents[name] = f"{info.source}, step {info.agent_steps}"
        subjects.append(Subject(name, agent, params, info, folder / name))
    with run.alone(folder):
        run.settle(folder, budget, agents, args.precision)
    interrupted = None
    try:
        run.run(subjects, budget)
    except KeyboardInterrupt as error:
        interrupted = error
        print("\nreporting what there is; the same command goes on with the rest")
    with run.alone(folder):
        for path in study_report.write(subjects, folder):
            print(f"written: {path}")
    if interrupted is not None:
        raise interrupted


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    with exit_on_user_error("evaluate.py"):
        args = parse(argv)
        {"table": table, "explain": explain, "study": study}.get(args.mode, evaluate)(args)
    return 0


def program() -> None:
    """`main` as a program of its own: on every core, and what ends a cluster's job is a Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    devices.use_cores()
    run_program(main)


if __name__ == "__main__":
    program()
