"""Frozen features on disk.

A linear probe, a run whose lower layers have no experts, its further seeds and the probe that answers queries about it
all start from the same output of the same frozen blocks. It is computed once and read by the others. A file that is
missing, damaged or cannot be written costs time and changes no number.

<folder>/<key>.safetensors   "features" and their CRC-32; key: SHA-256 of everything that they depend on
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mlae_lab import environment
from mlae_lab.files import replacing
from mlae_lab.locations import cache_folder

FORMAT = 1
LIMIT = 4 * 2**30  # bytes of all files; those that were not read for longest are deleted
LARGEST = LIMIT // 4  # bytes of one file: VTAB's 1,000 images of ViT-B/16 take 0.6 GB
SHARE_OF_FREE = 0.1  # of the disk's free space that one file may take
LEFTOVER_SECONDS = 3600.0
OFF = "off"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureCache:
    """The features of one frozen part of a network.

    Attributes:
        folder: Of the files; created if missing.
        part: What determines the features, apart from images and machine: any text.
        limit: Bytes that all files may take.
    """

    folder: Path
    part: str
    limit: int = LIMIT

    def load(self, images: np.ndarray) -> torch.Tensor | None:
        """The features of stored images, None if there are none on disk.

        Args:
            images: (n, h, w[, 3]) uint8.
        """
        file = self._file(images)
        try:
            with safe_open(file, "pt") as stored:
                checksum = (stored.metadata() or {}).get("crc32")
                features = stored.get_tensor("features")
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            log.warning("%s cannot be read (%s): the features are computed again", file, error)
            return None
        if checksum != _checksum(features) or len(features) != len(images):
            log.warning("%s is damaged: the features are computed again", file)
            return None
        with suppress(OSError):  # the order of deletion; files on a read-only disk work without
            os.utime(file)
        return features

    def save(self, images: np.ndarray, features: torch.Tensor) -> None:
        """Keep features for other processes, if there is room.

        Args:
            images: As for `load`.
            features: (n, ...) on the CPU.
        """
        size = features.numel() * features.element_size()
        if size > min(LARGEST, self.limit):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if size > SHARE_OF_FREE * shutil.disk_usage(self.folder).free:
                return
            with replacing(self._file(images), sync=False) as partial:  # its checksum shows what a power cut leaves
                save_file({"features": features.contiguous()}, partial, {"crc32": _checksum(features)})
        except (OSError, SafetensorError) as error:
            log.warning("%s does not take frozen features (%s): the next run computes them again", self.folder, error)
            return
        self._delete_oldest()

    def _delete_oldest(self) -> None:
        for file in self.folder.glob("*.part"):  # of processes that were killed while they wrote
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > LEFTOVER_SECONDS:
                    file.unlink()
        total = 0
        for _, size, file in sorted(_files(self.folder), reverse=True):
            total += size
            if total > self.limit:
                with suppress(OSError):
                    file.unlink()

    def _file(self, images: np.ndarray) -> Path:
        digest = hashlib.blake2b(repr((images.shape, images.dtype.str)).encode())
        for at in range(0, len(images), 64):  # the images may be a memory map
            digest.update(np.ascontiguousarray(images[at : at + 64]).data)
        capability = torch.backends.cpu.get_cpu_capability()
        machine = (torch.__version__, timm.__version__, capability, torch.get_num_threads())
        key = json.dumps([FORMAT, self.part, digest.hexdigest(), machine])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def folder() -> Path | None:
    """Folder of frozen features: $MLAE_LAB_FEATURES, else features/ in the cache; None if the variable is "off"."""
    if (given := environment.folder(environment.FEATURES)) is None:
        return cache_folder() / "features"
    return None if given == Path(OFF) else given


def _checksum(features: torch.Tensor) -> str:
    return f"{zlib.crc32(features.contiguous().numpy().data):08x}"


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of last use, bytes and path of each file."""
    for file in folder.glob("*.safetensors"):
        with suppress(OSError):
            stat = file.stat()
            yield stat.st_mtime, stat.st_size, file
