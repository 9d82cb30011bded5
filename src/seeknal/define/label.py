"""Labels: what happens to an entity after the moment. No data, no I/O."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta

from seeknal.define.aggregations import Aggregation, Count, First, Max
from seeknal.define.aggregations.lengths import Length, read_length
from seeknal.define.feature_group import Named
from seeknal.define.windowed_group import WindowedGroup
from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.names import check_text
from seeknal.values.display import shown_duration
from seeknal.values.times import microseconds

DROP, NULL = "drop", "null"
_WORDS = ("first", "any", "count")


@dataclass(frozen=True)
class Label:
    """What a model predicts: a value computed from the events of an entity in the window (t, t + within] after each moment t.

    Args:
        source: Where the events are: an `EventSource`, a feature group, or the name of one. It cannot be a windowed group.
        feature: The column that the label is computed from. "any" and "count" without one are of the events themselves.
        within: The length of the window, such as "7d" or a timedelta.
        aggregation: "first", the first value that is not null, or null without one; "any", whether there is an event, for a column
            one where it is not null, for bools one where it is true; "count", the number of events, for a column those where it is not
            null; or an aggregation without `over`, such as Sum("amount").
        name: The name of the label's column. None: that of the feature, else "label".
        unfinished: What becomes of rows whose window is not over yet: "drop" leaves them out, "null" keeps them without a label.
        entity: The entity whose events count. Its join keys are columns of the spine, also those that nothing else in the view uses, such
            as the number of an order. None: that of a feature group; for an event source, the join keys of the view that are columns
            of the source.
        rename: For a join key, the name of the spine's column, as in `FeatureLookup`.

    Raises:
        DefinitionError: An argument has the wrong form, or does not go with another.
    """

    source: Named | str
    feature: str | None = None
    within: Length = field(kw_only=True)
    aggregation: Aggregation | str = field(default="first", kw_only=True)
    name: str | None = field(default=None, kw_only=True)
    unfinished: str = field(default=DROP, kw_only=True)
    entity: Entity | None = field(default=None, kw_only=True)
    rename: Mapping[str, str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "within", read_length("within", self.within))
        for argument in ("feature", "name"):
            if (value := getattr(self, argument)) is not None:
                set_(self, argument, check_text(argument, value))
        if not isinstance(self.source, str) and not (hasattr(self.source, "name") and hasattr(self.source, "project")):
            raise DefinitionError(
                f"source={reprlib.repr(self.source)} of a label is neither an event source nor a feature group, nor the name of one."
            )
        if isinstance(self.source, WindowedGroup):
            raise DefinitionError(
                f"source={self.source.name!r} of a label is a windowed group, which has no events of its own. Name its source, "
                f"{self.source.origin!r}, and the aggregation."
            )
        if self.unfinished not in (DROP, NULL):
            raise DefinitionError(f"unfinished={self.unfinished!r} of a label is neither 'drop' nor 'null'.")
        if self.entity is not None and not isinstance(self.entity, Entity):
            raise DefinitionError(f"entity={self.entity!r} of a label should be created with Entity(...).")
        self._check_aggregation()

    def _check_aggregation(self) -> None:
        given = self.aggregation
        if isinstance(given, Aggregation):
            if self.feature is not None:
                raise DefinitionError(
                    f"feature={self.feature!r} of a label and {given.name}(...) both name a column. Leave out feature."
                )
            if given.over is not None or given.offset is not None:
                raise DefinitionError(f"{given.name} of a label has a window of its own. Leave it out: within says it.")
        elif given not in _WORDS:
            raise DefinitionError(
                f"aggregation={given!r} of a label is unknown. Write one of {', '.join(map(repr, _WORDS))}, or an aggregation such "
                'as Sum("amount").'
            )
        elif given == "first" and self.feature is None:
            raise DefinitionError("A label needs feature=, the column whose first value it is, or another aggregation.")

    @property
    def column(self) -> str:
        """The name of the label's column."""
        own = self.aggregation.source_column if isinstance(self.aggregation, Aggregation) else self.feature
        return self.name or own or "label"

    @property
    def length(self) -> int:
        """The length of the window in microseconds."""
        assert isinstance(self.within, timedelta)  # noqa: S101 - `__post_init__` has read it
        return microseconds(self.within)

    def described(self, source: str, keys: Sequence[str]) -> str:
        """Return the label in words.

        Args:
            source: Project and name of the source of its events.
            keys: The columns of the spine that name the entity.
        """
        if isinstance(self.aggregation, Aggregation):
            given = {one.name: getattr(self.aggregation, one.name) for one in fields(self.aggregation)}
            what = ", ".join(
                f"{name}={value!r}" for name, value in given.items() if value is not None and name != "over"
            )
            what = f"{self.aggregation.name}({what})"
        else:
            what = "count of " if self.aggregation == "count" else f"{self.aggregation} "
            what += self.feature or ("events" if self.aggregation == "count" else "event")
        late = "left out" if self.unfinished == DROP else "null"
        return f"{what} of {source} within {shown_duration(timedelta(microseconds=self.length))}, by {', '.join(keys)}, {late} until it is known"

    def windowed(self, *, of_bools: bool) -> Aggregation:
        """Return the aggregation over a window that ends at a moment; the label's own window ends `length` after it.

        Args:
            of_bools: Whether the feature is a column of bools.
        """
        if isinstance(self.aggregation, Aggregation):
            return replace(self.aggregation, over=self.within)
        if self.aggregation == "first" and self.feature is not None:
            return First(self.feature, over=self.within)
        if self.aggregation == "any" and self.feature is not None and of_bools:
            return Max(self.feature, over=self.within)
        return Count(self.feature, over=self.within)

    @property
    def is_any(self) -> bool:
        """Whether it is the truth of "any", which is made of a count or of the greatest bool."""
        return self.aggregation == "any"
