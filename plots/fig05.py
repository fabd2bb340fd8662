"""Figure 5. MNIST, linear regression: accuracy, attack success and overlap over the poison fraction.

    python plots/fig05.py --runs DIR --out DIR [--sweep NAME]

`plots/mnist_linear.py` draws it, and Figure 4, of a run with all its weights.
"""

from pathlib import Path

from plots import command, mnist_linear
from poison_jax.errors import UserError
from poison_jax.runs.records import Record


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """The figure of the sweep's regression; several are several files."""
    files = []
    for i, record in enumerate(records):
        if "methods" not in record.arrays:
            raise UserError(f"{record.run} is no linear regression: name a sweep of experiment mnist_linear")
        figure = mnist_linear.against_theta(record.result, record.arrays)
        files += command.save(figure, out, stem if i == 0 else f"{stem}-{i + 1}")
    return files


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("fig05", draw, __doc__, argv)


if __name__ == "__main__":
    main()
