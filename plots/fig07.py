"""Figure 7. CIFAR-10 with augmentation, stochastic poison: attack success and clean accuracy.

python plots/fig07.py --runs DIR --out DIR [--sweep NAME]
"""

from pathlib import Path

from plots import command, over_theta
from poison_jax.runs.records import Record

HEADING = "Figure 7. Attack success and clean accuracy over the poison fraction"


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """ASR and clean accuracy over the poison fraction."""
    return over_theta.with_accuracy(records, out, stem, HEADING)


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("fig07", draw, __doc__, argv)


if __name__ == "__main__":
    main()
