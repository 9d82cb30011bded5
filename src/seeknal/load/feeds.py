"""The versions of groups that feed an online table. The table follows its groups, but keeps its features and their types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seeknal.registry import GroupRecord, OnlineTableRecord, PinnedLookup, Version
from seeknal.registry.catalog import Catalog


@dataclass(frozen=True)
class Feed:
    """The version that feeds one lookup of an online table.

    Args:
        record: The group.
        now: The lookup as it is registered.
        goal: The lookup as it should be: at the group's current version, if that still has the lookup's features.
        cut_off: Why the current version cannot feed it; None if it can, or if the lookup is pinned.
    """

    record: GroupRecord
    now: PinnedLookup
    goal: PinnedLookup
    cut_off: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the lookup stays at its version on purpose."""
        return bool(self.goal.pinned)

    @property
    def has_moved(self) -> bool:
        """Whether the lookup should move from the version that feeds it now to another one."""
        return self.goal.version != self.now.version


def feeds(catalog: Catalog, table: OnlineTableRecord) -> list[Feed]:
    """Return which version feeds each lookup of a table.

    Raises:
        DefinitionError: A group no longer exists.
    """
    known = {
        one: catalog.group_and_versions(*one) for one in {(lookup.group, lookup.project) for lookup in table.lookups}
    }
    return [feed(catalog, *known[lookup.group, lookup.project], table, lookup) for lookup in table.lookups]


def cut_off(catalog: Catalog, table: OnlineTableRecord) -> tuple[str, ...]:
    """Return the reasons why groups no longer feed a table; empty if all do."""
    return tuple(dict.fromkeys(one.cut_off for one in feeds(catalog, table) if one.cut_off))


def feed(
    catalog: Catalog, record: GroupRecord, versions: Sequence[Version], table: OnlineTableRecord, lookup: PinnedLookup
) -> Feed:
    """Return which version feeds a lookup of a table.

    Args:
        catalog: The catalog that has the group.
        record: The group.
        versions: All its versions.
        table: The table.
        lookup: The lookup.
    """
    known = {version.number: version for version in versions}
    current = next((version for version in versions if version.is_current), None)
    if current is None or lookup.version not in known:
        return Feed(record, lookup, lookup, f"version {lookup.version} of {record.label} is gone")
    meant = _meant(catalog, record, table, lookup, known[lookup.version])
    if meant.pinned:
        return Feed(record, lookup, meant)
    if meant.whole:  # the default table takes all features, whichever these are, so nothing cuts it off
        return Feed(record, lookup, whole(record, current))
    if problem := lack(record, meant, known[lookup.version], current):
        return Feed(record, lookup, meant, problem)
    return Feed(record, lookup, replace(meant, version=current.number))


def uses(table: OnlineTableRecord, record: GroupRecord) -> bool:
    """Return whether a table uses a group."""
    return any(lookup.is_of(record) for lookup in table.lookups)


def whole(record: GroupRecord, version: Version, *, pinned: bool = False) -> PinnedLookup:
    """Return the lookup of all features of a version, under their own names."""
    schema = version.schema
    keys, features = (tuple((name, name) for name in names) for names in (schema.key_names, schema.feature_names))
    return PinnedLookup(record.project, record.name, version.number, keys, features, pinned, whole=True)


def _meant(
    catalog: Catalog, record: GroupRecord, table: OnlineTableRecord, lookup: PinnedLookup, version: Version
) -> PinnedLookup:
    """Return a lookup with `pinned` and `whole` filled in, if it was registered before these were recorded.

    If its version was not the current one when the table was made, the caller had named that version, so the lookup is pinned.
    """
    if lookup.pinned is not None:
        return lookup
    registry = catalog.registry
    # The versions as they were when the table was created: which one was current then tells what the caller meant.
    then = registry.versions(record, until=registry.snapshot_at(record, table.created_at))
    pinned = any(one.is_current and one.number != lookup.version for one in then)
    all_of_it = whole(record, version, pinned=pinned)
    plain = replace(lookup, pinned=pinned, whole=True)
    is_own = (table.project, table.name, len(table.lookups)) == (record.project, record.name, 1)
    return all_of_it if is_own and plain == all_of_it else replace(lookup, pinned=pinned)


def lack(record: GroupRecord, lookup: PinnedLookup, old: Version, new: Version) -> str | None:
    """Return which feature of a lookup is missing in a new version, or has another type there than in the old one; None: none."""
    if old.number == new.number:
        return None
    had, has = ({field.name: field.type for field in version.schema.features} for version in (old, new))
    for name, _ in lookup.features:
        if name not in has:
            return f"version {new.number} of {record.label} lacks {name!r}"
        # A wider type is another type, too: the model was trained on values of this one.
        if has[name] != had[name]:
            return f"version {new.number} of {record.label} has {name!r} as {has[name]}, not {had[name]}"
    return None
