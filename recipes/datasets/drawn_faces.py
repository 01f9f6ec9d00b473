"""Faces drawn by code: who it is decides the proportions and colors, and no two pictures of one person are alike."""

from typing import Any

import torch
from torch import Tensor

# Of a person: each drawn evenly between two numbers. The face is about two units high, and wide, around its center.
TRAITS = {"width": (0.58, 0.80), "jaw": (1.8, 2.8), "chin": (0.0, 0.35), "skin": (0.0, 1.0)}  # jaw: 2 is an ellipse
TRAITS |= {"hair": (0.0, 1.0), "red": (0.0, 1.0), "fringe": (-0.75, -0.38)}
TRAITS |= {"length": (-0.4, 1.0), "volume": (0.06, 0.26)}  # of the hair, at the sides
TRAITS |= {"eyes": (-0.24, 0.02), "eyes apart": (0.22, 0.36), "eye size": (0.09, 0.15), "eye shape": (0.45, 0.85)}
TRAITS |= {"iris": (0.0, 1.0), "brow": (0.12, 0.24), "brow width": (0.025, 0.07), "brow slope": (-0.35, 0.35)}
TRAITS |= {"nose": (0.18, 0.38), "nose width": (0.06, 0.15), "mouth": (0.48, 0.64), "mouth width": (0.16, 0.34)}
TRAITS |= {"lips": (0.035, 0.085), "beard": (0.0, 1.0)}  # a quarter has one
# Of a picture: pose, cut, expression, light, and whether there are glasses on, which is so in a fifth.
VIEWS = {"turn": (-1.0, 1.0), "nod": (-1.0, 1.0), "roll": (-0.40, 0.40)}
VIEWS |= {"size": (0.74, 1.12), "right": (-0.22, 0.22), "down": (-0.22, 0.22)}
VIEWS |= {"smile": (-1.0, 1.0), "open": (-0.6, 1.0), "blink": (0.55, 1.0)}
VIEWS |= {"side of light": (-3.14, 3.14), "light": (0.0, 0.55), "glasses": (0.0, 1.0)}
Color = tuple[int, int, int]
DARK_SKIN, LIGHT_SKIN = (120, 78, 54), (242, 204, 172)
DARK_HAIR, LIGHT_HAIR = (28, 22, 20), (206, 172, 112)


def draw_faces(people: int, pictures: int, seed: int = 0, *, side: int = 32) -> tuple[Tensor, Tensor]:
    """Pictures of so many people, the same for the same seed: uint8 (people · pictures, 3, side, side), and whose.

    Args:
        people: how many, each with traits of its own.
        pictures: of each of them, in another pose, expression, light and cut, before another background.
        seed: of all that is drawn.
        side: of a picture in pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    count = people * pictures

    def uniform(rows: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, 1, 1, generator=generator)

    who = {name: uniform(people, *ends).repeat_interleave(pictures, 0) for name, ends in TRAITS.items()}
    view = {name: uniform(count, *ends) for name, ends in VIEWS.items()}
    backdrop, tint = torch.rand(2, count, 3, 1, 1, generator=generator)
    noise = torch.randn(count, 3, side, side, generator=generator)
    drawn = zip(*(one.split(500) for one in (*who.values(), *view.values(), backdrop, tint, noise)), strict=True)
    names = [*who, *view]
    images = torch.cat([picture(dict(zip(names, part, strict=False)), *part[len(names) :]) for part in drawn])
    return images, torch.arange(people).repeat_interleave(pictures)


def picture(face: dict[str, Tensor], backdrop: Tensor, tint: Tensor, noise: Tensor) -> Tensor:
    """Faces of these traits and views, each (N, 1, 1), as uint8 (N, 3, side, side)."""
    side = noise.shape[-1]
    steps = torch.linspace(-1.25, 1.25, side)
    pixel = 2.5 / side / face["size"]
    right, down = steps - face["right"], steps[:, None] - face["down"]
    cosine, sine = face["roll"].cos(), face["roll"].sin()
    x, y = (cosine * right + sine * down) / face["size"], (cosine * down - sine * right) / face["size"]
    turn, nod = 0.16 * face["turn"], 0.07 * face["nod"]
    image = (40 + 180 * backdrop).expand(-1, -1, side, side).clone()

    def shade(first: Color, last: Color, share: Tensor) -> Tensor:
        low, high = (torch.tensor(color, dtype=torch.float32).view(3, 1, 1) for color in (first, last))
        return low + (high - low) * share[:, None]

    def inside(distance: Tensor) -> Tensor:
        """How much of each pixel lies within a border that is so far away."""
        return (distance / pixel + 0.5).clamp(0, 1)

    def oval(x: Tensor, y: Tensor, across: Any, along: Any, power: Any = 2.0) -> Tensor:
        across, along = (torch.maximum(torch.as_tensor(one), 0.5 * pixel) for one in (across, along))
        radius = ((x / across).abs() ** power + (y / along).abs() ** power) ** (1 / power)
        return inside((1 - radius) * torch.minimum(across, along))

    def paint(cover: Tensor, color: Any) -> None:
        image.add_(cover[:, None] * (color - image))

    skin, hair = shade(DARK_SKIN, LIGHT_SKIN, face["skin"]), shade(DARK_HAIR, LIGHT_HAIR, face["hair"])
    hair = hair + shade((0, 0, 0), (50, 5, -10), face["red"])
    wide, volume = face["width"], face["volume"]
    cap = oval(x, y + 0.15, wide + volume, 1.0 + 0.6 * volume, 2.2) * inside(0.1 - y)
    curtain = oval(x, y + 0.1, wide + volume, 1.6, 3.0) * inside(face["length"] - y) * (y > -0.1)
    paint(torch.maximum(cap, curtain), hair)
    paint(oval(x - 0.5 * turn, y - 1.0, 0.34, 0.5), 0.85 * skin)  # the neck
    head = oval(x / (1 - face["chin"] * y.clamp(min=0)), y, wide, 0.95, face["jaw"])
    paint(head, skin)
    x, y = x - turn, y - nod  # what stands out from the head moves more as it turns
    paint(0.75 * head * inside(y - 0.34) * (face["beard"] < 0.25), hair)
    paint(head * inside(face["fringe"] - y + 0.25 * x * x), hair)
    apart, size = face["eyes apart"] * (1 - 0.12 * face["turn"].abs()), face["eye size"]
    high = size * face["eye shape"] * face["blink"]
    for sign in (-1, 1):
        ex, ey = x - sign * apart, y - face["eyes"]
        paint(oval(ex, ey, size, high), 235.0)
        iris = oval(ex - 0.35 * turn, ey, 0.55 * size, torch.minimum(0.6 * size, high))
        paint(iris, shade((60, 36, 20), (90, 150, 190), face["iris"]))
        slope = ey + face["brow"] + sign * face["brow slope"] * ex
        paint(oval(ex, slope, 1.5 * size, face["brow width"], 3.0), 0.8 * hair)
        paint((oval(ex, ey, 0.24, 0.2) - oval(ex, ey, 0.18, 0.14)) * (face["glasses"] < 0.2), 25.0)
    along = (face["nose"] - face["eyes"]) / 2
    paint(0.6 * oval(x - 0.3 * turn, y - face["nose"] + along, 0.4 * face["nose width"], along), 0.8 * skin)
    paint(oval(x - 0.4 * turn, y - face["nose"], face["nose width"], 0.05), 0.66 * skin)
    bend, opened = y - face["mouth"] + 0.9 * face["smile"] * (x * x - 0.03), face["open"].clamp(min=0)
    lips = oval(x, bend, face["mouth width"] * (1 + 0.15 * face["smile"]), face["lips"] + 0.07 * opened)
    paint(lips, shade((110, 40, 40), (200, 95, 95), face["skin"]))
    paint(oval(x, bend, 0.75 * face["mouth width"], 0.08 * opened) * (opened > 0), 20.0)
    light = 1 + face["light"] * (face["side of light"].cos() * steps + face["side of light"].sin() * steps[:, None])
    image = image * light[:, None] * (0.5 + 0.6 * tint.mean(dim=1, keepdim=True) + 0.5 * (tint - 0.5))
    return (image + 9 * noise).clamp(0, 255).to(torch.uint8)
