"""The C library told to keep the memory that it is given back."""

import ctypes
import sys


def keep_memory() -> bool:
    """Has glibc keep freed memory for the next step instead of returning it to the system.

    XLA allocates the temporary buffers of a CPU program anew at every call. By default glibc maps such large
    pieces from the system and unmaps them afterwards, and the system clears every page again at its first
    touch: a quarter of a penalised step (half a gigabyte, 100,000 page faults). Call it before the first
    computation, for threads that have allocated keep their habits; even so glibc maps large blocks anew in
    some processes. The process stays as large as it once was.

    Returns:
        Whether it was done: on Linux with glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # as <malloc.h> numbers them
    done = [mallopt(trim_threshold, -1), mallopt(mmap_max, 0), mallopt(arena_max, 1)]
    return done == [1, 1, 1]
