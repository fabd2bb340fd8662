"""Files of weights: torch's two formats, safetensors and .npz, listed without reading a number.

Everything is read through a descriptor of one regular file: nothing is unpacked, imported or run, and no size
that the file claims is believed before it was compared with what there is. (The `safetensors` package would
do for its format, but for bfloat16, which NumPy lacks; the format is a header in JSON.)
"""

import contextlib
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from poison_jax.console import printable
from poison_jax.errors import UserError, one_line_of
from poison_jax.foreign import pickles
from poison_jax.foreign.pickles import DIMENSIONS, Inert, Storage, Tensor, natural

_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # of torch's legacy format: a pickled number
_MOST_HEADER = 2**26  # bytes of safetensors' JSON
_LINE = 2**12  # bytes: the longest name of a class
_SAFE = {  # safetensors' names of types
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8"},
}


class Entry(NamedTuple):
    """A named array of a file."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]  # while the file is open


class Contents(NamedTuple):
    """What is in a file of weights."""

    entries: dict[str, Entry]
    dataset: str = ""  # that BackdoorBench says its network was trained on


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Contents]:
    """What is in a file; `read` of each array works within the context.

    Raises:
        UserError: no such file, no file of weights, damaged, or nothing that can be read without running it.
    """
    with contextlib.ExitStack() as stack:
        try:
            flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # a pipe would be waited for
            stream = stack.enter_context(open(path, "rb", opener=lambda name, _: os.open(name, flags)))
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ValueError("is no regular file")
            found = _contents(_Bounded(stream), stack)
        except UserError as error:  # names in a file may be long, and hold what a terminal obeys
            raise UserError(f"{path}: {printable(error)}") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or one_line_of(error)}") from None
        except Exception as error:  # of damaged files zipfile, json and NumPy raise a dozen unrelated types
            raise UserError(f"{path} cannot be read: {printable(one_line_of(error))}") from None
        guarded = {name: _guarded(path, name, entry) for name, entry in found.entries.items()}
        yield found._replace(entries=guarded)


def _guarded(path: Any, name: str, entry: Entry) -> Entry:
    """The same, that says in one line where damage is found while its numbers are read."""

    def read() -> np.ndarray:
        try:
            return entry.read()
        except Exception as error:
            about = printable(f"{name} cannot be read: {one_line_of(error)}")
            raise UserError(f"{path}: {about}") from None

    return entry._replace(read=read)


class _Bounded(io.RawIOBase):
    """A file that is asked for no more than there is: `read` of a tebibyte would make room for it first."""

    def __init__(self, stream: BinaryIO):
        self._stream, self.size = stream, os.fstat(stream.fileno()).st_size

    def read(self, count: int = -1) -> bytes:
        left = max(self.size - self._stream.tell(), 0)
        return self._stream.read(left if count is None or count < 0 else min(count, left))

    def readline(self, _: int = -1) -> bytes:
        return self._stream.readline(_LINE)

    def seek(self, *where: int) -> int:
        return self._stream.seek(*where)

    def tell(self) -> int:
        return self._stream.tell()

    def seekable(self) -> bool:
        return True


def _contents(stream: _Bounded, stack: contextlib.ExitStack) -> Contents:
    """By what the file begins with, whatever it is called."""
    begin = stream.read(len(_MAGIC))
    stream.seek(0)
    if begin.startswith(b"PK"):
        archive = stack.enter_context(zipfile.ZipFile(stream))
        pickled = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if pickled:
            return _zipped(archive, pickled[0], stream.size)
        return Contents(_npz(archive))
    if begin == _MAGIC:
        return _legacy(stream)
    if begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < stream.size:
        return Contents(_safetensors(stream))
    if begin.startswith(b"\x80"):
        raise UserError("a pickle that torch did not write: it is not opened, ask for a state dict")
    raise UserError("this is no file of weights: give torch's .pt or .pth, safetensors or .npz")


# --- torch ------------------------------------------------------------------------------------------


def _zipped(archive: zipfile.ZipFile, pickled: str, size: int) -> Contents:
    """`folder/data.pkl`, and a member `folder/data/KEY` for each storage."""
    folder = pickled.partition("/")[0]
    members = {info.filename: info for info in archive.infolist()}
    if len(members) < len(archive.infolist()):
        raise UserError("two members of the archive have one name")
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise UserError("it is compressed, as TorchScript is, which is a program: save model.state_dict()")
    if sum(info.file_size for info in members.values()) > size:
        raise UserError("the members of the archive are larger than the file: it is damaged")
    if f"{folder}/byteorder" in members and archive.read(f"{folder}/byteorder") != b"little":
        raise UserError("its numbers are big-endian: save it anew on a usual machine")
    found = pickles.load(io.BytesIO(archive.read(pickled))).value
    described = _described(found)

    def numbers(storage: Storage) -> bytes:
        member = members[f"{folder}/data/{storage.key}"]
        if member.file_size != storage.bytes:
            raise ValueError(f"its storage has {member.file_size:,} bytes, not {storage.bytes:,}")
        return archive.read(member)

    for name, tensor in described.items():
        if f"{folder}/data/{tensor.storage.key}" not in members:
            raise UserError(f"the storage of {name} is not in the archive: it is damaged")
    return Contents(_as_entries(described, numbers), _dataset(found))


def _legacy(stream: _Bounded) -> Contents:
    """Five pickles (magic number, version, system, object, keys), then the storages, in the keys' order."""
    pickles.load(stream)
    version, system, found, keys = (pickles.load(stream) for _ in range(4))
    if version.value != 1001 or system.value.get("little_endian") is not True:
        raise UserError("it is of another version of torch's format, or big-endian: save it anew")
    described = _described(found.value)
    places, place = {}, stream.tell()
    for key in keys.value:  # each a count, eight bytes, and so many numbers
        stream.seek(place)
        if type(key) is not str or key not in found.storages:  # others could take ages to hash
            raise UserError("it holds storages of a type that is not known: save the state dict alone, dense")
        count, storage = int.from_bytes(stream.read(8), "little"), found.storages[key]
        if count != storage.count or place + 8 + storage.bytes > stream.size:
            raise UserError("a storage is not of the size that it should have: it is damaged")
        places[key] = place + 8
        place += 8 + storage.bytes
    if missing := sorted(found.storages.keys() - places.keys()):
        raise UserError(f"storage {missing[0]} is not in the file: it is damaged")

    def numbers(storage: Storage) -> bytes:
        stream.seek(places[storage.key])
        return stream.read(storage.bytes)

    return Contents(_as_entries(described, numbers), _dataset(found.value))


def _described(found: Any) -> dict[str, Tensor]:
    """The state dict in what was pickled: itself, or the one entry that holds tensors."""
    if isinstance(found, Inert):
        raise UserError(
            f"this is a whole pickled object ({found.name}), that only its own code could open: "
            "save model.state_dict() instead"
        )
    if type(found) is not dict:
        raise UserError(f"this is a pickled {type(found).__name__}, no state dict: save model.state_dict()")
    if not _has_tensors(found):
        dicts = {id(value): value for value in found.values() if type(value) is dict}  # each looked at once
        with_tensors = {place for place, value in dicts.items() if _has_tensors(value)}
        inside = [key for key, value in found.items() if id(value) in with_tensors]
        if len(inside) != 1:
            several = f"several state dicts ({', '.join(map(str, inside[:5]))})" if inside else "no tensors"
            raise UserError(f"it holds {several}: save one state dict alone")
        found = found[inside[0]]
    for name, tensor in found.items():
        if isinstance(tensor, Inert):
            raise UserError(
                f"{name} is made by {tensor.name}, which is no plain tensor and is not run: save it dense, "
                "not quantised, on the CPU"
            )
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{name!r} in the state dict is no tensor but a {type(tensor).__name__}")
    return found


def _dataset(found: dict) -> str:
    """What BackdoorBench writes beside `model`."""
    name = found.get("clean_data") if "model_name" in found else None
    return name if isinstance(name, str) else ""


def _has_tensors(found: dict) -> bool:
    return any(isinstance(value, Tensor) for value in found.values())


def _as_entries(described: dict[str, Tensor], numbers: Callable[[Storage], bytes]) -> dict[str, Entry]:
    def read(tensor: Tensor) -> np.ndarray:
        flat = _array(numbers(tensor.storage), tensor.storage.dtype, (tensor.storage.count,))
        strides = [stride * flat.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
        return np.array(view)

    return {
        name: Entry(tensor.shape, tensor.storage.dtype, lambda tensor=tensor: read(tensor))
        for name, tensor in described.items()
    }


def _array(content: bytes, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(content, jnp.dtype(dtype)).reshape(shape)  # which knows bfloat16


# --- safetensors, .npz ------------------------------------------------------------------------------


def _safetensors(stream: _Bounded) -> dict[str, Entry]:
    """Eight bytes with the header's length; JSON: name -> type, shape, first and last byte; the numbers."""
    length = int.from_bytes(stream.read(8), "little")
    if length > _MOST_HEADER:
        raise UserError(f"its header has {length:,} bytes: it is damaged")
    header = json.loads(stream.read(length).decode())
    begin, entries = 8 + length, {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        if about["dtype"] not in _SAFE:
            raise UserError(f"{name} is of type {about['dtype']}: only {', '.join(_SAFE)} are read")
        _check_dimensions(name, about["shape"])
        dtype, shape = _SAFE[about["dtype"]], tuple(map(natural, about["shape"]))
        first, last = map(natural, about["data_offsets"])
        size = math.prod(shape) * Storage(dtype, "", 1).bytes
        if last - first != size or begin + last > stream.size:
            raise UserError(f"the numbers of {name} are not where its header says: it is damaged")

        def read(first=first, size=size, dtype=dtype, shape=shape) -> np.ndarray:
            stream.seek(begin + first)
            return _array(stream.read(size), dtype, shape).copy()

        entries[name] = Entry(shape, dtype, read)
    return entries


def _npz(archive: zipfile.ZipFile) -> dict[str, Entry]:
    """`np.savez(file, **state_dict)`: a member NAME.npy for each array."""
    entries = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise UserError(f"it is an archive with {info.filename}, neither of torch's nor an .npz file")
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, dtype = header[version](member, max_header_size=_LINE)
        _check_dimensions(name, shape)
        if dtype.kind not in "biuf" or dtype.itemsize * math.prod(shape) > info.file_size:
            raise UserError(f"{name} is of type {dtype}, or larger than its file: give arrays of numbers")

        def read(info=info) -> np.ndarray:
            with archive.open(info) as member:
                return np.lib.format.read_array(member, allow_pickle=False)

        entries[name] = Entry(shape, dtype.name, read)
    return entries


def _check_dimensions(name: str, shape: Sized) -> None:
    if len(shape) > DIMENSIONS:
        raise UserError(f"{name} has {len(shape):,} dimensions: at most {DIMENSIONS} are read")


def write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays of numbers as a safetensors file."""
    names = {dtype: name for name, dtype in _SAFE.items()}
    header, place = {}, 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": names[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [place, place + array.nbytes],
        }
        place += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
