"""Command lines and config files that must be refused, drawn by luck."""

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from poison_jax import config as config_lib
from poison_jax.config.table import KEYS
from tests.faults.chapter import TINY, flags

HERE = "{here}"  # in an argument: the folder of the example
ROOT_HERE = "{root}"  # in an argument: the folder of the project
DEFAULTS = config_lib.flatten(config_lib.default())
Luck = random.Random


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


def tiny(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """A run of seconds, some keys of its config set, as a command line."""
    return tuple(flags(TINY | settings))


def one_of(luck: Luck, *ways: Any) -> Any:
    """A value of one of the ways, each as often: of a sequence, or of a function of luck."""
    way = luck.choice(ways)
    return way(luck) if callable(way) else luck.choice(way)


# --- overrides -------------------------------------------------------------------------------------


def letters(luck: Luck) -> str:
    """A word that means nothing."""
    return "".join(luck.choices("abcxyz", k=luck.randint(1, 8)))


def binary(luck: Luck, most: int = 30, least: int = 0) -> bytes:
    """Random bytes."""
    return luck.randbytes(luck.randint(least, most))


def _text(luck: Luck) -> str:
    """Any characters but the null and surrogates."""
    ends = ((1, 0x80), (1, 0x3000), (0xE000, 0x110000))
    return "".join(chr(luck.randrange(*luck.choice(ends))) for _ in range(luck.randrange(30)))


def _nasty(luck: Luck) -> str:
    """A word, or what makes a message hard to print."""
    odd = [
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
    long = ["long " * 10**n for n in range(1, 5)]
    return one_of(luck, letters, odd, _text, long, ["{config} %s %(x)s {0} \\n $HOME `id` <b>"])


_NOT_NUMBERS = ["", "nan", "1,5", "1e", "--", "(1,)", "[]", "'1'", "\x1b[0m1", "1\n2"]
_NOT_ARMS = ["", "(1,", "1)", "('a',)", "(nan,)", "(None,)", "{}", "((1,),)", "(-1,)", "(1e999,)", "(" * 10]
_NOT_ARMS += ["__import__('os').getcwd()", "1+"]
_NOT_TUPLES = [*_NOT_ARMS, "(1, 1)", "(True,)", "(0.1\n,0.1)"]
_FREE = ("data.dir", "sweep.name", "name", "krr.data", "compare.key", "compare.arms", "sweep.grids")


def _bad_value(luck: Luck) -> dict[str, Any]:
    """A key with a value that it cannot have."""
    key = luck.choice(sorted(DEFAULTS.keys() - set(_FREE)))
    default = DEFAULTS[key]
    if isinstance(default, bool):
        return {key: one_of(luck, letters, ["", "2", "(True,)"])}
    if isinstance(default, tuple):
        return {key: one_of(luck, letters, _NOT_TUPLES)}
    if isinstance(default, str):
        legal = {"poison.mask": ("",), "poison.picture": ("",)}.get(key, KEYS[key].choices)
        value = _nasty(luck)
        return {key: value if value not in legal else "?"}
    low, high = KEYS[key].low or 0, KEYS[key].high
    beyond = [str(int(low) - 1), str(-luck.randrange(1, 10**40)), "inf", "-inf", "nan", "-1e-9"]
    if high is not None:
        beyond += [str(int(high) + 1), str(int(high) + luck.randrange(1, 10**40))]
    return {key: one_of(luck, letters, _NOT_NUMBERS, beyond)}


def _misspelt(luck: Luck) -> dict[str, Any]:
    key = luck.choice(sorted(DEFAULTS))
    at = luck.randrange(len(key))
    wrong = luck.choice(
        [
            key[:at] + key[at + 1 :],
            key[:at] + key[at] + key[at:],
            key[:at] + key[at : at + 2][::-1] + key[at + 2 :],
            key.partition(".")[0] if "." in key else f"{key}.x",
            f"{key}.{letters(luck)}",
            _text(luck).replace("=", "")[:9],
        ]
    )
    return {wrong + ("x" if wrong in DEFAULTS else ""): luck.choice(["1", "", "x"])}


_AXIS_KEYS = ["data.dir", "experiment", "sweep.name", "seed,", "seed,kappa", "krr"]
_ARMS = ["()", "((),)", "(0.0, 'x')", "((1, 2),)", "(-1.0,)"]
_GRIDS = [
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


def _bad_list(luck: Luck) -> dict[str, Any]:
    """An axis, arms or a grid."""
    what = luck.randrange(3)
    if what == 0:
        return {"experiment": "compare", "compare.arms": one_of(luck, letters, _NOT_ARMS, _ARMS)}
    if what == 1:
        return {"experiment": "compare", "compare.key": one_of(luck, _nasty, _AXIS_KEYS)}
    return {"experiment": "sweep", "sweep.grids": one_of(luck, letters, _NOT_TUPLES, _GRIDS)}


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
_FLAGS = ["--workdir", "--config", "--config.seed", "--config=", "--retry", "--slurm=3", "--slurm=many", "-x"]
_FLAGS += ["--tensorboard=perhaps", "--coordinator=host", "--num_processes=0", "--noconfig", "--undefok", "-"]
_FLAGS += ["--flagfile=nowhere", "--=", "---config.seed=1", "--workdir="]
_FLAGS += ["--config.seed==1", "--config..seed=1", "--config.=1", "--config.seed.=1", "--config[seed]=1"]
_STRAYS = [
    *((flag,) for flag in _FLAGS),
    ("--config.krr.clones[0]=x",),
    ("--", "more"),
    ("--distributed", "--process_id=0"),
    ("--coordinator=:1", "--num_processes=2", "--process_id=0"),
    ("--coordinator=h:99999", "--num_processes=2", "--process_id=0"),
    ("--coordinator=h:1", "--num_processes=2", "--process_id=2"),
]


def _stray(luck: Luck) -> tuple[str, ...]:
    """An argument or flag that there is not, or flags that do not go together."""
    text = _nasty(luck)
    if not text.strip() or text.startswith("-"):
        text = "word"
    return one_of(luck, [(text,)], [(f"--{letters(luck)}q=1",)], _STRAYS)


# --- config files ----------------------------------------------------------------------------------

_RAISED = ["ValueError", "KeyError", "AttributeError", "RecursionError", "SystemExit", "MemoryError"]
_CHANGED = "from poison_jax import config; c = config.default(); "
_BODIES = [
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
    _CHANGED + "c.nowhere = 1; return c",
    _CHANGED + "c.seed = 'x'; return c",
    _CHANGED + "c.penalty = None; return c",
    _CHANGED + "c.unlock(); del c.penalty; return c",
    _CHANGED + "c.unlock(); c.penalty = 3; return c",
    _CHANGED + "c.train.epochs = -1; return c",
    "import sys; sys.exit()",
    "import sys; sys.exit(0)",
]
_SOURCES = [
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
_REAL = ("digits_quickstart.py", "cifar10_stochastic.py", "krr_theory.py", "mnist_linear.py")


def _source(luck: Luck) -> bytes:
    """A Python file that gives no config."""
    raising = f"raise {luck.choice(_RAISED)}({_nasty(luck)!r})\n"
    bodies = [f"def get_config():\n    {body}\n".encode() for body in _BODIES]
    raises = [raising.encode(), f"def get_config():\n    {raising}".encode()]
    return one_of(luck, bodies, raises, _SOURCES, [binary(luck, 40).replace(b"#", b"!")])


def _config_file(luck: Luck) -> Example:
    size = luck.choice(["", f":{letters(luck)}"])
    content = luck.choice([_source(luck), _source(luck), None])
    arguments = (f"--config={HERE}/mine.py{size if content is not None else ''}",)
    return Example("config files", arguments, {"mine.py": content})


def _absent_file(luck: Luck) -> Example:
    absent = f"--config={HERE}/{_nasty(luck)}"
    no_such_size = f"--config={ROOT_HERE}/configs/{luck.choice(_REAL)}:{_nasty(luck) or ' '}x"
    return Example("config files that are not there", (luck.choice([absent, no_such_size]),))


_OVERRIDES: dict[str, Callable[[Luck], tuple[str, ...]]] = {
    "values of the wrong type or range": lambda luck: tiny(_bad_value(luck)),
    "unknown keys": lambda luck: (*tiny({}), *flags(_misspelt(luck))),
    "values that contradict each other": lambda luck: tiny(luck.choice(_COMBINATIONS)),
    "malformed arms and grids": lambda luck: tiny(_bad_list(luck)),
    "stray arguments and flags": lambda luck: tiny({}) + _stray(luck),
}
BAD: dict[str, Callable[[Luck], Example]] = {
    kind: lambda luck, kind=kind, draw=draw: Example(kind, draw(luck)) for kind, draw in _OVERRIDES.items()
} | {"config files": _config_file, "config files that are not there": _absent_file}
