"""Training sets that come back: what was asked, which snapshots were read, and the hash of the answer."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from seeknal import retrieval
from seeknal.catalog import Catalog
from seeknal.content import content_hash
from seeknal.engine import Engine
from seeknal.errors import DataError, DefinitionError, StoreError
from seeknal.feature_group import FeatureLookup
from seeknal.names import check_name
from seeknal.offline import Snapshot
from seeknal.registry import GroupRecord, Pin, Question, TrainingSetRecord
from seeknal.retrieval import Source
from seeknal.times import now


class TrainingSets:
    """Keeps training sets: their spines in files, the rest in the registry."""

    def __init__(self, catalog: Catalog, engine: Engine) -> None:
        self._catalog = catalog
        self._engine = engine

    def save(
        self, name: str, sources: Sequence[Source], question: Question, spine: pa.Table | None, *, keep_rows: bool
    ) -> TrainingSetRecord:
        """Build a training set and keep what it takes to build it again.

        Args:
            name: Its name, new in the project of the first lookup.
            sources: The lookups, with the snapshots to read.
            question: What is asked of them.
            spine: The spine, if the question has one.
            keep_rows: Keep the answer too.

        Raises:
            DefinitionError: The name is taken, or breaks the rule.
            DataError: The spine has values that a Parquet file cannot keep.
        """
        project = sources[0].record.project
        check_name("training set", name)
        if self._catalog.registry.training_sets(project, name):
            raise DefinitionError(
                f"Project {project!r} has a training set {name!r}, which does not change. Choose another name, or "
                f"delete it: seeknal dataset delete {project}/{name}."
            )
        folder, draft = self._folder(project, name), self._catalog.home / "datasets" / uuid.uuid4().hex
        draft.mkdir(parents=True)
        try:
            if spine is not None:
                _write(spine, draft / "spine.parquet")
            answer = self._answer(sources, question, draft)
            if keep_rows:
                _write(answer, draft / "rows.parquet")
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(exist_ok=True)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        pins = tuple(_pin(source) for source in sources)
        made = TrainingSetRecord(
            project, name, pins, question, len(answer), content_hash(answer), has_rows=keep_rows, created_at=now()
        )
        self._catalog.registry.add_training_set(made)
        return made

    def reproduce(self, record: TrainingSetRecord) -> pa.Table:
        """Build a training set again from the store.

        Raises:
            StoreError: The rows it read are gone, or give another answer.
        """
        sources = [self._source(pin) for pin in record.pins]
        answer = self._answer(sources, record.question, self._folder(record.project, record.name))
        if (found := content_hash(answer)) != record.content_hash:
            raise StoreError(
                f"Training set {record.label} cannot be reproduced: its content hash was {record.content_hash}, and is "
                f"{found} now. The files of its groups were changed by somebody else, or the query engine was."
            )
        return answer

    def rows(self, record: TrainingSetRecord) -> pa.Table:
        """Give a training set: the rows that were kept, else reproduced."""
        file = self._folder(record.project, record.name) / "rows.parquet"
        return _read(file) if record.has_rows else self.reproduce(record)

    def delete(self, record: TrainingSetRecord) -> None:
        """Forget a training set, its spine and its rows."""
        self._catalog.registry.delete_training_set(record)
        shutil.rmtree(self._folder(record.project, record.name), ignore_errors=True)

    def users(self, record: GroupRecord) -> list[TrainingSetRecord]:
        """List the training sets that read a group."""
        return [
            one
            for one in self._catalog.registry.training_sets()
            if any((pin.project, pin.group) == (record.project, record.name) for pin in one.pins)
        ]

    def snapshots(self, record: GroupRecord, users: Sequence[TrainingSetRecord]) -> list[Snapshot]:
        """Give the snapshots of a group that training sets need."""
        mine = {pin for one in users for pin in one.pins if (pin.project, pin.group) == (record.project, record.name)}
        return [self._source(pin).snapshot for pin in mine]

    def holding(self, record: GroupRecord, users: Sequence[TrainingSetRecord], entity: pa.Table) -> list[str]:
        """List the training sets whose answer has an entity in it."""
        return [one.label for one in users if self._holds(one, record, entity)]

    def _holds(self, one: TrainingSetRecord, record: GroupRecord, entity: pa.Table) -> bool:
        rows = self.rows(one) if one.question.kind != "spine" else self._spine(one.project, one.name)
        for pin in one.pins:
            if (pin.project, pin.group) == (record.project, record.name):
                names = dict(pin.keys)
                keys = entity.rename_columns([names[name] for name in entity.column_names])
                kinds = pa.schema([rows.schema.field(name) for name in keys.column_names])
                if rows.select(keys.column_names).join(keys.cast(kinds), keys.column_names, join_type="inner").num_rows:
                    return True
        return False

    def _answer(self, sources: Sequence[Source], question: Question, folder: Path) -> pa.Table:
        spine = _read(folder / "spine.parquet") if question.kind == "spine" else None
        return retrieval.answer(self._engine, sources, question, spine)

    def _spine(self, project: str, name: str) -> pa.Table:
        return _read(self._folder(project, name) / "spine.parquet")

    def _source(self, pin: Pin) -> Source:
        """Find the rows that a training set read."""
        record = self._catalog.group(pin.group, pin.project)
        ttl = None if pin.ttl is None else timedelta(microseconds=pin.ttl)
        group = replace(record.group, materialization=replace(record.group.materialization, ttl=ttl))
        lookup = FeatureLookup(
            f"{pin.project}/{pin.group}", [own for own, _ in pin.features], rename=dict((*pin.keys, *pin.features))
        )
        version = self._catalog.version(record, pin.version, pin.snapshot)
        return Source(lookup, replace(record, group=group), version, self._catalog.snapshot(record, version))

    def _folder(self, project: str, name: str) -> Path:
        return self._catalog.home / "datasets" / project / name


def _pin(source: Source) -> Pin:
    keys, features = tuple(source.keys.items()), tuple(source.features.items())
    ttl = source.record.group.materialization.lifetime
    place = source.record.project, source.record.name, source.version.number, source.snapshot.number
    return Pin(*place, keys, features, ttl)


def _write(table: pa.Table, file: Path) -> None:
    try:
        pq.write_table(table, file)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"The training set cannot be kept: {error}. Cast or drop that column.") from None


def _read(file: Path) -> pa.Table:
    try:
        return pq.ParquetFile(file).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"The training set cannot be read: {error}") from None
