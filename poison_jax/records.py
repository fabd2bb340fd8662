"""`python -m poison_jax.records --runs DIR --out results`: adds a sweep's finished cells to JSON lines."""

import sys

from poison_jax.sweeps.stored import main

if __name__ == "__main__":
    main(sys.argv[1:])
