"""Sources of downloads: the 19 VTAB-1k tasks, the five FGVC tasks, and weights of timm's networks.

All of them are on the Hugging Face Hub. This module does not use the network; `data.fetch` does.

Layout below the data folder:
vtab-1k/<task>/            the usual layout of VTAB-1k: images/train800/000000.jpg, train800.txt
fgvc/<set>/                images as their authors packed them; the splits in json/, train.json next to it
weights/<name>/model.safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlae_lab.core import catalog
from mlae_lab.core.catalog import CatalogError, Group, Task
from mlae_lab.locations import PROGRAM

Unpack = Literal["zip", "tar", "parquet"]
SMALLER = ".parquet"  # suffix of a task's separate, smaller dataset: `cifar.parquet`


class HostError(CatalogError):
    """A name with nothing to fetch; the message says why and what would work."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository.

    Attributes:
        path: Path in the repository; `*` and a suffix stand for all files with that suffix.
        size_bytes: Exact where a checksum is given, else rounded as the host lists it; the host's answer replaces it.
        sha256: Hex digits, for a host that does not publish SHA-256.
        md5: Likewise.
        into: Folder, below the task's folder, in which the file is unpacked.
    """

    path: str
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    into: str = ""

    @property
    def unpack(self) -> Unpack | None:
        """Archive format by file suffix; None for a file that is not unpacked."""
        if self.path.endswith(".zip"):
            return "zip"
        if self.path.endswith((".tar", ".tgz", ".tar.gz")):
            return "tar"
        return "parquet" if self.path.endswith(".parquet") else None


@dataclass(frozen=True)
class Remote:
    """One dataset or weight file to fetch.

    Attributes:
        name: Name on the command line.
        repo: Repository on the Hub.
        repo_type: The Hub's kind of repository.
        files: What to download.
        licence: Terms in short.
        citation: Source to cite.
        subfolder: Destination below the data folder.
        parts: Folders in `subfolder` of which one must exist for it to be ready; empty: `subfolder` itself must.
        note: What to know before fetching, or "".
        task: The task that uses it, None for weights.
        revision: Branch of the repository, None for the main one.
    """

    name: str
    repo: str
    repo_type: Literal["dataset", "model"]
    files: tuple[RemoteFile, ...]
    licence: str
    citation: str
    subfolder: str
    parts: tuple[str, ...] = ()
    note: str = ""
    task: str | None = None
    revision: str | None = None

    @property
    def size_bytes(self) -> int | None:
        """Approximate bytes to download; None where only the host knows."""
        sizes = [file.size_bytes for file in self.files if file.size_bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    @property
    def unpack(self) -> Unpack | None:
        """Archive format of the largest file."""
        return max(self.files, key=lambda file: file.size_bytes or 0).unpack

    @property
    def page(self) -> str:
        """Address of the web page on which terms are accepted."""
        return f"https://huggingface.co/{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo}"


_VTAB_ZIP = RemoteFile("vtab-1k.zip", 4_660_000_000)
# Names of the per-task datasets where they differ from the lab's.
_OWN_NAMES = {
    "oxford_flowers102": "flowers102", "oxford_iiit_pet": "pets", "diabetic_retinopathy": "retinopathy",
    "clevr_dist": "clevr_distance", "kitti": "kitti_distance", "dsprites_loc": "dsprites_location",
    "dsprites_ori": "dsprites_orientation", "smallnorb_azi": "smallnorb_azimuth",
    "smallnorb_ele": "smallnorb_elevation",
}  # fmt: skip
_SPLITS = RemoteFile("json.zip", 1_530_000, into="json")
_FGVC: dict[str, tuple[str, tuple[RemoteFile, ...]]] = {
    "cub": ("CUB_200_2011", (
        RemoteFile("CUB_200_2011.tgz", 1_150_585_339, md5="97eceeb196236b17998738112f37df78"),)),
    "nabirds": ("nabirds", (RemoteFile("nabirds.tar.gz", 9_880_000_000),)),
    "oxford_flowers": ("OxfordFlower", (RemoteFile("102flowers.tgz", 345_000_000),)),
    "stanford_dogs": ("StanfordDogs", (RemoteFile("images.tar", 794_000_000),)),
    "stanford_cars": ("StanfordCars", (
        RemoteFile("car_ims.tgz", 1_956_628_579,
                   sha256="4d96e3e3e892c6b7e4a71959325c7de4804037d27ba5aaf1c756100fd94a5342"),
        RemoteFile("cars_annos.mat", 394_000))),
}  # fmt: skip
_WEIGHTS: dict[str, tuple[int | None, str]] = {
    "vit_base_patch16_224.orig_in21k": (343_000_000, "ViT (Dosovitskiy et al. 2021), port by R. Wightman"),
    "vit_base_patch16_224.augreg_in21k": (410_000_000, "AugReg (Steiner et al. 2022), port by R. Wightman"),
    "vit_base_patch14_dinov2.lvd142m": (None, "DINOv2 (Oquab et al. 2024), port by R. Wightman"),
}


def names() -> tuple[str, ...]:
    """The tasks and well-known weights; `remote` also takes aliases, smaller datasets and other timm weights."""
    return (*(task.name for task in catalog.TASKS if not task.bundled), *_WEIGHTS)


def remote(name: str) -> Remote:
    """What to fetch for a task or a backbone.

    Args:
        name: A task or its alias, `<task>.parquet` for the separate, smaller dataset of a VTAB-1k task, or the name of
            a timm backbone.

    Raises:
        HostError: If the name is unknown, is bundled with the lab, or needs no weights.
    """
    plain = name.strip()
    smaller = plain.endswith(SMALLER)
    try:
        task = catalog.task(plain.removesuffix(SMALLER))
    except CatalogError:
        return _weights(plain)
    if task.bundled:
        raise HostError(f"{task.name} comes with the lab: there is nothing to fetch")
    if task.group is Group.OWN:
        raise HostError(f"{task.name} is a folder of your images: there is nothing to fetch")
    if task.group is not Group.FGVC:
        return _own(task) if smaller else _vtab(task)
    if smaller:
        raise HostError(f"{name[:60]!r} does not exist: only the VTAB-1k tasks have a smaller dataset, try {task.name}")
    return _fgvc(task)


def _vtab(task: Task) -> Remote:
    note = f"one archive with all 19 VTAB-1k tasks, each under its own licence; {task.name}{SMALLER} is smaller"
    return Remote(
        task.name, "XiN0919/VTAB-1k", "dataset", (_VTAB_ZIP,), task.licence, _credit(task), "vtab-1k",
        (task.name, *task.aliases), note, task.name,
    )  # fmt: skip


def _credit(task: Task) -> str:
    return f"{task.source}; VTAB-1k (Zhai et al. 2019)"


def _own(task: Task) -> Remote:
    return Remote(
        task.name + SMALLER, f"fw407/vtab-1k_{_OWN_NAMES.get(task.name, task.name)}", "dataset",
        (RemoteFile("*.parquet"),), task.licence, _credit(task),
        f"vtab-1k/{task.name}", note="only this task, repackaged by a third party", task=task.name,
    )  # fmt: skip


def _fgvc(task: Task) -> Remote:
    folder, files = _FGVC[task.name]
    return Remote(
        task.name, "XiN0919/FGVC", "dataset", (_SPLITS, *files), task.licence,
        f"{task.source}; splits of VPT (Jia et al. 2022)", f"fgvc/{folder}", task=task.name,
    )  # fmt: skip


def _weights(name: str) -> Remote:
    try:
        backbone = catalog.backbone(name)
    except CatalogError as error:
        if "vit_" in name:  # clearly meant as a backbone: the catalog's message is more specific
            raise HostError(str(error)) from None
        raise HostError(
            f"{name[:60]!r} is neither a task nor a backbone with weights to fetch: `{PROGRAM} tasks` lists the tasks, "
            f"well-known weights are {', '.join(_WEIGHTS)}"
        ) from None
    if not backbone.needs_file:
        reason = "comes with the lab" if backbone.bundled else "has random weights"
        raise HostError(f"{backbone.name} {reason}: there is nothing to fetch")
    known = _WEIGHTS.get(backbone.name)
    size, citation = known or (
        4 * backbone.parameters,
        f"{backbone.name.partition('.')[0]}, weights on timm's Hub page",
    )
    return Remote(
        backbone.name, f"timm/{backbone.name}", "model", (RemoteFile("model.safetensors", size),),
        "Apache-2.0" if known else backbone.licence or "see its page", citation, f"weights/{backbone.name}",
    )  # fmt: skip
