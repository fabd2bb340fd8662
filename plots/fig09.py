"""Figure 9. CIFAR-10, deterministic poison: attack success and overlap over the poison fraction.

python plots/fig09.py --runs DIR --out DIR [--sweep NAME]
"""

from pathlib import Path

from plots import command, over_theta
from poison_jax.runs.records import Record

HEADING = "Figure 9. Attack success and overlap with the trigger over the poison fraction"


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """ASR, overlap^2 of the top eigenvector, clean accuracy, and the lag between attack and overlap."""
    return over_theta.with_overlap(records, out, stem, HEADING)


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("fig09", draw, __doc__, argv)


if __name__ == "__main__":
    main()
