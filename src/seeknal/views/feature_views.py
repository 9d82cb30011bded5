"""The feature views of a store: their versions, training sets and models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal.define.feature_view import ViewDefinition
from seeknal.define.splits import Split, read_split
from seeknal.errors import DefinitionError
from seeknal.join import leaks, retrieval
from seeknal.join.inquiry import SPINE, Inquiry
from seeknal.join.retrieval import kinds_of
from seeknal.join.training_sets import TrainingSets, Viewing
from seeknal.join.viewed import Viewed, columns, pii_of
from seeknal.names import check_text, split_version
from seeknal.registry import ModelRecord, OnlineTableRecord, PinnedLookup, TrainingSetRecord, ViewRecord, ViewUse
from seeknal.registry.catalog import AsOf, Catalog
from seeknal.registry.finder import meant
from seeknal.registry.source import Source
from seeknal.registry.view_content import LabelContent, ViewContent
from seeknal.registry.views import save_version
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values import frames
from seeknal.values.display import Shown
from seeknal.values.times import Interval, Moment, instant_or_none, now
from seeknal.views import definitions
from seeknal.views.completeness import complete_until, tell_of_unfinished

if TYPE_CHECKING:
    from seeknal.define.request_feature import RequestFeature
    from seeknal.engine import Engine
    from seeknal.join.leaks import Findings
    from seeknal.request.recipe import Recipe
    from seeknal.serve.online_tables import OnlineTables
    from seeknal.serve.open_tables import ServedTable
    from seeknal.serve.verification import Verified
    from seeknal.views.logged import Wanted


@dataclass(frozen=True)
class Retired(Shown):
    """The outcome of retiring a version of a view.

    Args:
        view: Project, name and version.
        training_sets: The saved training sets of the version, which can still be read and reproduced.
        models: The models that were trained on them.
        was_served: Whether the version was served until now.
    """

    view: str
    training_sets: tuple[str, ...]
    models: tuple[str, ...]
    was_served: bool

    def __str__(self) -> str:
        lines = [f"{self.view} retired" + (", and no longer served" if self.was_served else "")]
        lines += [f"training set {name} was made with it" for name in self.training_sets]
        return "\n  ".join([*lines, *(f"model {name} was trained with it" for name in self.models)])


@dataclass(frozen=True)
class ViewSpine:
    """The spine of a feature view: the rows to make a training set for, and what is visible to them.

    Args:
        spine: A frame with the join keys, the request values and a moment in each row.
        date_col: The column with the moments.
        keep: Columns to keep besides those that the view uses. None: all.
        interval: Only feature values with an event time inside it are visible. It does not bound the label.
        as_of: Only what was stored by then is visible: a moment, a snapshot's number, or a mapping from group to number.
        label_until: The time up to which the events of the label are complete. None: that of its newest event, or the time that counts
            as now if that is earlier.
        label: Whether to add the label.
    """

    spine: object
    date_col: str
    keep: Sequence[str] | None = None
    interval: Interval = field(default_factory=Interval)
    as_of: AsOf | None = None
    label_until: Moment | None = None
    label: bool = True

    def inquiry(self, viewed: Viewed) -> Inquiry:
        """Return the request for what a view looks up for these rows."""
        lookups = [one.lookup for one in viewed.looked_up]
        return Inquiry(lookups, SPINE, self.spine, self.date_col, self.keep, interval=self.interval)


class FeatureViews:
    """The feature views of a store.

    A view is named by its name and `project`. Without `project`, it is the only view of that name; "shop/next_basket@3" names project,
    view and version. Without a version, it is the newest one that is not retired.

    Args:
        catalog: The home's catalog.
        engine: Returns the engine that joins rows. It is called only when rows are joined.
        training_sets: The saved training sets.
        tables: The online tables.
    """

    def __init__(
        self, catalog: Catalog, engine: Callable[[], Engine], training_sets: TrainingSets, tables: OnlineTables
    ) -> None:
        self._catalog = catalog
        self._engine = engine
        self._training_sets = training_sets
        self._tables = tables

    def all(self, *, project: str | None = None) -> list[ViewRecord]:
        """Return all versions of all views, of one project or of all, ordered by project, name and number."""
        return self._catalog.registry.views(project)

    def get(self, name: str, *, project: str | None = None, version: int | None = None) -> ViewRecord:
        """Return a version of a view.

        Raises:
            DefinitionError: There is no such view or version, or several projects have the view.
        """
        return self._catalog.view(name, project, version)

    def of(self, table: OnlineTableRecord) -> ViewRecord | None:
        """Return the version that an online table serves; None if it serves none."""
        return self._catalog.view_of(table)

    def served(self, name: str, *, project: str | None = None) -> ViewRecord:
        """Return the version that a name means where it is served: without a number, the newest served one, or else as `get` does.

        Raises:
            DefinitionError: There is no such view or version, or several projects have the view.
        """
        return self._catalog.served_view(name, project)

    def versions(self, name: str, *, project: str | None = None) -> list[ViewRecord]:
        """Return all versions of a view, oldest first.

        Raises:
            DefinitionError: There is no such view, or several projects have one.
        """
        return self._catalog.view_versions(name, project)

    def register(self, definition: ViewDefinition) -> ViewRecord:
        """Return the version of a view that has a definition, and register it if there is none.

        Each function of a new version is run on rows that are stored now, one by one and together.

        Raises:
            DefinitionError: What the definition names does not exist, names clash, or the answers of a function differ.
            DataError: A function fails on a stored row.
        """
        catalog = self._catalog
        project, sources, recipe = definitions.read(catalog, definition)
        label = definition.label
        if label is not None:
            if label.column in {*recipe.kinds, *(out for one in sources for out in one.keys.values())}:
                raise DefinitionError(
                    f"The label of view {definition.name!r} has the name of a feature or key, {label.column!r}. Pass "
                    "Label(..., name=...).",
                    name=label.column,
                )
            label_source = definitions.label_source(catalog, label, definition.name, project, sources)
        content = definitions.content_of(definition, sources, recipe)
        known = (replace(one.content, label=None).meaning for one in catalog.registry.views(project, definition.name))
        if content.meaning not in known:
            definitions.try_functions(self._engine(), sources, recipe)
        if label is not None:
            content = replace(content, label=definitions.label_content(catalog, label, label_source))
        with catalog.lifetimes.using(*(source.record for source in sources)):
            return save_version(
                catalog.registry,
                project,
                definition.name,
                content,
                description=definition.description,
                owner=definition.owner,
                tags=definition.tags,
            )

    def difference(self, name: str, old: int, new: int, *, project: str | None = None) -> list[str]:
        """Return what changed from one version of a view to another, one sentence each.

        Raises:
            DefinitionError: There is no such view or version.
        """
        before, after = (self.get(name, project=project, version=number) for number in (old, new))
        return before.content.changes(after.content)

    def recipe(self, view: ViewRecord, functions: list[RequestFeature] | None = None) -> Recipe:
        """Return the recipe of a version, which makes what the model reads.

        Args:
            view: The version.
            functions: Its functions, if the caller has them. None: they are imported.

        Raises:
            DefinitionError: A group no longer exists, or the code of a function has changed since it was registered.
        """
        sources = self.sources(view)
        return view.content.recipe(kinds_of(sources), functions, pii_of(sources))

    def sources(self, view: ViewRecord, as_of: AsOf | None = None) -> list[Source]:
        """Return the sources of a version's lookups, as stored now or as of `as_of`.

        A lookup that is not pinned follows its group to its current version, as long as that has the same features in the same types.

        Raises:
            DefinitionError: A group no longer exists.
        """
        content = view.content
        found = [self._source(content, lookup, as_of) for lookup in content.lookups]
        for source in found:
            _check_types(view, source, content.types)
        return found

    def _source(self, content: ViewContent, lookup: PinnedLookup, as_of: AsOf | None) -> Source:
        if not lookup.pinned:
            with suppress(DefinitionError):  # the current version may lack a feature; a missing group raises below
                source = self._catalog.source(replace(lookup.lookup, version=None), as_of)
                if all(str(kind) == content.types[out] for out, kind in kinds_of([source]).items()):
                    return source
        return self._catalog.source(lookup.lookup, as_of)

    def training_set(
        self,
        view: ViewRecord,
        name: str,
        rows: ViewSpine,
        *,
        split: Split | Sequence[Moment] | None = None,
        keep_rows: bool = False,
        on_progress: OnProgress = no_progress,
        recipe: Recipe | None = None,
    ) -> TrainingSetRecord:
        """Build a training set of a version of a view, and save what is needed to rebuild it.

        Args:
            view: The version.
            name: The name of the training set, new in the project of the view.
            rows: The rows.
            split: How the rows are split; two moments are the first of validation and of test.
            keep_rows: Save the result's rows too.
            on_progress: Called with each step.
            recipe: The recipe of the version, if the caller has it. None: its functions are imported.

        Raises:
            DefinitionError: The name is taken, or names clash.
            DataError: The spine lacks a column, a value does not fit, or a function fails.
        """
        plan = read_split(split)
        viewed = self._viewed(view, rows, recipe)
        text = None if plan is None else plan.to_json()
        if plan is not None and text is not None and text["by"] == "entity" and "keys" not in text:
            text["keys"] = list(viewed.looked_up[0].keys.values())
        use = ViewUse(
            view.name,
            view.number,
            text,
            viewed.until if viewed.label else None,
            0,
            frames.output_kind(rows.spine, None),
        )
        viewing = Viewing(view.project, viewed, use)
        made = self._training_sets.save(
            name, rows.inquiry(viewed), keep_rows=keep_rows, on_progress=on_progress, viewing=viewing
        )
        tell_of_unfinished(viewed, made.view.unfinished if made.view else 0)
        return made

    def frame(
        self,
        view: ViewRecord,
        rows: ViewSpine,
        output: str | None = None,
        on_progress: OnProgress = no_progress,
        recipe: Recipe | None = None,
    ) -> Any:
        """Return the rows of a spine as a version of a view makes them, without saving anything.

        Returns:
            A frame with the spine's rows and columns, then the features, then the label. Rows whose label is not known yet are left
            out, unless the label says "null".

        Raises:
            DefinitionError: Names clash, or the output does not exist.
            DataError: The spine lacks a column, a value does not fit, or a function fails.
        """
        kind = frames.output_kind(rows.spine, output)
        viewed = self._viewed(view, rows, recipe)
        asked = rows.inquiry(viewed)
        spine = retrieval.Spine(
            frames.opened(rows.spine), asked.date_col, asked.keep, case_counts=kind != "duckdb", also=viewed.used
        )
        spine = retrieval.read_spine(viewed.sources, spine)
        found = columns(self._engine(), viewed, spine, asked.question, on_progress)
        tell_of_unfinished(viewed, found.unfinished)
        return found.beside(spine.frame, kind)

    def check(self, view: ViewRecord, rows: ViewSpine, on_progress: OnProgress = no_progress) -> Findings:
        """Look for leaks that a correct join cannot prevent; see `seeknal.join.leaks`. The label counts as a column of the spine."""
        from seeknal.views.overlaps import overlaps

        viewed = self._viewed(view, rows, None)
        looked_up, asked = viewed.looked_up, rows.inquiry(viewed)
        table = retrieval.spine_table(looked_up, rows.spine, asked.question, viewed.used)
        assert table is not None  # noqa: S101 - the question has a spine
        spine = retrieval.Spine(frames.opened(table), asked.date_col, also=viewed.used)
        found = columns(self._engine(), viewed, spine, asked.question, on_progress)
        whole = found.beside(spine.frame, "arrow")
        label = [viewed.label.column] if viewed.label else []
        kept = [*(name for name in table.column_names if name not in viewed.recipe.request), *label]
        findings = leaks.check(self._engine(), looked_up, whole.select(kept), asked.question, on_progress)
        made = [name for name in viewed.recipe.names if name not in viewed.recipe.looked_up]
        copied = leaks.copies(whole, whole, label, made)
        late, looked_at = overlaps(self._engine(), viewed) if viewed.label else ([], [])
        return leaks.Findings([*findings, *copied, *late], [*findings.looked_at, *looked_at])

    def _viewed(self, view: ViewRecord, rows: ViewSpine, recipe: Recipe | None) -> Viewed:
        """Return the sources of a version, and what it makes of them."""
        content, sources = view.content, self.sources(view, rows.as_of)
        own = recipe or content.recipe(kinds_of(sources), pii=pii_of(sources))
        if content.label is None or not rows.label:
            if rows.label_until is not None:
                raise DefinitionError(f"{view.label} has no label, so leave out label_until.")
            return Viewed(own, sources)
        source = self._label_source(view, content.label, rows.as_of)
        _check_types(view, source, {content.label.column: content.label.type})
        until = complete_until(self._engine, source, rows.as_of, rows.label_until)
        return Viewed(own, sources, content.label, source, until)

    def _label_source(self, view: ViewRecord, label: LabelContent, as_of: AsOf | None) -> Source:
        if self._catalog.registry.group(label.lookup.project, label.lookup.group) is None:
            raise DefinitionError(
                f"The group that computes the label of {view.label}, {label.lookup.group!r}, was deleted. Register the definition of the "
                "view again, which creates it again."
            )
        return replace(self._catalog.source(label.lookup.lookup, as_of), ahead=label.lookup.ahead)

    def serve(
        self,
        view: ViewRecord,
        *,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
        log: float | None = None,
        at: Moment | None = None,
        on_progress: OnProgress = no_progress,
        take_over: bool = False,
    ) -> ServedTable:
        """Serve a version of a view: load what it looks up into its online table; see `OnlineTables.serve_view`.

        Versions that are served already stay so.
        """
        options: dict[str, Any] = {"target": target, "ttl": ttl, "log": log, "at": at, "take_over": take_over}
        view = self.get(view.name, project=view.project, version=view.number)  # it may have been retired since
        return self._tables.serve_view(view, self.sources(view), on_progress=on_progress, **options)

    def table(self, view: ViewRecord) -> OnlineTableRecord:
        """Return the online table that serves a version of a view.

        Raises:
            DefinitionError: The version is not served.
        """
        return self._catalog.online_table(view.table, view.project)

    def missing_code(self, tables: Iterable[OnlineTableRecord]) -> dict[OnlineTableRecord, DefinitionError]:
        """Return the online tables that this process cannot compute, since it lacks the functions of their views, with the reasons."""
        views = {(one.project, one.name, one.number): one for one in self.all()}
        missing = {}
        for table in tables:
            if (view := views.get((table.project, split_version(table.name)[0], table.view or 0))) is not None:
                try:
                    view.content.loaded()
                except DefinitionError as error:
                    told = f"{view.label} is served and cannot be computed here: {error}"
                    missing[table] = DefinitionError(told, name=view.name)
        return missing

    def verify_log(self, view: ViewRecord, wanted: Wanted = True, on_progress: OnProgress = no_progress) -> Verified:
        """Compare logged answers of a version of a view with what history gives for their moments; see `seeknal.views.logged`.

        Args:
            view: The version.
            wanted: Which answers: True for all, a share from 0 to 1, the number of the newest, or an interval of their moments.
            on_progress: Called with each step.

        Raises:
            DefinitionError: None was logged, a function cannot be imported, or `wanted` has the wrong form.
        """
        from seeknal.serve.online_table import labels_of
        from seeknal.views.logged import Logged, compare, logged_rows, recipe_now

        self._tables.flush_logs()
        on_progress(f"Reading the log of {view.label}")
        rows = logged_rows(self._catalog, self._engine(), view, wanted)
        served = meant(self._tables.all(project=view.project), view.table)
        ttl = served[0].ttl if served else None
        sources = [one if ttl is None else one.with_ttl(ttl) for one in self.sources(view)]
        recipe = recipe_now(view.content, sources)
        on_progress(f"Recomputing {len(rows):,} answers of {view.label}")
        logged = Logged(view, sources, recipe, labels_of(view.content.lookups), rows)
        return compare(self._catalog, self._engine(), logged)

    def verify(
        self,
        served: ViewRecord | OnlineTableRecord,
        sample: int | None = None,
        on_progress: OnProgress = no_progress,
        *,
        at: Moment | None = None,
    ) -> Verified:
        """Compare what a served version, or an online table, answers with history as of a moment; see `seeknal.views.verification`.

        Args:
            served: The version, or the table.
            sample: Number of entities of each group to compare, chosen at random. None: all of them.
            on_progress: Called with each step.
            at: The moment. None: now.

        Raises:
            DefinitionError: The version is not served, or `sample` is not a whole number of at least 1.
        """
        from seeknal.views.verification import with_computed

        table = served if isinstance(served, OnlineTableRecord) else self.table(served)
        verified = self._tables.verify(table, sample=sample, at=at, on_progress=on_progress)
        if (view := self.of(table)) is None:
            return verified
        opened = self._tables.open_as_registered(table)
        opened.log = None  # these are no answers to anyone
        return with_computed(self, self._engine(), opened, view, verified, instant_or_none(at))

    def retire(self, view: ViewRecord, at: int | None = None) -> Retired:
        """Retire a version of a view: end its serving, and let no name without a version mean it. Its training sets stay."""
        made = self.made_with(view)
        models = [one.name for one in self.models(view) if one.version == view.number]
        was_served = self._end_serving(view)
        self._catalog.registry.retire_view(view, now() if at is None else at)
        self._end_serving(view)  # another process may have served it meanwhile
        return Retired(view.label, tuple(one.label for one in made), tuple(dict.fromkeys(models)), was_served)

    def _end_serving(self, view: ViewRecord) -> bool:
        """Delete the online tables that serve a version of a view. Return whether there were any."""
        names = {view.name, view.table}
        tables = [
            one for one in self._tables.all(project=view.project) if one.name in names and one.view == view.number
        ]
        for table in tables:
            self._tables.delete(table)
        return bool(tables)

    def made_with(self, view: ViewRecord, *, any_version: bool = False) -> list[TrainingSetRecord]:
        """Return the saved training sets of a version of a view, or of all its versions."""
        return [
            one
            for one in self._catalog.registry.training_sets(view.project)
            if one.view and one.view.name == view.name and (any_version or one.view.version == view.number)
        ]

    def models(self, view: ViewRecord) -> list[ModelRecord]:
        """Return the models that registered themselves with training sets of a view, of all its versions, oldest first."""
        return self._catalog.registry.models(view.project, view.name)

    def add_model(self, made: TrainingSetRecord, name: str, uri: str | None = None) -> ModelRecord:
        """Register a model that was trained on a training set of a view.

        Raises:
            DefinitionError: The training set belongs to no view, or an argument has the wrong form.
        """
        if made.view is None:
            raise DefinitionError(
                f"Training set {made.label} belongs to no feature view. Make it with FeatureView.training_set."
            )
        if not check_text("name", name).strip():
            raise DefinitionError("name of a model is empty. Write name='forest', for example.")
        where = None if uri is None else check_text("uri", uri)
        model = ModelRecord(made.project, made.view.name, name, made.view.version, made.name, where, now())
        self._catalog.registry.add_model(model)
        return model


def _check_types(view: ViewRecord, source: Source, known: Mapping[str, str]) -> None:
    """Check that a source has the types that a version of a view was registered with.

    Raises:
        DefinitionError: It has others: the source of a windowed group has changed, or a group was deleted and created anew.
    """
    for name, kind in kinds_of([source]).items():
        if str(kind) != known[name]:
            raise DefinitionError(
                f"{name} of {view.label} was registered as {known[name]}, and {source.record.label} has it as {kind} now. Register the "
                "definition again, which makes the view's next version, and train with that.",
                name=name,
            )
