"""The checked statements as a document."""

from collections import Counter
from collections.abc import Sequence

from poison_jax.theory.entry import APPROXIMATE, EXACT, FAILS, Entry

_HEAD = """\
# The paper's statements, checked

Every numbered statement of *Safety-Efficacy Trade Off: Robustness against Data-Poisoning*, beside what a
computation finds. Written by

```bash
python main.py --config=configs/krr_theory.py
```

from its `theory.json`; the tests exhibit every counterexample again and search for one where a statement
holds. A verdict is *exact* (equal up to rounding), *approximate* (holds to the order shown, under the
assumption named) or *fails* (the counterexample's numbers are shown, and what is true instead). "Clones" are
copies of one poisoned point zeta with the label y_t; c = n lambda; S = m / (c + k_zeta m).

"""

_TAIL = """\
## What cannot be computed

- Eqs. 2 and 26 write the ridge differently: n lambda, and lambda.
- Section 6 calls networks "immune to data poisoning". By the paper's own Table 1 the strongest penalty's
  attack success of 6.63 % after 90 epochs becomes 70.68 % after 450, at the same theta and kappa.
"""

_WORDS = {EXACT: "holds exactly", APPROXIMATE: "holds approximately", FAILS: "fails"}


def markdown(entries: Sequence[Entry]) -> str:
    """The document: a table of verdicts, then each statement with its numbers.

    Args:
        entries: in the order of the document.
    """
    counts = Counter(entry.verdict for entry in entries)
    total = f"{counts[EXACT]} hold exactly, {counts[APPROXIMATE]} approximately, {counts[FAILS]} fail"
    lines = [_HEAD, f"{len(entries)} entries: {total}.\n", "| statement | verdict |", "| --- | --- |"]
    for entry in entries:
        title = entry.statement.replace("|", "\\|")
        lines.append(f"| {title} | {_WORDS[entry.verdict]} |")
    for entry in entries:
        lines += [
            f"\n## {entry.statement}\n",
            f"**{_WORDS[entry.verdict].capitalize()}.** {entry.note}\n",
            f"*Computed:* {entry.setup}: predicted {number(entry.predicted)}, measured "
            f"{number(entry.measured)}, error {error(entry)}.",
        ]
    return "\n".join(lines) + "\n\n" + _TAIL


def number(value: float) -> str:
    """Four significant digits.

    >>> number(2.0), number(0.000123456)
    ('2', '0.0001235')
    """
    return f"{value:.4g}"


def error(entry: Entry) -> str:
    """The error in words: `rounding` where it is."""
    if entry.error < 1e-9:
        return "rounding"
    return f"{entry.error:.2g}" + ("" if entry.predicted else " (absolute)")
