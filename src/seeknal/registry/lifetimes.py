"""The lifetimes of groups: a group's table is created while the group is registered, and both are deleted in one step.

A group that was deleted and created again is another group, with another id and another table. A call that began on the old one
must neither change the new one nor leave a table that no group has.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from seeknal.errors import DefinitionError, GroupDeletedError, SeeknalError, StoreError, is_away
from seeknal.names import quoted
from seeknal.registry.protocol import Registry
from seeknal.registry.records import GroupRecord, Load
from seeknal.system.postgres.locks import check_held
from seeknal.system.storage import Storage

if TYPE_CHECKING:
    from seeknal.define.schema import Schema
    from seeknal.offline import OfflineTable


class Lifetimes:
    """The lifetimes of the groups of a home.

    Args:
        storage: The storage of the home.
        registry: Its registry.
    """

    def __init__(self, storage: Storage, registry: Registry) -> None:
        self._registry = registry
        self._trash = storage.trash
        self._lock = storage.lock("groups")

    def check(self, record: GroupRecord) -> None:
        """Check that a group is still registered. If it is being deleted, wait until it is.

        Raises:
            GroupDeletedError: It was deleted.
        """
        with self._lock.shared():
            self._check(record)

    @contextmanager
    def using(self, *records: GroupRecord) -> Iterator[None]:
        """Say so if an error of the block comes from the deletion of a group that it works on.

        Raises:
            GroupDeletedError: The block raised an error, and one of the groups was deleted.
        """
        try:
            yield
        except SeeknalError as error:
            for record in () if is_away(error) else records:
                try:
                    self.check(record)
                except GroupDeletedError as deleted:
                    raise deleted from error
                except StoreError:  # it cannot be asked now, and the first error says why
                    break
            raise

    def begin(self, record: GroupRecord, offline: OfflineTable, schema: Schema) -> None:
        """Create the table of a registered group, unless there is one.

        Raises:
            GroupDeletedError: The group was deleted.
        """
        with self._lock.shared():
            self._check(record)
            check_held()
            offline.create(schema)

    @contextmanager
    def staying(self, record: GroupRecord) -> Iterator[None]:
        """Keep a group from being deleted during a block, such as the source of a windowed group while that is registered.

        Raises:
            GroupDeletedError: It was deleted.
        """
        with self._lock.shared():
            self._check(record)
            yield

    def end(self, record: GroupRecord, offline: OfflineTable, drop: Callable[[Load], None]) -> None:
        """Move the table of a group to the trash, and remove the group from the registry.

        If the process is killed in between, the group has no table, and deleting it again removes the rest.

        Args:
            record: The group.
            offline: Its table.
            drop: Removes the rows of a load from its online store. It is called before another group can take the name, and
                for all loads: one may have ended after the caller removed the online rows. A load that ends later removes its
                rows itself.

        Raises:
            DefinitionError: Windowed groups are computed from the group. Nothing was removed.
        """
        with self._lock.exclusive():
            self.refuse_source(record)
            offline.location.end_table(self._trash.at(uuid.uuid4().hex))
            for load in self._registry.delete_group(record):
                drop(load)

    def refuse_source(self, record: GroupRecord, leaving: Sequence[GroupRecord] = ()) -> None:
        """Check that no windowed group is computed from a group, except those given.

        Raises:
            DefinitionError: Some are; the message names them.
        """
        users = [one.label for one in self._registry.windowed_groups(record) if one not in leaving]
        if users:
            that = "that" if len(users) == 1 else "these"
            raise DefinitionError(f"{record.label} is the source of {quoted(users)}. Delete {that} first.")

    def _check(self, record: GroupRecord) -> None:
        known = self._registry.group(record.project, record.name)
        if known is None or known.id != record.id:
            raise GroupDeletedError.of(record.label)
