"""Look a name up in a registry, and help whoever mistyped it."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` when a known name is close to ``name``, else an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else "."


def lookup(what: str, table: Mapping[str, T], name: str) -> T:
    """Return ``table[name]``, or refuse with the nearest known name.

    Args:
        what: the kind of thing, for the error: ``"circuit"``.
        table: names and what they stand for.
        name: the name asked for.

    Raises:
        ValueError: there is no such name; the message lists those there are.
    """
    if name in table:
        return table[name]
    known = ", ".join(sorted(table))
    raise ValueError(f"no {what} is called {name!r}{suggest(name, table)} Known: {known}")


def load_object(path: str) -> Any:
    """Import ``"package.module:attribute"``, or the module itself when no attribute is named.

    Registries hold such paths where importing every entry at once would be slow.
    """
    module, _, attribute = path.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
