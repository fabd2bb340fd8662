"""Every numbered statement of the paper, and what is true instead: predicted, measured, the verdict."""

from poison_jax.theory import (
    adversarial,
    algebra,
    capacity,
    claims,
    clones,
    filters,
    flow,
    near_clones,
    spectra,
    spikes,
    visibility,
)
from poison_jax.theory.entry import Entry

# Each yields the entries of its statements; in the paper's order: Sections 1 to 6, then the appendices.
STATEMENTS = (
    claims.abstract,
    claims.contribution_1,
    claims.eq_4,
    clones.assumption_3_1,
    clones.tight_cluster,
    clones.lemma_3_2,
    clones.theorem_3_3,
    clones.theorem_3_3_limits,
    spikes.theorem_3_4,
    spikes.remark_3_5,
    near_clones.corollary_3_6,
    near_clones.corollary_3_7,
    near_clones.remark_3_8,
    capacity.eq_26,
    capacity.eq_27,
    capacity.theorem_3_9,
    filters.remark_3_10,
    filters.remark_3_11,
    flow.theorem_3_12,
    flow.remark_3_13,
    adversarial.remark_3_14,
    claims.section_6,
    clones.lemma_a_1,
    claims.eq_36,
    clones.theorem_a_2,
    spikes.theorem_a_3,
    near_clones.proposition_a_4,
    claims.eq_45,
    filters.theorem_a_5,
    claims.appendix_a_5,
    flow.theorem_a_6,
    claims.eq_49,
    near_clones.lemma_c_1,
    filters.appendix_d,
    algebra.lemma_f_1,
    algebra.algorithm_1,
)
# What replaces the statements that fail.
THEOREMS = (
    visibility.theorem_a,
    visibility.theorem_b,
    visibility.theorem_c,
    spectra.theorem_d,
    visibility.theorem_e,
    spectra.theorem_f,
    spectra.theorem_g,
)

__all__ = ["STATEMENTS", "THEOREMS", "Entry"]
