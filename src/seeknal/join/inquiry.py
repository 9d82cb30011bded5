"""The request for features, as one frozen record that every reading verb takes, so that all of them see the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING, TypedDict

from seeknal.define.feature_group import FeatureLookup, check_lookups
from seeknal.define.fill_null import FillNull, check_fills
from seeknal.errors import DefinitionError
from seeknal.names import check_names, check_text, quoted
from seeknal.values.times import Interval, Moment, instant_or_none, now

if TYPE_CHECKING:
    from seeknal.registry import Question
    from seeknal.registry.catalog import AsOf

    class Bounds(TypedDict, total=False):
        """The keyword arguments that say which rows are visible, for the overloads of `history`."""

        interval: Interval
        as_of: AsOf | None

    class Latest(Bounds, total=False):
        """The same, for the overloads of `latest`."""

        at: Moment | None

    class OfSpine(Bounds, total=False):
        """The same, for the overloads of `training_set`."""

        keep: Sequence[str] | None


SPINE, HISTORY, LATEST = "spine", "history", "latest"


@dataclass(frozen=True, eq=False)
class Inquiry:
    """A request: which features, for which rows, within which interval of event time, and as stored by when.

    Args:
        lookups: The features.
        kind: "spine" (as known at the moment of each of its rows), "history" or "latest".
        spine: The frame with join keys and moments, for "spine".
        date_col: The spine's column with the moments.
        keep: The spine's columns to keep beside keys and moment. None: all.
        at: The time that counts as now for "latest", in microseconds since 1970. None: the clock.
        interval: Only rows with an event time inside it are visible.
        as_of: Only rows stored by then are visible.
        fills: Values in place of the nulls of features.

    Raises:
        DefinitionError: An argument has the wrong form.
    """

    lookups: Sequence[FeatureLookup]
    kind: str = HISTORY
    spine: object = None
    date_col: str = ""
    keep: Sequence[str] | None = None
    at: int | None = None
    interval: Interval = field(default_factory=Interval)
    as_of: AsOf | None = None
    fills: Sequence[FillNull] = ()

    def __post_init__(self) -> None:
        # The dataclass is frozen, so checked values can only be stored by way of `object`.
        object.__setattr__(self, "lookups", check_lookups(self.lookups))
        object.__setattr__(self, "fills", check_fills(self.fills))
        object.__setattr__(self, "keep", None if self.keep is None else check_names("keep_cols", self.keep))
        check_text("date_col", self.date_col)
        Interval.check(self.interval)
        # Each group numbers its snapshots itself, so one number says nothing about a second group.
        groups = {lookup.name for lookup in self.lookups}
        if isinstance(self.as_of, Integral) and len(groups) > 1:
            raise DefinitionError(
                f"as_of={self.as_of} is a snapshot of one group, and the lookups are of {quoted(sorted(groups))}. Pass a mapping "
                f"from each group to its number, such as as_of={{{min(groups)!r}: {self.as_of}, ...}}, or a moment."
            )

    def of_spine(self, spine: object, date_col: str, keep: Sequence[str] | None) -> Inquiry:
        """Return the same request for the rows of a frame."""
        return replace(self, kind=SPINE, spine=spine, date_col=date_col, keep=keep, at=None)

    def of_latest(self, at: Moment | None) -> Inquiry:
        """Return the same request for the latest row of each entity, as known at a moment. None: now."""
        return replace(self, kind=LATEST, spine=None, date_col="", keep=None, at=instant_or_none(at))

    def within(self, start: Moment | None, end: Moment | None, as_of: AsOf | None) -> Inquiry:
        """Return the same request for an interval of event time, as stored by `as_of`."""
        return replace(self, interval=Interval.between(start, end), as_of=as_of)

    @property
    def question(self) -> Question:
        """The part of the request that is saved with a training set."""
        from seeknal.registry import Question

        moment = 0 if self.kind != LATEST else now() if self.at is None else self.at
        return Question(
            self.kind, self.interval, self.date_col, None if self.keep is None else tuple(self.keep), moment
        )
