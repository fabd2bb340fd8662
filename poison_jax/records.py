"""`python -m poison_jax.records --runs DIR --out results`: a sweep's finished cells as JSON lines."""

import sys

from poison_jax.runs.records import main

if __name__ == "__main__":
    main(sys.argv[1:])
