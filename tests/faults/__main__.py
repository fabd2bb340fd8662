"""Injects faults and reports whether every promise was kept: `python -m tests.faults --minutes 60`.

Each chapter has its share of the time, and says what it did in a table at the end; what was broken is said
in a line at once, and makes the exit status 1. `--out FILE` keeps the figures as JSON lines.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from poison_jax import console
from poison_jax.runs import provenance
from tests.faults.chapter import Chapter, Stuck

# Name of the module -> its share of the time, and what it is about.
CHAPTERS = {
    "kills": (6, "processes killed at any moment"),
    "disks": (2, "disks that fill, become read-only, and come back"),
    "damage": (2, "bytes flipped and cut in every kind of file"),
    "inputs": (6, "bad input, and odd but legal input"),
    "hostile": (1, "files made by somebody else to do harm"),
    "strangers": (1, "files of weights made to do harm, or damaged"),
    "precision": (2, "the same numbers in every setting"),
    "load": (4, "much data, deep networks, large stores"),
}


def main(argv: list[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{name:10s} {about}" for name, (_, about) in CHAPTERS.items()),
    )
    parser.add_argument("--minutes", type=float, default=60, help="in all; one round of each chapter is done")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--most", type=int, help="faults of a chapter after which it ends")
    parser.add_argument("--out", type=Path, help="file for the figures, a JSON line a chapter")
    parser.add_argument("--keep", type=Path, help="folder in which the chapters' files stay")
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help="all of them if none is named")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.chapters) - CHAPTERS.keys():
        parser.error(f"no chapter {sorted(unknown)[0]!r}: use {', '.join(CHAPTERS)}")
    names = arguments.chapters or list(CHAPTERS)
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    share = 60 * arguments.minutes / sum(CHAPTERS[name][0] for name in names)
    os.environ.setdefault("POISON_JAX_CACHE", str(folder / "cache"))  # what one chapter compiles serves all
    lines, rows, broken = [], [], []
    for name in names:
        weight, about = CHAPTERS[name]
        console.say(f"{name}: {about}, {console.duration(share * weight)}")
        (folder / name).mkdir(parents=True)
        chapter = Chapter(name, folder / name, arguments.seed, share * weight, arguments.most)
        began = time.monotonic()
        try:
            importlib.import_module(f"tests.faults.{name}").run(chapter)
        except Stuck as error:
            chapter.fail(str(error))
        seconds = time.monotonic() - began
        broken += chapter.failures
        line = {"chapter": name, "seed": arguments.seed, "seconds": round(seconds)}
        line |= {"counts": dict(chapter.counts), "measured": chapter.measured, "broken": chapter.failures}
        lines.append(line | provenance.here())
        figures = {**chapter.counts, **chapter.measured} | {"promises broken": len(chapter.failures)}
        rows += [(name, what, str(figure)) for what, figure in figures.items()]
        rows += [(name, "time", console.duration(seconds))]
        if arguments.out:
            arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    console.table(f"seed {arguments.seed}", ("chapter", "", "figure"), rows)
    if not arguments.keep:
        shutil.rmtree(folder, ignore_errors=True)
    if broken:
        sys.exit(f"{len(broken)} promises broken:\n" + "\n".join(broken))


if __name__ == "__main__":
    main(sys.argv[1:])
