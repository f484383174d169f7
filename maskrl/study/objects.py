"""Where the things of a game are: from the console's memory where its bytes are known, else by
their colours.

A finder takes a frame, uint8 [210, 160, 3], and the memory, uint8 [128], and returns where each
kind of thing is, bool [210, 160]. Boxes from the memory are as large as the thing drawn (frames
show the maximum of two screens, so a fast thing can be a little longer).
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from maskrl.explain.overlay import cover
from maskrl.networks import MASK_CELLS
from maskrl.reaction import MEMORY

Places = dict[str, np.ndarray]


def _byte(game: str, name: str, ram: np.ndarray) -> int:
    return int(ram[MEMORY[game][name][0]])


def _box(top: int, left: int, height: int, width: int) -> np.ndarray:
    place = np.zeros((210, 160), bool)
    place[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
    return place


def _colour(frame: np.ndarray, colour: tuple[int, int, int], top: int, bottom: int) -> np.ndarray:
    """Pixels of this colour in rows top:bottom."""
    place = np.zeros((210, 160), bool)
    place[top:bottom] = (frame[top:bottom] == np.array(colour, np.uint8)).all(axis=-1)
    return place


def breakout(frame: np.ndarray, ram: np.ndarray) -> Places:
    """Ball and paddle by memory; bricks are what is neither black nor wall in their six rows."""
    bricks = np.zeros((210, 160), bool)
    bricks[57:93, 8:152] = frame[57:93, 8:152].any(axis=-1)
    x, y = _byte("Breakout", "ball-x", ram), _byte("Breakout", "ball-y", ram)
    return {
        "ball": _box(y + 8, x - 49, 6, 4) if y else _box(0, 0, 0, 0),
        "paddle": _box(189, _byte("Breakout", "player-x", ram) - 55, 4, 16),
        "bricks": bricks,
    }


def space_invaders(frame: np.ndarray, ram: np.ndarray) -> Places:
    """By colour: the memory knows where the invaders' block begins, not what is left of it."""
    return {
        "cannon": _colour(frame, (50, 132, 50), 185, 195),
        "invaders": _colour(frame, (134, 134, 29), 30, 185),
        "shots": _colour(frame, (142, 142, 142), 30, 195),
        "shields": _colour(frame, (181, 83, 40), 155, 180),
    }


# Ms. Pac-Man's other ghosts stand in the memory beside Sue: columns at 7 to 9, rows at 13 to 15.
_OTHER_GHOSTS = ((7, 13), (8, 14), (9, 15))


def ms_pacman(frame: np.ndarray, ram: np.ndarray) -> Places:
    """She and the four ghosts, by memory."""
    sue = (MEMORY["MsPacman"][name][0] for name in ("sue-x", "sue-y"))
    ghosts = np.zeros((210, 160), bool)
    for x, y in (tuple(sue), *_OTHER_GHOSTS):
        ghosts |= _box(int(ram[y]) + 1, int(ram[x]) - 12, 10, 8)
    x, y = (_byte("MsPacman", name, ram) for name in ("player-x", "player-y"))
    return {"Ms. Pac-Man": _box(y + 1, x - 12, 10, 8), "ghosts": ghosts}


_SUBMARINE_ROW = 97  # of the memory


def seaquest(frame: np.ndarray, ram: np.ndarray) -> Places:
    """Submarine and oxygen's bar by memory and place; divers by colour; enemies are the rest."""
    submarine = _box(int(ram[_SUBMARINE_ROW]) + 32, _byte("Seaquest", "player-x", ram), 12, 16)
    divers = _colour(frame, (66, 72, 200), 62, 165)
    water, own = (_colour(frame, c, 62, 152) for c in ((0, 28, 136), (187, 187, 53)))
    enemies = np.zeros((210, 160), bool)
    enemies[62:152, 8:] = True
    enemies &= ~(water | own | divers | submarine)
    return {
        "submarine": submarine,
        "enemies": enemies,
        "divers": divers,
        "oxygen": _box(170, 49, 5, 63),
    }


FINDERS: dict[str, Callable[[np.ndarray, np.ndarray], Places]] = {
    "Breakout": breakout,
    "MsPacman": ms_pacman,
    "Seaquest": seaquest,
    "SpaceInvaders": space_invaders,
}


def find(game: str, frame: np.ndarray, ram: np.ndarray) -> tuple[Places, dict[str, float]]:
    """(places by kind, numbers by name); both empty for a game that is not known."""
    places = FINDERS[game](frame, ram) if game in FINDERS else {}
    facts = {"oxygen": float(_byte(game, "oxygen", ram))} if game == "Seaquest" else {}
    return places, facts


def touched(place: np.ndarray, view: tuple[int, int]) -> np.ndarray:
    """bool [10, 10]: the mask's cells that have a pixel of it, in rows view[0]:view[1]."""
    counts = np.bincount(cover(view)[place], minlength=MASK_CELLS**2)[: MASK_CELLS**2]
    return counts.reshape(MASK_CELLS, MASK_CELLS) > 0


def around(cells: np.ndarray) -> np.ndarray:
    """bool [S, 10, 10]: these cells and their eight neighbours."""
    return ndimage.binary_dilation(cells, np.ones((1, 3, 3), bool))


def share_on(mask: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The share of each mask's mass, float [S], on cells bool [S, 10, 10]."""
    return (mask * cells).sum(axis=(1, 2)) / np.maximum(mask.sum(axis=(1, 2)), 1e-12)
