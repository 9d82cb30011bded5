"""Reproducible training sets: the question, the snapshots that were read, and the hash of the answer are saved."""

from __future__ import annotations

import uuid
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from seeknal.define.splits import ColumnSplit, Split, split_of
from seeknal.engine import Engine
from seeknal.errors import DataError, DefinitionError, StoreError
from seeknal.join import retrieval
from seeknal.join.inquiry import SPINE, Inquiry
from seeknal.join.splits import parts_of
from seeknal.join.viewed import Viewed, columns
from seeknal.names import check_name
from seeknal.offline import Snapshot
from seeknal.registry import GroupRecord, PinnedLookup, Question, TrainingSetRecord, ViewUse
from seeknal.registry.catalog import Catalog
from seeknal.registry.source import Source
from seeknal.system.locks import while_holding
from seeknal.system.progress import OnProgress, no_progress
from seeknal.system.storage import Location
from seeknal.values import frames
from seeknal.values.arguments import check_flag, check_progress
from seeknal.values.casting import recast
from seeknal.values.content_hash import check_types, content_hash
from seeknal.values.times import now
from seeknal.write import leftovers

_IF_LOST = "If its files are lost, delete it: seeknal delete dataset NAME."
_SPINE, _OLD_SPINE, _ROWS = "spine.arrow", "spine.parquet", "rows.parquet"
"""The files of a training set. Early releases kept spines in Parquet files."""


@dataclass(frozen=True)
class Viewing:
    """The feature view that a training set belongs to.

    Args:
        project: The project of the view, and so of the training set.
        viewed: Its sources, and what it makes of them.
        use: What is saved of it.
    """

    project: str
    viewed: Viewed
    use: ViewUse

    @property
    def used(self) -> list[str]:
        """The columns of the spine that are used besides keys and moment: request values, and those of the split."""
        split = self._split
        by = [split.column] if isinstance(split, ColumnSplit) else list(getattr(split, "by", None) or ())
        return list(dict.fromkeys([*self.viewed.used, *by]))

    @property
    def _split(self) -> Split | None:
        return None if self.use.split is None else split_of(self.use.split)

    def check_split(self, spine: pa.Table) -> None:
        """Check that the split knows the part of each row of the spine.

        Raises:
            DataError: A value of the split's column names no part.
        """
        if isinstance(split := self._split, ColumnSplit):
            parts_of(split, spine, "", ())


class TrainingSets:
    """The saved training sets of a store: their spines and rows in files, the rest in the registry.

    Args:
        catalog: The home's catalog.
        engine: Returns the engine that joins rows. It is called only when rows are joined.
    """

    def __init__(self, catalog: Catalog, engine: Callable[[], Engine]) -> None:
        self._catalog = catalog
        self._saved = catalog.storage.training_sets
        self._engine = engine

    def all(self, *, project: str | None = None) -> list[TrainingSetRecord]:
        """Return the saved training sets, of one project or of all."""
        return self._catalog.registry.training_sets(project)

    def get(self, name: str, *, project: str | None = None) -> TrainingSetRecord:
        """Return the training set of a name; without a project, the only one.

        Raises:
            DefinitionError: There is none, or several projects have one.
        """
        return self._catalog.training_set(name, project)

    def save(
        self,
        name: str,
        asked: Inquiry,
        *,
        keep_rows: bool = False,
        on_progress: OnProgress = no_progress,
        viewing: Viewing | None = None,
    ) -> TrainingSetRecord:
        """Build a training set and save what is needed to rebuild it.

        Args:
            name: The name of the training set, new in the project of the first lookup.
            asked: The features, and the rows for which they are requested.
            keep_rows: Save the answer's rows too.
            on_progress: Called with each step.
            viewing: The feature view that it belongs to. None: none.

        Raises:
            DefinitionError: The name is taken, or is not a valid name, or nulls would be filled.
            DataError: A column of the spine cannot be saved, or names no part of the split.
        """
        check_progress(on_progress)
        keep_rows = check_flag("rows", keep_rows)
        sources = (
            viewing.viewed.sources if viewing else [self._catalog.source(one, asked.as_of) for one in asked.lookups]
        )
        project = viewing.project if viewing else sources[0].record.project
        question = asked.question
        self._check_new(project, name, asked)
        spine = retrieval.spine_table(sources, asked.spine, question, viewing.used if viewing else ())
        if viewing and spine is not None:
            viewing.check_split(spine)
        sources = [self._catalog.definitions.settled(source) for source in sources]
        self._saved.create()
        folder = f"{project}/{name}-{uuid.uuid4().hex[:8]}"
        place = self._saved.at(folder)
        # Held until the snapshots are pinned, so that no vacuum removes their files before.
        readings = [self._catalog.offline(source.stored.project, source.stored.name).reading for source in sources]

        def keep() -> TrainingSetRecord:
            with ExitStack() as undo:
                undo.callback(place.remove)  # on failure, unless `_register` has taken the callback over
                place.create()
                if spine is not None:
                    _keep_spine(spine, place.at(_SPINE))
                answer, use = self._answer(sources, question, place, on_progress, viewing)
                on_progress("Keeping the training set")
                if keep_rows:
                    _keep_rows(answer, place.at(_ROWS))
                pins, kept = tuple(map(_pin, sources)), (len(answer), content_hash(answer), keep_rows)
                made = TrainingSetRecord(project, name, pins, question, *kept, now(), folder, use)
                self._register(made, undo)
            return made

        return while_holding([*readings, self._catalog.saving], keep)

    def _check_new(self, project: str, name: str, asked: Inquiry) -> None:
        """Check that a training set can have a name, and that what is asked for can be saved."""
        check_name("training set", name)
        if asked.fills:
            raise DefinitionError(
                "A saved training set of groups has what is stored, nulls included. Save it without fill_nulls, or make it with a "
                "FeatureView(..., defaults={...}), which fills the nulls of its training sets."
            )
        if self._catalog.registry.training_sets(project, name):
            raise DefinitionError(
                f"Project {project!r} has a training set {name!r}, which does not change. Choose another name, or "
                f"delete it: seeknal dataset delete {project}/{name}."
            )

    def _register(self, made: TrainingSetRecord, undo: ExitStack) -> None:
        """Register a training set. Its files stay, unless the registration fails and the registry confirms that."""
        files, registry = undo.pop_all(), self._catalog.registry
        try:
            registry.add_training_set(made)
        except BaseException:  # an interrupt may come after the commit, so only the registry knows
            if all(one.folder != made.folder for one in registry.training_sets(made.project, made.name)):
                files.close()
            raise

    def reproduce(self, record: TrainingSetRecord, on_progress: OnProgress = no_progress) -> pa.Table:
        """Rebuild a training set from the snapshots that it read, and check its content hash.

        Raises:
            StoreError: The rows it read are gone, or give another answer.
        """
        sources = [self._source(pin) for pin in record.pins]
        viewing = None if record.view is None else self._viewing(record, record.view, sources)
        answer, _ = self._answer(sources, record.question, self._place(record), on_progress, viewing)
        on_progress("Comparing the content's hash")
        if (found := content_hash(answer)) != record.content_hash:
            raise StoreError(
                f"Training set {record.label} cannot be reproduced: its content hash was {record.content_hash}, and is "
                f"{found} now. The files of its groups were changed by somebody else, or the query engine was."
            )
        return answer

    def rows(self, record: TrainingSetRecord, on_progress: OnProgress = no_progress) -> pa.Table:
        """Return a training set's rows: the saved ones, or else reproduced ones."""
        return _read_kept(self._place(record).at(_ROWS)) if record.has_rows else self.reproduce(record, on_progress)

    def parts(self, record: TrainingSetRecord, table: pa.Table) -> pa.ChunkedArray:
        """Return the name of the part of each row of a split training set; null for rows in none.

        Args:
            record: The training set.
            table: Its rows.

        Raises:
            DataError: A column of the split is missing, or names no part.
        """
        assert record.view is not None  # noqa: S101 - the caller has looked
        assert record.view.split is not None  # noqa: S101 - the caller has looked
        return parts_of(split_of(record.view.split), table, record.question.date_col, ())

    def delete(self, record: TrainingSetRecord) -> None:
        """Delete a training set, its spine and its rows. The groups that it read stay."""
        with self._catalog.deleting():
            self.discard(record)
            leftovers.remove(self._catalog)

    def discard(self, record: TrainingSetRecord) -> None:
        """Delete a training set for a caller that holds the lock for deletions."""
        # If the process is killed in between, the folder is left over, and the next erasure, deletion or optimization removes it.
        self._catalog.registry.delete_training_set(record)
        self._place(record).remove()

    def users(self, record: GroupRecord) -> list[TrainingSetRecord]:
        """Return the training sets that read a group."""
        return [one for one in self._catalog.registry.training_sets() if any(pin.is_of(record) for pin in one.pins)]

    def snapshots(self, record: GroupRecord) -> list[Snapshot]:
        """Return the snapshots of a group that training sets need, of their own or of windowed groups over it."""
        records = [record, *self._catalog.registry.windowed_groups(record)]
        every = self._catalog.registry.training_sets()
        mine = {pin for one in every for pin in one.pins if any(pin.is_of(group) for group in records)}
        return [self._source(pin).snapshot for pin in mine]

    def holding(self, record: GroupRecord, entity: pa.Table) -> list[TrainingSetRecord]:
        """Return the training sets that an erasure of an entity from a group would change.

        These are the sets whose answer contains the entity, and all sets of windowed groups of other entities that are computed from
        the same events: a sum over a product has the purchases of all customers in it.
        """
        origin, keys = self._catalog.origin(record), set(entity.column_names)
        readers = {one.id: one for one in (record, origin, *self._catalog.registry.windowed_groups(origin))}
        found: dict[str, TrainingSetRecord] = {}
        for reader in readers.values():
            same = set(reader.group.entity.join_keys) == keys
            for one in self.users(reader):
                if self._holds(one, reader, entity) if same else self._reads(one, reader, entity):
                    found[one.label] = one
        return list(found.values())

    def _reads(self, one: TrainingSetRecord, record: GroupRecord, entity: pa.Table) -> bool:
        """Return whether a training set was computed from events of an entity, of another kind than that of the group."""
        for pin in one.pins:
            if pin.is_of(record):
                source = self._source(pin)
                offline = self._catalog.offline(source.stored.project, source.stored.name)
                if offline.holds(source.snapshot, entity):
                    return True
        return False

    def _holds(self, one: TrainingSetRecord, record: GroupRecord, entity: pa.Table) -> bool:
        # An answer to a spine has the spine's entities, so there is no need to reproduce it.
        rows = self.rows(one) if one.question.kind != SPINE else _read_spine(self._place(one))
        for pin in one.pins:
            if pin.is_of(record):
                names = dict(pin.keys)
                same = [_equal(rows[names[name]], entity[name][0]) for name in entity.column_names]
                if pc.any(reduce(pc.and_, same)).as_py():
                    return True
        return False

    def _answer(
        self,
        sources: Sequence[Source],
        question: Question,
        place: Location,
        on_progress: OnProgress,
        viewing: Viewing | None,
    ) -> tuple[pa.Table, ViewUse | None]:
        spine = _read_spine(place) if question.kind == SPINE else None
        if viewing is None:
            return retrieval.answer(self._engine(), sources, question, spine, on_progress), None
        rows = retrieval.Spine(frames.opened(spine), question.date_col, question.keep, also=viewing.used)
        found = columns(self._engine(), viewing.viewed, rows, question, on_progress)
        return found.beside(rows.frame, "arrow"), replace(viewing.use, unfinished=found.unfinished)

    def _viewing(self, record: TrainingSetRecord, use: ViewUse, sources: Sequence[Source]) -> Viewing:
        """Return the feature view that a saved training set belongs to.

        Raises:
            DefinitionError: The code of a function of the view has changed, or the view was deleted.
        """
        content = self._catalog.view(use.name, record.project, use.version).content
        return Viewing(record.project, Viewed.of(content, sources, use.until), use)

    def _source(self, pin: PinnedLookup) -> Source:
        """Return the source that a training set read: the pinned version and snapshot of a group."""
        record = self._catalog.group(pin.group, pin.project)
        version = self._catalog.version(record, pin.version, pin.snapshot)
        source = self._catalog.resolved(pin.lookup, record, version, self._catalog.snapshot(record, version))
        # The ttl of the time of saving, since the registered one may have changed.
        return replace(source.with_ttl(pin.ttl), ahead=pin.ahead)

    def _place(self, record: TrainingSetRecord) -> Location:
        return self._saved.at(record.folder)


def _pin(source: Source) -> PinnedLookup:
    lifetime = source.record.group.materialization.lifetime
    return source.pin(snapshot=source.snapshot.number, ttl=lifetime, ahead=source.ahead)


def _equal(column: pa.ChunkedArray, value: pa.Scalar) -> pa.ChunkedArray:
    """Return a mask of the rows whose key equals an entity's, whatever the width or unit of the column's type."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    try:  # Arrow cannot compare every pair of types without a cast
        return pc.equal(plain, value)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pc.equal(plain.cast(value.type, safe=False), value)


def _keep_spine(table: pa.Table, file: Location) -> None:
    """Write a spine to an Arrow file, which keeps its types exactly, including the unit of a timestamp."""
    with retrieval.leaving_out():
        check_types(table.schema)
    try:
        unified = table.unify_dictionaries()  # an Arrow file holds only one dictionary for each column
        with file.write() as sink, pa.ipc.new_file(sink, unified.schema) as writer:
            for batch in unified.to_batches():
                if batch.num_rows:  # Arrow 26 cannot read a file with an empty batch
                    writer.write_batch(batch)
    except pa.ArrowException as error:
        raise DataError(f"The spine cannot be kept: {error}. Cast or drop that column.") from None
    except OSError as error:
        raise StoreError(f"The training set cannot be kept: {error}.") from None


def _keep_rows(table: pa.Table, file: Location) -> None:
    ready = frames.for_parquet(table)
    try:
        with file.write() as sink:
            pq.write_table(ready, sink)
    except pa.ArrowException as error:
        with retrieval.leaving_out():
            frames.check_parquet(ready)
        raise DataError(f"The rows cannot be kept as Parquet: {error}.") from None
    except OSError as error:
        raise StoreError(f"The training set cannot be kept: {error}.") from None


def _read_spine(place: Location) -> pa.Table:
    if (old := place.at(_OLD_SPINE)) in place.list():
        return _read_rows(old)
    try:
        with place.at(_SPINE).read() as source:
            return pa.ipc.open_file(source).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"The training set cannot be read: {error}. {_IF_LOST}") from None


def _read_kept(file: Location) -> pa.Table:
    """Return saved rows in the types that they had. Parquet has no times in seconds, for example, and returns milliseconds.

    Dictionaries, which only columns of a spine can be, are as Parquet returns them: their values or, of text, another dictionary.
    """
    table, known = _read_parquet(file)
    saved = pa.ipc.read_schema(pa.py_buffer(b64decode(known[b"ARROW:schema"]))).types
    kinds = [now if pa.types.is_dictionary(then) else then for now, then in zip(table.schema.types, saved, strict=True)]
    return recast(table, kinds).replace_schema_metadata(table.schema.metadata)


def _read_rows(file: Location) -> pa.Table:
    return _read_parquet(file)[0]


def _read_parquet(file: Location) -> tuple[pa.Table, dict[bytes, bytes]]:
    """Return the rows of a Parquet file, and what Arrow wrote beside them."""
    try:
        with file.read() as source:
            opened = pq.ParquetFile(source)
            return opened.read(), opened.metadata.metadata
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"The training set cannot be read: {error}. {_IF_LOST}") from None
