"""Open online tables, whose lookups follow a table to the rows that it uses now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, Unpack, overload

import pyarrow as pa

from seeknal.errors import NotOnlineError, StoreError, is_away
from seeknal.names import check_features, split_version
from seeknal.online import Stores
from seeknal.registry import OnlineTableRecord, Registry, ViewRecord, open_registry
from seeknal.registry.catalog import Catalog
from seeknal.serve.online_table import OnlineTable
from seeknal.serve.parts import Part, View, Where
from seeknal.serve.pushed import PushedRows
from seeknal.system.storage import Address, Location, open_storage

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from seeknal.define.request_feature import RequestFeature
    from seeknal.serve.answer_log import LogWriter
    from seeknal.values.frames.outputs import Arrow, Dicts, Pandas, Polars

    class _Rest(TypedDict, total=False):  # keyword arguments on which the type of the result does not depend
        with_status: bool
        at: int | None


_LOOK = 1.0
"""Seconds after which the registry is checked again, even if nothing in the online store has changed."""


class Erasures(dict[int, int]):
    """The time of the last erasure from each group, by the group's id, as of the last refresh; empty before the first.

    Args:
        registry: The registry of the home.
    """

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self._registry = registry

    def refresh(self) -> None:
        """Read the times again. Threads that read meanwhile never miss an erasure that was there before."""
        found = self._registry.last_erasures()
        self.update(found)
        for gone in self.keys() - found.keys():
            self.pop(gone, None)


class Watch(View):
    """Detects whether a table has changed since it was opened. While nothing changes, a check reads only a stamp.

    Args:
        registry: The registry of the home.
        record: The table.
    """

    erased: Erasures

    def __init__(self, registry: Registry, record: OnlineTableRecord) -> None:
        super().__init__(Erasures(registry))
        self._registry = registry
        self._record = record
        self._stamps: dict[bool, bytes] = {}
        self._due = 0.0

    def has_moved(self, *, recently: bool = False) -> bool:
        """Return whether the table has moved, or False while the registry is on a server that is away; see `look`.

        Such a server is not asked again before five times as long has passed as it took to fail, so that lookups seldom wait for it.

        Raises:
            StoreError: The registry cannot be read.
        """
        if (began := time.monotonic()) < self._due:
            return False
        try:
            return self.look(recently=recently)
        except StoreError as error:
            if not is_away(error):
                raise
            self._due = time.monotonic() + max(_LOOK, 5 * (time.monotonic() - began))
            return False

    def look(self, *, recently: bool = False) -> bool:
        """Return whether the table was deleted, or is now registered with another record.

        Args:
            recently: Overlook changes of the last second, if the registry is on a server. It is not asked then, and may be away.

        Raises:
            StoreError: The registry cannot be read.
        """
        stamp = self._registry.recent_stamp() if recently else self._registry.stamp()
        if stamp == self._stamps.get(recently):
            return False
        if self._registry.tables(self._record.project, self._record.name) != [self._record]:
            return True
        self.erased.refresh()
        self._stamps[recently] = stamp
        return False


class Opener:
    """Opens online tables.

    Args:
        catalog: The home's catalog.
        stores: The online stores.
        logs: Stores the answers that are logged.
    """

    def __init__(self, catalog: Catalog, stores: Stores, logs: LogWriter) -> None:
        self._catalog = catalog
        self._stores = stores
        self._logs = logs

    def __reduce__(self) -> tuple[object, tuple[Address, Stores, LogWriter]]:
        return _opener_of, (self._catalog.storage.address, self._stores, self._logs)

    def open(
        self,
        table: OnlineTableRecord,
        view: View | None = None,
        functions: Sequence[RequestFeature] | None = None,
    ) -> OnlineTable:
        """Open a table at the versions that its record names.

        Args:
            table: The table.
            view: What the caller knows of the registry, and keeps up to date. None: what the registry says now.
            functions: The functions of the feature view that it serves, if the caller has them. None: they are imported.

        Raises:
            DefinitionError: A function cannot be imported, or its code has changed since it was registered.
        """
        parts, served = self.parts(table, view), self._view(table)
        if served is None or (served.content.is_plain and not table.log):
            return OnlineTable(table, parts)
        from seeknal.serve.views import ServedView

        made = ServedView(table, parts, served.content, functions)
        if table.log:
            from seeknal.serve.answer_log import AnswerLog

            made.log = AnswerLog(made.layout(served), table.log, self._logs)
        return made

    def parts(self, table: OnlineTableRecord, view: View | None = None) -> list[Part]:
        """Return the features that a table takes from each group, one part for each of its lookups; see `open`."""
        view, parts = view or View(self._catalog.registry.last_erasures()), []
        place, store = self._stores.shown(table.target), self._stores.connect(table.target)
        for lookup in table.lookups:
            record, known = self._catalog.group_and_version(lookup.group, lookup.project, lookup.version)
            codec = known.codec
            version = None if record.windowed else lookup.version
            pushed = PushedRows(self._catalog.pushes, self._catalog.origin(record).stream, version, codec)
            parts.append(Part(lookup, codec, Where(store, place, pushed), table, record, view))
        return parts

    def _view(self, table: OnlineTableRecord) -> ViewRecord | None:
        """Return the version of a view that a table serves; None for a table that only looks up features."""
        found = self._catalog.view_of(table)
        if found is None and split_version(table.name)[1] is not None:
            raise NotOnlineError(f"Feature view {table.label} was deleted, so it is no longer served.")
        return found

    def watched(
        self, table: OnlineTableRecord, functions: Sequence[RequestFeature] | None = None
    ) -> tuple[OnlineTable, Watch]:
        """Open a table, and return it with the watch that detects whether it has moved."""
        watch = Watch(self._catalog.registry, table)
        return self.open(table, watch, functions), watch

    def again(self, before: OnlineTable) -> tuple[OnlineTable, Watch]:
        """Open a table again that has moved.

        Raises:
            NotOnlineError: It was deleted, or replaced by one with other keys, types or groups, or fewer features.
        """
        record = before.record
        found = self._catalog.registry.tables(record.project, record.name)
        if not found:
            raise NotOnlineError(f"Online table {record.label!r} is not online: it was deleted. Serve it again.")
        table, watch = self.watched(found[0], before.functions)
        if not _goes_on(before, table):
            raise NotOnlineError(
                f"Online table {record.label!r} was replaced. It now has {table.record}. It had {record}. Open it again, or "
                "serve the old features under another name."
            )
        return table, watch


def _opener_of(address: Address, stores: Stores, logs: LogWriter) -> Opener:
    return Opener(Catalog(open_storage(address), open_registry(address), _no_table), stores, logs)


def _no_table(location: Location) -> NoReturn:
    raise AssertionError(f"A lookup reads no offline table, and not {location}.")


def _goes_on(old: OnlineTable, new: OnlineTable) -> bool:
    """Return whether a new table has an old one's keys and all its features, in their types, of the same groups."""
    origins = {(part.lookup.project, part.lookup.group): part.origin for part in new.parts}
    same = all(origins.get((part.lookup.project, part.lookup.group)) == part.origin for part in old.parts)
    kinds = new.kinds
    return same and old.keys == new.keys and all(kinds.get(name) == kind for name, kind in old.kinds.items())


class ServedTable:
    """A named selection of online features, which are looked up by key for as long as the table is served.

    It follows the table: a call returns all that was loaded before it, whichever process loaded it.

    Args:
        opener: Opens the table.
        record: The registered table.
    """

    def __init__(self, opener: Opener, record: OnlineTableRecord) -> None:
        self._opener = opener
        self._now = opener.watched(record)
        self._due = time.monotonic() + _LOOK

    def __reduce__(self) -> tuple[type[ServedTable], tuple[Opener, OnlineTableRecord]]:
        return ServedTable, (self._opener, self.record)

    @property
    def record(self) -> OnlineTableRecord:
        """The registered table as of the last look."""
        return self._now[0].record

    @property
    def parts(self) -> list[Part]:
        """The features that the table takes from each group, one part for each of its lookups."""
        return self._now[0].parts

    @property
    def keys(self) -> list[str]:
        """The names of the join keys that a request must contain."""
        return self._now[0].keys

    @property
    def features(self) -> list[str]:
        """The names of the table's features."""
        return self._now[0].features

    @property
    def key_fields(self) -> list[pa.Field]:
        """The join keys with their types."""
        return self._now[0].key_fields

    @property
    def request_fields(self) -> list[pa.Field]:
        """The request values that a row must have, with their types, if the table serves a view that has some."""
        return self._now[0].request_fields

    @overload
    def get_features(
        self, keys: object, output: Pandas = "pandas", features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> pd.DataFrame: ...
    @overload
    def get_features(
        self, keys: object, output: Polars, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> pl.DataFrame: ...
    @overload
    def get_features(
        self, keys: object, output: Arrow, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> pa.Table: ...
    @overload
    def get_features(
        self, keys: object, output: Dicts, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> list[dict[str, Any]]: ...
    @overload
    def get_features(
        self, keys: object, output: str, features: Sequence[str] | None = None, **rest: Unpack[_Rest]
    ) -> Any: ...

    def get_features(
        self,
        keys: object,
        output: str = "pandas",
        features: Sequence[str] | None = None,
        *,
        with_status: bool = False,
        at: int | None = None,
    ) -> Any:
        """Return the newest features of some entities; see `OnlineTable.get_features`.

        Raises:
            NotOnlineError: The table was deleted, or created again without features that it had.
        """
        features = check_features(features)
        table = self._now[0] if time.monotonic() < self._due else self._look(recently=True)
        while True:
            try:
                return table.get_features(keys, output, features, with_status=with_status, at=at)
            except NotOnlineError:  # the table may have moved to other rows; if it has not, they are missing
                before, table = table, self._look()
                if table is before:
                    raise

    def _look(self, *, recently: bool = False) -> OnlineTable:
        """Return the table as it is registered now, opened again if it has moved."""
        table, watch = self._now
        if watch.has_moved(recently=True) if recently else watch.look():
            self._now = self._opener.again(table)
        self._due = time.monotonic() + _LOOK
        return self._now[0]
