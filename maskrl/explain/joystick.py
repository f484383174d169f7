"""The console's joystick and button as a picture, from the name of an action."""

import functools
import re

import numpy as np
from PIL import Image, ImageDraw

from maskrl.errors import UserError

_NAME = re.compile(r"NOOP|ACTION_\d+|(?=.)(UP|DOWN)?(LEFT|RIGHT)?(FIRE)?")
_FINE = 4  # drawn this much larger, then shrunk: smooth edges
PRESSED = (230, 60, 50)


def position(action_name: str) -> tuple[int, int, bool]:
    """Where "UPRIGHTFIRE" holds the stick, (1, -1): right, up (rows run down), and the button.

    An action whose name is not known ("ACTION_3") is drawn as none.

    Raises:
      UserError: the name is no action of the console.
    """
    if not (match := _NAME.fullmatch(action_name)):
        raise UserError(f"{action_name!r} is no action of the console, such as UPRIGHTFIRE")
    vertical, horizontal, fire = match.groups()
    x = {"LEFT": -1, None: 0, "RIGHT": 1}[horizontal]
    y = {"UP": -1, None: 0, "DOWN": 1}[vertical]
    return x, y, fire is not None


@functools.cache
def icon(action_name: str, size: int, ink: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """RGBA [size, 1.75 size]: the stick in its gate, seen from above, and the button beside it.

    The button is a red disc while it is pressed and an empty ring while it is not.
    """
    x, y, fire = position(action_name)
    n = size * _FINE
    image = Image.new("RGBA", (n * 7 // 4, n), (*ink, 0))
    draw = ImageDraw.Draw(image)
    line = max(n // 20, 1)

    def disc(centre: tuple[float, float], radius: float, **style) -> None:
        cx, cy = centre
        draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), **style)

    centre = (n / 2, n / 2)
    reach = 0.3 * n / np.hypot(x, y) if x or y else 0
    knob = (n / 2 + reach * x, n / 2 + reach * y)
    disc(centre, 0.48 * n, outline=(*ink, 150), width=line)
    draw.line((centre, knob), fill=(*ink, 255), width=3 * line)
    disc(knob, 0.17 * n, fill=(*ink, 255))
    button = (1.4 * n, n / 2)
    if fire:
        disc(button, 0.24 * n, fill=(*PRESSED, 255))
    disc(button, 0.24 * n, outline=(*ink, 255 if fire else 150), width=line)
    return image.resize((size * 7 // 4, size), Image.Resampling.LANCZOS)
