"""Strategies for input that must be refused: overrides, config files, data sets, run directories."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from hypothesis import strategies as st

from poison_jax import config as config_lib
from poison_jax.config.table import KEYS

HERE = "{here}"  # in an argument: the folder of the example
ROOT_HERE = "{root}"  # in an argument: the folder of the project
DEFAULTS = config_lib.flatten(config_lib.default())


class Example(NamedTuple):
    """A program, its command line, and the files that it finds."""

    kind: str  # as the report counts it
    arguments: tuple[str, ...]
    files: Mapping[str, bytes | None] = MappingProxyType(
        {}
    )  # by path in the example's folder; None: a folder
    gone: tuple[str, ...] = ()  # of a finished run in `runs/run`: what is not there; ("",): there is no run
    program: str = "main.py"
    may_succeed: bool = False  # whatever was damaged may not be needed
    variables: Mapping[str, str] = MappingProxyType({})  # of the environment


QUICK = {
    "experiment": "train",
    "data.name": "digits",
    "data.n_train": 64,
    "data.n_test": 32,
    "model.depth": 8,
    "model.block": "basic",
    "model.width": 2,
    "train.epochs": 1,
    "train.batch_size": 32,
    "spectrum.k": 2,
    "spectrum.num_iters": 3,
    "spectrum.num_examples": 32,
    "spectrum.batch_size": 32,
    "poison.margin": 0,
}


def flags(settings: dict[str, Any]) -> tuple[str, ...]:
    """A run of seconds, some keys of its config set, as a command line; None: left at its default."""
    merged = QUICK | settings
    return tuple(f"--config.{key}={value}" for key, value in merged.items() if value is not None)


# --- overrides -------------------------------------------------------------------------------------


def evenly(*strategies: st.SearchStrategy) -> st.SearchStrategy:
    """One of them, each as often; `one_of` would go by how many branches each has in its turn."""
    return st.integers(0, len(strategies) - 1).flatmap(lambda i: strategies[i])


_letters = st.text("abcxyz", min_size=1, max_size=8)
_anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
_nasty = st.one_of(
    _letters,
    st.sampled_from(
        [
            "",
            " ",
            "\n",
            "a\nb",
            "\x1b[2J\x1b[31mred",
            "\r\x08\x07",
            "\u202egnp.exe",
            "none",
            "é\u0301",
            "\x85",
        ]
    ),
    _anything,
    st.integers(1, 4).map(lambda n: "long " * 10**n),
    st.just("{config} %s %(x)s {0} \\n $HOME `id` <b>"),
)
_not_numbers = st.one_of(
    _letters, st.sampled_from(["", "nan", "1,5", "1e", "--", "(1,)", "[]", "'1'", "\x1b[0m1", "1\n2"])
)
_not_tuples = st.one_of(
    _letters,
    st.sampled_from(["", "(1,", "1)", "('a',)", "(nan,)", "(None,)", "{}", "((1,),)", "(1, 1)", "(-1,)"]),
    st.sampled_from(["(1e999,)", "((((((((((", "(True,)", "__import__('os').getcwd()", "(0.1\n,0.1)", "1+"]),
)
_FREE = ("data.dir", "sweep.name", "name", "krr.data", "compare.key", "compare.arms", "sweep.grids")


@st.composite
def _bad_value(draw) -> dict[str, Any]:
    """A key with a value that it cannot have."""
    key = draw(st.sampled_from(sorted(DEFAULTS.keys() - set(_FREE))))
    default = DEFAULTS[key]
    if isinstance(default, bool):
        return {key: draw(st.one_of(_letters, st.sampled_from(["", "2", "(True,)"])))}
    if isinstance(default, tuple):
        return {key: draw(_not_tuples)}
    if isinstance(default, str):
        value = draw(_nasty)
        legal = {"poison.mask": ("",), "poison.picture": ("",)}.get(key, KEYS[key].choices)
        return {key: value if value not in legal else "?"}
    low, high = KEYS[key].low or 0, KEYS[key].high
    numbers = [
        st.sampled_from(["inf", "-inf", "nan", "-1e-9"]),
        st.integers(-(10**40), int(low) - 1).map(str),
    ]
    if high is not None:
        numbers.append(st.integers(int(high) + 1, 10**40).map(str))
    return {key: draw(st.one_of(_not_numbers, *numbers))}


@st.composite
def _misspelt(draw) -> dict[str, Any]:
    key = draw(st.sampled_from(sorted(DEFAULTS)))
    at = draw(st.integers(0, len(key) - 1))
    way = draw(st.sampled_from(["drop", "double", "swap", "group", "below", "text"]))
    if way == "drop":
        wrong = key[:at] + key[at + 1 :]
    elif way == "double":
        wrong = key[:at] + key[at] + key[at:]
    elif way == "swap":
        wrong = key[:at] + key[at : at + 2][::-1] + key[at + 2 :]
    elif way == "group":
        wrong = key.partition(".")[0] if "." in key else f"{key}.x"
    elif way == "below":
        wrong = f"{key}.{draw(_letters)}"
    else:
        wrong = draw(st.text(st.characters(exclude_characters="\0=", exclude_categories=["Cs"]), max_size=9))
    return {wrong + ("x" if wrong in DEFAULTS else ""): draw(st.sampled_from(["1", "", "x"]))}


_arms = st.one_of(
    _not_tuples.filter(lambda text: text not in ("(1, 1)", "(True,)", "(0.1\n,0.1)")),
    st.sampled_from(["()", "((),)", "(0.0, 'x')", "((1, 2),)", "(-1.0,)", "(1e999,)", "(None,)"]),
)
_axis_keys = st.one_of(
    _nasty, st.sampled_from(["data.dir", "experiment", "sweep.name", "seed,", "seed,kappa", "krr"])
)
_grids = st.one_of(
    _not_tuples,
    st.sampled_from(
        [
            "()",
            "(1,)",
            "((1,),)",
            "((('penalty.kappa', ()),),)",
            "((('penalty.kappa', 'abc'),),)",
            "((('penalty.kappa', 1.0),),)",
            "((('penalty.kappa', (-1.0,)),),)",
            "((('penalty.kapa', (1.0,)),),)",
            "(((1, (1.0,)),),)",
            "(((('penalty.kappa',), (1.0,)),),)",
            "((('seed', (1.5,)),),)",
            "((('seed,penalty.kappa', (1,)),),)",
            "((('seed,penalty.kappa', ((1,),)),),)",
            "((('data.name', ('nowhere',)),),)",
            "((('seed', ((((1,),),),)),),)",
        ]
    ),
)
_COMBINATIONS = (
    {"penalty.kappa": 1, "penalty.epsilon": 1},
    {"poison.trigger": "none"},
    {"poison.trigger": "mask"},
    {"poison.mask": "mask.npy"},
    {"poison.picture": "a.png"},
    {"poison.trigger": "blend", "poison.alpha": 0},
    {"poison.warp.cross_ratio": 2},
    {"poison.trigger": "warp", "poison.warp.cross_ratio": 2, "poison.fraction": 0.5},
    {"spectrum.k": 4},
    {"spectrum.num_iters": 65},
    {"train.batch_size": 65},
    {"poison.margin": 7},
    {"poison.size": 9},
    {"poison.target": 10},
    {"poison.labels": "source_specific", "poison.source": 0},
    {"poison.labels": "source_specific", "poison.source": 10},
    {"model.depth": 9},
    {"model.depth": 14, "model.block": "bottleneck"},
    {"data.n_train": 1439},
    {"data.n_test": 10**30},
    {"model.width": 10**30},
    {"model.depth": 6 * 10**30 + 2},
    {"experiment": "krr_theory", "krr.data": "('nowhere',)"},
    {"experiment": "krr_theory", "krr.data": "(1,)"},
    {"experiment": "krr_theory", "krr.data": "()", "krr.clones": "(0,)"},
    {"experiment": "mnist_linear", "linear.picture": 0.15},
    {"data.name": "mnist", "data.dir": f"{HERE}/nowhere"},
    {"name": "a/b"},
    {"name": "."},
    {"name": "x" * 300},
    {"sweep.name": "../x"},
)
_strays = st.one_of(
    _nasty.filter(lambda text: text.strip() and not text.startswith("-")).map(lambda text: (text,)),
    _letters.map(lambda text: (f"--{text}q=1",)),
    st.sampled_from(
        [
            ("--workdir",),
            ("--config",),
            ("--config.seed",),
            ("--config=",),
            ("--retry",),
            ("--slurm=3",),
            ("--slurm=many",),
            ("--tensorboard=perhaps",),
            ("--coordinator=host",),
            ("--coordinator=:1", "--num_processes=2", "--process_id=0"),
            ("--coordinator=h:99999", "--num_processes=2", "--process_id=0"),
            ("--coordinator=h:1", "--num_processes=2", "--process_id=2"),
            ("--num_processes=0",),
            ("--distributed", "--process_id=0"),
            ("--flagfile=nowhere",),
            ("--undefok",),
            ("-x",),
            ("-",),
            ("--", "more"),
            ("--=",),
            ("---config.seed=1",),
            ("--config.seed==1",),
            ("--config..seed=1",),
            ("--config.=1",),
            ("--config.seed.=1",),
            ("--config[seed]=1",),
            ("--config.krr.clones[0]=x",),
            ("--noconfig",),
            ("--workdir=",),
        ]
    ),
)

_lists = evenly(
    _arms.map(lambda bad: {"experiment": "compare", "compare.arms": bad}),
    _axis_keys.map(lambda bad: {"experiment": "compare", "compare.key": bad}),
    _grids.map(lambda bad: {"experiment": "sweep", "sweep.grids": bad}),
)
OVERRIDES = {
    "values of the wrong type or range": _bad_value().map(flags),
    "unknown keys": _misspelt().map(lambda bad: flags({}) + flags(bad)[len(QUICK) :]),
    "values that contradict each other": st.sampled_from(_COMBINATIONS).map(flags),
    "malformed arms and grids": _lists.map(flags),
    "stray arguments and flags": _strays.map(lambda bad: flags({}) + bad),
}


# --- config files ----------------------------------------------------------------------------------

_RAISED = (
    "ValueError",
    "KeyError",
    "AttributeError",
    "RecursionError",
    "SystemExit",
    "MemoryError",
    "OSError",
)
_BODIES = (
    "return None",
    "return {}",
    "return 5",
    "return 'config'",
    "return get_config()",
    "pass",
    "import nowhere",
    "1 / 0",
    "assert False",
    "raise",
    "yield 1",
    "import ml_collections; return ml_collections.ConfigDict()",
    "import ml_collections; return ml_collections.ConfigDict({'experiment': 5})",
    "import ml_collections; return ml_collections.ConfigDict({'experiment': 'train', 'x': {}})",
    "from poison_jax import config; c = config.default(); c.nowhere = 1; return c",
    "from poison_jax import config; c = config.default(); c.seed = 'x'; return c",
    "from poison_jax import config; c = config.default(); c.penalty = None; return c",
    "from poison_jax import config; c = config.default(); c.unlock(); del c.penalty; return c",
    "from poison_jax import config; c = config.default(); c.unlock(); c.penalty = 3; return c",
    "from poison_jax import config; c = config.default(); c.train.epochs = -1; return c",
    "import sys; sys.exit()",
    "import sys; sys.exit(0)",
)
_sources = st.one_of(
    st.sampled_from(_BODIES).map(lambda body: f"def get_config():\n    {body}\n".encode()),
    st.tuples(st.sampled_from(_RAISED), _nasty).map(
        lambda what: f"def get_config():\n    raise {what[0]}({what[1]!r})\n".encode()
    ),
    st.tuples(st.sampled_from(_RAISED), _nasty).map(lambda what: f"raise {what[0]}({what[1]!r})\n".encode()),
    st.sampled_from(
        [
            b"",
            b"def get_config(:\n",
            b"get_config = 5\n",
            b"def get_config(a, b):\n    return a\n",
            b"\tx\n  y\n",
            b"\xff\xfe\x00d",
            b"# -*- coding: nonsense -*-\n",
            b"x = '\xe9'\n",
            b"class get_config: pass\n",
            b"raise BaseException('all\\nof it')\n",
            b"raise GeneratorExit\n",
            b"class E(Exception):\n    def __str__(self): raise ValueError\nraise E\n",
            b"def f(): f()\nf()\n",
            b"(" * 5000,
        ]
    ),
    st.binary(min_size=1, max_size=40).filter(lambda source: not source.strip().startswith(b"#")),
)
_REAL = (
    "configs/digits_quickstart.py",
    "configs/cifar10_stochastic.py",
    "configs/krr_theory.py",
    "configs/mnist_linear.py",
)

_files = evenly(
    st.tuples(st.just(f"{HERE}/mine.py"), _sources),
    st.tuples(_letters.map(lambda size: f"{HERE}/mine.py:{size}"), _sources),
    st.just((f"{HERE}/mine.py", None)),
)
_absent = _nasty.map(lambda name: (f"--config={HERE}/{name}",))
_sizes = st.tuples(st.sampled_from(_REAL), _nasty).map(
    lambda both: (f"--config={ROOT_HERE}/{both[0]}:{both[1] or ' '}x",)
)

BAD = {
    kind: arguments.map(lambda a, kind=kind: Example(kind, a)) for kind, arguments in OVERRIDES.items()
} | {
    "config files": _files.map(
        lambda both: Example("config files", (f"--config={both[0]}",), {"mine.py": both[1]})
    ),
    "config files that are not there": evenly(_absent, _sizes).map(
        lambda arguments: Example("config files that are not there", arguments)
    ),
}
