"""`python -m poison_jax.verify DIR ...`: are the files of a store, or of runs, as they were written?"""

import sys

from poison_jax.runs.verify import main

if __name__ == "__main__":
    main(sys.argv[1:])
