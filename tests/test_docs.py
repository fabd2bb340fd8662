"""What the README and the documentation say can be typed: Python runs, command lines are parsed."""

import argparse
import copy
import functools
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

import poison_jax
from poison_jax import cli, data
from poison_jax import config as config_lib

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {
    "krr_theory": "measures memory at 5,000 points, a minute",
    "mnist_linear": "reads the run that its first command makes",
    "theorems": "reads MNIST, half a minute",
}
OPTIONAL = ("equinox", "torch")
OURS = ("poison_jax", "plots", "benchmarks", "tests")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def write_files(page, folder):
    """Write each Python block that begins with a comment `# name.py` to that file."""
    for block in blocks(page, "python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (folder / name[1]).write_text(block)


def needs(block):
    """Optional packages that a block imports."""
    return [name for name in OPTIONAL if re.search(rf"^(import|from) {name}\b", block, flags=re.MULTILINE)]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python") and p.stem not in NOT_RUN], ids=lambda page: page.stem
)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """All blocks of a page, downwards in one namespace, in a folder with images and the stored results."""
    (tmp_path / "results").symlink_to(ROOT / "results")
    train, test = data.load("digits", "train"), data.load("digits", "test")
    images = np.concatenate([train.images, test.images])[..., 0]
    np.savez(tmp_path / "my_images.npz", images=images, labels=np.concatenate([train.labels, test.labels]))
    monkeypatch.chdir(tmp_path)
    names, missing = {"__name__": page.stem}, []
    for number, block in enumerate(blocks(page, "python"), 1):
        absent = [name for name in needs(block) if importlib.util.find_spec(name) is None]
        missing += absent
        if not absent:
            exec(compile(block, f"{page.name}, Python block {number}", "exec"), names)
    if missing:
        pytest.skip(f"run but for the blocks that need {', '.join(missing)}")


def commands(page):
    """Yield the command lines of a page's shell blocks, as lists of words; loops are unrolled."""
    for block in blocks(page, "bash"):
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        loop = None
        for line in lines:
            if found := re.match(r"for (\w+) in (.*); do$", line):
                loop = found[1], found[2].split()
            elif line == "done":
                loop = None
            else:
                for value in loop[1] if loop else [""]:
                    words = shlex.split(line.replace(f"${loop[0]}", value) if loop else line, comments=True)
                    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # variables of the environment
                        words = words[1:]
                    if words[:1] == ["python"]:
                        yield words[1:]


LINES = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(
    ("page", "words"), LINES, ids=[f"{page.stem}-{i}" for i, (page, _) in enumerate(LINES)]
)
def test_command_lines_parse(page, words, tmp_path, monkeypatch):
    if words[0] == "main.py":
        write_files(page, tmp_path)
        parse_main(words, tmp_path)
    elif words[0] == "-m":
        parse_module(words[1], words[2:], monkeypatch)
    else:
        raise AssertionError(f"a command line of another kind: python {' '.join(words)}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("main.py --config.penalty.kapa=1", "no config key"),
        ("main.py --dry", "Unknown command line flag"),
        ("main.py --config=configs/no_such.py", "no config file"),
        ("main.py --config.penalty.reduction=mean", "penalty.reduction"),
        ("main.py --config.seed=one", "seed"),
    ],
)
def test_a_wrong_command_line_is_noticed(words, said, tmp_path):
    with pytest.raises((ValueError, flags.Error), match=said):
        parse_main(words.split(), tmp_path)


@pytest.mark.parametrize("words", ["plots fig99", "poison_jax.verify runs --all", "poison_jax.nothing"])
def test_a_wrong_module_line_is_noticed(words, monkeypatch):
    with pytest.raises((SystemExit, ImportError)):
        parse_module(words.split()[0], words.split()[1:], monkeypatch)


def anchors(page):
    """What links name in a page: its headings in lower case, without punctuation, joined by hyphens."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    """To a file that is there, and a heading of it; from the site's pages to nothing outside the site."""
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert page.parent == ROOT or target.is_relative_to(ROOT / "docs"), f"{link} is not in the site"
        assert not anchor or anchor in anchors(target), link


def test_api_page_has_the_public_names():
    page = (ROOT / "docs/api.md").read_text()
    for name, module in poison_jax._FROM.items():
        kind = "autoclass" if name[0].isupper() else "autofunction"
        assert f".. {kind}:: poison_jax.{module}.{name}\n" in page


def test_modules_of_the_api_page_are_there_after_the_import():
    """In a process that has imported nothing else."""
    page = (ROOT / "docs/api.md").read_text()
    modules = set(re.findall(r"poison_jax\.([a-z_]+)", page))
    program = f"import poison_jax\nfor name in {sorted(modules)}: getattr(poison_jax, name)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def parse_main(words, folder):
    """As `main.py` does, up to the config that it would run."""
    if words[1:] and words[1].partition("=")[0] == "--help":
        assert words[1:] in [
            ["--help"],
            *([f"--help={topic}"] for topic in ("config", "experiments", "flags")),
        ]
        return
    file, rest = cli._config_file(words, "configs/digits_quickstart.py")
    name = file.partition(":")[0]
    file = str((ROOT if (ROOT / name).exists() else folder) / file)
    config = cli._load(file, ROOT / "configs")
    cli._check_keys(rest, config)
    values = flags.FlagValues()
    for name, flag in own_flags().items():
        values[name] = copy.deepcopy(flag)
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
    parsed = values(rest)
    assert parsed == ["main.py"], parsed
    config_lib.pin(config, config_flags.get_override_values(values["config"]))
    for single in config_lib.arms(config) if config.experiment == "compare" else [config]:
        config_lib.check(single)


@functools.cache
def own_flags():
    """The flags of `main.py`, by name; none of them is left among those of this process."""
    found = {}
    for name in cli._define_flags():
        found[name] = copy.deepcopy(flags.FLAGS[name])
        delattr(flags.FLAGS, name)
    return found


class Parsed(Exception):
    """A command line was parsed; what it asks for is not done."""


def parse_module(name, arguments, monkeypatch):
    """Run a module up to the end of its parsing; of others' modules ask only that they are there."""
    if name.split(".")[0] not in OURS:
        assert importlib.util.find_spec(name.split(".")[0]), name
        return
    parse_args = argparse.ArgumentParser.parse_args

    def parsed(self, *args, **kwargs):
        parse_args(self, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    for main in (name, f"{name}.__main__"):  # another test may have imported it, and runpy warns of that
        monkeypatch.delitem(sys.modules, main, raising=False)
    with pytest.raises(Parsed):
        runpy.run_module(name, run_name="__main__")
