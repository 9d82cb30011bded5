"""Moments and intervals: an instant is a whole number of microseconds since 1970 in UTC, and intervals are closed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from seeknal.errors import DefinitionError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_OF_DAY = timedelta(days=1) - _MICROSECOND
DAY = timedelta(days=1) // _MICROSECOND
"""A day in microseconds."""

Moment = datetime | date | str


def instant(moment: Moment, *, whole_day: bool = False) -> int:
    """Return a moment as microseconds since 1970 in UTC.

    A naive time is taken as UTC, a date as its midnight, and text as ISO 8601. Digits beyond microseconds are cut off.

    Args:
        moment: The moment.
        whole_day: For a date without a time, return the last microsecond of the day instead.

    Raises:
        DefinitionError: The value is none of these, or it is outside the years 1 to 9999 in UTC.

    >>> instant("1970-01-01T00:00:01+00:00"), instant(date(1970, 1, 2))
    (1000000, 86400000000)
    """
    found = microseconds(_parse(moment, whole_day) - EPOCH)
    if not _FIRST <= found <= _LAST:
        raise DefinitionError(f"{moment!r} is not a valid time: in UTC, it is outside the years 1 to 9999.")
    return found


def instant_or_none(moment: Moment | None) -> int | None:
    """Return a moment as `instant` does; None for None."""
    return None if moment is None else instant(moment)


def _parse(moment: Moment, whole_day: bool) -> datetime:
    if isinstance(moment, str):
        return _parse(_from_text(moment), whole_day)
    if isinstance(moment, datetime):
        if moment != moment:  # noqa: PLR0124 - pandas' NaT is not itself
            raise DefinitionError(f"{moment!r} is a missing time. Pass None, or leave it out, for no time.")
        try:
            # Converted by way of text: a subclass such as pandas' Timestamp has nanoseconds, and an arithmetic of its own.
            plain = datetime.fromisoformat(moment.isoformat(timespec="microseconds"))
        except (ValueError, TypeError, NotImplementedError):  # the last two come from a zone without an offset
            raise DefinitionError(
                f"{moment!r} is not a valid time: its time zone has no offset. Convert it to UTC."
            ) from None
        return plain if plain.tzinfo else plain.replace(tzinfo=UTC)
    if isinstance(moment, date):
        midnight = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        return midnight + _LAST_OF_DAY if whole_day else midnight
    raise DefinitionError(f"{moment!r} is not a time. Pass a datetime, a date or ISO 8601 text.")


def _from_text(text: str) -> datetime | date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise DefinitionError(f"{text!r} is not a valid time. Write 2024-01-31 or 2024-01-31T12:30:00+00:00.") from None


def microseconds(interval: timedelta) -> int:
    """Return a timedelta in microseconds, computed exactly."""
    return interval // _MICROSECOND


_FIRST = microseconds(datetime(1, 1, 1, tzinfo=UTC) - EPOCH)
_LAST = microseconds(datetime(9999, 12, 31, tzinfo=UTC) + _LAST_OF_DAY - EPOCH)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


LONGEST_SPAN = timedelta(days=3_660_000)
"""The longest ttl or window: about ten thousand years."""


def span_of(text: str) -> timedelta | None:
    """Parse a duration such as "90m" in seconds, minutes, hours or days; None if it is not one, or out of range.

    >>> span_of("90m"), span_of("1.5 h"), span_of("soon")
    (datetime.timedelta(seconds=5400), datetime.timedelta(seconds=5400), None)
    """
    found = _SPAN.fullmatch(text.strip())
    try:
        return None if found is None else timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        return None


def moment_of(instant: int) -> datetime:
    """Return microseconds since 1970 as an aware datetime in UTC."""
    return EPOCH + timedelta(microseconds=instant)


def now() -> int:
    """Return the current time in microseconds since 1970 in UTC."""
    return instant(datetime.now(UTC))


_DATE = len("2024-01-31")


def show(instant: int | None) -> str:
    """Return an instant as text for readers, without the time at midnight; "" for None.

    >>> show(0), show(1_500_000), show(None)
    ('1970-01-01', '1970-01-01 00:00:01.500000', '')
    """
    if instant is None:
        return ""
    return moment_of(instant).replace(tzinfo=None).isoformat(" ").removesuffix(" 00:00:00")


@dataclass(frozen=True, order=True)
class Interval:
    """A closed interval between two instants. None leaves that side unbounded.

    Args:
        start: The first instant, in microseconds since 1970 in UTC. `between` takes dates, datetimes and text.
        end: The last instant.

    Raises:
        DefinitionError: One of them is not a whole number.
    """

    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        for bound in (self.start, self.end):
            if not (bound is None or hasattr(bound, "__index__")):
                raise DefinitionError(
                    f"Interval takes microseconds since 1970, not {bound!r}. For a date, a datetime or text, write "
                    "Interval.between(start, end)."
                )

    @classmethod
    def between(cls, start: Moment | None, end: Moment | None) -> Interval:
        """Return the interval between two moments from the user. An end that is a date includes its whole day.

        Raises:
            DefinitionError: The end is before the start, or one of them is not a moment.
        """
        interval = cls(
            instant_or_none(start),
            None if end is None else instant(end, whole_day=True),
        )
        if interval.start is not None and interval.end is not None and interval.end < interval.start:
            raise DefinitionError(f"The interval ends ({end}) before it starts ({start}). Swap the two.")
        return interval

    @staticmethod
    def check(given: object) -> Interval:
        """Check that an argument is an interval, and return it.

        Raises:
            DefinitionError: It is not.
        """
        if not isinstance(given, Interval):
            raise DefinitionError(
                f"interval={given!r} is not an Interval. Write interval=Interval.between(start, end)."
            )
        return given

    @property
    def is_unbounded(self) -> bool:
        """Whether it has neither a start nor an end."""
        return self.start is None and self.end is None

    def __str__(self) -> str:
        if self.is_unbounded:
            return "all time"
        # A date alone, typed as an end, is the end of its day.
        end = show(self.end)
        return f"{show(self.start) or '...'} to {f'{end} 00:00:00' if len(end) == _DATE else end or '...'}"

    def hull(self, other: Interval) -> Interval:
        """Return the shortest interval that covers both.

        >>> Interval(1, 2).hull(Interval(5, None))
        Interval(start=1, end=None)
        """
        start = None if self.start is None or other.start is None else min(self.start, other.start)
        return Interval(start, None if self.end is None or other.end is None else max(self.end, other.end))

    def intersect(self, other: Interval) -> Interval | None:
        """Return the intersection of both, or None if it is empty.

        >>> Interval(1, None).intersect(Interval(None, 5)), Interval(1, 2).intersect(Interval(4, 5))
        (Interval(start=1, end=5), None)
        """
        starts = [start for start in (self.start, other.start) if start is not None]
        ends = [end for end in (self.end, other.end) if end is not None]
        both = Interval(max(starts, default=None), min(ends, default=None))
        return None if starts and ends and max(starts) > min(ends) else both


EMPTY_INTERVAL = Interval(1, 0)
"""An interval that contains no instant."""


def union(intervals: Sequence[Interval]) -> list[Interval]:
    """Merge the intervals that overlap or touch, and return them in order of time.

    >>> union([Interval(5, 9), Interval(1, 4), Interval(20, None)])
    [Interval(start=1, end=9), Interval(start=20, end=None)]
    """
    joined: list[Interval] = []
    for interval in sorted(intervals, key=lambda i: (i.start is not None, i.start or 0)):
        last = joined[-1] if joined else None
        # Instants are whole microseconds, so an interval that ends at 4 touches one that starts at 5.
        if last and (last.end is None or interval.start is None or interval.start <= last.end + 1):
            end = None if last.end is None or interval.end is None else max(last.end, interval.end)
            joined[-1] = Interval(last.start, end)
        else:
            joined.append(interval)
    return joined


def without(spans: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    """Return what remains of some intervals after others are subtracted from them.

    >>> without([Interval(1, 9)], [Interval(3, 4), Interval(8, None)])
    [Interval(start=1, end=2), Interval(start=5, end=7)]
    """
    left = list(spans)
    for other in others:
        # What a subtraction leaves of an interval is its intersection with the two sides of the other one.
        sides = [Interval(None, other.start - 1)] if other.start is not None else []
        sides += [Interval(other.end + 1, None)] if other.end is not None else []
        left = [both for interval in left for side in sides if (both := interval.intersect(side))]
    return left
