"""What can be fetched, and from where: the 19 VTAB-1k tasks, the five FGVC tasks, and weights of timm's networks.

All of it lies on the Hugging Face Hub. Nothing here touches the network: `data.fetch` does.

Where it is put, below the data folder:
vtab-1k/<task>/            the layout that VTAB-1k is passed around in: images/train800/000000.jpg, train800.txt
fgvc/<set>/                images as their authors packed them; json/ with the splits, train.json beside it
weights/<name>/model.safetensors
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mlae_lab.core import catalog
from mlae_lab.core.catalog import CatalogError, Group, Task

Unpack = Literal["zip", "tar", "parquet"]
SMALLER = ".parquet"  # ends the name of a task's own, smaller data set: `cifar.parquet`


class HostError(CatalogError):
    """A name for which there is nothing to fetch; its text says why and what would work."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository.

    path: inside the repository; with a `*` it stands for all files that end in what follows it. size_bytes: exact
    where a checksum is given, else rounded as the host lists it; the host's answer replaces it. sha256, md5: hex, for
    a host that tells no SHA-256 itself. into: folder below the task's own in which it is unpacked.
    """

    path: str
    size_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    into: str = ""

    @property
    def unpack(self) -> Unpack | None:
        """How it is packed, by its ending; None for a file that is kept as it is."""
        if self.path.endswith(".zip"):
            return "zip"
        if self.path.endswith((".tar", ".tgz", ".tar.gz")):
            return "tar"
        return "parquet" if self.path.endswith(".parquet") else None


@dataclass(frozen=True)
class Remote:
    """One thing to fetch.

    name: as on the command line. repo_type: as the Hub says it. subfolder: where it is put, below the data folder.
    parts: folders in there of which one must exist for it to be ready; none: the subfolder itself must.
    note: what one should know before fetching it, or "". task: the task that it serves, None for weights.
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

    @property
    def size_bytes(self) -> int | None:
        """Bytes to download, roughly; None where the host has to be asked."""
        sizes = [file.size_bytes for file in self.files if file.size_bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    @property
    def unpack(self) -> Unpack | None:
        """How its largest file is packed."""
        return max(self.files, key=lambda file: file.size_bytes or 0).unpack

    @property
    def page(self) -> str:
        """Its page for a browser, where terms are accepted."""
        return f"https://huggingface.co/{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo}"


_VTAB_ZIP = RemoteFile("vtab-1k.zip", 4_660_000_000)
# The names that the per-task data sets go by, where they are not the lab's.
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
    """The tasks and the best known weights; `remote` also takes aliases, smaller data sets and other timm weights."""
    return (*(task.name for task in catalog.TASKS if not task.bundled), *_WEIGHTS)


def remote(name: str) -> Remote:
    """What to fetch for a task or a backbone.

    name: a task or its alias, `<task>.parquet` for a VTAB-1k task's own smaller data set, or a timm backbone's name.
    Raises HostError for what comes with the lab or needs no weights, and for a name that is none of these.
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
        raise HostError(f"{task.name} is a folder of your own: there is nothing to fetch")
    if task.group is not Group.FGVC:
        return _own(task) if smaller else _vtab(task)
    if smaller:
        raise HostError(
            f"{name[:60]!r} does not exist: only the VTAB-1k tasks have a smaller data set, try {task.name}"
        )
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
        f"vtab-1k/{task.name}", note="this task alone, packed by another hand than the archive", task=task.name,
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
        if "vit_" in name:  # a backbone is meant: the catalog says what is wrong with it
            raise HostError(str(error)) from None
        raise HostError(
            f"{name[:60]!r} is neither a task nor a backbone with weights to fetch: `mlae_lab tasks` lists the tasks, "
            f"well-known weights are {', '.join(_WEIGHTS)}"
        ) from None
    if not backbone.needs_file:
        why = "comes with the lab" if backbone.bundled else "is drawn at random"
        raise HostError(f"{backbone.name} {why}: there is nothing to fetch")
    known = _WEIGHTS.get(backbone.name)
    size, citation = known or (
        4 * backbone.parameters,
        f"{backbone.name.partition('.')[0]}, weights on timm's Hub page",
    )
    return Remote(
        backbone.name, f"timm/{backbone.name}", "model", (RemoteFile("model.safetensors", size),),
        "Apache-2.0" if known else "as its page says", citation, f"weights/{backbone.name}",
    )  # fmt: skip
