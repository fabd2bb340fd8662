"""Figure 13. CIFAR-100, deterministic poison: attack success and the largest overlap of the top eigenvectors.

python plots/fig13.py --runs DIR --out DIR [--sweep NAME]
"""

from pathlib import Path

from plots import command, over_theta
from plots.lag import LARGEST
from poison_jax.runs.records import Record

HEADING = "Figure 13. Attack success and the largest overlap of the top eigenvectors over the poison fraction"


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """ASR with the clean accuracy, the largest overlap^2, and which eigenvector has it."""
    options = {"overlap": LARGEST, "inset": "asr", "index": True}
    return over_theta.with_overlap(records, out, stem, HEADING, **options)


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("fig13", draw, __doc__, argv)


if __name__ == "__main__":
    main()
