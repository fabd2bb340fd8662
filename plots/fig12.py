"""Figure 12. The warp: top eigenvectors of the input Hessian, the gradient penalty rising.

python plots/fig12.py --runs DIR --out DIR [--sweep NAME]
"""

from pathlib import Path

from plots import command, top_eigenvectors
from poison_jax.runs.records import Record

HEADING = "Figure 12. Top eigenvectors of the input Hessian, the gradient penalty κ rising"


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """In one block, after the mean change by the warp."""
    blocks = {"": command.networks(records)}
    return command.save(top_eigenvectors.of_blocks(blocks, HEADING), out, stem)


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("fig12", draw, __doc__, argv)


if __name__ == "__main__":
    main()
