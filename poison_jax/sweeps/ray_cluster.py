"""The cells of a sweep as tasks of a Ray cluster (`pip install -e '.[cluster]'`), which schedules them.

Every node needs this package installed and the store on a disk that all share. Ray is found as it always
is: `$RAY_ADDRESS`, else a cluster started on this machine (`ray start --head`), else one of its own.
"""

import importlib.util
import os
from collections.abc import Mapping

import jax

from poison_jax import cache, console, environment, kernels
from poison_jax.errors import Interrupted, UserError, about
from poison_jax.sweeps import processes
from poison_jax.sweeps.board import Board

STOPPING = 60  # seconds that a task has for saving its state
_PASSED_ON = ("TFDS_DATA_DIR", "POISON_JAX_", "JAX_", "XLA_", "PYTHONPATH")


def check() -> None:
    """Raises `UserError` where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("sweep.engine = ray needs Ray: pip install -e '.[cluster]'")


class RayTasks:
    """An engine of `sweep`, as `processes.Processes`: a task for each cell.

    Args:
        board: of the sweep.
        cpus, gpus: that a task takes; a fraction of a GPU shares it.

    Raises:
        UserError: the cluster cannot be reached, or has nothing that suffices for a task.
    """

    def __init__(self, board: Board, *, cpus: float, gpus: float):
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else every start warns of it
        import ray

        variables = {key: value for key, value in os.environ.items() if key.startswith(_PASSED_ON)}
        try:
            ray.init(log_to_driver=False, logging_level="error", runtime_env={"env_vars": variables})
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"no Ray cluster: {about(error)}") from None
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            ray.shutdown()
            raise UserError(
                f"no node of the Ray cluster has sweep.cpus = {cpus:g} and sweep.gpus = {gpus:g}: take less"
            )
        if not gpus and any(node.get("GPU", 0) for node in nodes):
            console.warn("tasks compute on CPUs, though the cluster has GPUs: sweep.gpus gives them some")
        self._ray, self._board, self._gpus = ray, board, gpus
        # A task whose process dies is not Ray's to repeat: the board counts the deaths.
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_do)
        self._running: dict = {}  # cell -> reference

    def look_after(self, states: Mapping[str, str]) -> None:
        for cell, reference in list(self._running.items()):
            if self._ray.wait([reference], timeout=0)[0]:
                del self._running[cell]
                self._outcome(reference)
        board = self._board
        for cell, state in states.items():
            if state == "waiting" and cell not in self._running:
                arguments = os.getcwd(), str(board.workdir.resolve()), board.sweep.name, cell, self._gpus
                self._running[cell] = self._task.remote(*arguments)

    def busy(self) -> bool:
        return bool(self._running)

    def stop(self) -> None:
        references = list(self._running.values())
        for force in (False, True):
            for reference in references:
                self._ray.cancel(reference, force=force)
            if references:
                _, references = self._ray.wait(references, num_returns=len(references), timeout=STOPPING)
        self._ray.shutdown()

    def _outcome(self, reference) -> None:
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError):
                raise UserError(f"{error.cause}: free some space, or choose another --workdir") from None
            if not isinstance(error.cause, Interrupted):
                raise
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.RayError):
            pass  # its process died: the board counts it


def _do(folder: str, workdir: str, name: str, cell: str, gpus: float) -> None:
    """A task: in a process of the cluster, from the folder that relative paths are meant from."""
    if os.path.isdir(folder):
        os.chdir(folder)
    if gpus:
        environment.share_memory(os.environ, gpus)
    elif environment.gpus():  # which Ray hides from no task that asks for none: each would take them all
        jax.config.update("jax_platforms", "cpu")
    environment.pin()
    kernels.keep_memory()
    cache.keep_compilations()
    board = Board(workdir, name)
    if board.state(cell) == "waiting":
        processes.attempt(board, cell)
