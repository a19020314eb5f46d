"""The colours of procedural pictures: materials with a few tones each, shared between their classes on purpose.

Colour alone must not give a label away.
"""

from __future__ import annotations

import numpy as np

Colour = np.ndarray
"""(3,) float RGB, 0 to 255."""

SWATCHES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "stone": ((168, 166, 160), (150, 152, 156), (190, 188, 184), (205, 206, 208)),
    "asphalt": ((92, 92, 96), (104, 104, 104), (78, 80, 86), (88, 84, 80)),
    "brick": ((158, 88, 70), (176, 112, 88), (134, 74, 62), (186, 130, 104)),
    "cream": ((222, 206, 172), (232, 222, 200), (206, 184, 146), (240, 236, 228)),
    "wood": ((132, 94, 60), (108, 78, 52), (160, 122, 84), (86, 66, 50)),
    "leaf": ((84, 128, 62), (62, 108, 58), (112, 146, 74), (52, 88, 54), (96, 128, 92)),
    "autumn": ((186, 122, 50), (160, 84, 44), (204, 160, 70), (128, 92, 60), (150, 132, 100)),
    "glass": ((150, 182, 206), (118, 150, 180), (176, 200, 214), (92, 120, 148)),
    "paint": ((178, 42, 44), (44, 84, 158), (232, 196, 66), (40, 128, 130), (120, 60, 130), (226, 228, 230)),
    "skin": ((236, 196, 166), (198, 148, 112), (142, 98, 70), (96, 66, 50)),
    "dark": ((44, 46, 52), (62, 60, 58), (36, 44, 50)),
}
BLACK = np.array((34.0, 36, 38))
LAMPLIGHT = np.array((255.0, 222, 150))
WHITE = np.array((238.0, 236, 220))


def swatch(rng: np.random.Generator, *materials: str) -> Colour:
    """A jittered colour of one of the materials, each as likely as the others."""
    which, tone, red, green, blue, bright = rng.random(6).tolist()
    tones = SWATCHES[materials[int(which * len(materials))]]
    base = tones[int(tone * len(tones))]
    jitter = 28 * bright - 24
    return np.array((base[0] + 20 * red + jitter, base[1] + 20 * green + jitter, base[2] + 20 * blue + jitter))
