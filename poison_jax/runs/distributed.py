"""One program on several hosts: how its processes find each other, agree, and fail together.

Every process runs the same program on the same inputs, and its devices are part of one mesh. What only one
of them can know (its disk, a signal that it got) is told to all here, so that none waits for a computation
that another will not begin. With a single process every function here is the plain thing that it stands for.

The processes must call these functions, as all else that computes on the mesh, in the same order.
"""

import collections
import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from poison_jax.errors import UserError, about

T = TypeVar("T")
_FAILURES = {"UserError": UserError, "OSError": OSError}  # those that the command line says in a line


@contextlib.contextmanager
def session(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    detect: bool = False,
) -> Iterator[None]:
    """Within it this process is one of several; an exception, once it is said, ends this process at once.

    Enter it before anything asks JAX for a device. Without arguments there is one process, as always.

    Args:
        coordinator: `host:port` of process 0, that all can reach.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        detect: let JAX find out these three, as it can under Slurm, Open MPI and on TPU pods.

    Raises:
        UserError: some of the three without the others, or with `detect`; values that cannot be; no other
            process met within five minutes, or nothing detected.
    """
    three = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in three.items() if value is None]
    if len(missing) == 3 and not detect:
        yield
        return
    if detect and len(missing) < 3:
        raise UserError("--distributed finds out what the other flags say: give it alone")
    if not detect:
        if missing:
            raise UserError(f"several processes need {', '.join(three)}: {missing[0]} is not given")
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"--coordinator={coordinator}: give HOST:PORT of process 0")
        if not 0 <= process_id < num_processes:
            raise UserError(f"--process_id={process_id} is not one of 0 to {num_processes - 1}")
    # It would keep SIGTERM to itself, that the training loop listens to.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        hint = f"give {', '.join(three)}" if detect else "start all, with the address of process 0"
        raise UserError(f"the processes do not find each other ({about(error)}): {hint}") from None
    try:
        yield
    except BaseException as ending:
        _leave(ending)
    jax.distributed.shutdown()


def _leave(ending: BaseException) -> NoReturn:
    """Ends a failed process at once: JAX's shutdown waits for the others, which may wait for this one."""
    if not isinstance(ending, SystemExit):
        traceback.print_exception(ending)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():  # without its service JAX aborts the others: let them say first what they have to say
        time.sleep(2)
    os._exit(ending.code if isinstance(ending, SystemExit) and isinstance(ending.code, int) else 1)


def is_multiprocess() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1  # devices are not asked for in vain


def is_first() -> bool:
    """Whether this is process 0, that writes and speaks for all."""
    return not is_multiprocess() or jax.process_index() == 0


@contextlib.contextmanager
def in_unison() -> Iterator[None]:
    """Within it all processes but the first print nothing, and none goes on before all are done.

    Raises:
        UserError: another process has died; the processes have different numbers of devices.
    """
    if not is_multiprocess():
        yield
        return
    devices = collections.Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        raise UserError(f"the processes have {sorted(devices.values())} devices: give each as many")
    with contextlib.ExitStack() as silence:
        if not is_first():
            nowhere = silence.enter_context(open(os.devnull, "w"))
            silence.enter_context(contextlib.redirect_stdout(nowhere))
            silence.enter_context(contextlib.redirect_stderr(nowhere))
        try:
            yield
            multihost_utils.sync_global_devices("the end")
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):  # the memory of this one
                raise
            gone = f"another process is gone, or a device has failed ({about(error)})"
            raise UserError(f"{gone}: see what the others say") from None


def any_process(wish: bool) -> bool:
    """Whether any process wishes so; waits for all of them."""
    return bool(multihost_utils.process_allgather(np.array(wish)).any()) if is_multiprocess() else wish


def on_first(function: Callable[[], Any]) -> Any:
    """What `function` returns or raises on process 0, that alone calls it, on all: plain JSON.

    It must not compute on the mesh: the others would not.
    """
    if not is_multiprocess():
        return function()
    value = failure = own = None
    if is_first():
        try:
            value = function()
        except Exception as error:  # whatever it is, the others must not wait for this process
            kind = next((kind for kind, type_ in _FAILURES.items() if isinstance(error, type_)), "other")
            own, failure = error, (kind, str(error))
    value, failure = _gather((value, failure))[0]
    if own is not None:
        raise own
    if failure is not None:
        kind, text = failure
        raise _FAILURES.get(kind, RuntimeError)(f"process 0: {text}")
    return value


@contextlib.contextmanager
def entered_by_first(make: Callable[[], contextlib.AbstractContextManager[T]]) -> Iterator[T | None]:
    """Enters a context on process 0 alone; yields what it yields there, None on the others."""
    entered = []
    with contextlib.ExitStack() as stack:
        on_first(lambda: entered.append(stack.enter_context(make())))
        yield entered[0] if entered else None


def check_equal(name: str, value: str) -> None:
    """Checks that all processes have the same value.

    Raises:
        UserError: on all of them, that they differ in what `name` says.
    """
    if is_multiprocess() and len(set(_gather(value))) > 1:
        raise UserError(f"the processes differ in {name}: start all of them alike")


def broadcast(tree: Any) -> Any:
    """The arrays of process 0, to the bit, on the host; of the same shapes and dtypes on all processes."""
    # As bytes, for they are sums with the others' zeros: -0.0 would come out as 0.0.
    arrays = jax.tree.map(np.asarray, tree)
    sent = jax.tree.map(lambda leaf: np.ascontiguousarray(leaf).reshape(-1).view(np.uint8), arrays)
    got = multihost_utils.broadcast_one_to_all(sent)
    return jax.tree.map(lambda part, leaf: part.view(leaf.dtype).reshape(leaf.shape), got, arrays)


def _gather(value: Any) -> list[Any]:
    """Every process's JSON value, in the order of the processes."""
    own = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(own.size, np.int32))
    room = max(64, 1 << int(sizes.max() - 1).bit_length())  # few shapes, few compilations
    rows = multihost_utils.process_allgather(np.pad(own, (0, room - own.size)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]
