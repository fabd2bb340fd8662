"""An interpreter of pickles that calls nothing: it knows what tensors are made of, all else is inert.

A pickle is a program for a stack machine; `pickle` runs it, and whoever wrote the file chooses what is
called. Here an instruction that would call something makes a record of what it would have called: a pickle
reaches no import and no call. What torch writes (protocol 2 and later) is understood, the instructions of
protocols 0 and 1 are refused.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp

MOST = 4_000_000  # instructions, and what they copy: each makes at most a few hundred bytes
LONGEST = 4096  # characters of a name or a key
DIMENSIONS = 8  # of an array
KINDS = {  # torch's storage class -> dtype
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class Inert(NamedTuple):
    """What stands for an object of a class that is not known: its name alone."""

    name: str  # "module.class"


class Storage(NamedTuple):
    """A block of numbers that lies elsewhere in the file."""

    dtype: str
    key: str
    count: int

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.count * jnp.dtype(self.dtype).itemsize


class Tensor(NamedTuple):
    """A view of a storage, whose bounds are checked."""

    storage: Storage
    offset: int  # in numbers, as the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Pickled(NamedTuple):
    """What a pickle describes."""

    value: Any  # plain values, `Tensor`, and `Inert` for everything else
    storages: dict[str, Storage]  # all that it refers to, by key


class _Name(NamedTuple):
    """A class or function that the pickle names: not what it names."""

    name: str


def load(stream: BinaryIO) -> Pickled:
    """Reads a pickle without running it.

    Args:
        stream: `read(n)` returns at most what is left, `readline()` a line of sane length. Left behind the
            pickle's last byte.

    Raises:
        ValueError, LookupError, TypeError: damaged, or not as torch writes it; a tensor outside its storage.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def pop() -> Any:
        if marks and len(stack) <= marks[-1]:
            raise ValueError("the pickle takes what is not there")
        return stack.pop()

    work = 0
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        # A hostile pickle may copy what is long, and often: a list into a dict, two texts into a name.
        work += 1
        if name in ("REDUCE", "NEWOBJ"):
            work += _length(stack[-1])
        elif name == "STACK_GLOBAL":
            work += sum(len(_short(text)) for text in stack[-2:])
        if work > MOST:
            raise ValueError(f"the pickle has more than {MOST:,} instructions")
        if name == "STOP":
            return Pickled(pop(), storages)
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TUPLES:
            items = [pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_Name(_short(argument).replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            attribute, module = pop(), pop()
            stack.append(_Name(f"{module}.{attribute}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, what = pop(), pop()
            stack.append(_made(what, arguments))
        elif name == "NEWOBJ_EX":
            _, _, what = pop(), pop(), pop()
            stack.append(_made(what, None))
        elif name == "BINPERSID":
            stack.append(_storage(pop(), storages))
        elif name == "BUILD":
            pop()  # attributes: of no object here
        elif name in ("SETITEM", "SETITEMS"):
            items = since_mark() if name == "SETITEMS" else [pop(), pop()][::-1]
            if type(stack[-1]) is dict:  # not a class of somebody's that is derived from it
                _set(stack[-1], items)
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = since_mark() if name != "APPEND" else [pop()]
            if type(stack[-1]) is list:
                stack[-1].extend(items)
        elif name == "FROZENSET":
            since_mark()
            stack.append(Inert("builtins.frozenset"))
        elif name == "POP":
            pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"the pickle uses {name}, which torch does not write")
    raise ValueError("the pickle has no end")


_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Inert("builtins.set"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _made(what: Any, arguments: Any) -> Any:
    """What `what(*arguments)` would be."""
    if type(what) is not _Name:
        raise ValueError("the pickle calls what is no class")
    if what.name == "collections.OrderedDict":
        made: dict[Any, Any] = {}
        if _length(arguments):  # Python 2 lists its pairs
            _set(made, [item for key, value in arguments[0] for item in (key, value)])
        return made
    if what.name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return _tensor(*arguments[:4])
    if what.name == "torch._utils._rebuild_parameter":
        return arguments[0]
    return Inert(what.name)


def _length(arguments: Any) -> int:
    """How many items lie in the first of a call's arguments."""
    first = arguments[0] if type(arguments) is tuple and arguments else None
    return len(first) if type(first) in (list, tuple) else 0


def _set(into: dict[Any, Any], items: list[Any]) -> None:
    """Pairs into a dict, but for keys other than text and usual numbers, which could take ages to hash."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is str:
            into[_short(key)] = value
        elif type(key) is float or (isinstance(key, int) and key.bit_length() <= 64):
            into[key] = value


def _short(text: Any) -> str:
    """A name or key as it is: a long one could be copied, or compared with its like, again and again."""
    if type(text) is not str or len(text) > LONGEST:
        raise ValueError(f"a name in it is no text, or longer than {LONGEST:,} characters")
    return text


def _storage(persistent: Any, storages: dict[str, Storage]) -> Any:
    """What `torch.save` puts in the place of a storage: ("storage", class, key, device, count)."""
    if type(persistent) is tuple and len(persistent) > 1 and persistent[0] == "module":
        return persistent[1]  # a class, with its source code beside it
    if type(persistent) is not tuple or len(persistent) > 6:
        raise ValueError("a storage that torch did not describe")
    kind, what, key, _, count, *view = persistent
    module, _, name = what.name.rpartition(".")
    if kind != "storage" or module != "torch" or name not in KINDS:
        return Inert(what.name)
    if view not in ([], [None]):
        raise ValueError("a storage that is part of another: save the state dict with a newer torch")
    storage = Storage(KINDS[name], _short(key), natural(count))
    if storages.setdefault(storage.key, storage) != storage:
        raise ValueError(f"storage {storage.key:.50} is described twice, differently")
    return storage


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Any:
    """A tensor that lies within its storage, and has no number twice.

    >>> _tensor(Storage("float32", "0", 6), 0, (2, 3), (3, 1)).shape
    (2, 3)
    """
    if isinstance(storage, Inert):
        return storage
    if (
        type(storage) is not Storage
        or type(shape) is not tuple
        or not len(shape) == len(strides) <= DIMENSIONS
    ):
        raise ValueError("a tensor without storage, shape or strides")
    shape, strides = tuple(map(natural, shape)), tuple(map(natural, strides))
    size, last = 1, natural(offset)
    for length, stride in zip(shape, strides, strict=True):
        size, last = size * length, last + max(length - 1, 0) * stride
    if size > storage.count or (size and last >= storage.count):
        raise ValueError(f"a tensor {list(shape)} reaches outside its storage of {storage.count} numbers")
    return Tensor(storage, offset, shape, strides)


def natural(value: Any) -> int:
    """A size or place in a file as it is, if it is a whole number from 0 on, below 2^48."""
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError("sizes and places in the file must be whole numbers")
    return value
