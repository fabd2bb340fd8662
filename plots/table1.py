"""Table 1. More epochs: clean accuracy and attack success over the gradient penalty, beside the paper's.

python plots/table1.py --runs DIR --out DIR [--sweep NAME]
"""

from pathlib import Path

from plots import cells, command, paper, tabular
from poison_jax.runs.records import Record

HEADER = ["epochs", "κ", "Acc", "Acc, paper", "ASR", "ASR, paper", "target rate without trigger", "networks"]
MEASURES = "clean_accuracy", "asr", "no_trigger_target_rate"


def draw(records: list[Record], out: Path, stem: str) -> list[Path]:
    """A row for each number of epochs and kappa, ours and the paper's."""
    found = cells.by(command.networks(records), ("train.epochs", "penalty.kappa"))
    rows = []
    for epochs, kappa in sorted(found.keys() | paper.TABLE1.keys()):
        runs = found.get((epochs, kappa), [])
        accuracy, asr, untriggered = (cells.percent(runs, name) for name in MEASURES)
        printed = [f"{value:.2f}" for value in paper.TABLE1.get((epochs, kappa), ())] or [tabular.DASH] * 2
        named = f"{epochs:g}", f"{kappa:g}"
        rows.append([*named, accuracy, printed[0], asr, printed[1], untriggered, cells.count(runs)])
    note = "In per cent; ± is the standard deviation over the seeds. The paper's: Table 1, Section 5.1."
    text = cells.text(records, __doc__.splitlines()[0], tabular.table(HEADER, rows), note)
    return command.save_text(text, out, stem)


def main(argv: list[str] | None = None) -> None:
    command.of_sweep("table1", draw, __doc__, argv)


if __name__ == "__main__":
    main()
