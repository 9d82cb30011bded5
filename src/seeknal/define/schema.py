"""Schemas: the names and types of a group's keys, times and features. Each version of a group has one schema.

`infer` finds the schema of the rows to write, `check_evolution` decides whether stored rows can be read in it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from seeknal.define.columns import check_columns
from seeknal.errors import DataError
from seeknal.values import types
from seeknal.values.casting import fits, shortest


@dataclass(frozen=True)
class Schema:
    """The columns of a version by role. All types are logical; see `seeknal.values.types`."""

    keys: tuple[pa.Field, ...]
    event_time: pa.Field
    created_time: pa.Field | None
    features: tuple[pa.Field, ...]

    def __iter__(self) -> Iterator[pa.Field]:
        """Yield all columns in this order: keys, event time, created time, features."""
        yield from self.keys
        yield self.event_time
        if self.created_time is not None:
            yield self.created_time
        yield from self.features

    @property
    def names(self) -> list[str]:
        """The names of all columns, in the order of iteration."""
        return [field.name for field in self]

    @property
    def feature_names(self) -> list[str]:
        """The names of the features."""
        return [field.name for field in self.features]

    def feature(self, name: str) -> pa.Field:
        """Return the feature of this name."""
        return next(field for field in self.features if field.name == name)

    def field(self, name: str) -> pa.Field:
        """Return the column of this name."""
        return next(field for field in self if field.name == name)

    def stored_type(self, name: str) -> pa.DataType:
        """Return the type of a column in the offline table."""
        return self.stored_types[self.names.index(name)]

    @property
    def key_names(self) -> list[str]:
        """The names of the join keys."""
        return [field.name for field in self.keys]

    @property
    def identity(self) -> list[str]:
        """The names of the join keys and times, which are the same in all versions of a group."""
        return [field.name for field in self if field not in self.features]

    @property
    def logical_types(self) -> list[pa.DataType]:
        """The types of all columns as users see them."""
        return [field.type for field in self]

    @property
    def stored_types(self) -> list[pa.DataType]:
        """The types of all columns in the offline table. Event and created times are UTC timestamps in microseconds."""
        times = {self.event_time.name, self.created_time.name if self.created_time else None}
        return [types.UTC if field.name in times else types.stored(field.type) for field in self]

    def describe(self) -> list[tuple[str, str, str]]:
        """Return the name, type and role of each column."""
        return [(field.name, str(field.type), self._role(field)) for field in self]

    def _role(self, field: pa.Field) -> str:
        if field.name in self.key_names:
            return "join key"
        if field.name == self.event_time.name:
            return "event time"
        return "feature" if field.name in self.feature_names else "created time"

    def dumps(self) -> str:
        """Serialize the schema as JSON.

        It has the Arrow schema in base64, and the columns as in `describe` for readers without Arrow.
        """
        roles = pa.schema([field.with_metadata({"role": self._role(field)}) for field in self])
        arrow = base64.b64encode(roles.serialize().to_pybytes()).decode()
        return json.dumps({"columns": self.describe(), "arrow": arrow}, ensure_ascii=False)

    @classmethod
    def loads(cls, text: str) -> Schema:
        """Deserialize what `dumps` wrote, or the base64 Arrow schema alone, which was the first format."""
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
    """A column that differs between two schemas, with its old and new type. None: that schema lacks the column."""

    name: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"added {self.name} ({self.new})"
        return f"removed {self.name}" if self.new is None else f"modified {self.name} ({self.old} to {self.new})"


def difference(old: Schema, new: Schema) -> list[Change]:
    """Return the columns that were added, removed or modified: those of the old schema first, each in schema order."""
    before = {field.name: str(field.type) for field in old}
    after = {field.name: str(field.type) for field in new}
    names = [*before, *(name for name in after if name not in before)]
    return [Change(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


@dataclass(frozen=True)
class Roles:
    """The roles of a frame's columns in a group.

    Args:
        group: The group's name, for messages.
        keys: The join keys, in order.
        event_time: The event time column.
        created_time: The created time column, if the group has one.
        features: The features, in order. None: all other columns; see `pick`.
        declared: Declared types by name of the feature.
    """

    group: str
    keys: tuple[str, ...]
    event_time: str
    created_time: str | None = None
    features: tuple[str, ...] | None = None
    declared: Mapping[str, pa.DataType] | None = None

    @property
    def named(self) -> list[str]:
        """The names of the columns that a frame must have."""
        created = [self.created_time] if self.created_time else []
        return [*self.keys, self.event_time, *created, *(self.features or ())]

    def pick(self, columns: Sequence[str]) -> Roles:
        """Return these roles with the features filled in: unless they were named, all columns without another role.

        Raises:
            DefinitionError: A column has two roles.
            DataError: Two names differ in case only, a name cannot be used, or there are no features.
        """
        rest = () if self.features else tuple(name for name in columns if name not in self.named)
        check_columns([*self.named, *rest])
        if not (self.features or rest):
            raise DataError(f"The frame for group {self.group!r} has no features besides {', '.join(self.named)}.")
        return replace(self, features=self.features or rest)


def infer(table: pa.Table, roles: Roles, known: Schema | None) -> Schema:
    """Return the schema that a frame's rows need, given the version to which they would be added.

    A column takes the known type if that is at least as wide. So a narrower frame, an all-null column or another
    layout of the same values makes no new version. Neither do whole numbers for a float or decimal feature, nor
    decimals of another scale, if each value is exact in the known type. Other decimals widen it.

    | known type    | values in the frame  | type in the result                          |
    |---------------|----------------------|---------------------------------------------|
    | double        | int64: 1, 2          | double                                      |
    | double        | int64: 2**53 + 1     | int64, which `check_evolution` then refuses |
    | int8          | int64: 1             | int64, which is wider                       |
    | decimal(3, 1) | decimal(4, 2): 12.50 | decimal(3, 1)                               |
    | decimal(3, 1) | decimal(4, 2): 12.25 | decimal(4, 2)                               |

    Raises:
        DefinitionError: A column has two roles.
        DataError: A type cannot be stored or is unknown, or values do not fit the role or declared type of a column.
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
        # A new column without values takes the type that the frame gave it. Only one without a type is refused.
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
        # A known timestamp keeps its unit and zone, whatever the frame has. Only a date can become a timestamp.
        if name in now and (pa.types.is_timestamp(now[name]) or pa.types.is_date(kind) or not _has_values(table, name)):
            return pa.field(name, now[name])
        return pa.field(name, kind)

    features = roles.features or ()
    # Known features keep their order, so that a frame with its columns in another order makes no new version.
    kept = [name for name in (known.feature_names if known else []) if name in features]
    return Schema(
        keys=tuple(check_key(column(name)) for name in roles.keys),
        event_time=time(roles.event_time),
        created_time=time(roles.created_time) if roles.created_time else None,
        features=tuple(column(name) for name in [*kept, *(name for name in features if name not in kept)]),
    )


def _kind_of(table: pa.Table, name: str) -> pa.DataType:
    """Return the logical type of a column. It is null if the column has rows but no values, whatever its own type.

    A library gives even an empty column some type, such as float64 in pandas, which says nothing about its values.
    """
    return _logical_of(table.schema.field(name)) if not len(table) or _has_values(table, name) else pa.null()


def _has_values(table: pa.Table, name: str) -> bool:
    return bool(table[name].null_count < len(table))


def _next_type(column: pa.ChunkedArray, kind: pa.DataType, now: pa.DataType) -> pa.DataType:
    """Return the type of a known column once it has these values too.

    That is the known type if all values fit it, else the narrowest type for both. If there is none, it is the type of
    the new values, which `check_evolution` then refuses.
    """
    if types.widens(kind, now) or fits(column, now):
        return now
    if not (pa.types.is_decimal(kind) and pa.types.is_decimal(now)):
        return types.together(now, kind) or kind
    # The two types together may need more than 38 digits, although the values themselves need fewer.
    short = shortest(column)
    return types.together(now, kind) or types.together(now, short) or short


def _declared_type(column: pa.ChunkedArray, kind: pa.DataType, declared: pa.Field) -> pa.DataType:
    # Numbers are checked value by value when the rows are cast for storage.
    numbers = all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (kind, declared.type))
    if numbers or types.widens(kind, declared.type) or fits(column, declared.type):
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


def check_key(field: pa.Field) -> pa.Field:
    """Check that a column can be a join key, and return it.

    Raises:
        DataError: Its type has no exact equality, or is not one value.
    """
    unfit = pa.types.is_floating, pa.types.is_nested, pa.types.is_time, pa.types.is_duration
    if any(test(field.type) for test in unfit):
        raise DataError(
            f"Join key {field.name!r} is {field.type}, which cannot serve as a key. Make it a whole number or "
            "text (a pandas column with missing keys: .astype('Int64'); "
            f"a CSV file: pandas.read_csv(path, dtype={{{field.name!r}: 'string'}})).",
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
        f"Time column {name!r} of group {group!r} is {kind}. Make it a timestamp, a date or ISO 8601 text, "
        f'for example with pandas.to_datetime(frame["{name}"], unit="s", utc=True).',
        column=name,
    )


def check_evolution(group: str, old: Schema, new: Schema) -> list[Change]:
    """Check that rows of the old version can be read in the new one, and return what changes.

    Raises:
        DataError: The join keys or times would change, or a type would not widen. The message gives the remedies.
    """
    if old.identity != new.identity:
        raise DataError(
            f"Group {group!r} has the join keys and times {', '.join(old.identity)}, which a write cannot change "
            f"to {', '.join(new.identity)}. Use its own columns, or write to a new group."
        )
    now = {field.name: field.type for field in new}
    for field in old:
        wide = now.get(field.name)
        # A date counts as its midnight, so a time column of dates can become one of timestamps.
        is_finer = wide and field not in old.keys and _is_time_to_finer(field.type, wide)
        if wide and not (types.widens(field.type, wide) or is_finer):
            raise DataError(
                f"{field.name!r} of group {group!r} is {field.type} and cannot become {wide}, to which it does not "
                f"widen. {_way_out(field.type, wide)} it another name, or write to a new group.",
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
"""The pandas types to advise for a cast back: each can hold all values of its kind, and nulls."""


def _way_out(old: pa.DataType, new: pa.DataType) -> str:
    """Return advice for a column that cannot change type, as the beginning of a sentence: to cast it if possible."""
    if pa.types.is_integer(old) and pa.types.is_integer(new):
        return f"A value lies beyond the range of {old}. Give the column"
    if not (pa.types.is_decimal(old) and pa.types.is_decimal(new)):
        rounded = ".round()" if pa.types.is_integer(old) and pa.types.is_floating(new) else ""
        cast = next((f"pandas: {rounded}.astype({name!r})" for is_it, name in _IN_PANDAS if is_it(old)), f"to {old}")
        return f"Cast the column ({cast}), give"
    # Rounding the values to the old scale helps only if their digits before the point then leave room for it.
    if max(old.precision - old.scale, new.precision - new.scale) + old.scale > types.LONGEST_DECIMAL:
        return f"Together they need more than {types.LONGEST_DECIMAL} digits. Give the column"
    return (
        f"Together they need more than {types.LONGEST_DECIMAL} digits. Round the column (pandas: .map(lambda value: value.quantize("
        f"Decimal('1E-{old.scale}'), context=Context(prec={types.LONGEST_DECIMAL})), na_action='ignore')), give"
    )


def _is_time_to_finer(old: pa.DataType, new: pa.DataType) -> bool:
    return bool(pa.types.is_date(old) and pa.types.is_timestamp(new))
