"""What a GPU alone can measure: `python -m benchmarks --device gpu`, and cells in the time that there is."""

import os

SMALL = os.environ.get("SMALL") == "1"  # sizes for a CPU, to try everything where there is no GPU
