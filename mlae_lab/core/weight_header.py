"""Names and shapes in a weight file, read from its header without PyTorch, and what the file is.

Content decides what a file is, not its ending. Nothing in a file can run: of a pickle, only names, containers and the
shapes of tensors are kept. The server process and the commands use this before a run is queued.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import pickletools
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from mlae_lab.core.bounded_json import MAX_BYTES, safetensors_header
from mlae_lab.core.failed_download import LFS_POINTER, is_web_page
from mlae_lab.core.weight_names import unwrapped
from mlae_lab.errors import LabError

ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".pth.tar", ".ckpt", ".npz")
ADVICE = f"give a file that ends in {', '.join(ENDINGS)}"
AGAIN = ": download it or write it again"
TENSORS_ONLY = ": give a file that torch.save wrote from a state_dict with tensors only, or a safetensors file"
_PICKLE_BYTES = 64_000_000  # of names and shapes; the tensors are not among them
_PICKLE_STEPS = 2_000_000  # far more than the names of any network take; each may make an object of 72 bytes
_MAX_DIMENSIONS = 64  # of a tensor of PyTorch
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_HARMLESS = {"torch", "collections", "numpy", "argparse", "builtins", "_codecs", "copyreg"}
_RUNS_CODE = {"eval", "exec", "compile", "open", "__import__", "getattr", "setattr", "delattr", "input", "breakpoint"}

# Names of safetensors and of PyTorch's storages. Other kinds are floating-point numbers.
_INTEGERS = {
    "I8": "int8", "U8": "uint8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32", "I64": "int64",
    "U64": "uint64", "BOOL": "bool", "CharStorage": "int8", "ByteStorage": "uint8", "ShortStorage": "int16",
    "IntStorage": "int32", "LongStorage": "int64", "BoolStorage": "bool",
}  # fmt: skip

Shapes = dict[str, tuple[int, ...]]


class Shape(tuple[int, ...]):
    """The shape of a tensor in a file. integers: their type, "" for floating-point numbers."""

    integers = ""

    @classmethod
    def of(cls, size: Iterable[Any], kind: str) -> Shape:
        shape = cls(int(n) for n in size)
        shape.integers = _INTEGERS.get(kind, "")
        return shape


class BackboneError(LabError):
    """A backbone that cannot be built here; its text says what is missing and what would work."""


def kind_of(path: Path) -> str:
    """The format of a weight file: safetensors, npz, or torch for all others.

    Raises:
        BackboneError: It is missing, not a regular file, empty, a Git LFS pointer or an HTML page.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise BackboneError(f"{path} is a folder: {ADVICE.replace('a file', 'a file in it')}")
        if not stat.S_ISREG(status.st_mode):
            raise BackboneError(f"{path} is not a regular file: {ADVICE}")
        with path.open("rb") as file:
            start = file.read(1024)
    except (FileNotFoundError, NotADirectoryError):
        raise BackboneError(f"{path} does not exist: {ADVICE}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BackboneError(f"{path} cannot be read ({reason}): {ADVICE}") from None
    if not start:
        raise BackboneError(f"{path} is not a readable file of weights (it is empty){AGAIN}")
    if foreign := what_it_is_instead(start):
        raise BackboneError(f"{path} is {foreign}")
    if path.suffix.lower() == ".npz":
        return "npz"
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length <= MAX_BYTES:
        return "safetensors"
    is_pickle = start.startswith((b"PK\x03\x04", b"\x80"))
    return "safetensors" if path.suffix.lower() == ".safetensors" and not is_pickle else "torch"


def what_it_is_instead(start: bytes) -> str:
    """What a file is that a failed download left, as the end of a sentence; "" for any other.

    Args:
        start: Its first bytes.
    """
    if start.startswith(LFS_POINTER):
        size = re.search(rb"\nsize (\d{1,15})", start)
        of = f" of a file with {int(size[1]):,} bytes" if size else ""
        return f"a Git LFS pointer{of}, not the file itself: run `git lfs pull` where it was cloned, or download it"
    if is_web_page(start):
        return "an HTML page, not the file itself: the server may have sent a login or an error page, download it again"
    return ""


def shapes_of(path: Path) -> tuple[Shapes, tuple[str, ...]]:
    """The shape of each tensor of a weight file, and notes on which of several copies it describes.

    Raises:
        BackboneError: The file cannot be read, or holds something else than named tensors.
    """
    kind = kind_of(path)
    if kind == "npz":
        with reading(path, "a readable npz file", AGAIN):
            return _npz_shapes(path), ()
    if kind == "safetensors":
        with reading(path, "a readable safetensors file", AGAIN):
            return _safetensors_shapes(path), ()
    with reading(path, "a readable file of tensors", TENSORS_ONLY):
        content = _torch_content(path)
    content, notes = unwrapped(content)
    return tensors_in(content, path, lambda value: type(value) is Shape), notes


def tensors_in(content: Any, path: Path, is_tensor: Any) -> dict[str, Any]:
    """The named tensors of an unwrapped checkpoint. Raises BackboneError for anything else."""
    if not isinstance(content, Mapping) or not content:
        kind = "single tensor" if is_tensor(content) else type(content).__name__
        raise BackboneError(f"{path} holds a {kind} where names and tensors should be{TENSORS_ONLY}")
    for name, value in content.items():
        if not isinstance(name, str) or not is_tensor(value):
            raise BackboneError(f"{path} holds {str(name)[:60]!r}, which is not a plain tensor{TENSORS_ONLY}")
    return dict(content)


def refuse_integers(path: Path, name: str, kind: str) -> NoReturn:
    """Raise BackboneError for a tensor of integers, which need the scales of a quantised network to be weights."""
    raise BackboneError(
        f"{path} cannot be used: {name} holds integers ({kind}), as of a quantised network: choose a file with "
        "floating-point weights"
    )


@contextmanager
def reading(path: Path, what: str, hint: str = "") -> Iterator[None]:
    """Turn any error into a BackboneError that says that the file is not `what`."""
    try:
        yield
    except Exception as error:
        reason = re.split(r"[.\n]", str(error).strip())[0] or type(error).__name__
        raise BackboneError(f"{path} is not {what} ({reason[:120]}){hint}") from None


# ---------------------------------------------------------------- safetensors and npz


def _safetensors_shapes(path: Path) -> Shapes:
    with path.open("rb") as file:
        header, start = safetensors_header(file)
        size = os.fstat(file.fileno()).st_size
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    expected = start + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if size < expected:
        raise ValueError(f"it has {size:,} of {expected:,} bytes")
    return {name: Shape.of(entry["shape"], entry.get("dtype", "")) for name, entry in entries.items()}


def _npz_shapes(path: Path) -> Shapes:
    from numpy.lib import format as npy  # not with the module: core needs no NumPy otherwise

    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                version = npy.read_magic(member)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shapes[name.removesuffix(".npy")] = tuple(read(member)[0])
    return shapes


# ---------------------------------------------------------------- PyTorch


class _Dict(dict):
    """In place of an OrderedDict: it has attributes."""


class _Anything:
    """In place of any other object; it ignores what a pickle does with it."""

    def __new__(cls, *arguments: object, **named: object) -> _Anything:
        return object.__new__(cls)

    def __init__(self, *arguments: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass


def _tensor(storage: object, offset: object, size: Any, *rest: object) -> Shape:
    if len(size) > _MAX_DIMENSIONS:  # one long tuple may be the size of many tensors
        raise pickle.UnpicklingError(f"a tensor has {len(size):,} dimensions")
    return Shape.of(size, getattr(storage, "__name__", ""))


def _first(value: object, *rest: object) -> object:
    return value


def _rebuilt(function: Any, kind: object, arguments: Any, state: object) -> object:
    return function(*arguments)


class _ShapesOnly(pickle.Unpickler):
    """Reads names, containers and shapes; no class or function of any library is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Dict
        if module == "torch._utils" and name.startswith("_rebuild_tensor"):
            return _tensor
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return _first
        if (module, name) == ("torch._tensor", "_rebuild_from_type_v2"):
            return _rebuilt
        root = module.partition(".")[0]
        if root not in _HARMLESS or name in _RUNS_CODE:
            raise pickle.UnpicklingError(f"it names {module}:{name}, which is not a tensor"[:100])
        if module == "torch" and name in _INTEGERS:
            return type(name, (_Anything,), {})
        return argparse.Namespace if (module, name) == ("argparse", "Namespace") else _Anything

    def persistent_load(self, pid: Any) -> Any:
        return pid[1]  # the type of a storage, in its place


def _torch_content(path: Path) -> Any:
    """The pickled object of a file of torch.save, with shapes in place of tensors."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start.startswith(b"PK"):
            with zipfile.ZipFile(file) as archive:
                name = next((name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"), None)
                if name is None:
                    raise ValueError("it is a zip file without data of PyTorch")
                if archive.getinfo(name).file_size > _PICKLE_BYTES:
                    raise ValueError("its names take too much space")
                return _unpickled(io.BytesIO(archive.read(name)))
        size = os.fstat(file.fileno()).st_size
        stream = io.BytesIO(file.read(min(size, _PICKLE_BYTES)))  # `read` allocates all that it is asked for
    content = _unpickled(stream)
    if content == _LEGACY_MAGIC:  # the format before version 1.6: then protocol, system, the object
        for _ in range(3):
            content = _unpickled(stream)
    return content


def _unpickled(stream: io.BytesIO) -> Any:
    """The next object of a stream of pickles."""
    start = stream.tell()
    if any(number >= _PICKLE_STEPS for number, _ in enumerate(pickletools.genops(stream))):
        raise ValueError("it holds more names and values than a network has")
    stream.seek(start)
    return _ShapesOnly(stream).load()
