"""The declaration of a config key, the check of a value, and the function that a value may name."""

import difflib
import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from poison_jax.errors import UserError, about

RUNS = ("train", "krr_theory", "mnist_linear")  # the experiments that are one run
IMPORTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)  # module:function
_LARGEST = 3e38  # what a 32-bit number can hold


class Key(NamedTuple):
    """A config key.

    Attributes:
        default: its value in the paper's CIFAR-10 setting; says the type, too.
        meaning: what it is, and its unit.
        choices: the strings that it may be; empty: any.
        or_function: it may also be `module:function`, a function of the user's.
        low, high: bounds of a number, or of each number of a tuple.
        each: the type of a tuple's items, if all have the same.
        all_is_none: it is a count or None, which may also be written `all`.
        determines: the experiments whose trained parameters, or numbers, depend on it; None: as its group.
        stages: what reads it in a trained network (`table.STAGES`): another value trains nothing again.
    """

    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    or_function: bool = False
    low: float | None = None
    high: float | None = None
    each: type | None = None
    all_is_none: bool = False
    determines: tuple[str, ...] | None = None
    stages: tuple[str, ...] = ()

    def allowed(self) -> str:
        """Its choices or bounds in words; empty where there are none."""
        if self.choices:
            return f"one of {', '.join(self.choices)}" + (
                ", or your own module:function" if self.or_function else ""
            )
        if self.low is None:
            return ""
        text = f"at least {self.low:.10g}"
        if self.high is not None:
            text += f" and at most {self.high:.10g}"
        elif float in (type(self.default), self.each):
            text = f"finite and {text}"
        return text if self.each is None else f"different {self.each.__name__}s, each {text}"

    def check(self, name: str, value: Any) -> None:
        """Raises `UserError` where a value is of another type, none of the choices, or out of bounds."""
        if not self._has_its_type(value):
            wanted = (
                "a whole number, or all" if self.all_is_none else f"of type {type(self.default).__name__}"
            )
            raise UserError(f"{name} = {value!r}: must be {wanted}")
        if self.choices:
            if value not in self.choices and not (self.or_function and IMPORTED.fullmatch(value)):
                raise UserError(f"{name} = {value!r}: use {self.allowed()}")
        elif self.each is str:
            if not all(isinstance(item, str) for item in value):
                raise UserError(f"{name} = {tuple(value)}: must be names, or () for none")
        elif self.each is not None:
            fits = [_is_number(v, self.each) and self._is_within(v) for v in value]
            if not value or not all(fits) or len(set(value)) < len(value):
                raise UserError(f"{name} = {tuple(value)}: must be {self.allowed()}")
        elif self.low is not None and value not in (None, "all") and not self._is_within(value):
            raise UserError(f"{name} = {value}: must be {self.allowed()}")

    def plain(self, value: Any) -> Any:
        """A value in the key's own type and spelling: 1 for a float is 1.0, `all` is None."""
        if self.all_is_none:
            return None if value == "all" else value
        if self.each is not None:
            return tuple(self.each(item) for item in value)
        return value if self.default is None else type(self.default)(value)

    def _has_its_type(self, value: Any) -> bool:
        if self.all_is_none:
            return value in (None, "all") or _is_number(value, int)
        kind = type(self.default)
        if kind in (int, float):
            return _is_number(value, kind)
        return self.default is None or isinstance(value, tuple | list if kind is tuple else kind)

    def _is_within(self, value: float) -> bool:
        high = _LARGEST if self.high is None else self.high
        return self.low <= value <= high


class Group(NamedTuple):
    """Keys that share a prefix; `determines` is that of those which do not say it themselves."""

    name: str
    meaning: str
    keys: dict[str, Key]
    determines: tuple[str, ...]


def _is_number(value: Any, kind: type) -> bool:
    """Whether it is an int, or a float where `kind` is float; True and False are no numbers."""
    return isinstance(value, kind | int) and not isinstance(value, bool)


def imported(name: str) -> Callable:
    """The function that `module:function` names; the module is imported.

    Raises:
        UserError: no such module or function, or the module fails when it is imported.

    >>> imported("math:sqrt")(9.0)
    3.0
    """
    if not IMPORTED.fullmatch(name):
        raise UserError(f"{name!r} does not name a function: write module:function")
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        raise UserError(
            f"{name!r}: {module_name} cannot be imported ({about(error)}): is its folder in PYTHONPATH?"
        ) from None
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        near = difflib.get_close_matches(function_name, functions, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{name!r}: {module_name} has no function {function_name!r}{hint}")
    return function
