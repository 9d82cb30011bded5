"""Storing the logged answers of feature views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from seeknal.define.event_group import EventGroup
from seeknal.errors import DataError, DefinitionError, notice

if TYPE_CHECKING:
    from seeknal.home.core import Core
    from seeknal.serve.answer_log import Block, Entry, Layout
    from seeknal.system.storage import Address


class HomeLogWriter:
    """Appends logged answers to their event sources; see `seeknal.serve.answer_log.LogWriter`.

    Args:
        core: What the parts of the store share.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    @property
    def address(self) -> Address:
        """The address of the home of the logs."""
        return self._core.storage.address

    def register(self, group: EventGroup) -> None:
        """Register the event source of a log.

        Raises:
            DefinitionError: The project has another group of that name.
        """
        known = self._core.registry.group(group.project or "", group.name)
        if known is not None and known.group.description != group.description:
            raise DefinitionError(
                f"The log of the view would be {known.label}, which is another {known.kind}. Delete that, or serve the view without log.",
                name=known.name,
            )
        self._core.catalog.register(group, known)

    def write(self, log: Layout, items: Sequence[Entry | Block]) -> None:
        """Append logged rows, except those taken before the last erasure of an entity from the log was complete.

        Raises:
            StoreError: They cannot be stored now.
        """
        from seeknal.home.groups import Groups

        core, group = self._core, log.group
        # No erasure runs meanwhile. Each records its end, so that no row that was taken before it is written after it.
        with core.catalog.keeping():
            record = core.registry.group(group.project or "", group.name)
            if record is None:
                notice(
                    f"{len(items):,} answers of {log.view.label} are not logged, because its log was deleted. Serve the view again."
                )
                return
            erased = core.registry.last_erasures().get(record.id, -1)
            kept = [one for one in items if one.taken > erased]
            try:
                written = Groups(core).write(group, log.table(kept), mode="append") if kept else None
            except (DataError, DefinitionError) as error:
                notice(f"{len(kept):,} answers of {log.view.label} cannot be logged: {error}")
                return
        if written:
            core.catalog.tidy(record, written.snapshot)
