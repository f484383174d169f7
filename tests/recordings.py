"""Made-up recordings for tests: small, the same every time, and any field can be replaced."""

import numpy as np

from maskrl.recording import Recording


def made_up(length: int = 40, mask: str = "both", **fields) -> Recording:
    """A game of `length` steps with four lives, rewards, and the masks of the variant `mask`.

    A white square moves over a dark blue frame; a blob moves over each mask.
    """
    rng = np.random.default_rng(0)
    step = np.arange(length)
    frames = np.zeros((length, 210, 160, 3), np.uint8)
    frames[..., 2] = 60
    for t in step:
        frames[t, 60 + t % 80 : 76 + t % 80, 2 * t % 140 : 2 * t % 140 + 12] = 255
    names = ("NOOP", "FIRE", "UP", "LEFT", "UPRIGHTFIRE", "DOWNRIGHTFIRE")
    lives = 4 - step * 4 // length

    def blob(phase: float) -> np.ndarray:
        rows, columns = np.mgrid[:10, :10]
        y = 4.5 + 4 * np.sin(step / 9 + phase)[:, None, None]
        x = 4.5 + 4 * np.cos(step / 7 + phase)[:, None, None]
        return (4 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 5) - 2).astype(np.float32)

    made = {
        "game": "SpaceInvaders",
        "agent": "made up",
        "mask": mask,
        "mode": "normal",
        "branch": "policy",
        "seed": 0,
        "agent_steps": 0,
        "action_names": names,
        "view": (8, 196),
        "frames": frames,
        "logits": rng.normal(size=(length, len(names))).astype(np.float32),
        "action": (step % len(names)).astype(np.int32),
        "value": np.sin(step / 5).astype(np.float32),
        "reward": np.where(step % 13 == 6, 10, 0).astype(np.float32),
        "lives": lives.astype(np.int32),
        "life_start": np.diff(lives, prepend=5) != 0,
        "ram": np.zeros((length, 128), np.uint8),
    }
    for branch, phase in (("policy", 0.0), ("value", 2.0)):
        if mask in (branch, "both"):
            made[f"{branch}_mask_logits"] = blob(phase)
            made[f"{branch}_mask"] = 1 / (1 + np.exp(-blob(phase)))
    return Recording(**(made | fields))


def things(seed: int = 0, **fields) -> tuple[Recording, np.ndarray]:
    """A game of 60 steps with three things on a sky, and uint8 [60, 100]: what each cell shows.

    0 sky, 1 a ship below, 2 a shot that flies, 3 rocks that stand still. Every thing lies within
    its cell, anywhere in it. The policy's mask is 0.9 on ship and shot, 0.1 elsewhere.
    """
    length = 60
    rng = np.random.default_rng(seed)
    frames = np.full((length, 210, 160, 3), (0, 0, 120), np.uint8)
    kinds = np.zeros((length, 10, 10), np.uint8)
    for t in range(length):
        placed = [
            (9, t % 10, 1, (200, 40, 40), (8, 12)),
            (t % 8, (3 * t) % 10, 2, (240, 240, 240), (6, 2)),
        ]
        placed += [(8, column, 3, (40, 200, 40), (10, 10)) for column in (2, 7)]
        for row, column, kind, colour, (high, wide) in placed:
            kinds[t, row, column] = kind
            y = 10 + 18 * row + rng.integers(0, 18 - high)
            x = 16 * column + rng.integers(0, 16 - wide)
            frames[t, y : y + high, x : x + wide] = colour
    mask = np.where((kinds == 1) | (kinds == 2), 0.9, 0.1).astype(np.float32)
    game = made_up(
        length, "policy", frames=frames, view=(10, 190), policy_mask=mask, seed=seed, **fields
    )
    return game, kinds.reshape(length, 100)
