"""Feature views in a notebook: what one model reads, from training to serving. Each method is one call on the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seeknal.define.feature_view import ViewDefinition
from seeknal.errors import notice
from seeknal.featurestore import Binding, working
from seeknal.featurestore.stored import store_of
from seeknal.featurestore.training_set import TrainingSet
from seeknal.values.times import Interval, Moment, now

if TYPE_CHECKING:
    from seeknal.define.feature_group import FeatureLookup
    from seeknal.define.label import Label
    from seeknal.define.request_feature import RequestFeature
    from seeknal.define.splits import Split
    from seeknal.home.store import FeatureStore
    from seeknal.join.leaks import Findings
    from seeknal.registry import ModelRecord, ViewRecord
    from seeknal.registry.catalog import AsOf
    from seeknal.request.recipe import Recipe
    from seeknal.serve.freshness import Freshness
    from seeknal.serve.online_tables import Refreshed
    from seeknal.serve.open_tables import ServedTable
    from seeknal.serve.verification import Verified
    from seeknal.system.progress import OnProgress
    from seeknal.views.feature_views import Retired
    from seeknal.views.logged import Wanted


class FeatureView:
    """What one model reads: stored, windowed and computed features, named and versioned.

    The first use registers the definition. The same definition registers nothing; another one under the same name is the next version.
    Versions never change, and several can be served at once.

    Args:
        name: Name of the view, unique in its project.
        lookups: The features of groups, in order.
        request: The types of values that the caller gives with each row, by name. In training they are columns of the spine.
        functions: The request features, made with `@request_feature`. Their parameters name looked-up features, request values, or what
            other functions compute.
        label: What the model predicts.
        project: Name of the project. None: that of the first lookup's group.
        features: The names of what the model reads, in order. None: request values, looked-up features, computed features.
        defaults: Values in place of null, by the name of a feature, in training and serving alike.
        description: A sentence for readers.
        owner: Who is responsible for the view.
        tags: Words to find it by.

    Raises:
        DefinitionError: A name breaks the rule for names, or an argument has the wrong type.
    """

    def __init__(  # noqa: PLR0913 - each is a part of the definition
        self,
        name: str,
        lookups: FeatureLookup | Sequence[FeatureLookup],
        *,
        request: Mapping[str, str] | None = None,
        functions: Sequence[RequestFeature] = (),
        label: Label | None = None,
        project: str | None = None,
        features: Sequence[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        description: str | None = None,
        owner: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self._definition: ViewDefinition | None = ViewDefinition(
            name,
            lookups,  # type: ignore[arg-type]  # a single lookup becomes a list of one
            request or {},
            functions,
            label,
            project,
            features,
            defaults or {},
            description,
            owner,
            tags,
        )
        self._binding, self._record, self._recipe, self._served = Binding(), None, None, None
        self._name, self._project = name, self._definition.project

    _record: ViewRecord | None
    _served: ServedTable | None
    _recipe: Recipe | None

    @classmethod
    def load(cls, name: str, project: str | None = None, version: int | None = None) -> FeatureView:
        """Return a registered version of a view, after importing its functions.

        Args:
            name: Name of the view; "next_basket@3" names the version too.
            project: Name of the project. None: the only one that has such a view.
            version: Number of the version. None: the newest that is not retired.

        Raises:
            DefinitionError: There is no such view or version, or the code of a function has changed since it was registered.
        """
        from seeknal.featurestore import current_store

        store = current_store()
        record = store.views.get(name, project=project, version=version)
        made = cls.of(store, record)
        made._recipe = store.views.recipe(record)  # noqa: SLF001 - an attribute of this class
        return made

    @classmethod
    def of(cls, store: FeatureStore, record: ViewRecord) -> FeatureView:
        """Return a registered version of a view of a store."""
        made = cls.__new__(cls)
        made._take(store, record)  # noqa: SLF001 - a method of this class
        return made

    def _take(self, store: FeatureStore, record: ViewRecord) -> None:
        self._definition, self._binding, self._record, self._recipe = None, Binding(store), record, None
        self._served = None
        self._name, self._project = record.name, record.project

    @property
    def name(self) -> str:
        """Name of the view."""
        return self._name

    @property
    def project(self) -> str | None:
        """Name of its project; None if it follows from the lookups and the view is not registered yet."""
        return self._record.project if self._record else self._project

    @property
    def version(self) -> int:
        """Number of the version. Reading it registers the definition."""
        return self._current()[1].number

    def __repr__(self) -> str:
        return f"FeatureView({self._record.label if self._record else self.name})"

    def _repr_html_(self) -> str:
        from seeknal.values.display import sheet

        if self._record is None:
            return sheet(f"Feature view {self.name}", {"version": "not registered yet"})
        content = self._record.content
        facts = {
            "version": self._record.number,
            "description": self._record.description,
            "owner": self._record.owner,
            "tags": list(self._record.tags),
            "features": list(content.features),
            "request": content.request,
            "functions": [one.function for one in content.functions],
            "label": content.label.column if content.label else None,
        }
        return sheet(f"Feature view {self._record.project}/{self.name}", facts)

    def register(self) -> FeatureView:
        """Register the definition if it is new, and return this object.

        Raises:
            DefinitionError: What the definition names does not exist, names clash, or a function gives another answer for a row alone
                than among others.
            DataError: A function fails on a stored row.
        """
        if self._record is None:
            assert self._definition is not None  # noqa: S101 - only a registered view has none
            self._record = self._store.views.register(self._definition)
        return self

    @property
    def _store(self) -> FeatureStore:
        return store_of(self._binding, self._definition.lookups if self._definition else ())

    def _registered(self) -> tuple[FeatureStore, ViewRecord]:
        self.register()
        assert self._record is not None  # noqa: S101 - it was just registered
        return self._store, self._record

    def _current(self) -> tuple[FeatureStore, ViewRecord, Recipe]:
        store, record = self._registered()
        if self._recipe is None:
            functions = list(self._definition.functions) if self._definition else None
            self._recipe = store.views.recipe(record, functions)
        return store, record, self._recipe

    @property
    def features(self) -> list[str]:
        """The names of what the model reads, in order."""
        return list(self._registered()[1].content.features)

    def training_set(  # noqa: PLR0913 - all but three have defaults
        self,
        spine: object,
        date_col: str,
        name: str,
        *,
        split: Split | Sequence[Moment] | None = None,
        as_of: AsOf | None = None,
        keep_cols: Sequence[str] | None = None,
        label_until: Moment | None = None,
        rows: bool = False,
        on_progress: OnProgress | None = None,
    ) -> TrainingSet:
        """Build a training set, and save everything that is needed to rebuild it byte for byte.

        Args:
            spine: A frame with the join keys, the request values and a moment in each row.
            date_col: The column with the moments.
            name: A new name: a saved training set never changes.
            split: Two moments, the first of validation and of test; or a `TimeSplit`, `EntitySplit` or `ColumnSplit`.
            as_of: Only what was stored by then is visible: a moment, or a mapping from the names of groups to snapshots.
            keep_cols: Columns to keep besides those that the view uses. None: all.
            label_until: The time up to which the events of the label are complete. None: that of its newest event.
            rows: Save the rows as well, as a Parquet file.
            on_progress: Called with each step. None: steps are shown on a terminal if the call takes more than a second.

        Raises:
            DefinitionError: The name is taken, or names clash.
            DataError: The spine lacks a column, a value does not fit, or a function fails.
        """
        from seeknal.values.frames import kept
        from seeknal.views.feature_views import ViewSpine

        asked = ViewSpine(kept(spine), date_col, keep_cols, as_of=as_of, label_until=label_until)
        store, record, recipe = self._current()
        with working("Building the training set", on_progress) as report:
            made = store.views.training_set(
                record, name, asked, split=split, keep_rows=rows, on_progress=report, recipe=recipe
            )
        return TrainingSet(made, store)

    def to_dataframe(  # noqa: PLR0913 - all but two have defaults
        self,
        spine: object,
        date_col: str,
        *,
        as_of: AsOf | None = None,
        keep_cols: Sequence[str] | None = None,
        label: bool = True,
        label_until: Moment | None = None,
        output: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Return the rows of a spine with what the model reads, and the label, as a frame. Nothing is saved.

        Args:
            spine: As in `training_set`.
            date_col: As in `training_set`.
            as_of: As in `training_set`.
            keep_cols: As in `training_set`.
            label: Whether to add the label, and to leave out rows whose label is not known yet.
            label_until: As in `training_set`.
            output: "pandas", "polars", "arrow" or "duckdb". None: the spine's kind.
            on_progress: As in `training_set`.

        Raises:
            DefinitionError: Names clash, or the output does not exist.
            DataError: The spine lacks a column, a value does not fit, or a function fails.
        """
        from seeknal.values.frames import kept
        from seeknal.views.feature_views import ViewSpine

        asked = ViewSpine(kept(spine), date_col, keep_cols, Interval(), as_of, label_until, label)
        store, record, recipe = self._current()
        with working("Building the training set", on_progress) as report:
            return store.views.frame(record, asked, output, report, recipe)

    def check(
        self, spine: object, date_col: str, *, as_of: AsOf | None = None, on_progress: OnProgress | None = None
    ) -> Findings:
        """Look for leaks that a correct join cannot prevent, because they are in the data; see `seeknal.join.leaks`.

        It also warns of rows that were recorded inside the window of the label.

        Args:
            spine: As in `training_set`.
            date_col: As in `training_set`.
            as_of: As in `training_set`.
            on_progress: As in `training_set`.

        Returns:
            A list with one sentence for each leak, which is also issued as a notice. Its `report` says what was checked, too.
        """
        from seeknal.values.frames import kept
        from seeknal.views.feature_views import ViewSpine

        store, record = self._registered()
        with working("Looking for leaks", on_progress) as report:
            found = store.views.check(record, ViewSpine(kept(spine), date_col, as_of=as_of), report)
        for text in found:
            notice(text)
        return found

    def serve(
        self,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
        log: float | None = None,
        on_progress: OnProgress | None = None,
        *,
        take_over: bool = False,
    ) -> FeatureView:
        """Load what the view looks up into an online store, and return this object, whose `get_features` reads it from then on.

        Versions of the view that are served already stay so. Serve this one again to change how it is served.

        Args:
            target: An online store other than the configured one: a folder, or the URL of Redis, without a password.
            ttl: How long stored values are valid, in place of the groups' own ttl. Windows end by themselves.
            log: The share of the answers to log, from 0 to 1, with all rows of each. None: none.
            on_progress: Called with each step. None: steps are shown on a terminal if the call takes more than a second.
            take_over: Also overwrite rows that another home, or a deleted group, left in the store.

        Raises:
            DefinitionError: The version was retired, or an argument has the wrong form.
            StoreError: The online store cannot be written, or has rows of another home.
        """
        store, record = self._registered()
        options: dict[str, Any] = {"target": target, "ttl": ttl, "log": log, "take_over": take_over}
        with working("Loading", on_progress) as report:
            self._served = store.views.serve(record, on_progress=report, **options)
        return self

    def get_features(
        self, rows: object, output: str = "pandas", features: Sequence[str] | None = None, with_status: bool = False
    ) -> Any:
        """Return what the model reads for some rows, from the online store: looked up, given, and computed of both.

        Args:
            rows: A list of mappings from the names of join keys and request values to values, or a frame with them. A request value
                that has a default may be left out.
            output: "pandas", "polars", "arrow" or "dicts".
            features: Names of the features to return, in order. None: all of them. Only what they need is looked up and computed.
            with_status: Add GROUP_status ("found", "not_found" or "expired") and GROUP_event_time for each group and, if the view has
                defaults, a column `defaulted` with the names of the features whose default took the place of null.

        Returns:
            One row per given row, in order: keys, features, status.

        Raises:
            DataError: A row has wrong names or types, or a function fails.
            DefinitionError: The version is not served, or the output or a feature is unknown.
        """
        return self.served.get_features(rows, output, features, with_status=with_status)

    @property
    def served(self) -> ServedTable:
        """The online table that serves this version.

        Raises:
            DefinitionError: The version is not served.
        """
        if self._served is None:
            store, record = self._registered()
            self._served = store.tables.open(store.views.table(record))
        return self._served

    def verify(
        self, sample: int | None = None, on_progress: OnProgress | None = None, *, log: Wanted | None = None
    ) -> Verified:
        """Compare what this version answers with history as of now, value by value.

        Looked-up features are compared for every entity. What functions and defaults make of them is compared for up to 1,000 rows of
        stored entities, unless it needs request values; the result says what was not compared.

        With `log`, logged answers are compared with what history gives for their moments instead. The cause of a difference is "late
        data" (the answer is what was stored then), "changed code", "type", or "another value"; see docs/concepts/online-serving.md.

        Args:
            sample: Number of entities of each group to compare, chosen at random. None: all of them.
            log: Which logged answers to compare: True for all, a share from 0 to 1, the number of the newest, or an interval of their
                moments, such as ("2024-05-01", "2024-05-03").
            on_progress: Called with each step. None: steps are shown on a terminal if the call takes more than a second.

        Raises:
            DefinitionError: The version is not served, nothing was logged, or an argument has the wrong form.
        """
        store, record = self._registered()
        if log is not None:
            with working(f"Verifying the log of {record.label}", on_progress) as report:
                return store.views.verify_log(record, log, report)
        with working(f"Verifying {record.label}", on_progress) as report:
            return store.views.verify(record, sample, report)

    def refresh(self, full: bool = False, *, on_progress: OnProgress | None = None) -> Refreshed:
        """Load what changed in the groups of the view since the last load.

        Args:
            full: Rewrite all rows of all time, whatever is online, so that `verify` finds no difference.
            on_progress: Called with each step. None: steps are shown on a terminal if the call takes more than a second.

        Raises:
            DefinitionError: The version is not served.
        """
        store, record = self._registered()
        with working(f"Refreshing {record.label}", on_progress) as report:
            return store.tables.refresh([store.views.table(record)], full=full, on_progress=report)[0]

    @property
    def freshness(self) -> Freshness:
        """How fresh what is served of this version is: the event time of the newest row, and whether newer rows are not loaded yet.

        Raises:
            DefinitionError: The version is not served.
        """
        store, record = self._registered()
        return store.tables.freshness(store.views.table(record), now())

    @property
    def versions(self) -> list[ViewRecord]:
        """All versions of the view, oldest first."""
        store, record = self._registered()
        return store.views.versions(record.name, project=record.project)

    def difference(self, version: int) -> list[str]:
        """Return what changed from another version to this one, one sentence each.

        Raises:
            DefinitionError: There is no such version.
        """
        store, record = self._registered()
        return store.views.difference(record.name, version, record.number, project=record.project)

    @property
    def training_sets(self) -> list[TrainingSet]:
        """The saved training sets of this version."""
        store, record = self._registered()
        return [TrainingSet(one, store) for one in store.views.made_with(record)]

    @property
    def models(self) -> list[ModelRecord]:
        """The models that registered themselves with training sets of the view, of all its versions, oldest first."""
        store, record = self._registered()
        return store.views.models(record)

    def retire(self) -> Retired:
        """Retire this version: end its serving, and let no name without a version mean it. Its training sets stay.

        Returns:
            What knows the version: its training sets, and the models that were trained on them.
        """
        store, record = self._registered()
        return store.views.retire(record)
