"""One game, frame by frame, with the agent's reasons: the file format, its reader and its writer.

A recording is a compressed NumPy archive (`.npz`): one entry per array field of `Recording`, and
one, `header`, a JSON text with the other fields and the format's version. Reading it needs NumPy
alone. T is the number of agent steps of the game (one frame each), A the number of actions; what
stands in row t belongs to the moment at which the agent sees `frames[t]` and chooses `action[t]`.
"""

import dataclasses
import json
import math
import pathlib
import zipfile

import numpy as np

from maskrl import files
from maskrl.errors import UserError

VERSION = 3
# 1 lacks `cut_off` and what would be without the mask; 2 has three bytes for every pixel.
READABLE = (1, 2, 3)
MASK_CELLS = 10  # the masks are 10 x 10
MAX_BYTES = 2**33  # of the arrays that are read: a game of 80,000 frames


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames of few colours, a byte for every pixel: the console has 128 colours.

    Two bytes of more than 256: what is shown is the maximum of two of the console's screens.
    Indexed, they are the array uint8 [T, 210, 160, 3], RGB, that they stand for.
    """

    pixels: np.ndarray  # uint8 or uint16 [T, 210, 160], rows of the palette
    palette: np.ndarray  # uint8 [P, 3], RGB

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, where: int | slice) -> np.ndarray:
        return np.take(self.palette, self.pixels[where], axis=0)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.pixels.shape, 3)

    @property
    def dtype(self) -> np.dtype:
        return self.palette.dtype


class Film:
    """Frames as they come; of more than `expected` it grows a little at a time."""

    def __init__(self, expected: int):
        # Of a long game, hundreds of megabytes: what is not written takes no memory.
        self._pixels = np.empty((expected, 210, 160), np.uint8)
        self._number = np.zeros(1 << 24, np.uint16)  # of every colour, from 1; 0: not seen yet
        self._palette: list[int] = []
        self._length = 0

    def add(self, frame: np.ndarray) -> None:
        """Appends a frame, uint8 [3, 210, 160], of the console's colours."""
        red, green, blue = frame.astype(np.uint32)
        colour = red << 16 | green << 8 | blue
        number = self._number[colour]
        if not number.all():
            for new in np.unique(colour[number == 0]).tolist():
                self._palette.append(new)
                self._number[new] = len(self._palette)
            number = self._number[colour]
        if len(self._palette) > 256 and self._pixels.dtype == np.uint8:
            wider = np.empty(self._pixels.shape, np.uint16)
            wider[: self._length] = self._pixels[: self._length]
            self._pixels = wider
        if self._length == len(self._pixels):
            self._pixels = np.concatenate([self._pixels, np.empty_like(self._pixels[:1000])])
        self._pixels[self._length] = number - 1
        self._length += 1

    def frames(self) -> Frames:
        """What has been added."""
        palette = np.array(self._palette, ">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
        return Frames(self._pixels[: self._length], palette)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """A whole game. Masks that the agent lacks are None."""

    game: str  # "SpaceInvaders"
    agent: str  # where the agent came from, for titles
    mask: str  # the agent's variant: both, policy, value or none
    mode: str  # normal, inverse or random
    branch: str  # the branch whose mask the mode inverted: policy, value or both
    seed: int
    agent_steps: int  # what the agent was trained for; 0 if unknown
    action_names: tuple[str, ...]  # [A], of the console: "NOOP", "UPRIGHTFIRE", ...
    view: tuple[int, int]  # rows [top, bottom) of the frame that the network sees, all columns

    frames: np.ndarray | Frames  # uint8 [T, 210, 160, 3], RGB
    logits: np.ndarray  # float32 [T, A]
    action: np.ndarray  # int32 [T], index into action_names
    value: np.ndarray  # float32 [T], the critic's V
    # float32 [T], unclipped, what action[t] brought; on a life's last frame what the opening of the
    # next life did.
    reward: np.ndarray
    lives: np.ndarray  # int32 [T], lives left at frames[t]
    life_start: np.ndarray  # bool [T], first frame after a lost life, and frame 0
    ram: np.ndarray  # uint8 [T, 128], the console's memory at frames[t]
    policy_mask: np.ndarray | None = None  # float32 [T, 10, 10] in [0, 1], as it was applied
    value_mask: np.ndarray | None = None  # float32 [T, 10, 10] in [0, 1], as it was applied
    policy_mask_logits: np.ndarray | None = None  # float32 [T, 10, 10], before the sigmoid
    value_mask_logits: np.ndarray | None = None  # float32 [T, 10, 10], before the sigmoid

    # What would be said at frames[t], everything before it as it was; None where there is no mask.
    unmasked_logits: np.ndarray | None = None  # float32 [T, A], with a policy mask of ones
    inverted_logits: np.ndarray | None = None  # float32 [T, A], with 1 - M of the policy
    unmasked_value: np.ndarray | None = None  # float32 [T], with a value mask of ones
    inverted_value: np.ndarray | None = None  # float32 [T], with 1 - M of the value
    # What a cell adds to the outputs: taken away where the mask of this cell alone is 0.
    cell_logits: np.ndarray | None = None  # float16 [T, 10, 10, A]
    cell_values: np.ndarray | None = None  # float16 [T, 10, 10]

    cut_off: bool = False  # whether the step limit ended the game
    sample: bool = False  # whether the actions were sampled; else the most probable ones
    opening: float = 0.0  # what the opening brought, before frames[0]; no action's

    def __len__(self) -> int:
        """T, the number of frames."""
        return len(self.frames)

    @property
    def probabilities(self) -> np.ndarray:
        """float32 [T, A]: pi(a | s), the softmax of the logits."""
        return softmax(self.logits)

    @property
    def entropy(self) -> np.ndarray:
        """float32 [T]: the policy's entropy in nats."""
        p = self.probabilities
        return -np.sum(p * np.log(np.maximum(p, 1e-12)), axis=1)

    @property
    def score(self) -> np.ndarray:
        """float32 [T]: the score that stands at frames[t], before action[t]."""
        brought = np.concatenate([[self.opening], self.reward[:-1]])
        return np.cumsum(brought, dtype=np.float64).astype(np.float32)

    @property
    def final_score(self) -> float:
        """The game's score."""
        return float(self.opening + self.reward.sum(dtype=np.float64))

    def masks(self) -> dict[str, np.ndarray]:
        """The masks that there are: {"policy": [T, 10, 10], "value": [T, 10, 10]}."""
        both = {"policy": self.policy_mask, "value": self.value_mask}
        return {branch: mask for branch, mask in both.items() if mask is not None}


def softmax(logits: np.ndarray) -> np.ndarray:
    """[..., A]: the policy with these logits."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


_FIELDS = {field.name: field for field in dataclasses.fields(Recording)}
_ARRAYS = {
    "frames": (np.uint8, ("T", 210, 160, 3)),
    "logits": (np.float32, ("T", "A")),
    "action": (np.int32, ("T",)),
    "value": (np.float32, ("T",)),
    "reward": (np.float32, ("T",)),
    "lives": (np.int32, ("T",)),
    "life_start": (np.bool_, ("T",)),
    "ram": (np.uint8, ("T", 128)),
    "policy_mask": (np.float32, ("T", MASK_CELLS, MASK_CELLS)),
    "value_mask": (np.float32, ("T", MASK_CELLS, MASK_CELLS)),
    "policy_mask_logits": (np.float32, ("T", MASK_CELLS, MASK_CELLS)),
    "value_mask_logits": (np.float32, ("T", MASK_CELLS, MASK_CELLS)),
    "unmasked_logits": (np.float32, ("T", "A")),
    "inverted_logits": (np.float32, ("T", "A")),
    "unmasked_value": (np.float32, ("T",)),
    "inverted_value": (np.float32, ("T",)),
    "cell_logits": (np.float16, ("T", MASK_CELLS, MASK_CELLS, "A")),
    "cell_values": (np.float16, ("T", MASK_CELLS, MASK_CELLS)),
}
_OPTIONAL = {name for name, field in _FIELDS.items() if field.default is not dataclasses.MISSING}


def write(recording: Recording, path: str | pathlib.Path) -> None:
    """Writes the recording; a file of that name appears whole or not at all.

    Raises:
      UserError: the path cannot be written, or an array has the wrong type or shape.
    """
    path = pathlib.Path(path)
    header = {"version": VERSION}
    header |= {name: getattr(recording, name) for name in _FIELDS if name not in _ARRAYS}
    arrays = {name: array for name in _ARRAYS if (array := getattr(recording, name)) is not None}
    _check(header, arrays, path)
    if isinstance(recording.frames, Frames):
        del arrays["frames"]
        arrays |= {"pixels": recording.frames.pixels, "palette": recording.frames.palette}
    with files.whole(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)


def read(path: str | pathlib.Path) -> Recording:
    """Reads and checks a recording.

    Raises:
      UserError: no such file, not a recording, another version, cut off, or without frames.
    """
    path = pathlib.Path(path)
    archive = read_archive(path, {"header", "pixels", "palette", *_ARRAYS})
    try:
        header = json.loads(str(archive["header"]))
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a recording: it has no header") from error
    if not isinstance(header, dict) or header.get("version") not in READABLE:
        raise UserError(
            f"{path} is a recording of another version, or none; this program reads versions "
            f"{READABLE[0]} to {READABLE[-1]}: record it again"
        )
    header = {name: value for name, value in header.items() if name not in _ARRAYS}
    if {"pixels", "palette"} <= archive.keys():
        archive["frames"] = _frames(archive["pixels"], archive["palette"], path)
    arrays = {name: archive[name] for name in _ARRAYS if name in archive}
    _check(header, arrays, path)
    fields = {name: header[name] for name in _FIELDS if name in header}
    fields["action_names"] = tuple(fields["action_names"])
    fields["view"] = tuple(fields["view"])
    return Recording(**fields, **arrays)


def _frames(pixels: np.ndarray, palette: np.ndarray, path: pathlib.Path) -> Frames:
    """Raises UserError unless every pixel has a colour."""
    colours = palette.ndim == 2 and palette.shape[1] == 3 and palette.dtype == np.uint8
    numbers = pixels.dtype in (np.uint8, np.uint16)
    if not colours or not numbers or pixels.max(initial=0) >= len(palette):
        raise UserError(f"{path}: its pixels are not of its palette")
    return Frames(pixels, palette)


def read_archive(path: pathlib.Path, names: set[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file, or those of these names; nothing else of it is unpacked.

    Raises:
      UserError: no such file, not such an archive, cut off, or too large.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as members:
            sizes = {info.filename.removesuffix(".npy"): info for info in members.infolist()}
            wanted = {n: info for n, info in sizes.items() if names is None or n in names}
            if sum(info.file_size for info in wanted.values()) > MAX_BYTES:
                raise UserError(f"{path} is too large: more than {MAX_BYTES} bytes of arrays")
            arrays = {}
            for name, info in wanted.items():
                _check_size(members, info)
                with members.open(info) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
            return arrays
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, lzma and NumPy raise many kinds for a bad file
        raise UserError(f"{path} is not a whole .npz archive") from error


def _check_size(members: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Raises ValueError unless an array is as large as its header says: nothing is allocated."""
    with members.open(info) as member:
        major, _ = np.lib.format.read_magic(member)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[major](member)
        if math.prod(shape) * dtype.itemsize != info.file_size - member.tell():
            raise ValueError("an array is not as large as its header says")


def _check(header: dict, arrays: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Raises UserError unless every field is there, of its type and shape."""
    missing = [n for n in _FIELDS if n not in header and n not in arrays and n not in _OPTIONAL]
    if missing:
        raise UserError(f"{path} is not a whole recording: {', '.join(missing)} missing")
    kinds = {"view": list | tuple, "action_names": list | tuple, "cut_off": bool, "sample": bool}
    kinds |= {"seed": int, "agent_steps": int, "opening": float}
    for name in _FIELDS.keys() - _ARRAYS.keys():
        if name in header and not isinstance(header[name], kinds.get(name, str)):
            raise UserError(f"{path}: {name} is {header[name]!r}"[:300])
    if not math.isfinite(header.get("opening", 0.0)):
        raise UserError(f"{path}: opening is {header['opening']!r}")
    view, actions = header["view"], header["action_names"]
    if not (len(view) == 2 and all(isinstance(x, int) for x in view)) or not (
        0 <= view[0] < view[1] <= 210
    ):
        raise UserError(f"{path}: view is no range of rows")
    if not actions or not all(isinstance(name, str) for name in actions):
        raise UserError(f"{path}: action_names are no names")
    if arrays["frames"].shape[:1] in ((), (0,)):
        raise UserError(f"{path} has no frames")
    sizes = {"T": len(arrays["frames"]), "A": len(header["action_names"])}
    for name, array in arrays.items():
        dtype, shape = _ARRAYS[name]
        shape = tuple(sizes.get(size, size) for size in shape)
        if array.dtype != dtype or array.shape != shape:
            raise UserError(
                f"{path}: {name} is {array.dtype}{list(array.shape)}, "
                f"not {np.dtype(dtype)}{list(shape)}"
            )
        if np.issubdtype(dtype, np.floating) and not np.all(np.isfinite(array)):
            raise UserError(f"{path}: {name} has numbers that are not finite")
    if not np.all((arrays["action"] >= 0) & (arrays["action"] < sizes["A"])):
        raise UserError(f"{path}: action has numbers of no action")
