"""Tables of a recipe: read strictly, with errors that name the place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nestedge.documents import Value
from nestedge.errors import FormatError, did_you_mean
from nestedge.levels import Level


@dataclass(frozen=True)
class Table:
    """A table of a recipe, of which only known keys are there.

    Attributes:
        value: the table itself.
        members: its values by key.
    """

    value: Value
    members: Mapping[str, Value]

    def required(self, key: str) -> Value:
        """The value of a key.

        Raises:
            FormatError: it is not there.
        """
        if key not in self.members:
            raise FormatError(f"{at(self.value, key)}: missing")
        return self.members[key]

    def get(self, key: str) -> Value | None:
        """The value of a key, or None."""
        return self.members.get(key)

    def string(self, key: str) -> str | None:
        """A text, or None."""
        value = self.get(key)
        return None if value is None else value.string()

    def integer(self, key: str, default: int, *, minimum: int = 1) -> int:
        """A whole number of at least `minimum`."""
        value = self.get(key)
        return default if value is None else value.integer(minimum=minimum)

    def share(self, key: str, default: float) -> float:
        """A number above 0, and below 1 or 1 itself."""
        value = self.get(key)
        if value is None:
            return default
        number = value.number()
        if not 0 < number <= 1:
            raise value.error("a share above 0 and up to 1")
        return number

    def truth(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.get(key)
        return default if value is None else truth(value)

    def strings(self, key: str) -> tuple[str, ...] | None:
        """A list of texts, or None."""
        value = self.get(key)
        return None if value is None else tuple(item.string() for item in value.elements())

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """A list of numbers, or None."""
        value = self.get(key)
        return None if value is None else tuple(item.number() for item in value.elements())


def table(value: Value, keys: Iterable[str]) -> Table:
    """A table that has none but these keys.

    Raises:
        FormatError: it is no table, or has another key.
    """
    known = tuple(keys)
    if not isinstance(value.data, dict):
        raise value.error("a table")
    members = value.members()
    for key in members:
        if key not in known:
            expected = f"expected {', '.join(known)}" if known else "expected no key"
            raise FormatError(f"{at(value, key)}: unknown; {expected}{did_you_mean(key, known)}")
    return Table(value, members)


def named(value: Value) -> Value:
    """The key "name" of a table, which decides what else it may have.

    Raises:
        FormatError: it is no table, or has no name.
    """
    if not isinstance(value.data, dict):
        raise value.error("a table")
    if "name" not in value.data:
        raise FormatError(f"{at(value, 'name')}: missing")
    return value.members()["name"]


def at(value: Value, key: str) -> str:
    """How a key of a table is called in errors."""
    return f"{value.where}.{key}" if value.path else f"{value.where}: {key}"


def truth(value: Value) -> bool:
    """True or false, and not a number.

    Raises:
        FormatError: it is something else.
    """
    if not isinstance(value.data, bool):
        raise value.error("true or false")
    return value.data


def one_of(value: Value, known: Iterable[str], what: str) -> str:
    """A name that is known.

    Raises:
        FormatError: it is no text, or another one.
    """
    names = tuple(known)
    name = value.string()
    if name not in names:
        raise FormatError(
            f"{value.where}: no {what} {name!r}; expected {', '.join(names)}"
            f"{did_you_mean(name, names)}"
        )
    return name


def check_plain(value: Value) -> None:
    """Refuses dates, which TOML has and errors could not show, and other objects of Python.

    Raises:
        FormatError: there is one.
    """
    if isinstance(value.data, dict):
        for key, member in value.members().items():
            # In Python a function may stand for its name, and a level for its table.
            if not (key == "factory" and callable(member.data)):
                check_plain(member)
    elif isinstance(value.data, list):
        for element in value.elements():
            check_plain(element)
    elif isinstance(value.data, Level) and value.path.startswith("levels."):
        pass
    elif not isinstance(value.data, (str, int, float)):
        raise FormatError(
            f"{value.where}: expected a text, a number, true, false, a list or a table, "
            f"found {value.data}"
        )
