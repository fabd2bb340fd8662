"""Bad input is refused in one line and touches nothing; what is odd but legal runs to its result."""

import contextlib
import hashlib
import json
import os
import queue
import shlex
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from tests.faults import legal, malformed, malformed_data, malformed_runs
from tests.faults.chapter import ROOT, Chapter, ended_in_one_line, start
from tests.faults.forks import Ended, Forks
from tests.faults.malformed import HERE, ROOT_HERE, Example, flags
from tests.faults.malformed_runs import EVERY_FILE, RUN

BAD = malformed.BAD | malformed_data.BAD | malformed_runs.BAD
AT_ONCE = 6  # examples in a round, all of a kind
LONGEST = 800  # characters of a message
STRIDE = 5  # from one kind to the next; no divisor of their number, so that all have their turn
SHRINKING = 30  # seconds for making a failure smaller
WORKERS = min(2, os.cpu_count() or 1)

Check = Callable[[Example], str | None]  # what is wrong, if anything


def run(chapter: Chapter) -> None:
    """Rounds of some examples of a kind: bad ones thrice, legal ones, and so on."""
    bench = _Bench(chapter)
    try:
        bench.compare_with_processes()
        for number in chapter.rounds():
            if number % 4 == 3:
                bench.go_through("legal", legal.runs, number, bench.completed)
            else:
                kind = list(BAD)[(number - number // 4) * STRIDE % len(BAD)]
                bench.go_through(kind, BAD[kind], number, bench.refused)
    finally:
        bench.close()


class _Bench:
    """Where examples run, and what is kept of them."""

    def __init__(self, chapter: Chapter):
        self.chapter, self._seen = chapter, set()
        self._forks: queue.SimpleQueue[tuple[Forks, Path]] = queue.SimpleQueue()
        kept = {
            "POISON_JAX_CACHE": str(chapter.cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        for i in range(WORKERS):
            folder = chapter.folder / f"worker {i}"
            folder.mkdir()
            self._forks.put((Forks(folder, **kept), folder))
        self._pool = ThreadPoolExecutor(WORKERS)
        everything = {"analysis.near_clone": 3, "analysis.features": 32, "poison.fraction": 0.3}
        problem = self.completed(Example("the run that is damaged", flags(everything)), keep="finished")
        chapter.check(problem is None, f"the run that is damaged: {problem}")
        (chapter.folder / "finished").mkdir(exist_ok=True)  # without one the others can still be looked at

    def close(self) -> None:
        """Ends the warm processes."""
        self._pool.shutdown()
        while not self._forks.empty():
            self._forks.get()[0].close()

    def compare_with_processes(self) -> None:
        """A program in a fork ends as one in a process of its own."""
        for arguments in (
            ["--config.penalty.kapa=1"],
            ["--workdir=/dev/null/x", *flags({})],
            ["--config=setup.py"],
        ):
            process = start(["main.py", *arguments])
            out, err = process.communicate(timeout=120)
            forks, folder = self._forks.get()
            fork = forks.run("main.py", arguments, ROOT)
            self._forks.put((forks, folder))
            same = (fork.returncode, fork.err, fork.out) == (process.returncode, err, out)
            self.chapter.check(same, f"main.py {shlex.join(arguments)}: fork {fork}, process {err} {out}")
            self.chapter.count("forks compared with processes")

    def go_through(self, name: str, strategy: SearchStrategy[Example], number: int, check: Check) -> None:
        """Examples of a strategy that were not seen before, checked; those that fail are made smaller."""
        luck = f"{self.chapter.seed} {name} {number}"
        found: list[Example] = []
        _draw(strategy, luck, found.append)
        fresh = {key: example for example in found if (key := repr(example)) not in self._seen}
        self._seen |= fresh.keys()
        problems = dict(zip(fresh, self._pool.map(check, fresh.values()), strict=True))
        for example in fresh.values():
            self.chapter.count(example.kind)
        wrong = {key: problem for key, problem in problems.items() if problem}
        if wrong:
            small, problem = _smallest(strategy, luck, problems, check)
            self._report(small, problem)
        for key, problem in wrong.items():
            if fresh[key] != small:
                self._report(fresh[key], problem)

    def _report(self, example: Example, problem: str) -> None:
        program = example.program if example.program.endswith(".py") else f"-m {example.program}"
        arguments = [argument for argument in example.arguments if argument not in flags({})]
        files = ", ".join(f"{path} = {_short(content)}" for path, content in example.files.items())
        gone = "".join(f", without {name}" for name in example.gone)
        self.chapter.fail(
            f"{example.kind}: python {program} {shlex.join(arguments)[:600]}"
            f"{' with ' + files[:1500] if files else ''}{gone} ||| {problem}"
        )

    def refused(self, example: Example) -> str | None:
        """What is wrong with how bad input was refused."""
        with self._folder(example) as (forks, folder):
            before = _listed(folder)
            ended = _run(forks, folder, example)
            after = _listed(folder)
        if example.may_succeed and ended.returncode == 0:
            changed = {path for path in before if before[path] != after.get(path)}
            return f"touched {sorted(changed)}" if changed else _unclean(ended)
        if problem := ended_in_one_line(ended, ended.err):
            return problem
        (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        if len(line) > LONGEST:
            return f"a message of {len(line)} characters: {line[:200]!r}"
        if odd := [c for c in ended.err if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]:
            return f"control characters {odd} in {line!r}"
        if line.removeprefix("error: ").strip() in ("", "None"):
            return "a message that says nothing"
        touched = {path for path in before | after if before.get(path) != after.get(path)}
        return f"touched {sorted(touched)}: {line}" if touched else None

    def completed(self, example: Example, keep: str | None = None) -> str | None:
        """What is wrong with a run that is to come to its result."""
        with self._folder(example) as (forks, folder):
            ended = _run(forks, folder, example)
            if problem := _unclean(ended):
                return problem
            if "--dry_run" in example.arguments:
                return None
            configs = list(folder.rglob("config.json"))
            if keep:
                pictures = shutil.ignore_patterns("*.png", "*.md")
                shutil.copytree(configs[0].parent, self.chapter.folder / keep, ignore=pictures)
            for config in configs:
                if problem := _unfinished(config.parent):
                    return problem
            return None if configs else "no run"

    @contextlib.contextmanager
    def _folder(self, example: Example) -> Iterator[tuple[Forks, Path]]:
        """A warm process that is free, and a folder with the example's files."""
        forks, parent = self._forks.get()
        folder = parent / "é x"  # whatever is said of a path in it must bear such letters
        try:
            folder.mkdir()
            if any(RUN in argument for argument in example.arguments):
                shutil.copytree(self.chapter.folder / "finished", folder / RUN)
            for name in example.gone:
                _remove(folder / RUN / name)
            for path, content in example.files.items():
                _write(folder, path, content)
            yield forks, folder
        finally:
            shutil.rmtree(folder)
            self._forks.put((forks, parent))


def _draw(
    strategy: SearchStrategy[Example], luck: str, use: Callable[[Example], None], **options: Any
) -> None:
    """Calls `use` with examples; the same luck gives the same ones."""

    @seed(luck)
    @settings(
        max_examples=AT_ONCE,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        **({"phases": [Phase.generate]} | options),
    )
    @given(strategy)
    def test(example: Example) -> None:
        use(example)

    test()


def _smallest(
    strategy: SearchStrategy[Example], luck: str, problems: dict[str, str | None], check: Check
) -> tuple[Example, str]:
    """The smallest example that fails, among those that the time allows to look at."""
    end, last = time.monotonic() + SHRINKING, None

    def use(example: Example) -> None:
        nonlocal last
        key = repr(example)
        if key not in problems:
            problems[key] = check(example) if time.monotonic() < end else None
        if problems[key]:
            last = example
            raise AssertionError

    with contextlib.suppress(AssertionError), contextlib.redirect_stdout(None):
        _draw(strategy, luck, use, phases=[Phase.generate, Phase.shrink])
    assert last is not None
    return last, str(problems[repr(last)])


def _run(forks: Forks, folder: Path, example: Example) -> Ended:
    arguments = [a.replace(HERE, str(folder)).replace(ROOT_HERE, str(ROOT)) for a in example.arguments]
    return forks.run(example.program, arguments, folder, **example.variables)


def _write(folder: Path, path: str, content: bytes | None) -> None:
    if path.endswith(EVERY_FILE):
        files = [file for file in (folder / path).parent.rglob("*") if file.is_file()]
    else:
        files = [folder / path]
    for file in files:
        if content is None:
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _listed(folder: Path) -> dict[str, tuple]:
    """All files under a folder, but for Python's own cache of config files."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        if path.is_file()
        else ()
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def _unclean(ended: Ended) -> str | None:
    """What is wrong with how a program that did its work ended."""
    lines = [line for line in ended.err.splitlines() if not line.startswith("warning: ")]
    if ended.returncode != 0 or lines:
        return f"status {ended.returncode} after {ended.seconds:.0f} s: {ended.err[-1500:]}"
    return None


def _unfinished(folder: Path) -> str | None:
    """What a run's directory lacks, or holds that is no number."""
    try:
        result = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError) as error:
        return f"no result: {error}"
    undefined = sorted(path for path, value in _leaves(result) if value is None)
    unexpected = [path for path in undefined if path not in legal.UNDEFINED]
    if result["asr"] is None and {"robust_accuracy", "no_trigger_target_rate"} - set(undefined):
        unexpected.append("asr")
    return f"not finite in result.json: {unexpected}" if unexpected else None


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "config":
                yield from _leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path)
    else:
        yield path, value


def _short(content: bytes | None) -> str:
    return "a folder" if content is None else f"{content!r}"[:200]
