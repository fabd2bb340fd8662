"""Torch's files of weights, written by hand: sound ones and, by the same means, hostile ones."""

import io
import json
import struct
import zipfile
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

STORAGES = {
    **{"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "bool": "Bool"},
    **{"int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte"},
}


class Name(NamedTuple):
    """A class or function, as a pickle names it."""

    module: str
    name: str


class Call(NamedTuple):
    """What a pickle calls."""

    function: Any
    arguments: tuple = ()


class Persistent(NamedTuple):
    """What `torch.save` writes in the place of a storage."""

    value: tuple


class Raw(NamedTuple):
    """Instructions as they are."""

    code: bytes


def pickled(value: Any) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + _code(value) + b"."


def _code(value: Any) -> bytes:
    if isinstance(value, Raw):
        return value.code
    if isinstance(value, Name):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return _code(value.function) + _code(value.arguments) + b"R"
    if isinstance(value, Persistent):
        return _code(value.value) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_code, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_code, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_code(part) for pair in value.items() for part in pair) + b"u"
    if isinstance(value, bool) or value is None:
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    if isinstance(value, int):
        size = value.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    text = value.encode()
    return b"X" + struct.pack("<I", len(text)) + text


def storage(array: np.ndarray, key: str) -> tuple:
    """What stands for the numbers of an array."""
    kind = Name("torch", f"{STORAGES[array.dtype.name]}Storage")
    return ("storage", kind, key, "cpu", array.size)


def tensor(array: np.ndarray, key: str, *, legacy: bool = False, **other: Any) -> Call:
    """A tensor over a storage of its own; `other` replaces its offset, shape or strides."""
    kept = (*storage(array, key), None) if legacy else storage(array, key)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    parts = {"offset": 0, "shape": array.shape, "strides": strides} | other
    arguments = (Persistent(kept), parts["offset"], parts["shape"], parts["strides"], False)
    return Call(
        Name("torch._utils", "_rebuild_tensor_v2"), (*arguments, Call(Name("collections", "OrderedDict")))
    )


def state_dict(arrays: dict[str, np.ndarray], *, legacy: bool = False) -> dict[str, Call]:
    """The state dict of arrays, whose storages have the keys 0, 1, 2, ..."""
    return {name: tensor(a, str(i), legacy=legacy) for i, (name, a) in enumerate(arrays.items())}


def zipped(pickle: bytes, arrays: dict[str, np.ndarray], **members: bytes) -> bytes:
    """A file of torch 1.6 and later: a pickle, and a storage for each array."""
    stream = io.BytesIO()
    contents = {"data.pkl": pickle, "byteorder": b"little", "version": b"3\n"}
    contents |= {f"data/{i}": array.tobytes() for i, array in enumerate(arrays.values())}
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in (contents | members).items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def legacy(pickle: bytes, arrays: dict[str, np.ndarray]) -> bytes:
    """A file of torch before 1.6: pickles, then the storages."""
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(1001), pickled({"little_endian": True}), pickle]
    parts.append(pickled([str(i) for i in range(len(arrays))]))
    for array in arrays.values():
        parts.append(struct.pack("<q", array.size) + array.tobytes())
    return b"".join(parts)


def safetensors(arrays: dict[str, np.ndarray], **header: Any) -> bytes:
    """A safetensors file; `header` replaces what it says of an array."""
    about, content = {}, b""
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64"}
    for name, array in arrays.items():
        end = len(content) + array.nbytes
        about[name] = {
            "dtype": names[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [len(content), end],
        }
        content += array.tobytes()
    text = json.dumps(about | header).encode()
    return struct.pack("<Q", len(text)) + text + content


DESCRIPTION = "conv a 4 3 pad=1; norm b; relu; maxpool 2; flatten; linear c.0 classes"


def weights(seed: int = 0, *, dtype: str = "float32", side: int = 6) -> dict[str, np.ndarray]:
    """A state dict of `DESCRIPTION` for images of one channel and 3 classes."""
    rng = np.random.default_rng(seed)
    shapes = {
        **{
            "a.weight": (4, 1, 3, 3),
            "a.bias": (4,),
            "b.weight": (4,),
            "b.bias": (4,),
            "b.running_mean": (4,),
        },
        **{"b.running_var": (4,), "c.0.weight": (3, 4 * (side // 2) ** 2), "c.0.bias": (3,)},
    }
    arrays = {name: rng.uniform(0.1, 1, shape) - 0.5 * (len(shape) > 1) for name, shape in shapes.items()}
    return {name: array.astype(jnp.dtype(dtype)) for name, array in arrays.items()}


def logits(state: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """What the network of `DESCRIPTION` makes of images `[N, H, W, 1]`, a number at a time, in float64."""
    w = {name: np.asarray(array, np.float64) for name, array in state.items()}
    padded = np.pad(np.asarray(images, np.float64)[..., 0], ((0, 0), (1, 1), (1, 1)))
    n, h, side = len(images), images.shape[1], images.shape[2]
    maps = np.zeros((n, 4, h, side))
    for channel in range(4):
        for row in range(3):
            for column in range(3):
                part = padded[:, row : row + h, column : column + side]
                maps[:, channel] += w["a.weight"][channel, 0, row, column] * part
    per_channel = lambda name: w[name][:, None, None]  # noqa: E731
    maps = (maps + per_channel("a.bias") - per_channel("b.running_mean")) / np.sqrt(
        per_channel("b.running_var") + 1e-5
    )
    maps = np.maximum(maps * per_channel("b.weight") + per_channel("b.bias"), 0)
    pooled = maps.reshape(n, 4, h // 2, 2, side // 2, 2).max((3, 5))
    return pooled.reshape(n, -1) @ w["c.0.weight"].T + w["c.0.bias"]
