"""The house: a module imports only from lower floors, plots see only the store, files stay short."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "errors": -1,
    "cache": -1,
    "environment": -1,
    "kernels": 0,
    "distributed": 0,
    "arrays": 0,
    "pictures": 0,
    "files": 0,
    "flops": 0,
    "provenance": 0,
    "lease": 0,
    "signals": 0,
    "autodiff": 0,
    "lanczos": 0,
    "console": 0,
    "page": 0,
    "tensorboard": 0,
    "config_keys": 0,
    "config_frozen": 0,
    "config_table": 1,
    "config": 2,
    "augment": 1,
    "data": 2,
    "folders": 1,
    "prepared": 1,
    "poison": 1,
    "models": 1,
    "metrics": 1,
    "krr": 1,
    "linear": 1,
    "linear_sgd": 1,
    "losses": 2,
    "batches": 2.5,
    "planes": 1,
    "gratings": 1,
    "exponents": 1,
    "neural_collapse": 2,
    "checkpoint": 2,
    "store": 3,
    "records": 4,
    "verify": 5,
    "grid": 4,
    "board": 5,
    "outcomes": 6,
    "report_tables": 7,
    "sweep_table": 6,
    "cost": 6,
    "shared": 4,
    "train": 3,
    "spectrum": 3,
    "features": 3,
    "fisher": 4,
    "near_clone": 4,
    "theory": 3,
    "evaluate": 4,
    "summary": 4,
    "setup": 5,
    "linear_setup": 5,
    "together": 6,
    "analysis": 6,
    "training": 7,
    "krr_experiment": 7,
    "linear_experiment": 7,
    "experiment": 8,
    "cli": 9,
    "analyse": 10,
    "worker": 10,
    "cluster": 11,
    "sweep": 12,
    "launch": 13,
    "report": 10,
}
ML_PACKAGES = {"jax", "jaxlib", "flax", "optax", "orbax", "matfree", "sklearn", "tensorflow_datasets"}


def imports(file):
    """Dotted names of all modules that a file imports, `from package import module` resolved."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module in ("poison_jax", "poison_jax.runs", "configs", "plots"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


HOUSE = ROOT / "poison_jax"
MODULES = sorted(f for f in HOUSE.rglob("*.py") if f != HOUSE / "__init__.py")


def room(file):
    """The module, or the folder of a module that is several files."""
    return file.relative_to(HOUSE).with_suffix("").parts[0]


@pytest.mark.parametrize("file", MODULES, ids=lambda f: "/".join(f.relative_to(HOUSE).parts))
def test_floor(file):
    own = room(file)
    assert own in FLOORS, f"{file.name} has no floor: give it one here and in the README"
    for name in imports(file):
        package, _, module = name.partition(".")
        # The report is a page of what plots draw: it stands on top of both, and nothing imports it.
        foreign = {"plots", "configs", "tests"} - ({"plots"} if own == "report" else set())
        assert package not in foreign, f"{file.name} imports {name}"
        other = module.split(".")[0]
        if package == "poison_jax" and other != own:
            assert FLOORS[other] < FLOORS[own], f"{file.name} imports {name}, not below it"


@pytest.mark.parametrize("name", ["files", "store", "records", "verify", "page"])
def test_stored_results_need_no_ml_package(name):
    assert not {name.partition(".")[0] for name in imports(ROOT / "poison_jax" / f"{name}.py")} & ML_PACKAGES


@pytest.mark.parametrize("file", sorted((ROOT / "plots").glob("*.py")), ids=lambda f: f.stem)
def test_plots_see_only_the_store(file):
    names = {name for name in imports(file) if name.startswith("poison_jax")}
    allowed = ("runs.store", "runs.records", "runs.files", "errors", "metrics")
    assert names <= {f"poison_jax.{name}" for name in allowed}
    assert not {name.partition(".")[0] for name in imports(file)} & ML_PACKAGES


def test_only_models_knows_flax():
    users = {room(f) for f in MODULES for name in imports(f) if name.partition(".")[0] == "flax"}
    assert users == {"models"}


def test_main_is_short():
    assert len((ROOT / "main.py").read_text().splitlines()) < 60
