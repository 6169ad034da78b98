"""Table of tasks, the paper's 24 and four bundled ones, and of backbones by name.

Image counts are those of VTAB (task_adaptation's tests) and VPT (FGVC: 90/10 splits of the official training
sets). `data.tasks` finds out whether a task's images are on this machine.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import cache
from urllib.parse import unquote_to_bytes

from mlae_lab.core.backbones import DEFAULT_BACKBONE, FEATURED, Backbone, CatalogError, backbone
from mlae_lab.locations import PROGRAM

__all__ = [
    "BACKBONES", "DEFAULT_BACKBONE", "TASKS", "Backbone", "CatalogError", "Group", "Task", "backbone", "own_task",
    "task",
]  # fmt: skip


class Group(str, Enum):
    BUNDLED = "Bundled"
    NATURAL = "Natural"
    SPECIALIZED = "Specialized"
    STRUCTURED = "Structured"
    FGVC = "FGVC"
    OWN = "Own images"


@dataclass(frozen=True)
class Task:
    """One classification task.

    Attributes:
        name: Name on the command line.
        title: Display name.
        group: Its benchmark group.
        classes: Number of classes.
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images.
        question: What distinguishes the classes.
        source: The dataset and its citation.
        licence: Its terms in short.
        aliases: Other names in use for the same task.
    """

    name: str
    title: str
    group: Group
    classes: int
    train: int
    val: int
    test: int
    question: str
    source: str
    licence: str
    aliases: tuple[str, ...] = ()

    @property
    def bundled(self) -> bool:
        return self.group is Group.BUNDLED


def _vtab(name: str, title: str, group: Group, classes: int, test: int, question: str, source: str, licence: str,
          *aliases: str) -> Task:  # fmt: skip
    return Task(name, title, group, classes, 800, 200, test, question, source, licence, aliases)


_B, _N, _S, _T, _F = Group.BUNDLED, Group.NATURAL, Group.SPECIALIZED, Group.STRUCTURED, Group.FGVC

TASKS: tuple[Task, ...] = (
    Task("digits", "Digits", _B, 10, 800, 200, 797, "Which digit was written?",
         "UCI Optical Recognition of Handwritten Digits, 8 x 8 grey (Alpaydin and Kaynak 1998)", "CC BY 4.0"),
    Task("fashion", "Fashion-MNIST-1k", _B, 10, 800, 200, 2000, "Which piece of clothing is it?",
         "Fashion-MNIST, 28 x 28 grey (Xiao et al. 2017), a subset", "MIT",
         ("fashion_mnist", "fashion_mnist_1k", "fashion1k")),
    Task("dsprites_loc_rendered", "dSprites-Loc, rendered", _B, 16, 800, 200, 2000, "How far right is the shape?",
         "dSprites (Matthey et al. 2017), rendered here from its formula", "Apache-2.0 (original dataset)",
         ("dsprites_loc_bundled",)),
    Task("dsprites_ori_rendered", "dSprites-Ori, rendered", _B, 16, 800, 200, 2000, "How far is the shape rotated?",
         "dSprites (Matthey et al. 2017), rendered here from its formula", "Apache-2.0 (original dataset)",
         ("dsprites_ori_bundled",)),
    _vtab("cifar", "CIFAR-100", _N, 100, 10_000, "Which of 100 objects?", "CIFAR-100 (Krizhevsky 2009)",
          "none stated", "cifar100"),
    _vtab("caltech101", "Caltech-101", _N, 102, 6_084, "Which of 101 objects, or background?",
          "Caltech-101 (Fei-Fei et al. 2004)", "CC BY 4.0"),
    _vtab("dtd", "DTD", _N, 47, 1_880, "Which texture?", "Describable Textures (Cimpoi et al. 2014)", "research use"),
    _vtab("oxford_flowers102", "Flowers-102", _N, 102, 6_149, "Which flower?",
          "102 Category Flowers (Nilsback and Zisserman 2008)", "none stated", "flowers102"),
    _vtab("oxford_iiit_pet", "Pets", _N, 37, 3_669, "Which breed of cat or dog?",
          "Oxford-IIIT Pet (Parkhi et al. 2012)", "CC BY-SA 4.0", "oxford_pet", "pets"),
    _vtab("svhn", "SVHN", _N, 10, 26_032, "Which house-number digit?", "Street View House Numbers (Netzer et al. 2011)",
          "non-commercial"),
    _vtab("sun397", "SUN397", _N, 397, 21_750, "Which scene?", "SUN397 (Xiao et al. 2010)", "research use"),
    _vtab("patch_camelyon", "Camelyon", _S, 2, 32_768, "Does the tissue contain a tumour?",
          "PatchCamelyon (Veeling et al. 2018)", "CC0"),
    _vtab("eurosat", "EuroSAT", _S, 10, 5_400, "What covers the land?", "EuroSAT (Helber et al. 2019)", "MIT"),
    _vtab("resisc45", "Resisc45", _S, 45, 6_300, "Which kind of place, seen from above?",
          "NWPU-RESISC45 (Cheng et al. 2017)", "not clearly licensed"),
    _vtab("diabetic_retinopathy", "Retinopathy", _S, 5, 42_670, "How severe is the retinopathy?",
          "Diabetic Retinopathy Detection (Kaggle and EyePACS 2015)", "Kaggle competition rules", "retinopathy"),
    _vtab("clevr_count", "Clevr-Count", _T, 8, 15_000, "How many objects?", "CLEVR (Johnson et al. 2017)", "CC BY 4.0"),
    _vtab("clevr_dist", "Clevr-Dist", _T, 6, 15_000, "How far is the nearest object?", "CLEVR (Johnson et al. 2017)",
          "CC BY 4.0", "clevr_distance"),
    _vtab("dmlab", "DMLab", _T, 6, 22_735, "How far is the reward, and is it good?", "DMLab frames (Zhai et al. 2019)",
          "none stated"),
    _vtab("kitti", "KITTI-Dist", _T, 4, 711, "How far is the nearest car?", "KITTI (Geiger et al. 2012)",
          "CC BY-NC-SA 3.0", "kitti_distance"),
    _vtab("dsprites_loc", "dSpr-Loc", _T, 16, 73_728, "How far right is the shape?", "dSprites (Matthey et al. 2017)",
          "Apache-2.0", "dsprites_location"),
    _vtab("dsprites_ori", "dSpr-Ori", _T, 16, 73_728, "How far is the shape rotated?", "dSprites (Matthey et al. 2017)",
          "Apache-2.0", "dsprites_orientation"),
    _vtab("smallnorb_azi", "sNORB-Azim", _T, 18, 12_150, "From which side?", "Small NORB (LeCun et al. 2004)",
          "research use, not for sale", "smallnorb_azimuth"),
    _vtab("smallnorb_ele", "sNORB-Ele", _T, 9, 12_150, "From how high?", "Small NORB (LeCun et al. 2004)",
          "research use, not for sale", "smallnorb_elevation"),
    Task("cub", "CUB-200-2011", _F, 200, 5_394, 600, 5_794, "Which bird?", "CUB-200-2011 (Wah et al. 2011)",
         "non-commercial", ("cub_200_2011", "CUB_200_2011")),
    Task("nabirds", "NABirds", _F, 555, 21_536, 2_393, 24_633, "Which North American bird?",
         "NABirds (Van Horn et al. 2015)", "non-commercial"),
    Task("oxford_flowers", "Oxford Flowers", _F, 102, 1_020, 1_020, 6_149, "Which flower?",
         "102 Category Flowers (Nilsback and Zisserman 2008)", "none stated", ("OxfordFlower",)),
    Task("stanford_dogs", "Stanford Dogs", _F, 120, 10_800, 1_200, 8_580, "Which breed of dog?",
         "Stanford Dogs (Khosla et al. 2011)", "non-commercial", ("StanfordDogs",)),
    Task("stanford_cars", "Stanford Cars", _F, 196, 7_329, 815, 8_041, "Which make and model?",
         "Stanford Cars (Krause et al. 2013)", "non-commercial", ("StanfordCars",)),
)  # fmt: skip

BACKBONES = FEATURED
_OWN_PREFIX = "own:"
_MAX_FOLDER_NAME = 255  # characters; file systems allow as many bytes or UTF-16 units
_JOINERS = "\u200c\u200d"  # invisible, and part of the spelling in Persian and in Indic scripts


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


@cache
def _by_name() -> dict[str, Task]:
    """The tasks by name and alias."""
    return {_plain(name): entry for entry in reversed(TASKS) for name in (*entry.aliases, entry.name)}


def own_task(folder_name: str) -> Task:
    """The task of a folder of the user's images.

    Its title is the name of the folder. Its name is "own:" and the same in Unicode form C, with percent encoding of
    characters that cannot be displayed, of %, slashes and spaces at an end. Equal folder names give equal task names on
    every system, and no task name is a path.

    Args:
        folder_name: Without the folders above it; bytes that are not UTF-8 as surrogates (`os.fsdecode`).

    Raises:
        CatalogError: The name is empty, ".", "..", or longer than any file system allows.
    """
    name = unicodedata.normalize("NFC", folder_name)
    try:
        title = "".join(c if _displayable(c) else _escaped(c, "\\x{:02x}") for c in name)
        last = len(name) - 1
        code = "".join(
            c if _displayable(c) and c not in "%/\\" and (0 < i < last or not c.isspace()) else _escaped(c, "%{:02X}")
            for i, c in enumerate(name)
        )
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        title = code = ""
    if not title or name in (".", "..") or len(name) > _MAX_FOLDER_NAME:
        raise CatalogError(
            f"{folder_name[:60]!r} cannot be the name of a folder of images: a name has 1 to {_MAX_FOLDER_NAME} "
            "characters, and is neither . nor .."
        )
    return Task(_OWN_PREFIX + code, title, Group.OWN, 0, 0, 0, 0, "Which of your classes?", "your own images", "yours")


def _displayable(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _escaped(character: str, form: str) -> str:
    return "".join(form.format(byte) for byte in character.encode("utf-8", "surrogateescape"))


def task(name: str) -> Task:
    """The task of that name or alias; `own:<folder>` is a folder of the user's images (`own_task`).

    The classes of such a folder are known only after it has been read.

    Raises:
        CatalogError: If the name is unknown; the message lists the closest names.
    """
    if entry := _by_name().get(_plain(name)):
        return entry
    stripped = name.strip()
    if stripped.startswith(_OWN_PREFIX):
        folder = stripped.removeprefix(_OWN_PREFIX)
        if folder == folder.strip() and not re.search(r"[/\\]", folder):
            with_bytes = re.sub(r"(?:%[0-9A-Fa-f]{2})+", _decoded, folder)
            if "/" not in with_bytes:
                return own_task(with_bytes)
        raise CatalogError(f"{name[:80]!r} is not a task: write own: and the name of a folder, without the path to it")
    names = [entry.name for entry in TASKS]
    near = get_close_matches(_plain(name), names, 3, 0.5) or [e.name for e in TASKS if e.bundled]
    raise CatalogError(f"{name!r} is not a task: try {', '.join(near)}, or see all {len(names)} with `{PROGRAM} tasks`")


def _decoded(match: re.Match) -> str:
    return unquote_to_bytes(match[0]).decode("utf-8", "surrogateescape")
