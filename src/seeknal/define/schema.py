"""A schema: the names and types of keys, times and features. A version of a group is one schema."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from seeknal.errors import DataError, DefinitionError
from seeknal.values import types

ROW_ID = "_seeknal_row_id"
"""Column of every stored row: its number in the order of writing, which settles ties."""

"""The stored type of event times and created times."""


@dataclass(frozen=True)
class Schema:
    """Columns by role; all types are logical."""

    keys: tuple[pa.Field, ...]
    event_time: pa.Field
    created_time: pa.Field | None
    features: tuple[pa.Field, ...]

    def __iter__(self) -> Iterator[pa.Field]:
        """Go through all columns: keys, event time, created time, features."""
        yield from self.keys
        yield self.event_time
        if self.created_time is not None:
            yield self.created_time
        yield from self.features

    @property
    def names(self) -> list[str]:
        """All column names, in the order of iteration."""
        return [field.name for field in self]

    @property
    def feature_names(self) -> list[str]:
        """The features' names."""
        return [field.name for field in self.features]

    def feature(self, name: str) -> pa.Field:
        """Give a feature by its name."""
        return next(field for field in self.features if field.name == name)

    @property
    def key_names(self) -> list[str]:
        """The join keys' names."""
        return [field.name for field in self.keys]

    @property
    def identity(self) -> list[str]:
        """The names of join keys and times, which are the same in all versions of a group."""
        return [field.name for field in self if field not in self.features]

    @property
    def logical_types(self) -> list[pa.DataType]:
        """The columns' types as users see them."""
        return [field.type for field in self]

    @property
    def stored_types(self) -> list[pa.DataType]:
        """The columns' types as the offline table holds them; times are UTC microseconds."""
        times = {self.event_time.name, self.created_time.name if self.created_time else None}
        return [types.UTC if field.name in times else types.stored(field.type) for field in self]

    def describe(self) -> list[tuple[str, str, str]]:
        """Say name, type and role of each column."""
        return [(field.name, str(field.type), self._role(field)) for field in self]

    def _role(self, field: pa.Field) -> str:
        if field.name in self.key_names:
            return "join key"
        if field.name == self.event_time.name:
            return "event time"
        return "feature" if field.name in self.feature_names else "created time"

    def dumps(self) -> str:
        """Write it as text: JSON with what `describe` says, for whoever has no Arrow, and the Arrow schema in base64."""
        roles = pa.schema([field.with_metadata({"role": self._role(field)}) for field in self])
        arrow = base64.b64encode(roles.serialize().to_pybytes()).decode()
        return json.dumps({"columns": self.describe(), "arrow": arrow}, ensure_ascii=False)

    @classmethod
    def loads(cls, text: str) -> Schema:
        """Read what `dumps` wrote; at first, that was the Arrow schema alone."""
        arrow = json.loads(text)["arrow"] if text.startswith("{") else text
        fields = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(arrow)))
        by_role: dict[str, list[pa.Field]] = {"join key": [], "event time": [], "created time": [], "feature": []}
        for field in fields:
            by_role[field.metadata[b"role"].decode()].append(field.remove_metadata())
        created = by_role["created time"]
        return cls(
            tuple(by_role["join key"]),
            by_role["event time"][0],
            created[0] if created else None,
            tuple(by_role["feature"]),
        )


@dataclass(frozen=True)
class Change:
    """One column that differs between two schemas; a missing side is None."""

    name: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"added {self.name} ({self.new})"
        return f"removed {self.name}" if self.new is None else f"modified {self.name} ({self.old} to {self.new})"


def difference(old: Schema, new: Schema) -> list[Change]:
    """List what was added, removed and modified, in the order of the columns."""
    before = {field.name: str(field.type) for field in old}
    after = {field.name: str(field.type) for field in new}
    names = [*before, *(name for name in after if name not in before)]
    return [Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


@dataclass(frozen=True)
class Roles:
    """Which columns of a frame are keys, times and features."""

    group: str
    keys: tuple[str, ...]
    event_time: str
    created_time: str | None = None
    features: tuple[str, ...] | None = None
    declared: Mapping[str, pa.DataType] | None = None

    @property
    def named(self) -> list[str]:
        """The columns that a frame must have."""
        created = [self.created_time] if self.created_time else []
        return [*self.keys, self.event_time, *created, *(self.features or ())]

    def pick(self, columns: Sequence[str]) -> Roles:
        """Fill in the features: all columns that have no other part, unless they were named.

        Raises:
            DataError: Two names clash, or there are no features.
        """
        rest = () if self.features else tuple(name for name in columns if name not in self.named)
        _refuse_clashes([*self.named, *rest])
        if not (self.features or rest):
            raise DataError(f"The frame for group {self.group!r} has no features beside {', '.join(self.named)}.")
        return replace(self, features=self.features or rest)


def _refuse_clashes(used: Sequence[str]) -> None:
    if repeated := [name for name, count in Counter(used).items() if count > 1]:
        raise DefinitionError(f"Column {repeated[0]!r} has two parts (key, time or feature). Give it one.")
    folded = Counter(name.lower() for name in used)
    if alike := [name for name in used if folded[name.lower()] > 1]:
        raise DataError(f"Columns {' and '.join(map(repr, alike))} differ in case only. Rename one.", columns=alike)
    if ROW_ID in (name.lower() for name in used) or "" in used:
        raise DataError(f"A column cannot be named {ROW_ID!r} or nothing. Rename it.")
    if odd := [name for name in used if "\0" in name]:
        raise DataError(f"A column cannot have NUL in its name, as {odd[0]!r} has. Rename it.", column=odd[0])


def infer(table: pa.Table, roles: Roles, known: Schema | None) -> Schema:
    """Find the schema that a frame's rows need, given the version they would be added to.

    A column whose type widens into the known one takes the known one, so a narrower frame, an
    all-null column or another layout of the same values makes no new version. Neither do whole
    numbers for a float or a decimal, and decimals of another scale, as long as each is exact there.
    Decimals that are not exact there widen the known type.

    Raises:
        DataError: A type cannot be kept, or is unknown because all values are null.
    """
    roles = roles.pick(table.column_names)
    now = {field.name: field.type for field in known} if known else {}
    declared = roles.declared or {}

    def column(name: str) -> pa.Field:
        kind = _kind_of(table, name)
        if name in declared and not pa.types.is_null(declared[name]):
            return pa.field(name, _declared_type(table[name], kind, pa.field(name, declared[name])))
        if name in now:
            return pa.field(name, _next_type(table[name], kind, now[name]))
        kind = _logical_of(table.schema.field(name))
        if pa.types.is_null(kind):
            remedy = (
                'Give it one: frame.astype({"%s": "Int64"}) or "string", in pandas.'
                if name in roles.keys
                else 'Give it one: frame.astype({"%s": "float64"}) or "string", in pandas; or declare the types of all features.'
            )
            raise DataError(
                f"Column {name!r} holds {'only nulls' if len(table) else 'nothing'}, so its type is unknown. "
                f"{remedy % name}",
                column=name,
            )
        return pa.field(name, kind)

    def time(name: str) -> pa.Field:
        kind = _time_type(name, _kind_of(table, name), roles.group)
        if name in now and (pa.types.is_timestamp(now[name]) or pa.types.is_date(kind) or not _has_values(table, name)):
            return pa.field(name, now[name])
        return pa.field(name, kind)

    features = roles.features or ()
    kept = [name for name in (known.feature_names if known else []) if name in features]
    return Schema(
        keys=tuple(_key(column(name)) for name in roles.keys),
        event_time=time(roles.event_time),
        created_time=time(roles.created_time) if roles.created_time else None,
        features=tuple(column(name) for name in [*kept, *(name for name in features if name not in kept)]),
    )


def _kind_of(table: pa.Table, name: str) -> pa.DataType:
    """Return the logical type of a column; null for one of nothing but missing values, whatever type it was given."""
    return _logical_of(table.schema.field(name)) if not len(table) or _has_values(table, name) else pa.null()


def _has_values(table: pa.Table, name: str) -> bool:
    return bool(table[name].null_count < len(table))


def _next_type(column: pa.ChunkedArray, kind: pa.DataType, now: pa.DataType) -> pa.DataType:
    """Return the type that a known column has with these values: its own if all fit, else one that both fit, or theirs."""
    if types.widens(kind, now) or types.fits(column, now):
        return now
    if not (pa.types.is_decimal(kind) and pa.types.is_decimal(now)):
        return types.together(now, kind) or kind
    short = types.shortest(column)
    return types.together(now, kind) or types.together(now, short) or short


def _declared_type(column: pa.ChunkedArray, kind: pa.DataType, declared: pa.Field) -> pa.DataType:
    numbers = all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (kind, declared.type))
    if numbers or types.widens(kind, declared.type) or types.fits(column, declared.type):
        return declared.type
    raise DataError(
        f"Column {declared.name!r} is {kind} but declared as {declared.type}. Cast it, or declare {kind}.",
        column=declared.name,
    )


def _logical_of(field: pa.Field) -> pa.DataType:
    try:
        return types.logical(field.type)
    except DataError as error:
        raise DataError(f"Column {field.name!r}: {error}", column=field.name) from None


def _key(field: pa.Field) -> pa.Field:
    unfit = pa.types.is_floating, pa.types.is_nested, pa.types.is_time, pa.types.is_duration
    if any(test(field.type) for test in unfit):
        raise DataError(
            f"Join key {field.name!r} is {field.type}, which cannot serve as a key. Make it a whole number or "
            "text (a pandas column with missing keys: .astype('Int64'); "
            f"a file of CSV: pandas.read_csv(path, dtype={{{field.name!r}: 'string'}})).",
            column=field.name,
        )
    return field


def _time_type(name: str, kind: pa.DataType, group: str) -> pa.DataType:
    if pa.types.is_date(kind):
        return kind
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_string(kind) or pa.types.is_null(kind):
        return pa.timestamp("us")
    raise DataError(
        f"Time column {name!r} of group {group!r} is {kind}. Make it a timestamp, a date or ISO 8601 text: "
        f'pandas.to_datetime(frame["{name}"], unit="s", utc=True), say.',
        column=name,
    )


def check_evolution(group: str, old: Schema, new: Schema) -> list[Change]:
    """List what changes from one version to the next, if rows of the old one can be read in the new one.

    Raises:
        DataError: A key or a time would change, or a type would not widen; it says the ways out.
    """
    if old.identity != new.identity:
        raise DataError(
            f"Group {group!r} is kept by {', '.join(old.identity)} (join keys and times), which a write cannot change "
            f"to {', '.join(new.identity)}. Use those columns, or write to a new group."
        )
    now = {field.name: field.type for field in new}
    for field in old:
        wide = now.get(field.name)
        if wide and not (types.widens(field.type, wide) or _is_time_to_finer(field.type, wide)):
            raise DataError(
                f"{field.name!r} of group {group!r} is {field.type} and cannot become {wide}: rows already stored "
                f"would not fit. {_way_out(field.type, wide)} it another name, or write to a new group.",
                column=field.name,
                old=str(field.type),
                new=str(wide),
            )
    return difference(old, new)


_IN_PANDAS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_unsigned_integer, "UInt64"),
    (pa.types.is_integer, "Int64"),
    (pa.types.is_floating, "Float64"),
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_string, "string"),
)
"""What pandas calls the types of which each value fits, if it has an exact place."""


def _way_out(old: pa.DataType, new: pa.DataType) -> str:
    """Say how a column is brought to the type it had, if it can be: the beginning of a sentence."""
    if pa.types.is_integer(old) and pa.types.is_integer(new):
        return f"A value lies beyond the range of {old}. Give the column"
    if not (pa.types.is_decimal(old) and pa.types.is_decimal(new)):
        cast = next((f"pandas: .astype({name!r})" for is_it, name in _IN_PANDAS if is_it(old)), f"to {old}")
        return f"Cast the column ({cast}), give"
    if max(old.precision - old.scale, new.precision - new.scale) + old.scale > types.LONGEST_DECIMAL:
        return f"Together they need more than {types.LONGEST_DECIMAL} digits. Give the column"
    return (
        f"Together they need more than {types.LONGEST_DECIMAL} digits. Round the column (pandas: .map(lambda value: value.quantize("
        f"Decimal('1E-{old.scale}'), context=Context(prec={types.LONGEST_DECIMAL})), na_action='ignore')), give"
    )


def _is_time_to_finer(old: pa.DataType, new: pa.DataType) -> bool:
    return bool(pa.types.is_date(old) and pa.types.is_timestamp(new))
