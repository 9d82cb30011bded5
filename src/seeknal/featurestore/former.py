"""What programs for the first Seeknal pass or import, where it has no other place; see docs/how-to/coming-from-the-first-seeknal.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import NoReturn

from seeknal.define.feature_group import FeatureLookup
from seeknal.errors import DefinitionError

_SPINE = {"entity_df", "spine", "spine_df"}
"""What the pages of the first Seeknal call the spine in `to_dataframe`."""


class GetLatestTimeStrategy(StrEnum):
    """Which entities `using_latest` returns if there are several groups."""

    REQUIRE_ALL = "require_all"
    """Those that all groups know. Accepted if there is only one group."""
    REQUIRE_ANY = "require_any"
    """Those that any group knows, with nulls for the features of the others. This is what `using_latest` does."""


def check_strategy(strategy: str, lookups: Sequence[FeatureLookup]) -> None:
    """Check that a strategy is what `using_latest` does.

    Raises:
        DefinitionError: It is not.
    """
    try:
        known = GetLatestTimeStrategy(strategy)
    except ValueError:
        raise DefinitionError(
            f"fetch_strategy={strategy!r} is unknown. Leave it out, or pass GetLatestTimeStrategy.REQUIRE_ANY."
        ) from None
    groups = {(lookup.project, lookup.name) for lookup in lookups}
    if known is GetLatestTimeStrategy.REQUIRE_ALL and len(groups) > 1:
        raise DefinitionError(
            "using_latest() returns the entities that any of the groups knows, so it cannot require all of them. Pass "
            "GetLatestTimeStrategy.REQUIRE_ANY, and leave out the rows that you do not want."
        )


def refuse_arguments(call: str, given: Collection[str]) -> NoReturn:
    """Refuse keyword arguments that a reading method does not have.

    Raises:
        DefinitionError: One of them is a spine, which belongs to `using_spine`.
        TypeError: They are unknown.
    """
    if spine := next((name for name in given if name in _SPINE), None):
        raise DefinitionError(
            f"{call}() takes no {spine}. Write using_spine(spine, date_col=...).{call}(), where date_col is the spine's "
            "column with the moments."
        )
    raise TypeError(f"{call}() got an unexpected keyword argument {min(given)!r}")


def refuse(module: str, name: str, advice: Mapping[str, str]) -> NoReturn:
    """Refuse to import a name; the `__getattr__` of a module that has the name no longer.

    Raises:
        ImportError: There is advice for the name, which the message contains.
        AttributeError: There is none.
    """
    if name in advice:
        raise ImportError(f"{module} has no {name} any more. {advice[name]}", name=module)
    raise AttributeError(f"module {module!r} has no attribute {name!r}")
