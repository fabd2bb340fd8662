"""Bad input is refused in one line and touches nothing; what is odd but legal runs to its result."""

import contextlib
import hashlib
import json
import os
import random
import shlex
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.faults import forks, legal, malformed, malformed_data, malformed_runs, runs
from tests.faults.chapter import TINY, Chapter, flags, output, unlike_one_line
from tests.faults.forks import Ended
from tests.faults.malformed import HERE, ROOT_HERE, Example
from tests.faults.malformed_runs import EVERY_FILE, RUN
from tests.program import ROOT, start

BAD = malformed.BAD | malformed_data.BAD | malformed_runs.BAD
AT_ONCE = 6  # examples in a round, all of a kind
LONGEST = 800  # characters of a message
STRIDE = 5  # from one kind to the next; no divisor of their number, so that all have their turn

Check = Callable[[Chapter, Example], str | None]  # what is wrong, if anything


def run(chapter: Chapter) -> None:
    """Rounds of some examples of a kind: bad ones thrice, legal ones, and so on."""
    forks.warm_up(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    _compare_with_processes(chapter)
    finished = runs.the_run(runs.undisturbed(chapter, "training").workdir)
    shutil.copytree(finished, chapter.folder / "finished", ignore=shutil.ignore_patterns("*.png", "*.md"))
    seen: set[str] = set()
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for number in chapter.rounds():
            check: Check = _refused
            if number % 4 == 3:
                name, draw, check = "legal", legal.draw, _completed
            else:
                name = list(BAD)[(number - number // 4) * STRIDE % len(BAD)]
                draw = BAD[name]
            luck = random.Random(f"{chapter.seed} {name} {number}")
            drawn = {repr(example): example for example in (draw(luck) for _ in range(AT_ONCE))}
            fresh = [example for key, example in drawn.items() if key not in seen]
            seen |= drawn.keys()
            problems = pool.map(lambda example, check=check: check(chapter, example), fresh)
            for example, problem in zip(fresh, problems, strict=True):
                chapter.count(example.kind)
                if problem:
                    _report(chapter, example, problem)


def _compare_with_processes(chapter: Chapter) -> None:
    """A program in a fork ends as one in a process of its own."""
    for arguments in (
        ["--config.penalty.kapa=1"],
        ["--workdir=/dev/null/x", *flags(TINY)],
        ["--config=setup.py"],
    ):
        process = start(["main.py", *arguments])
        out, err = output(process)
        fork = forks.run("main.py", arguments, ROOT)
        same = (fork.returncode, fork.err, fork.out) == (process.returncode, err, out)
        chapter.check(same, f"main.py {shlex.join(arguments)}: fork {fork}, process {err} {out}")
        chapter.count("forks compared with processes")


def _report(chapter: Chapter, example: Example, problem: str) -> None:
    program = example.program if example.program.endswith(".py") else f"-m {example.program}"
    arguments = [argument for argument in example.arguments if argument not in flags(TINY)]
    contents = ((path, "a folder" if c is None else f"{c!r}"[:200]) for path, c in example.files.items())
    files = ", ".join(f"{path} = {content}" for path, content in contents)
    gone = "".join(f", without {name}" for name in example.gone)
    chapter.fail(
        f"{example.kind}: python {program} {shlex.join(arguments)[:600]}"
        f"{' with ' + files[:1500] if files else ''}{gone} ||| {problem}"
    )


def _refused(chapter: Chapter, example: Example) -> str | None:
    """What is wrong with how bad input was refused."""
    with _folder(chapter, example) as folder:
        before = _listed(folder)
        ended = _run(folder, example)
        after = _listed(folder)
    if example.may_succeed and ended.returncode == 0:
        changed = {path for path in before if before[path] != after.get(path)}
        return f"touched {sorted(changed)}" if changed else _unclean(ended)
    if problem := unlike_one_line(ended.returncode, ended.err):
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


def _completed(chapter: Chapter, example: Example) -> str | None:
    """What is wrong with a run that is to come to its result."""
    with _folder(chapter, example) as folder:
        ended = _run(folder, example)
        if problem := _unclean(ended):
            return problem
        if "--dry_run" in example.arguments:
            return None
        configs = list(folder.rglob("config.json"))
        for config in configs:
            if problem := _unfinished(config.parent):
                return problem
        return None if configs else "no run"


@contextlib.contextmanager
def _folder(chapter: Chapter, example: Example) -> Iterator[Path]:
    """A folder with the example's files."""
    with tempfile.TemporaryDirectory(dir=chapter.folder) as parent:
        folder = Path(parent) / "é x"  # whatever is said of a path in it must bear such letters
        folder.mkdir()
        if any(RUN in argument for argument in example.arguments):
            shutil.copytree(chapter.folder / "finished", folder / RUN)
        for name in example.gone:
            path = folder / RUN / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for path, content in example.files.items():
            _write(folder, path, content)
        yield folder


def _run(folder: Path, example: Example) -> Ended:
    arguments = [a.replace(HERE, str(folder)).replace(ROOT_HERE, str(ROOT)) for a in example.arguments]
    return forks.run(example.program, arguments, folder)


def _write(folder: Path, path: str, content: bytes | None) -> None:
    files = [folder / path]
    if path.endswith(EVERY_FILE):
        files = [file for file in (folder / path).parent.rglob("*") if file.is_file()]
    for file in files:
        if content is None:
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _listed(folder: Path) -> dict[str, tuple]:
    """All files under a folder, but for Python's own cache of config files."""
    found: dict[str, tuple] = {}
    for path in folder.rglob("*"):
        if "__pycache__" not in path.parts:
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(folder))] = digest, path.stat().st_mtime_ns if digest else 0
    return found


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
    undefined = set(_undefined({key: value for key, value in result.items() if key != "config"}))
    unexpected = undefined - set(legal.UNDEFINED)
    if result["asr"] is None and {"robust_accuracy", "no_trigger_target_rate"} - undefined:
        unexpected.add("asr")
    return f"not finite in result.json: {sorted(unexpected)}" if unexpected else None


def _undefined(value: Any, path: str = "") -> Iterator[str]:
    """The dotted keys of what is null."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _undefined(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from _undefined(item, path)
    elif value is None:
        yield path
