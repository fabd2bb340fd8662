"""The checked statements as a document."""

from collections import Counter
from collections.abc import Iterable, Sequence

from poison_jax.theory.entry import (
    APPROXIMATE,
    DEFINITION,
    EXACT,
    FAILS,
    MISPRINT,
    OURS,
    REPEATED,
    STATED,
    Entry,
)

_HEAD = """\
# The paper's statements, checked

Most of *Safety-Efficacy Trade Off: Robustness against Data-Poisoning* holds: the laws of a cloned poison, their exact form beside
any clean data, the loss of capacity. Five things do not, and they are those that a defender would lean on:

| the paper | what fails | what is true instead |
| --- | --- | --- |
| Corollary 3.7, Proposition A.4: near a clone the spike vanishes while the poison works | with clean data it does not vanish, and \
the loss's Hessian keeps (f - y) Hess f | it tends to Delta f^2 \\|grad log v\\|^2 / 4, v the posterior variance (Theorem B); what is invisible for every \
number of clones are *clean* points far from them (E) |
| Remark 3.5: for linear kernels no lag occurs | a large trigger works and shows in no eigenvector, however many poisons there are | a twilight \
zone up to \\|rho\\| = tau (d K)^(1/4) (D); how many images a test needs (F), and that a mean needs fewer (G) |
| Remark 3.13, Theorem 3.9: the penalty weakens poisons by taking capacity, and the residual grows | exact clones keep their effect at any kappa; the \
residual of a given y can fall | dE/dkappa = -V: the penalty removes what it sees, and E halves no earlier than at kappa = E / V (A) |
| Remark 3.10: the penalty is a longer length scale, which makes near clones harder | the response is another, and a longer length scale makes them easier | the \
dimension decides: easier for p = 1, harder for p >= 3 (C) |
| Theorems 3.12, A.6: large Fisher modes decay exponentially under the flow | not under the flow on J, not with more than one example, not for any v | tr F \
does not increase under the penalty's own flow; of J under the flow on J the same |

The letters are theorems that are stated and proved in [theorems.md](theorems.md).

Below is every numbered statement beside what a computation finds, written by

```bash
python main.py --config=configs/krr_theory.py
```

from its `theory.json`; the tests exhibit every counterexample again and search for one where a statement
holds. A verdict is *exact* (equal up to rounding), *approximate* (holds to the order shown, under the
assumption named), *misprint* (exact in the obvious reading, which the note says) or *fails* (the counterexample's numbers are shown,
and what is true instead). "Clones" are copies of one poisoned point zeta with the label y_t; c = n lambda; S = m / (c + k_zeta m).
"""

_TAIL = """\
## What is said of it without a computation

- Eqs. 2 and 26 write the ridge differently: n lambda, and lambda.
- Section 3.4 argues from neural collapse, which is about training points at zero training error. A triggered test image is not one:
  that its features lie near the target's mean is a finding, not an implication. It is found on digits trained to the end, where they lie at about a
  fifth of the clean distance, and not in short trainings ([the paper, artefact by artefact](paper_map.md)).
- The theory of Section 3 is about the input Hessian at one trigger point; what Section 5 measures is a mean over clean images, which far from
  the trigger sees nothing of the poison (Theorem E).
- Section 6 calls networks "immune to data poisoning". By the paper's own Table 1 the strongest penalty's
  attack success of 6.63 % after 90 epochs becomes 70.68 % after 450, at the same theta and kappa.
"""

_WORDS = {EXACT: "holds exactly", APPROXIMATE: "holds approximately", MISPRINT: "misprint", FAILS: "fails"}
_REMARKS = {REPEATED: " (repeated)", DEFINITION: " (a definition)"}


def markdown(entries: Sequence[Entry]) -> str:
    """The document: a table of verdicts, then each statement with its numbers; what is not the paper's last.

    Args:
        entries: in the order of the document.
    """
    paper, ours = ([e for e in entries if (e.kind == OURS) == own] for own in (False, True))
    distinct = [entry for entry in paper if entry.kind == STATED]
    counts = Counter(entry.verdict for entry in distinct)
    total = (
        f"{counts[EXACT]} hold exactly, {counts[APPROXIMATE]} approximately, {counts[MISPRINT]} are misprints, "
        f"{counts[FAILS]} fail"
    )
    lines = [_HEAD, f"{len(distinct)} distinct statements: {total}.\n", *_table(paper)]
    lines += ["\nNot the paper's, and checked in the same way:\n", *_table(ours)] if ours else []
    for entry in [*paper, *ours]:
        lines += [
            f"\n## {entry.statement}\n",
            f"**{_WORDS[entry.verdict].capitalize()}{_REMARKS.get(entry.kind, '')}.** {entry.note}\n",
            f"*Computed:* {entry.setup}: predicted {number(entry.predicted)}, measured "
            f"{number(entry.measured)}, error {error(entry)}.",
        ]
    return "\n".join(lines) + "\n\n" + _TAIL


def _table(entries: Iterable[Entry]) -> list[str]:
    lines = ["| statement | verdict |", "| --- | --- |"]
    for entry in entries:
        title = entry.statement.replace("|", "\\|")
        lines.append(f"| {title} | {_WORDS[entry.verdict]}{_REMARKS.get(entry.kind, '')} |")
    return lines


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
