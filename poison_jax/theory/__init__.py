"""Every numbered statement of the paper beside what the computer finds."""

from poison_jax.theory import adversarial, algebra, capacity, clones, filters, flow, near_clones, spikes
from poison_jax.theory.entry import Entry

# In the paper's order: Sections 3.1 to 3.5, then the appendices.
STATEMENTS = (
    *clones.SECTION_3,
    *spikes.SECTION_3,
    *near_clones.SECTION_3,
    *capacity.ENTRIES,
    *filters.SECTION_3,
    *flow.SECTION_3,
    *adversarial.ENTRIES,
    *clones.APPENDIX,
    *spikes.APPENDIX,
    *near_clones.APPENDIX_A,
    *filters.APPENDIX_A,
    *flow.APPENDIX,
    *near_clones.APPENDIX_C,
    *filters.APPENDIX_D,
    *algebra.ENTRIES,
)

__all__ = ["STATEMENTS", "Entry"]
