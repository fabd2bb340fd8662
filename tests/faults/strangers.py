"""Files of weights made by somebody else to do harm, or damaged, in every format that is read.

None runs a line of its own, and each is read or refused in a line, in little memory. The reader is a process
that watches itself: `python -m tests.faults.strangers FOLDER SEED SECONDS MOST` prints a line of JSON.
"""

import io
import json
import os
import pickle
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from poison_jax import foreign
from poison_jax.errors import UserError
from poison_jax.foreign import files
from tests import torch_format as tf
from tests.faults.chapter import Chapter, output
from tests.faults.events import Watch
from tests.program import start

MEMORY = 2**29  # bytes by which reading may let the process grow
LONGEST = 30  # seconds of a core that a file may take
_WEIGHTS = tf.weights()
# What reading has no need of, either.
_FORBIDDEN = "os.mkdir", "os.remove", "os.rename", "os.symlink", "shutil.rmtree", "marshal.loads"


class _Code:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: str):
        self._mark = mark

    def __reduce__(self):
        return os.mkdir, (self._mark,)


def payloads(mark: str) -> dict[str, tf.Raw]:
    """Instructions that would make a folder, or import `evil`, by every one that can call."""
    text = tf.pickled(mark)[2:-1]
    arguments, mkdir, other = b"(" + text + b"t", b"cos\nmkdir\n", b"cevil\nClass\n"
    short = lambda word: b"\x8c" + bytes([len(word)]) + word  # noqa: E731
    codes = {
        "GLOBAL, REDUCE": mkdir + arguments + b"R",
        "STACK_GLOBAL, REDUCE": short(b"os") + short(b"mkdir") + b"\x93" + arguments + b"R",
        "INST": b"(" + text + b"ios\nmkdir\n",
        "OBJ": b"(" + mkdir + text + b"o",
        "NEWOBJ": other + b")\x81",
        "NEWOBJ of a function": mkdir + arguments + b"\x81",
        "NEWOBJ_EX": other + b")}\x92",
        "BUILD": other + b")\x81}(" + short(b"a") + text + b"ub",
        "BUILD of a function": mkdir + arguments + b"b",
        "SETITEM of a class": other + b")\x81" + text + text + b"s",
        "SETITEMS of a class": other + b")\x81(" + text + text + b"u",
        "APPEND to a class": other + b")\x81" + text + b"a",
        "APPENDS to a class": other + b")\x81(" + text + b"e",
        "ADDITEMS of a class": other + b")\x81(" + text + b"\x90",
        "EXT1": b"\x82\x01" + arguments + b"R",
        "EXT2": b"\x83\x01\x00" + arguments + b"R",
        "EXT4": b"\x84\x01\x00\x00\x00" + arguments + b"R",
        "PERSID": b"Pevil\n",
        "BINPERSID": b"(" + short(b"storage") + mkdir + text + text + b"K\x01tQ",
        "BINPERSID of a module": b"(" + short(b"module") + other + text + text + b"tQ",
        "REDUCE of a lookup": b"cbuiltins\ngetattr\n(cos\npath\n" + short(b"join") + b"tR" + arguments + b"R",
        "dotted names": short(b"os") + short(b"path.os.mkdir") + b"\x93" + arguments + b"R",
        "REDUCE of eval": b"cbuiltins\neval\n("
        + tf.pickled(f"__import__('os').mkdir({mark!r})")[2:-1]
        + b"tR",
        "a key that calls": b"}" + mkdir + arguments + b"RK\x01s",
    }
    for protocol in range(2, 6):
        codes[f"__reduce__, protocol {protocol}"] = pickle.dumps(_Code(mark), protocol)[2:-1]
    return {name: tf.Raw(code) for name, code in codes.items()}


def planted(mark: str) -> Iterator[tuple[str, bytes]]:
    """Sound files into which something was put."""
    for name, code in payloads(mark).items():
        for legacy in (False, True):
            state = tf.state_dict(_WEIGHTS, legacy=legacy)
            write = tf.legacy if legacy else tf.zipped
            places = {
                "beside": {"model": state, "args": code},
                "a weight": state | {"a.bias": code},
                "all of it": code,
                "its storage": state
                | {"a.bias": tf.Call(tf.Name("torch._utils", "_rebuild_tensor_v2"), (code,) * 5)},
            }
            for place, value in places.items():
                yield f"{name}, {place}", write(tf.pickled(value), _WEIGHTS)
    for protocol in range(6):
        yield f"a bare pickle, {protocol}", pickle.dumps(_Code(mark), protocol)
        yield f"a pickle in an archive, {protocol}", tf.zipped(pickle.dumps(_Code(mark), protocol), {})
    stream = io.BytesIO()
    np.savez(stream, **{"a.weight": np.array([_Code(mark)], object)})
    yield "pickled arrays", stream.getvalue()
    stream = io.BytesIO()
    np.savez_compressed(stream, **(_WEIGHTS | {"a.bias": np.zeros(2**27, np.float32)}))
    yield "half a gibibyte of zeros", stream.getvalue()
    deep = tf.Raw(b"]" + b"]a" * 10**6)
    yield (
        "lists a million deep",
        tf.zipped(tf.pickled({"model": tf.state_dict(_WEIGHTS), "x": deep}), _WEIGHTS),
    )
    yield "a memo without end", tf.zipped(tf.pickled(tf.Raw(b"Nr\xff\xff\xff\x7f")), _WEIGHTS)
    for code in (
        b"\x8e" + b"\xff" * 7 + b"\x7f",
        b"\x8d" + b"\x00" * 5 + b"\x01\x00\x00",
        b"\x8b\xff\xff\xff\x7f",
    ):
        for write in (tf.legacy, tf.zipped):
            yield "text without end", write(tf.pickled(tf.Raw(code)), _WEIGHTS)
    huge = tf.tensor(_WEIGHTS["a.bias"], "1", shape=(2**40,), strides=(0,))
    yield "a tensor without end", tf.zipped(tf.pickled(tf.state_dict(_WEIGHTS) | {"a.bias": huge}), _WEIGHTS)
    yield from laborious()


def laborious() -> Iterator[tuple[str, bytes]]:
    """Files of a few mebibytes that name a large thing once, and ask again and again for what it costs."""
    text = lambda count: tf.pickled("a" * count)[2:-1]  # noqa: E731
    pairs = b"]q\x00(" + b"K\x01K\x02\x86q\x01" + b"h\x01" * 10**5 + b"e"
    arguments = pairs + b"\x85q\x02ccollections\nOrderedDict\nq\x03"
    number = b"\x8b" + (10**6).to_bytes(4, "little") + b"\x55" * 10**6
    entries = lambda value: b"".join(b"J" + i.to_bytes(4, "little") + value for i in range(50_000))  # noqa: E731
    tuples = b")q\x000" + b"h\x00h\x00\x86q\x000" * 60 + b"h\x00"
    codes = {
        "long names": text(10**6) + b"q\x00" + b"h\x00h\x00\x93" * 10**5,
        "many names": text(4000) + b"q\x00" + b"h\x00h\x00\x93" * 3 * 10**5,
        "dicts of a list by REDUCE": arguments + b"h\x03h\x02R0" * 10**5,
        "dicts of a list by NEWOBJ": arguments + b"h\x03h\x02\x810" * 10**5,
        "numbers of a mebibyte as keys": number + b"q\x00}" + b"h\x00Ns" * 10**6,
        "equal texts as keys": 2 * (text(10**6) + b"q\x00") + b"}" + text(10**6) + b"Ns" + b"h\x00Ns" * 10**6,
        "a list as a storage": pairs + b"h\x00Q" * 10**6,
        "one dict in many places": b"}q\x00(" + entries(b"N") + b"u}(" + entries(b"h\x00") + b"u",
    }
    for what, code in codes.items():
        yield what, tf.zipped(tf.pickled(tf.Raw(code)), _WEIGHTS)
    keys = tf.pickled([str(i) for i in range(len(_WEIGHTS))])
    yield (
        "keys of storages that are tuples",
        _SOUND["legacy"].replace(keys, tf.pickled([tf.Raw(tuples)])),
    )
    about = {"dtype": "F32", "shape": [2**48 - 1] * 300_000, "data_offsets": [0, 4]}
    yield "a safetensors shape without end", tf.safetensors(_WEIGHTS, **{"a.bias": about})


def damaged(luck: random.Random) -> tuple[str, bytes]:
    """A sound file of some format, changed in a few places."""
    kind = luck.choice(sorted(_SOUND))
    content = bytearray(_SOUND[kind])
    for _ in range(luck.choice((1, 1, 2, 8))):
        # The numbers are most of a file, and the least of it that can be wrong.
        at = luck.randrange(len(content)) if luck.random() < 0.5 else luck.randrange(min(len(content), 1500))
        how = luck.choice(("flip", "byte", "cut", "drop", "double", "zeros"))
        end = at + luck.choice((1, 4, 8, 64))
        if how == "flip":
            content[at] ^= 1 << luck.randrange(8)
        elif how == "byte":
            content[at] = luck.choice(b"\x00\x7f\xffRQbcoiPt(.\x81\x82\x93\x94")
        elif how == "cut":
            del content[max(at, 1) :]
        elif how == "drop":
            del content[at:end]
        elif how == "double":
            content[at:at] = content[at:end]
        else:
            content[at:end] = bytes(len(content[at:end]))
        if not content:
            break
    return kind, bytes(content)


def _npz(save: Callable) -> bytes:
    stream = io.BytesIO()
    save(stream, **_WEIGHTS)
    return stream.getvalue()


_SOUND = {
    "zip": tf.zipped(tf.pickled(tf.state_dict(_WEIGHTS)), _WEIGHTS),
    "legacy": tf.legacy(tf.pickled(tf.state_dict(_WEIGHTS, legacy=True)), _WEIGHTS),
    "safetensors": tf.safetensors(_WEIGHTS),
    "npz": _npz(np.savez),
    "compressed npz": _npz(np.savez_compressed),
}


def run(chapter: Chapter) -> None:
    """What was planted, once; damaged files until the time is over, two hundred at least."""
    seconds, most = str(chapter.seconds), str(chapter._most or 10**9)
    (chapter.folder / "evil.py").write_text("raise SystemExit('imported')\n")
    paths = os.pathsep.join([str(chapter.folder), *sys.path])
    command = ["-m", "tests.faults.strangers", chapter.folder, chapter.seed, seconds, most]
    out, err = output(start(command, PYTHONPATH=paths))
    lines = [line for line in out.splitlines() if line.startswith('{"counts"')]
    if not chapter.check(len(lines) == 1, f"the reader did not come back: {err[-800:]!r}"):
        return
    found = json.loads(lines[0])
    for what, count in found["counts"].items():
        chapter.count(what, count)
    for what in found["broken"]:
        chapter.fail(what)
    chapter.measured["MiB by which the memory grew"] = found["grew"] >> 20
    chapter.measured["longest that one file took, s of a core"] = round(found["longest"], 2)
    chapter.check(found["grew"] < MEMORY, f"the memory grew by {found['grew'] >> 20} MiB")
    chapter.check(found["longest"] < LONGEST, f"a file took {found['longest']:.0f} s")


def main(argv: list[str]) -> None:
    """Opens one file after the other."""
    folder, seed, seconds, most = Path(argv[0]), int(argv[1]), float(argv[2]), int(argv[3])
    mark, path, luck = folder / "mark", folder / "w.pt", random.Random(f"strangers {seed}")
    watch = Watch(*_FORBIDDEN)
    counts: Counter[str] = Counter()
    broken: list[str] = []
    longest = 0.0

    def open_it(what: str, content: bytes, read: Callable[[], object]) -> None:
        nonlocal longest
        path.write_bytes(content)
        began, watch.on = time.process_time(), True
        try:
            read()
            counts["read"] += 1
        except UserError as error:
            counts["refused in a line"] += 1
            if "\n" in str(error) or len(str(error)) > 2000:
                broken.append(f"{what}: more than a line: {error!s:.300}")
        except BaseException as error:
            broken.append(f"{what}: {type(error).__name__}: {error!s:.300}")
        finally:
            watch.on, longest = False, max(longest, time.process_time() - began)
        if watch.events or mark.exists():
            broken.append(f"{what}: {watch.events or 'code was run'}")
            watch.events.clear()
            mark.exists() and mark.rmdir()

    def numbers() -> None:
        with files.opened(path) as found:
            for entry in found.entries.values():
                entry.read()

    for content in _SOUND.values():  # what is imported once is there
        path.write_bytes(content)
        numbers()
        foreign.load(path, tf.DESCRIPTION)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for what, content in planted(str(mark)):
        counts["planted"] += 1
        open_it(what, content, lambda: foreign.inspect(path))
        if not what.endswith("beside"):
            open_it(what, content, lambda: foreign.load(path, tf.DESCRIPTION))
    end = time.monotonic() + seconds
    while counts["damaged"] < most and (counts["damaged"] < 200 or time.monotonic() < end):
        kind, content = damaged(luck)
        counts["damaged"] += 1
        open_it(f"damaged {kind} {counts['damaged']}", content, numbers)
    grew = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps({"counts": counts, "broken": broken[:50], "grew": grew, "longest": longest}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
