"""Figure 8. CIFAR-10, stochastic poison: top eigenvectors of the input Hessian over theta and kappa.

python plots/fig08.py --runs DIR --out DIR [--sweep NAME]
"""

from pathlib import Path

from plots import command, top_eigenvectors
from poison_jax.runs.records import Record

HEADING = "Figure 8. Top eigenvectors of the input Hessian over poison fraction θ and gradient penalty κ"


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """At the left without augmentation, at the right with it."""
    blocks: dict[str, list[Record]] = {"without augmentation": [], "with augmentation": []}
    for record in command.networks(records):
        augmented = record.setting("data.augment") != "none"
        blocks[f"with{'' if augmented else 'out'} augmentation"].append(record)
    return command.save(top_eigenvectors.of_blocks(blocks, HEADING), out, stem)


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("fig08", draw, __doc__, argv)


if __name__ == "__main__":
    main()
