"""Reads stores that somebody else made, every way there is, and watches itself: a line of JSON for each.

`python -m tests.faults.visitor SOUND STORE ...`: the sound one first, unwatched, so that what is compiled and
imported once is there. Each store holds a run, and may hold a sweep. A line says how the readers ended, what
they did that reading needs not (`events`), by how much the memory grew, and how long it took.
"""

import contextlib
import io
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import plots
from plots import report
from poison_jax import cli, verify
from poison_jax.errors import UserError
from poison_jax.runs import records
from poison_jax.runs.store import Run
from tests.faults.events import Watch
from tests.toys import restored

SECONDS = 240  # that a reader may take, on a machine that has much else to do


def readers(store: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Whatever looks at a store, by name."""
    for folder in sorted(store.iterdir()):
        if (folder / "checkpoints").exists() or (folder / "checkpoints").is_symlink():
            yield from _of_run(Run(folder))
    for name in records.names(store):
        yield f"sweep {name}", lambda name=name: [record.arrays for record in records.load(store, name)]
    with tempfile.TemporaryDirectory() as folder:
        yield "report", lambda: report.write(store, Path(folder) / "report.html")
        page = Path(folder) / "report.html"
        yield "page", lambda: page.read_text("utf-8") if page.exists() else ""


def _of_run(run: Run) -> Iterator[tuple[str, Callable[[], object]]]:
    yield "config", run.config
    yield "result", run.result
    yield "metrics", run.metrics
    for file in sorted(run.path.glob("*.npz")):
        yield file.stem, lambda file=file: run.arrays(file.stem)
    yield "damage", lambda: list(verify.damage(run))
    yield "finished", run.finished
    yield "restore", lambda: restored(run)
    yield "draw", lambda: plots.draw(run)


def visit(store: Path, events: list[str]) -> dict[str, object]:
    """How each reader of a store ended: `ok`, or what it said; anything but a line of ours is `odd`."""
    said, odd, page = {}, {}, ""
    before, began = _memory(), time.monotonic()
    for name, read in readers(store):
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stderr(io.StringIO()) as warnings:
                found = read()
            said[name] = " | ".join(warnings.getvalue().splitlines()) or "ok"
            page = found if name == "page" else page
        except UserError as error:
            said[name] = str(error)
        except (Exception, SystemExit) as error:
            said[name] = odd[name] = f"{type(error).__name__}: {error}"[:500]
        finally:
            signal.alarm(0)
    seen, events[:] = list(events), []
    return {
        "store": str(store),
        "said": said,
        "odd": odd,
        "events": seen,
        "grew": _memory() - before,
        "seconds": time.monotonic() - began,
        "script": "<script>alert" in page,
    }


def _memory() -> int:
    """Bytes of memory that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _too_long(*_):
    raise TimeoutError(f"more than {SECONDS} s")


def main(argv: list[str]) -> None:
    """The command line."""
    sound, *stores = map(Path, argv)
    signal.signal(signal.SIGALRM, _too_long)
    watch = Watch()
    with cli.ready():
        print(json.dumps(visit(sound, watch.events)), flush=True)
        watch.on = True
        for store in stores:
            print(json.dumps(visit(store, watch.events)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
