"""Named preprocessing protocols: what is stored, how training augments it, what evaluation uses.

Plain data without torch, so that pages can read it; `data.augment` implements the protocols. Most published FGVC code
resizes the short side to 256; here the whole image is resized to the square instead, as in SPT's code: every stored
image then has the same size, and random crops can reach all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlae_lab.data.decode import ResizeRule

SIZE = 224  # image size of the published protocols


@dataclass(frozen=True)
class Preprocessing:
    """One protocol.

    Attributes:
        name: of the protocol.
        training: augmentation of every image in every epoch: "none", "crop" (a random crop of the backbone's image
            size and a flip) or "resized-crop" (a crop of random area and aspect ratio, resized, and a flip).
        margin: whether images are stored at 8/7 of the backbone's image size; evaluation then uses their centre.
    """

    name: str
    training: str
    margin: bool

    def rule(self, size: int = SIZE) -> ResizeRule:
        """How images are stored for a backbone that reads size x size pixels."""
        return ResizeRule("square", with_margin(size) if self.margin else size)

    def badge(self, size: int = SIZE) -> str:
        """The protocol in one line."""
        stored = self.rule(size).size
        augmentation = {
            "none": "no augmentation",
            "crop": f"random {size} crop + flip, test: centre {size}",
            "resized-crop": f"random resized crop to {size} + flip, test: centre {size}",
        }[self.training]
        return f"resized to {stored} × {stored} (bicubic, aspect ignored), {augmentation}"


def with_margin(size: int) -> int:
    """8/7 of an image size, rounded: 224 becomes 256."""
    return (16 * size + 7) // 14


PREPROCESSING: dict[str, Preprocessing] = {
    protocol.name: protocol
    for protocol in (
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
