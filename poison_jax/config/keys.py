"""The declaration of a config key, and the check of a value against it."""

import re
from typing import Any, NamedTuple

from poison_jax.errors import UserError

RUNS = ("train", "krr_theory", "mnist_linear")  # the experiments that are one run
IMPORTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)  # module:function
_LARGEST = 3e38  # what a 32-bit number can hold


class Key(NamedTuple):
    """A config key.

    Attributes:
        default: its value in the paper's CIFAR-10 setting; says the type, too.
        meaning: what it is, and its unit.
        choices: the strings that it may be; empty: any.
        own: it may also be `module:function`, a function of the user's.
        low, high: bounds of a number, or of each number of a tuple.
        each: the type of a tuple's items, if all have the same.
        all_is_none: it is a count or None, which may also be written `all`.
        determines: the experiments whose trained parameters, or numbers, depend on it; None: as its group.
        stage: it belongs to a stage that reads a trained network: another value trains nothing again.
    """

    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    own: bool = False
    low: float | None = None
    high: float | None = None
    each: type | None = None
    all_is_none: bool = False
    determines: tuple[str, ...] | None = None
    stage: bool = False

    def allowed(self) -> str:
        """Its choices or bounds in words; empty where there are none."""
        if self.choices:
            return f"one of {', '.join(self.choices)}" + (", or your own module:function" if self.own else "")
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
        self._check_type(name, value)
        if self.choices:
            if value not in self.choices and not (self.own and IMPORTED.fullmatch(value)):
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

    def _check_type(self, name: str, value: Any) -> None:
        if self.all_is_none:
            if not (value in (None, "all") or _is_number(value, int)):
                raise UserError(f"{name} = {value!r}: must be a whole number, or all")
        elif isinstance(self.default, int | float) and not isinstance(self.default, bool):
            if not _is_number(value, type(self.default)):
                raise UserError(f"{name} = {value!r}: must be of type {type(self.default).__name__}")
        elif self.default is not None:
            kind = tuple | list if isinstance(self.default, tuple) else type(self.default)
            if not isinstance(value, kind):
                raise UserError(f"{name} = {value!r}: must be of type {type(self.default).__name__}")

    def _is_within(self, value: float) -> bool:
        high = _LARGEST if self.high is None else self.high
        return self.low <= value <= high


class Group(NamedTuple):
    """Keys that share a prefix; `determines` is that of those which do not say it themselves."""

    name: str
    meaning: str
    determines: tuple[str, ...]
    keys: dict[str, Key]


def _is_number(value: Any, kind: type) -> bool:
    """Whether it is an int, or a float where `kind` is float; True and False are no numbers."""
    return isinstance(value, kind | int) and not isinstance(value, bool)
