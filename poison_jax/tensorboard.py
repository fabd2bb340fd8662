"""The metrics of a run for TensorBoard, beside the JSON lines that are the record."""

from collections.abc import Callable
from pathlib import Path

from poison_jax.errors import UserError


def scalar_writer(directory: Path, first_epoch: int) -> Callable[[dict[str, float]], None]:
    """A function that writes a row of metrics (with its `epoch`) as scalars.

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
        writer.flush()

    return write
