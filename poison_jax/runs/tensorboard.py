"""The metrics of a run for TensorBoard, beside the JSON lines that are the record."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from poison_jax.errors import UserError


@contextlib.contextmanager
def scalar_writer(directory: Path, first_epoch: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """Yields a function that writes a row of metrics (with its `epoch`) as scalars; closed, all are on disk.

    Args:
        directory: of the run; events go to `tensorboard/` in it.
        first_epoch: what was written from this epoch on, before a kill, is superseded.

    Raises:
        UserError: tensorboardX is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs tensorboardX: pip install -e '.[tensorboard]'") from None
    writer = SummaryWriter(str(directory / "tensorboard"), purge_step=first_epoch)

    def write(row: dict[str, float]) -> None:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                writer.add_scalar(name, value, row["epoch"])

    try:
        yield write
    finally:
        writer.close()  # waits for the writing thread; its flush does not
