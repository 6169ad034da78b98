"""Named ways from an image file to what the backbone sees: what is stored, what training changes, what a test sees.

Plain data without torch, so that a page can name them; `data.augment` carries them out. The literature's FGVC
code mostly resizes the short side to 256; here the whole image is squeezed into the square instead, as
SPT's code does: every stored image then has one size, and random crops can reach all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlae_lab.data.decode import ResizeRule

SIZE = 224  # what the published protocols feed their backbone


@dataclass(frozen=True)
class Preprocessing:
    """One protocol. training: what is drawn anew for every image and epoch: nothing, a crop of the
    backbone's side and a flip, or a crop of random area and aspect, resized, and a flip.
    margin: whether images are stored 8/7 of the backbone's side; a test then sees their centre."""

    name: str
    training: str
    margin: bool

    def rule(self, size: int = SIZE) -> ResizeRule:
        """What is stored for a backbone that reads side x side pixels."""
        return ResizeRule("square", with_margin(size) if self.margin else size)

    def badge(self, size: int = SIZE) -> str:
        """One line for a screen."""
        stored = self.rule(size).size
        seen = {
            "none": "no augmentation",
            "crop": f"random {size} crop + flip, test: centre {size}",
            "resized-crop": f"random resized crop to {size} + flip, test: centre {size}",
        }[self.training]
        return f"resized to {stored} × {stored} (bicubic, aspect ignored), {seen}"


def with_margin(size: int) -> int:
    """8/7 of a side, rounded: 224 becomes 256."""
    return (16 * size + 7) // 14


PREPROCESSING: dict[str, Preprocessing] = {
    one.name: one
    for one in (
        Preprocessing("vtab", "none", margin=False),
        Preprocessing("fgvc-crop", "crop", margin=True),
        Preprocessing("fgvc-rrc", "resized-crop", margin=True),
    )
}


def preprocessing(name: str) -> Preprocessing:
    """The protocol of that name. Raises ValueError for an unknown one."""
    if name not in PREPROCESSING:
        raise ValueError(f"preprocessing {name!r} is unknown: choose one of {', '.join(PREPROCESSING)}")
    return PREPROCESSING[name]
