"""What the benchmarks' command lines share: one line and exit status 2 for what is asked wrongly."""

import argparse
import os
from pathlib import Path

from poison_jax import console
from poison_jax.errors import fail


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        fail(message)


def check_writable(*files: Path | None) -> None:
    """Ends in a line where a file cannot be written."""
    for file in filter(None, files):
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            fail(f"cannot write {file}")


def warn_if_busy(message: str) -> None:
    """Warns where other programs have had a core to compute on."""
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        console.warn(f"{message} (load {os.getloadavg()[0]:.1f})")
