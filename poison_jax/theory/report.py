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

The laws of a cloned poison in *Safety-Efficacy Trade Off: Robustness against Data-Poisoning* hold, with an
exact form beside any clean data, and so does the loss of capacity. Five things do not, which a defender would
lean on:

"""
_FAILURES = (
    (
        "Corollary 3.7, Proposition A.4: near a clone the spike vanishes while the poison works",
        "With clean data it does not vanish, and the loss's Hessian keeps (f - y) Hess f.",
        "The spike tends to Delta f^2 |grad log v|^2 / 4, v the posterior variance (Theorem B). What no "
        "number of clones shows are *clean* points far from them (E).",
    ),
    (
        "Remark 3.5: for linear kernels no lag occurs",
        "A large trigger works and shows in no eigenvector, however many poisons there are.",
        "The twilight zone ends at coefficients |rho| = tau (d K)^(1/4) (D). How many images a test needs "
        "(F); that a mean needs fewer (G).",
    ),
    (
        "Remark 3.13, Theorem 3.9: the penalty weakens poisons by taking capacity, and the residual grows",
        "Exact clones far from the data keep their effect at any kappa; the residual of a given y can fall.",
        "dE/dkappa = -V: the penalty removes what it sees, and halves the efficacy E no earlier than at "
        "kappa = E / V (A).",
    ),
    (
        "Remark 3.10: the penalty is a longer length scale, which makes near clones harder",
        "The response is another, and a longer length scale makes them easier.",
        "The dimension decides where no values are fitted: easier for p = 1, harder for p >= 3, hardly so "
        "for large p at an equal tau kh(0) (C).",
    ),
    (
        "Theorems 3.12, A.6: large Fisher modes decay exponentially under the flow",
        "Not under the flow on J, not with examples that share parameters, not for every v.",
        "tr F does not increase under the flow on the penalty alone, nor J under the flow on J.",
    ),
)
_EXPLANATION = """
The letters are theorems, stated and proved in [theorems.md](theorems.md).

Below is every numbered statement beside what a computation finds, written by

```bash
python main.py --config=configs/krr_theory.py
```

from its `theory.json`; the tests exhibit every counterexample again and search for one where a statement
holds. A verdict is *exact* (equal up to rounding), *approximate* (holds to the order shown, under the
assumption named), *misprint* (exact in the obvious reading, which the note gives) or *fails* (the
counterexample's numbers are shown, and what is true instead). "Clones" are copies of one poisoned point zeta
with the label y_t; c = n lambda; S = m / (c + k_zeta m).
"""

_TAIL = """\
## What is said without a computation

- Eqs. 2 and 26 write the ridge differently: n lambda, and lambda.
- Section 3.4 argues from neural collapse, which is about training points at zero training error. A triggered
  test image is not one: that its features lie near the target's mean is a finding, not an implication. On
  digits trained to the end they lie at a tenth to a fifth of the clean distance; in short trainings they
  do not ([the paper, artefact by artefact](paper_map.md)).
- The theory of Section 3 is about the input Hessian at one trigger point; Section 5 measures a mean over
  clean images, which need not show what a trigger point does (Theorem E).
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
        f"{counts[EXACT]} hold exactly, {counts[APPROXIMATE]} approximately, {counts[MISPRINT]} are "
        f"misprints, {counts[FAILS]} fail"
    )
    lines = [_HEAD + _rows(("the paper", "what fails", "what is true instead"), _FAILURES), _EXPLANATION]
    lines += [f"{len(distinct)} distinct statements: {total}.\n", _verdicts(paper)]
    lines += ["\nNot the paper's, and checked in the same way:\n", _verdicts(ours)] if ours else []
    for entry in [*paper, *ours]:
        lines += [
            f"\n## {entry.statement}\n",
            f"**{_WORDS[entry.verdict].capitalize()}{_REMARKS.get(entry.kind, '')}.** {entry.note}\n",
            f"*Computed:* {entry.setup}: predicted {number(entry.predicted)}, measured "
            f"{number(entry.measured)}, error {error(entry)}.",
        ]
    return "\n".join(lines) + "\n\n" + _TAIL


def _verdicts(entries: Iterable[Entry]) -> str:
    verdicts = ((e.statement, _WORDS[e.verdict] + _REMARKS.get(e.kind, "")) for e in entries)
    return _rows(("statement", "verdict"), verdicts)


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *cells])


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
