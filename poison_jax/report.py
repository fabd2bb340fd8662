"""`python -m poison_jax.report --runs DIR [--out report.html]`: a store on one HTML page (`plots.report`)."""

import sys

from plots.report import main

if __name__ == "__main__":
    main(sys.argv[1:])
