"""The versions: the bounds of pyproject.toml, what CI installs, and that a deprecation fails the tests."""

import re
import tomllib
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
REQUIREMENTS = [Requirement(line) for line in PYPROJECT["project"]["dependencies"] + EXTRAS["test"]]


def lower_bound(requirement):
    """The version of the `>=` that is a requirement's whole specifier: what is too new is not said."""
    (only,) = requirement.specifier
    assert only.operator == ">=", requirement
    return Version(only.version)


def pins(file):
    """name -> version of a constraints file, every line of which must be `name==version`."""
    lines = [line for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    parsed = [Requirement(line) for line in lines]
    assert all([s.operator for s in r.specifier] == ["=="] for r in parsed), file
    return {canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for r in parsed}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_ci_installs_the_lower_bound_and_something_that_satisfies_it(requirement):
    name = canonicalize_name(requirement.name)
    assert pins("constraints-oldest.txt")[name] == lower_bound(requirement)
    assert pins("constraints.txt")[name] in requirement.specifier


def test_a_package_has_one_lower_bound():
    """Those that CI does not install, of other extras (accelerators, TensorFlow, PyTorch), have it too."""
    bounds = {canonicalize_name(r.name): lower_bound(r) for r in REQUIREMENTS}
    for lines in EXTRAS.values():
        for requirement in map(Requirement, lines):
            bound = lower_bound(requirement)
            assert bounds.setdefault(canonicalize_name(requirement.name), bound) == bound, requirement


@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
@pytest.mark.parametrize("module", ["jax._src.core", "flax.linen.module", "orbax.checkpoint", __name__])
def test_a_deprecation_fails_a_test(module, category):
    """Under the filters that this very test runs with."""
    with pytest.raises(category, match="old"):
        warnings.warn_explicit("old", category, filename=f"{module}.py", lineno=1, module=module)


def test_no_filter_lets_a_deprecation_through():
    every, *others = PYPROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"]
    assert every == "error"
    assert others == ["ignore::UserWarning:jax._src.compiler"]  # a cache that cannot be read; no deprecation
    for file in (ROOT / "tests").rglob("*.py"):
        for ignored in re.findall(r"(?:filterwarnings|simplefilter)\(\s*(.+)", file.read_text()):
            assert ignored.endswith(':RuntimeWarning")'), f"{file}: {ignored}"
