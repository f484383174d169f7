"""The sweep's launcher, without SLURM: what it would run."""

import os
import pathlib
import subprocess

import train
from maskrl.config import MASKS
from maskrl.tables import GAMES

SCRIPT = pathlib.Path(__file__).parents[1] / "benchmarks" / "sweep.sbatch"


def dry_run(folder: pathlib.Path, task: int, *flags: str) -> str:
    environment = {**os.environ, "DRY_RUN": "1", "SLURM_ARRAY_TASK_ID": str(task)}
    command = ["bash", str(SCRIPT), *flags]
    done = subprocess.run(
        command, env=environment, cwd=folder, check=True, text=True, capture_output=True
    )
    return done.stdout.strip()


def test_the_tasks_are_every_game_variant_and_seed_once(tmp_path):
    lines = [dry_run(tmp_path, task, "--groups", "8") for task in range(120)]
    parsed = [train.parse(line.split()[2:]) for line in lines]
    runs = {(args.game, args.mask, args.seed) for args in parsed}
    assert runs == {(game, mask, seed) for game in GAMES for mask in MASKS for seed in range(5)}
    assert {args.groups for args in parsed} == {8}
    assert {args.actors_per_group for args in parsed} == {32}


def test_the_plan_for_one_accelerator_is_what_the_sweep_does(tmp_path):
    plan = (SCRIPT.parents[1] / "docs" / "scale.md").read_text()
    flags = "--groups 2 --actors-per-group 32"
    assert f"`{flags}`" in plan
    assert dry_run(tmp_path, 0).endswith(flags)


def test_a_task_that_has_begun_is_resumed(tmp_path):
    run = tmp_path / "runs" / "Breakout-none-0"
    run.mkdir(parents=True)
    assert "--resume" not in dry_run(tmp_path, 0)  # killed before it had begun
    (run / "config.json").write_text("{}")
    assert dry_run(tmp_path, 0) == "python train.py --resume runs/Breakout-none-0"
