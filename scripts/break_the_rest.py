"""Break everything but the join on purpose, part by part, and check that the tests named for each mutation notice.

    python scripts/break_the_rest.py [--some N] [--seed S]

Each mutation is one textual change in a temporary copy of the package; the checkout is not touched. All named tests first
run on an unbroken copy, where they must pass. Then those of each mutation run on its broken copy, up to the first failure.
Takes about five minutes on two cores. Exits with 1 if the tests miss a mutation, or if one cannot be made because the code
has changed: then update MUTATIONS, with a change that does the same harm.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

from _breaking import PARALLEL, Mutation, Outcome, break_copy, check_mutations, copy_checkout, run_tests

EDGES = "contract/test_edges.py::test_"
RULES = "contract/test_rules_"
KEYS = "contract/test_key_types.py::test_"
WINDOWS = "contract/test_windows.py::test_every_aggregation_is_what_plain_loops_compute"


def edge(name: str, old: str, new: str, path: str, *tests: str) -> Mutation:
    """Return a mutation that tests in contract/test_edges.py must catch."""
    return Mutation(name, old, new, path, tuple(EDGES + test for test in tests))


def rule(name: str, old: str, new: str, path: str, *tests: str) -> Mutation:
    """Return a mutation that tests in contract/test_rules_*.py must catch."""
    return Mutation(name, old, new, path, tuple(RULES + test for test in tests))


def window(name: str, old: str, new: str, file: str) -> Mutation:
    """Return a mutation of the kernel of windowed features, which the comparison with plain loops must catch."""
    return Mutation(name, old, new, f"engine/windows/{file}", (WINDOWS,))


def tiles(name: str, old: str, new: str, file: str, *tests: str) -> Mutation:
    """Return a mutation of lookups of entities with many events, which these tests must catch."""
    named = tuple(f"contract/test_windows_many.py::test_{test}" for test in tests)
    return Mutation(name, old, new, f"engine/windows/{file}", named)


def log(name: str, old: str, new: str, path: str, *tests: str) -> Mutation:
    """Return a mutation of the push log, which these tests must catch."""
    return Mutation(name, old, new, path, tuple(f"test_push_log.py::test_{test}" for test in tests))


def feast(name: str, old: str, new: str, file: str, test: str) -> Mutation:
    """Return a mutation of the import from Feast, which a test without Feast must catch."""
    return Mutation(name, old, new, f"feast/{file}", (f"test_feast_parts.py::test_{test}",))


def view(name: str, old: str, new: str, path: str, *tests: str) -> Mutation:
    """Return a mutation of served feature views and their logs, which these tests must catch."""
    return Mutation(name, old, new, path, tests)


def habit(name: str, old: str, new: str, path: str, *tests: str) -> Mutation:
    """Return a mutation of what programs for the first Seeknal use, which these tests must catch."""
    return Mutation(name, old, new, path, tuple(f"test_first_seeknal.py::test_{test}" for test in tests))


def label(name: str, old: str, new: str, path: str) -> Mutation:
    """Return a mutation of labels, which the comparison with plain loops must catch."""
    return Mutation(
        name, old, new, path, ("test_labels.py::test_a_label_is_what_its_description_says_and_comes_back_to_the_byte",)
    )


def split(name: str, old: str, new: str, test: str) -> Mutation:
    """Return a mutation of splits, which this test must catch."""
    return Mutation(name, old, new, "join/splits.py", (f"test_splits.py::test_{test}",))


def export(name: str, old: str, new: str, file: str, test: str) -> Mutation:
    """Return a mutation of exports of training sets, which this test must catch."""
    return Mutation(name, old, new, f"featurestore/{file}", (test,))


def shared(name: str, old: str, new: str, path: str, test: str) -> Mutation:
    """Return a mutation of what machines share, which this test must catch."""
    return Mutation(name, old, new, path, (test,))


def away(name: str, old: str, new: str, path: str, test: str) -> Mutation:
    """Return a mutation of what goes on while a service is away, which this test must catch."""
    return Mutation(name, old, new, path, (f"test_server_away.py::test_{test}",))


AWAY = (
    away(
        "a server that ends looks ready",
        "    if service.ending.is_near:\n",
        "    if False:\n",
        "server/about.py",
        "a_server_that_is_asked_to_end_says_so_and_answers_until_it_is_asked_again",
    ),
    away(
        "workers are not told that the server ends",
        "                    tell(process.pid)\n",
        "                    pass\n",
        "server/run.py",
        "a_server_that_is_asked_to_end_says_so_and_answers_until_it_is_asked_again[2]",
    ),
    away(
        "what a killed server has acknowledged is left in its push log",
        "        self.store.groups.resume_pushes()\n",
        "",
        "server/service.py",
        "what_a_killed_server_has_acknowledged_is_committed_by_the_next_one",
    ),
    away(
        "opening a table reads its stored rows' log",
        "            if found := next((one for one in known if one.number == number), None):\n",
        "            if found := None:\n",
        "registry/catalog.py",
        "a_table_is_opened_and_looked_up_while_the_stored_tables_are_away",
    ),
    away(
        "a server that is slow is taken for one that hangs",
        "            psycopg.connect(**self._given).close()\n",
        "            raise psycopg.errors.ConnectionTimeout\n",
        "system/postgres/watched.py",
        "a_statement_fails_soon_if_the_server_hangs_but_waits_for_a_lock",
    ),
)

SHARED = (
    shared(
        "a lost lock is not noticed before a commit",
        "                check_held(self.sessions)\n",
        "",
        "registry/postgres/database.py",
        "test_shared_locks.py::test_a_lost_lock_is_noticed_before_what_it_protects_is_committed",
    ),
    shared(
        "two processes write to a shared registry at once",
        "; SELECT pg_advisory_xact_lock({key})",
        "",
        "registry/postgres/database.py",
        "test_postgres.py::test_a_write_that_waits_too_long_for_another_is_an_error",
    ),
    shared(
        "a change of a shared registry is not numbered",
        "UPDATE change SET number = number + 1; ",
        "",
        "registry/postgres/database.py",
        "test_registry.py::test_the_stamp_differs_after_each_change_and_stays_else",
    ),
    shared(
        "a lock of a shared home is one of this machine only",
        "        if self.address.registry is not None:\n            return lock_of",
        "        if False:\n            return lock_of",
        "system/storage.py",
        "test_shared_locks.py::test_a_lost_lock_is_noticed_before_what_it_protects_is_committed",
    ),
    shared(
        "a shared registry takes the tables of any home",
        "        if (found := self.home) != home:\n",
        "        if False:\n",
        "registry/postgres/implementation.py",
        "test_postgres.py::test_a_registry_belongs_to_the_tables_of_one_home",
    ),
    shared(
        "text of a shared registry is ordered as its database likes",
        'Text(collation="C")',
        "Text()",
        "registry/sql/tables.py",
        "test_postgres.py::test_text_is_ordered_by_its_bytes_whatever_the_order_of_the_database",
    ),
)

MUTATIONS = (
    *SHARED,
    *AWAY,
    # The first Seeknal
    feast(
        "a reason is given without a row that has Feast's value",
        "if not taken:",
        "taken = taken or newest\n        if not taken:",
        "reasons.py",
        "a_reason_is_given_only_if_it_leads_to_the_value_of_feast",
    ),
    feast(
        "a missing row is explained for keys that have no rows",
        "if history.of(key) and (",
        "if (",
        "reasons.py",
        "a_reason_for_a_missing_row_is_given_only_if_the_rows_show_it",
    ),
    feast(
        "a row is called repeated if it repeats the keys of one view only",
        "joined |= dict.fromkeys(columns.values())",
        "joined = {MOMENT: None} | dict.fromkeys(columns.values())",
        "reasons.py",
        "a_row_that_repeats_only_the_keys_of_a_later_view_is_not_said_to_be_repeated",
    ),
    feast(
        "a function that needs another module of the repository is taken without it",
        'if is_relative or (repo / f"{top}.py").exists() or (repo / top).is_dir():',
        "if is_relative:",
        "code.py",
        "a_function_that_would_not_run_alike_without_its_module_is_refused",
    ),
    feast(
        "the types of a row depend on the nulls of others",
        "tuple(map(bool, nulls))",
        "()",
        "udf.py",
        "each_row_gets_the_types_that_feast_gives_to_it_alone",
    ),
    feast(
        "a function is taken without what its module does to a name",
        "if len(known[name]) > 1:",
        "if False:",
        "code.py",
        "a_function_that_would_not_run_alike_without_its_module_is_refused",
    ),
    feast(
        "an import overwrites the user's module",
        "if file.exists():",
        "if False:",
        "written.py",
        "a_written_module_is_never_overwritten",
    ),
    habit(
        "nulls are not filled in streams",
        "return pa.RecordBatchReader.from_batches(batches.schema, (filled(batch, values) for batch in batches))",
        "return batches",
        "join/filling.py",
        "all_reading_methods_fill_nulls_alike",
    ),
    habit(
        "a value for nulls may fit no feature",
        "if not names:",
        "if False:",
        "join/filling.py",
        "a_fill_that_cannot_be_is_refused",
    ),
    habit(
        "a saved training set leaves nulls that were to be filled",
        "if asked.fills:",
        "if False:",
        "join/training_sets.py",
        "what_would_not_fill_nulls_is_refused_before_anything_is_stored",
    ),
    view(
        "an online table leaves nulls that were to be filled",
        "defaults=defaults_to_json(values_of(fills, sources)),",
        "defaults={},",
        "join/viewed.py",
        "contract/test_served_views.py::test_the_nulls_that_are_filled_for_training_are_filled_where_the_features_are_served",
    ),
    habit(
        "a table is found by the keys of another entity",
        "if problem := misfit(expected, self._table.keys):",
        "if False:",
        "featurestore/online.py",
        "a_table_with_other_keys_than_the_lookup_key_is_refused",
    ),
    habit(
        "the strategy for the latest features is ignored",
        "if fetch_strategy is not None:",
        "if False:",
        "featurestore/historical.py",
        "the_latest_features_of_any_group_are_what_the_former_strategy_returns",
    ),
    habit(
        "forced settings are replaced without a copy",
        "put(replaced, before)",
        "pass",
        "cli/manage.py",
        "init_replaces_settings_only_if_forced_and_keeps_them",
    ),
    # Labels, splits and exports of training sets
    label(
        "a label ignores the last moment of its window",
        "pc.less_equal(ends, viewed.until)",
        "pc.less(ends, viewed.until)",
        "join/viewed.py",
    ),
    label(
        "one event is not any",
        "pc.greater(value.cast(pa.int64()), 0)",
        "pc.greater(value.cast(pa.int64()), 1)",
        "join/viewed.py",
    ),
    label(
        "the window of a label begins and ends too early",
        "pa.scalar(source.ahead, pa.int64())) if source.ahead",
        "pa.scalar(source.ahead - 1, pa.int64())) if source.ahead",
        "join/retrieval.py",
    ),
    split(
        "the first moment of a gap is in a part",
        "pc.greater_equal(at, bound - gap)",
        "pc.greater(at, bound - gap)",
        "a_gap_begins_its_length_before_the_bound_and_ends_there",
    ),
    split(
        "entities are told apart by the sum of their codes",
        "codes = codes * max(len(encoded.dictionary), 1) + indices",
        "codes = codes + indices",
        "no_entity_is_in_two_parts_nor_in_another_part_in_other_rows_or_types",
    ),
    split(
        "decimals of another scale are other entities",
        'value = "{}/{}".format(*key.as_integer_ratio())',
        "value = str(key)",
        "no_entity_is_in_two_parts_nor_in_another_part_in_other_rows_or_types",
    ),
    export(
        "rows without a label are left out silently",
        "    if not drop:\n",
        "    if False:\n",
        "arrays.py",
        "test_exports.py::test_a_label_that_is_null_is_an_error_that_counts_the_rows",
    ),
    export(
        "a run leads to any training set of the name",
        'if made.content_hash != self._facts["content_hash"]:',
        "if False:",
        "mlflow_dataset.py",
        "test_mlflow.py::test_another_training_set_of_the_same_name_is_never_taken_for_that_of_the_run",
    ),
    # The push log
    log(
        "rows in the log are not added to what is online",
        "        if place == len(batches):\n            return True\n",
        "        if place == len(batches):\n            return False\n",
        "serve/pushed.py",
        "a_push_after_the_first_waits_in_the_log_and_every_read_sees_it",
    ),
    log(
        "rows that are stored and not yet online are left out",
        "return batch.snapshot > snapshot",
        "return False",
        "serve/pushed.py",
        "lookups_find_what_is_stored_and_not_yet_online",
    ),
    log(
        "what other processes have appended is not learned",
        "                stream.learn_others(stream.facts, _rows(other))\n",
        "                pass\n",
        "write/pushes.py",
        "what_processes_push_at_once_is_stored_once",
    ),
    log(
        "an interrupted commit is not compared with the stored rows",
        "return known.issuperset(range(after + 1, last + 1))",
        "return True",
        "write/streams.py",
        "a_commit_that_is_killed_at_any_step_is_completed_once",
    ),
    log(
        "a commit of pushes is dated to the commit",
        "    at = now() if step.at is None else step.at\n",
        "    at = now()\n",
        "offline/commit.py",
        "a_time_after_a_push_sees_it_however_late_it_is_committed",
    ),
    log(
        "a lookup takes its moment before it reads",
        "        found = parts[0].online.get_all(entities.spaces, encoded)\n        # Not before: a load may have replaced rows of that time by "
        "rows of a later one.\n        moment = time.time_ns() // 1000 if at is None else at\n",
        "        moment = time.time_ns() // 1000 if at is None else at\n        found = parts[0].online.get_all(entities.spaces, encoded)\n",
        "serve/online_table.py",
        "a_lookup_finds_the_row_that_a_load_puts_in_the_place_of_an_older_one_while_it_begins",
    ),
    # Online
    edge(
        "retention forgets the ttls of tables",
        "lifetimes = [own, *(record.ttl_in(one, own) for one in mine)]",
        "lifetimes = [own]",
        "load/cutover.py",
        "a_store_that_forgets_keeps_rows_as_long_as_the_table_with_the_longest_ttl_needs_them",
    ),
    edge(
        "a changed retention is ignored",
        "or before.kept != goal.state.kept or before.layout",
        "or before.layout",
        "load/loading.py",
        "a_table_with_a_longer_ttl_brings_back_rows_that_the_store_has_forgotten",
    ),
    edge(
        "only the first store is refreshed",
        "in self._stores.grouped(names):",
        "in self._stores.grouped(names)[:1]:",
        "load/cutover.py",
        "a_load_refreshes_a_version_in_every_store_that_has_it",
    ),
    Mutation(
        "two names of an online store are two stores",
        "return name == other or self.address(name) == self.address(other)",
        "return name == other",
        "online/stores.py",
        ("test_places.py::test_tables_in_one_online_store_by_two_names_do_not_take_their_rows_from_each_other",),
    ),
    edge(
        "rows of other tables go with a table",
        "if not self._mover.users(others, lookup.space, table.target):",
        "if True:",
        "serve/online_tables.py",
        "rows_that_another_table_uses_stay_when_a_table_is_deleted",
    ),
    edge(
        "generations of Redis are mixed",
        "and all(part[0] == now for part in parts)",
        "",
        "online/redis.py",
        "a_lookup_in_several_reads_sees_one_load",
    ),
    Mutation(
        "a load that came online counts as lost",
        "if string.sub(redis.call('GET', KEYS[1]) or '', 1, #ARGV[1]) == ARGV[1] then return 0 end",
        "",
        "online/redis.py",
        (
            "test_online_store.py::TestRedis::test_a_load_that_was_taken_for_lost_keeps_its_rows_if_it_ends_while_another_removes_them",
        ),
    ),
    Mutation(
        "LMDB changes another state",
        "!= expected:\n        raise Conflict",
        "== ():\n        raise Conflict",
        "online/lmdb.py",
        (
            "test_online_store.py::TestLmdb::test_a_change_of_another_state_changes_nothing",
            "test_online_store.py::TestLmdb::test_replacing_another_state_changes_nothing",
        ),
    ),
    Mutation(
        "a row removed online is counted as there",
        "more -= transaction.delete(prefix + key)",
        "transaction.delete(prefix + key)",
        "online/lmdb.py",
        ("test_online_store.py::TestLmdb::test_a_change_puts_and_removes_rows_and_sets_the_state",),
    ),
    rule(
        "a ttl is exclusive online",
        "row[-1] < oldest",
        "row[-1] <= oldest",
        "serve/parts.py",
        "online.py::test_a_ttl_counts_online_to_the_microsecond",
    ),
    rule(
        "an open table does not see that it has become another",
        "        if watch.has_moved(recently=True) if recently else watch.look():\n",
        "        if False:\n",
        "serve/open_tables.py",
        "following.py::test_a_reader_of_a_replaced_table_gets_its_features_or_an_error_that_says_so",
        "following.py::test_a_reader_moves_on_at_once_though_its_old_rows_are_still_there",
    ),
    rule(
        "a feature of another type flows into a table",
        "        if has[name] != had[name]:\n",
        "        if False:\n",
        "load/feeds.py",
        "following.py::test_a_table_whose_feature_is_gone_or_retyped_is_cut_off_and_everything_says_so",
    ),
    rule(
        "a clock that was ahead is trusted",
        "if before.at > self.at:",
        "if False:",
        "load/loading.py",
        "parity.py::test_a_load_by_a_clock_that_was_ahead_is_repaired_by_the_next",
    ),
    edge(
        "freshness looks past what was asked for",
        "self.engine.event_times(goal.source.rows(*goal.state.spans), self.at)",
        "self.engine.event_times(goal.source.rows(), self.at)",
        "load/loading.py",
        "freshness_counts_events_up_to_the_end_of_the_requested_interval",
    ),
    edge(
        "freshness counts rows that were replaced",
        "self.newest in gone and",
        "False and",
        "online/state.py",
        "freshness_counts_only_the_rows_that_the_table_serves",
    ),
    rule(
        "verify does not see what is online only",
        "            yield from self._extra(seen)\n",
        "            pass\n",
        "serve/verification.py",
        "parity.py::test_rows_that_are_missing_other_or_too_many_are_found",
    ),
    # Pushes and erasures
    edge(
        "an event of the moment of its erasure comes back",
        "moment <= erased.get(name, moment - 1)",
        "moment < erased.get(name, moment - 1)",
        "write/erasures.py",
        "events_at_the_moment_of_an_erasure_are_erased_and_later_ones_are_not",
    ),
    Mutation(
        "an erasure is remembered in the unit of its key",
        "divmod(value * ticks, 10**9)",
        "divmod(value, 10**9)",
        "write/erasures.py",
        (KEYS + "an_erased_entity_stays_erased_through_versions_with_keys_of_other_types",),
    ),
    Mutation(
        "an erasure removes the key of the current version from the rows of all versions",
        "self._catalog.version(record, version).codec.keys(",
        "self._catalog.version(record).codec.keys(",
        "load/cutover.py",
        (KEYS + "an_erasure_that_ends_halfway_is_not_served_by_tables_of_versions_with_keys_of_other_types",),
    ),
    rule(
        "a replay is stored again",
        "Write(offline.unknown(base, left, schema),",
        "Write(left,",
        "write/push.py",
        "push.py::test_a_replay_changes_nothing_even_after_a_correction",
    ),
    edge(
        "training sets saved during an erasure stay",
        "        doomed += _delete_sets(sets, record, entity)\n",
        "",
        "home/removal.py",
        "a_training_set_that_is_saved_during_an_erasure_is_erased_with_the_rest",
    ),
    # Sources
    rule(
        "superseded events are read",
        '[f"{quote(ROW_ID)} >= 0"] if rows.has_hidden else []',
        "[]",
        "engine/duckdb/engine.py",
        "sources.py::test_a_correction_replaces_an_event_even_at_another_time",
        "sources.py::test_of_rows_of_one_event_in_one_write_the_later_counts",
    ),
    rule(
        "an event before its correction is taken for a new one",
        "known AS (SELECT * FROM old SEMI JOIN (SELECT {keys} FROM old WHERE number >= 0) USING ({keys}))",
        "known AS (SELECT * FROM old WHERE number >= 0)",
        "offline/events.py",
        "sources.py::test_a_replay_of_an_event_before_its_correction_changes_nothing",
    ),
    rule(
        "old snapshots see later rows that lost on arrival",
        'f"{quote(ROW_ID)} BETWEEN {literal(-below)} AND {literal(below - 1)}"',
        'f"{quote(ROW_ID)} < {literal(below)}"',
        "offline/scans.py",
        "sources.py::test_old_snapshots_of_a_compacted_file_have_no_later_row_that_did_not_count",
    ),
    rule(
        "an overwrite forgets the earlier forms of events that stay",
        "return gone, staying",
        'return _places(cursor, base, "SELECT number, file FROM hidden"), _NOWHERE',
        "offline/events.py",
        "sources.py::test_an_overwrite_of_another_interval_does_not_make_a_replay_count",
    ),
    rule(
        "files with an erased entity stay",
        "return remove(self.root, [file for file in spare_files(self.root, snapshots) if holds(file)])",
        "return []",
        "offline/table.py",
        "as_of.py::test_an_erased_entity_is_gone_from_everything_that_can_be_read_and_from_the_files",
    ),
    # Writes
    edge(
        "the clock of commits goes back",
        "return max(at, before.at + 1) if is_shared(root) else max(at, before.at)",
        "return at",
        "offline/commit.py",
        "a_commit_is_never_dated_before_the_one_it_follows",
    ),
    edge(
        "the second of two first writes does not see the first",
        "if base is None or base.commit:",
        "if base is None:",
        "write/writing.py",
        "of_two_concurrent_first_writes_the_second_sees_the_first",
    ),
    edge(
        "a killed deletion is not recovered from",
        "if recorded > last:  # a killed",
        "if False:  # a killed",
        "registry/catalog.py",
        "a_group_whose_deletion_was_killed_starts_anew_with_the_next_write",
    ),
    edge(
        "a write may reach back as far as it likes",
        "if reach > timedelta(days=lookback_days):",
        "if reach > timedelta(days=lookback_days + 1):",
        "write/notices.py",
        "a_write_warns_only_if_it_reaches_further_back_than_lookback_days",
    ),
    edge(
        "a write goes by versions that were read before another writer committed",
        "known.last_snapshot < commit.snapshot",
        "False",
        "write/writing.py",
        "a_version_that_another_writer_makes_meanwhile_keeps_its_number",
    ),
    edge(
        "a number of a version is given twice",
        "number = max((version.number for version in state.versions), default=0) + 1",
        "number = (old.version if old else 0) + 1",
        "write/writing.py",
        "a_version_created_after_a_rollback_has_a_new_number",
    ),
    edge(
        "a vacuum forgets the days that are kept",
        "return [*pinned(), *last, *_readable(catalog, record, seen_from_start)]",
        "return [*pinned(), *last]",
        "write/maintenance.py",
        "days_that_are_kept_can_be_read_after_a_vacuum_and_others_cannot",
    ),
    edge(
        "a vacuum forgets training sets",
        "return [*pinned(), *last, *_readable(",
        "return [*last, *_readable(",
        "write/maintenance.py",
        "a_training_set_comes_back_after_a_vacuum_though_nothing_else_needs_its_rows",
    ),
    rule(
        "an interval leaves out its last microsecond",
        'f"{moment} <= {literal(interval.end)}" if',
        'f"{moment} < {literal(interval.end)}" if',
        "offline/plan.py",
        "writes.py::test_the_ends_of_an_interval_are_inside_to_the_microsecond",
    ),
    rule(
        "a merge forgets the created time",
        'created = [f"{quote(schema.created_time.name)} DESC NULLS LAST"] if schema.created_time else []',
        "created: list[str] = []",
        "offline/plan.py",
        "writes.py::test_a_merge_does_not_put_a_row_recorded_earlier_in_place_of_a_later_one",
    ),
    edge(
        "last times cut to milliseconds are taken at their word",
        "else self.end + 999",
        "else self.end",
        "offline/log.py",
        "a_file_whose_last_time_was_cut_to_milliseconds_keeps_its_last_row",
    ),
    edge(
        "a write that is planned again leaves its files",
        "        self.undo.callback(remove_new, path)\n",
        "",
        "offline/files.py",
        "a_write_that_lost_the_race_leaves_no_file_of_its_first_attempt",
    ),
    Mutation(
        "a commit whose answer was lost counts as failed",
        "if newest > base.number and noted(base.root, number) == metadata:",
        "if newest < base.number:",
        "offline/commit.py",
        ("test_object_storage.py::test_a_commit_whose_answer_was_lost_is_recognised_as_ones_own",),
    ),
    Mutation(
        "commits of machines with different clocks have one date",
        "return max(at, before.at + 1) if is_shared(root)",
        "return max(at, before.at) if is_shared(root)",
        "offline/commit.py",
        (
            "test_object_machines.py::test_machines_that_write_at_once_lose_and_double_nothing_and_date_their_commits_in_order",
        ),
    ),
    Mutation(
        "a vacuum removes what another machine is about to commit",
        "if path.name in known or is_old(path.stat())]",
        "if path.name in known or path]",
        "offline/spare.py",
        ("test_object_machines.py::test_what_another_machine_may_still_write_or_read_is_removed_only_a_day_later",),
    ),
    Mutation(
        "a vacuum removes what another machine commits while it runs",
        "mentioned_files(root, max(snapshot.number for snapshot in needed))",
        "mentioned_files(root)",
        "offline/spare.py",
        ("test_object_machines.py::test_what_another_machine_commits_during_a_vacuum_stays",),
    ),
    Mutation(
        "a write puts files into the folder of a table that was deleted",
        "        if self.root != base.root:\n",
        "        if False:\n",
        "offline/table.py",
        (
            "test_object_machines.py::test_a_table_that_was_looked_at_before_it_was_deleted_writes_nothing_for_the_next_one",
        ),
    ),
    Mutation(
        "a table that is being deleted is read from what is left of it",
        "if not identity and is_shared(root):",
        "if False:",
        "offline/log.py",
        ("test_object_machines.py::test_what_is_left_of_a_table_that_is_being_deleted_is_not_read_as_a_table",),
    ),
    Mutation(
        "a vacuum removes what another machine reads",
        "removed = lately_removed(root) if is_shared(root) else set()",
        "removed = set[str]()",
        "offline/trimming.py",
        ("test_object_machines.py::test_what_another_machine_may_still_write_or_read_is_removed_only_a_day_later",),
    ),
    Mutation(
        "a table is created again in the folder of the deleted one",
        "made = uuid.uuid4().hex\n        self._found.clear()",
        'made = "table"\n        self._found.clear()',
        "system/object_storage.py",
        ("test_object_machines.py::test_a_commit_to_a_table_that_another_machine_deleted_is_not_in_the_next_table",),
    ),
    Mutation(
        "a copy is taken for one that has more columns",
        "note = Note(file, _fetch(source, key, link, there, columns))",
        "note = Note(file, _fetch(source, key, link, there, columns) and None)",
        "system/copies.py",
        ("test_object_machines.py::test_a_copy_has_what_was_asked_for_and_fetches_the_rest_when_it_is",),
    ),
    Mutation(
        "a server that ignores conditions passes",
        '    except FileExistsError:\n        return\n    except OSError as error:\n        raise StoreError(f"{url} refuses',
        '        return\n    except FileExistsError:\n        return\n    except OSError as error:\n        raise StoreError(f"{url} refuses',
        "system/object_place.py",
        ("test_object_storage.py::test_a_server_that_ignores_conditions_is_refused_before_anything_is_stored",),
    ),
    Mutation(
        "rows of other programs count in any order",
        "order = np.lexsort((np.arange(count), old, changed.commits))",
        "order = np.arange(count)[::-1]",
        "offline/adoption.py",
        ("test_offline_adoption.py::test_rows_of_several_programs_count_in_the_order_of_their_commits",),
    ),
    Mutation(
        "rows that share keys and time are counted wrongly",
        "sum(most - 1) OVER ()",
        "sum(most) OVER ()",
        "offline/repeats.py",
        ("test_offline_counts.py::test_counts_are_those_of_a_plain_loop",),
    ),
    # Frames
    rule(
        "a relation is evaluated for each use",
        "return HeldInDuckDB(Held.of(self._relation, self.names if names is None else names))",
        "return self",
        "values/frames/given.py",
        "lazy.py::test_each_row_of_a_relation_gets_the_features_of_its_own_entity",
    ),
    rule(
        "a lazy frame is collected for each use",
        "return InPolars(self._collected(names))",
        "return self",
        "values/frames/given.py",
        "lazy.py::test_a_lazy_frame_is_collected_once",
    ),
    rule(
        "two spellings become one value",
        "return text if found is None or _merges(text, found) else found",
        "return text if found is None else found",
        "values/frames/texts.py",
        "files.py::test_two_spellings_are_two_keys_in_files_and_in_the_names_of_folders",
    ),
    rule(
        "leading zeros are lost",
        "return found if found is not None and _equal(found.cast(pa.string()), text) else None",
        "return found",
        "values/frames/texts.py",
        "files.py::test_a_column_of_csv_takes_a_type_only_if_it_would_be_written_back_the_same",
    ),
    rule(
        "times that an answer would change come out",
        "if odd := [number for number in bounds.values() if not least <= number <= most]:",
        "if odd := []:",
        "values/frames/limits.py",
        "limits.py::test_a_time_comes_out_as_the_same_number_or_is_refused_by_name",
    ),
    Mutation(
        "what is finer than a nanosecond is cut",
        '    if rest:\n        raise ValueError("is finer than a nanosecond")\n',
        "",
        "values/exact/moments.py",
        (
            "contract/test_exact.py::test_objects_become_a_column_of_exactly_these_values_or_are_refused_by_name_and_row",
        ),
    ),
    # Following
    rule(
        "a table forgets its features one by one",
        "        if name not in has:\n",
        "        if False:\n",
        "load/feeds.py",
        "following.py::test_a_table_whose_feature_is_gone_or_retyped_is_cut_off_and_everything_says_so",
    ),
    rule(
        "a lookup that names a version moves on",
        "    if meant.pinned:\n        return Feed(record, lookup, meant)\n",
        "",
        "load/feeds.py",
        "following.py::test_a_lookup_that_names_a_version_stays_at_it_and_is_shown_as_pinned",
    ),
    rule(
        "a merge drops what it does not concern",
        "FROM every AS e SEMI JOIN new_rows AS n ON {same}",
        "FROM every AS e",
        "offline/plan.py",
        "push.py::test_a_merge_of_another_entity_leaves_what_a_replay_has_to_find",
    ),
    Mutation(
        "other programs' rows are read without a word",
        "        if not (harmful and self.is_open):",
        "        if True:",
        "offline/foreign.py",
        ("test_offline_adoption.py::test_another_schema_is_refused_and_can_be_undone",),
    ),
    # Values and names
    rule(
        "an event is rounded down",
        "pa.int64())) if up else down",
        "pa.int64())) if False else down",
        "values/moments.py",
        "time.py",
        "push.py::test_an_event_of_pandas_that_is_finer_than_a_microsecond_is_rounded_up",
    ),
    rule(
        "any type widens to any other",
        "narrow == wide or is_.is_null(narrow)",
        "True or is_.is_null(narrow)",
        "values/types.py",
        "versions.py::test_any_other_change_of_type_is_refused_with_the_difference_and_the_ways_out",
    ),
    edge(
        "the hash forgets nulls",
        "    digest.update(_dense(pc.is_valid(array).cast(pa.uint8())))\n",
        "",
        "values/content_hash.py",
        "two_tables_that_differ_only_in_a_null_or_in_where_values_end_have_different_hashes",
    ),
    Mutation(
        "the file of a project goes before the environment",
        '    yield "argument", arguments\n',
        '    yield "argument", arguments\n    if file := find_file():\n        yield str(file), _read(file)\n',
        "config.py",
        ("test_config.py::test_a_later_source_overrides_an_earlier_one",),
    ),
    # Joins, leaks, explanations
    edge(
        "all is joined in one pass",
        "return -(-needed // (self._duck.limit * 3 // 4))",
        "return 1",
        "engine/duckdb/engine.py",
        "rows_that_do_not_fit_in_memory_are_joined_in_as_many_passes_as_they_need",
    ),
    edge(
        "few rows recorded late are many",
        "_SHARE = 0.01",
        "_SHARE = 0.005",
        "join/leaks.py",
        "more_than_a_hundredth_of_rows_recorded_a_day_late_is_pointed_out",
        "a_feature_that_equals_the_label_in_99_of_100_of_ten_rows_or_more_is_pointed_out",
    ),
    edge(
        "many rows are needed for a copy",
        "_ENOUGH = 10",
        "_ENOUGH = 11",
        "join/leaks.py",
        "a_feature_that_equals_the_label_in_99_of_100_of_ten_rows_or_more_is_pointed_out",
    ),
    Mutation(
        "an event of the very moment is explained as of the future",
        "if one.event_time > moment:",
        "if one.event_time >= moment:",
        "join/explanation.py",
        ("contract/test_explain.py",),
    ),
    Mutation(
        "a stream loses the order of its passes",
        "g USING (i) ORDER BY s.i",
        "g USING (i) ORDER BY s.i DESC",
        "engine/duckdb/engine.py",
        ("contract/test_streaming.py",),
    ),
    # Spark
    Mutation(
        "a slice of an entity lacks what its first moments need",
        "places.append(whose[work.before(of_entity, moment)])",
        "places.append(whose[:0])",
        "engine/spark/shuffle.py",
        ("test_spark.py::test_an_entity_with_half_of_the_rows_is_cut_by_time",),
    ),
    Mutation(
        "each row of an event counts on Spark",
        "is_partial = self.wanted.one_of and not self.is_regrouped",
        "is_partial = False",
        "engine/spark/work.py",
        ("test_spark.py::test_an_event_whose_rows_are_in_several_files_counts_once_and_for_one_entity",),
    ),
    Mutation(
        "an event goes to each entity that one of its rows names",
        "return bool(self.wanted.one_of) and not set(self.keys) <= set(self.wanted.one_of)",
        "return False",
        "engine/spark/work.py",
        ("test_spark.py::test_an_event_whose_rows_are_in_several_files_counts_once_and_for_one_entity",),
    ),
    Mutation(
        "rows of a Spark DataFrame may differ from those that were counted",
        "if found != expected:",
        "if False:",
        "engine/spark/writing.py",
        (
            "test_spark_writes.py::test_rows_that_differ_when_they_are_computed_again_are_an_error_and_nothing_is_stored",
        ),
    ),
    Mutation(
        "two files of a Spark DataFrame have the same row numbers",
        "starts = target.first + np.cumsum(counts) - counts",
        "starts = target.first + 0 * counts",
        "engine/spark/writing.py",
        ("test_spark_writes.py::test_executors_number_all_rows_and_note_the_bounds_of_each_file",),
    ),
    Mutation(
        "executors may read another place than the driver",
        "if owner is None or owner.place != place:",
        "if False:",
        "system/object_place.py",
        ("test_spark.py::test_an_executor_that_finds_another_place_than_the_driver_is_an_error",),
    ),
    # The home, the server, the command line
    Mutation(
        "a backup that was changed is restored",
        "if found.sha256 != _hash_of(found.files):",
        "if False:",
        "home/backup_files.py",
        ("test_backup.py::test_a_list_of_files_that_was_changed_is_refused",),
    ),
    Mutation(
        "a process that was open writes to a home that was moved",
        "    if note is None or not (\n",
        "    if True or not (\n",
        "system/home_moved.py",
        ("test_move.py::test_a_process_that_was_open_changes_nothing_any_more_and_says_why",),
    ),
    Mutation(
        "a registry that was moved takes writes",
        "        freeze(old)\n",
        "",
        "registry/sql/copying.py",
        ("test_move.py::test_a_process_that_was_open_changes_nothing_any_more_and_says_why",),
    ),
    Mutation(
        "a file that is moved is not compared",
        "self._hash(item.key, size) != digest",
        "False",
        "home/carrying.py",
        ("test_move.py::test_a_place_that_returns_other_bytes_than_were_written_ends_the_move_and_changes_nothing",),
    ),
    Mutation(
        "new places are opened before the old ones are closed",
        "self._begin_registry, self._leave)",
        "self._begin_registry, self._open)",
        "home/move.py",
        ("test_move.py::test_a_move_that_is_killed_at_any_step_is_completed_by_the_next_run",),
    ),
    Mutation(
        "a backup that is told to end leaves a part",
        "            shutil.rmtree(part, ignore_errors=True)\n        raise\n",
        "            pass\n        raise\n",
        "system/folders.py",
        ("test_backup.py::test_a_backup_that_was_changed_is_refused_by_the_name_of_the_file",),
    ),
    Mutation(
        "a training set loses its group",
        "if kept := [one.label for one in self.core.training_sets.users(group) if one not in self.sets]:",
        "if kept := list[str]():",
        "home/removal.py",
        ("test_training_sets.py::test_a_group_that_a_training_set_needs_cannot_be_deleted_before_it",),
    ),
    Mutation(
        "the doctor overlooks what killed writers left",
        "        if spare:\n",
        "        if False:\n",
        "home/doctor.py",
        ("test_cli.py::test_the_doctor_finds_what_a_killed_writer_left",),
    ),
    edge(
        "what Arrow says of itself is believed",
        "                batch.validate(full=True)\n",
        "",
        "server/bodies.py",
        "arrow_text_that_is_not_utf8_is_refused",
    ),
    edge(
        "a revoked token opens the door",
        " for token in tokens if token.revoked_at is None}",
        " for token in tokens}",
        "registry/tokens.py",
        "a_revoked_token_grants_nothing_and_access_stays_closed",
    ),
    Mutation(
        "a row too many is answered",
        "if rows > most:",
        "if rows > most + 1:",
        "server/bodies.py",
        ("test_server_safety.py::test_what_is_too_large_gets_413",),
    ),
    rule(
        "a null of a single row is 0",
        "_NUMBER.pack_into(head, self._nulls_at + i * _PAIR.size, 1)",
        "_NUMBER.pack_into(head, self._nulls_at + i * _PAIR.size, 0)",
        "online/single.py",
        "single.py::test_one_entity_gets_the_same_result_as_among_others",
    ),
    rule(
        "columns of pandas come in the order of their types",
        ".take(self._order, axis=1)",
        "",
        "values/frames/blocks.py",
        "single.py::test_one_entity_gets_the_same_result_as_among_others",
    ),
    window(
        "an event exactly as old as the window counts",
        'asked[low:high], side="right")',
        'asked[low:high], side="left")',
        "timeline.py",
    ),
    window(
        "a hop moves the end of a window as well",
        "stop = self._count(shift, aligned=False)",
        "stop = self._count(shift, aligned=True)",
        "timeline.py",
    ),
    window(
        "an offset moves only the end of a window",
        "return self._count(length + shift, aligned",
        "return self._count(length, aligned",
        "timeline.py",
    ),
    window(
        "the newest events come oldest first", "runs(-windows.stop + 1, sizes)", "runs(-windows.stop, sizes)", "ends.py"
    ),
    window(
        "a variance of the sample is that of all",
        "(part.count - ddof), 1)",
        "part.count, 1)",
        "spread.py",
    ),
    Mutation(
        "values are cut to their bucket instead of rounded",
        "(1 << (_CUT - 1))",
        "0",
        "engine/windows/sketches.py",
        ("contract/test_window_sketches.py::test_a_quantile_is_within_the_error_that_is_documented",),
    ),
    Mutation(
        "a hash of a sample stands for one value",
        "found[which] = kept << level",
        "found[which] = kept",
        "engine/windows/sketches.py",
        ("contract/test_window_sketches.py::test_the_sketches_of_parts_are_merged_to_that_of_the_whole",),
    ),
    # Windowed groups
    rule(
        "of each entity, only the events in reach of its latest moment are read",
        "greatest(min(t)",
        "greatest(max(t)",
        "engine/duckdb/windows.py",
        "windows.py::test_each_moment_of_a_small_spine_has_all_events_of_its_own_window",
    ),
    rule(
        "the order of events of equal time is not read",
        "ties=is_ordered)",
        "ties=False)",
        "engine/duckdb/windows.py",
        "windows.py::test_of_events_of_equal_time_the_one_recorded_last_is_the_last",
    ),
    rule(
        "every row of a feature group is an event",
        "one_of = () if self.origin.event_id is not None else tuple(events.key_names)",
        "one_of = ()",
        "registry/source.py",
        "windows.py::test_rows_of_a_feature_group_with_equal_keys_and_time_are_one_event",
    ),
    rule(
        "a condition may call anything",
        "and _is_stable(cursor, node[",
        "or _is_stable(cursor, node[",
        "engine/duckdb/conditions.py",
        "windows.py::test_a_condition_about_more_than_one_event_is_refused_before_anything_is_registered",
    ),
    rule(
        "the order of features makes a version",
        "return json.dumps(json.loads(text), sort_keys=True)",
        "return text",
        "define/windowed_group.py",
        "windows.py::test_a_new_definition_is_the_next_version_and_the_same_one_in_another_order_is_not",
    ),
    rule(
        "a vacuum forgets training sets of windows",
        "records = [record, *self._catalog.registry.windowed_groups(record)]",
        "records = [record]",
        "join/training_sets.py",
        "windows.py::test_a_saved_training_set_is_rebuilt_after_late_events_an_overwrite_and_a_vacuum",
    ),
    rule(
        "a source is deleted under its groups",
        "users = [one.label for one in self._registry.windowed_groups(record) if one not in leaving]",
        "users = []",
        "registry/lifetimes.py",
        "windows.py::test_a_source_is_not_deleted_before_what_is_computed_from_it",
    ),
    Mutation(
        "an old event makes an entity found",
        "if row[-1] is not None and row[-1] > oldest else None",
        "if row[-1] is not None else None",
        "engine/windows/codec.py",
        ("contract/test_windows_online.py::test_the_status_does_not_depend_on_events_that_have_left_all_windows",),
    ),
    Mutation(
        "an erased customer stays in the sums of shops",
        "core.loads.reload_windows(windowed)",
        "pass",
        "home/removal.py",
        ("contract/test_windows_online.py::test_an_erasure_reaches_the_windows_of_other_entities_online",),
    ),
    Mutation(
        "one entity counts what its condition leaves out",
        "start, stop = counts[start], counts[stop]",
        "pass",
        "engine/windows/one.py",
        ("contract/test_windows_one.py::test_one_entity_has_the_values_of_the_kernel",),
    ),
    tiles(
        "the values before the first whole tile are left out",
        "first, stop = -(-low // _TILE), high // _TILE",
        "first, stop = low // _TILE, high // _TILE",
        "tiled.py",
        "windows_that_begin_and_end_anywhere_in_tiles_are_what_plain_loops_compute",
    ),
    tiles(
        "a window begins one event too early among those that count",
        "& ((1 << bit) - 1)).bit_count()",
        "& ((2 << bit) - 1)).bit_count()",
        "tiled.py",
        "tiles_of_any_size_give_what_plain_loops_compute",
    ),
    tiles(
        "the unit of sums is forgotten",
        "found.append(ldexp(top, unit + over))",
        "found.append(ldexp(top, over))",
        "many.py",
        "sums_and_extremes_from_tiles_have_the_bits_of_training_sets",
    ),
    tiles(
        "a least value may be a negative zero",
        "pick.reduce(part.array).item() + 0",
        "pick.reduce(part.array).item()",
        "many.py",
        "the_extremes_of_zeros_of_either_sign_are_positive",
    ),
    tiles(
        "what is not finite counts as zero in a window",
        "if not (self.values.are_finite or np.isfinite(self.values.array[self.low : self.high]).all()):",
        "if False:",
        "many.py",
        "a_value_that_is_not_finite_leaves_the_windows_that_have_it_to_the_kernel_and_no_others",
    ),
    tiles(
        "tiles are read as this release would have written them",
        "return layout in self._current",
        "return True",
        "codec.py",
        "tiles_of_columns_that_have_another_type_now_are_read_as_they_were_written",
        "tiles_of_other_selections_are_not_taken_for_those_of_this_release",
    ),
    tiles(
        "features that are left to the kernel go to the wrong entity",
        "for i, value in zip(entities, column, strict=True):",
        "for i, value in zip(entities, column[::-1], strict=True):",
        "codec.py",
        "entities_with_many_and_with_few_events_are_looked_up_together",
    ),
    view(
        "a name means the oldest version that is served",
        "    return table.view or 0, table.name == name\n",
        "    return -(table.view or 0), table.name == name\n",
        "registry/finder.py",
        "contract/test_served_views.py::test_two_versions_of_a_view_are_served_side_by_side_until_one_is_retired",
    ),
    view(
        "one row is computed without defaults",
        "            if values[name] is None:\n                values[name] = _own(default)\n",
        "            if values[name] is None:\n                values[name] = None\n",
        "request/recipe.py",
        "contract/test_served_views.py::test_two_versions_of_a_view_are_served_side_by_side_until_one_is_retired",
    ),
    view(
        "a training set keeps null where a default takes its place online",
        "if name not in recipe.request or name in recipe.defaults]",
        "if name not in recipe.request]",
        "join/viewed.py",
        "contract/test_served_views.py::test_a_served_view_answers_what_it_computes_offline",
    ),
    view(
        "an erasure stays out of the logs",
        "            logs = _erase_from_logs(core, [record, *alike], entity, digest)\n",
        "            logs: list[tuple[GroupRecord, Erased | None]] = []\n",
        "home/removal.py",
        "test_view_logs.py::test_an_entity_that_is_erased_is_erased_from_the_log_too",
    ),
    view(
        "rows from before an erasure are logged after it",
        "if one.taken > erased]",
        "if one.taken > 0]",
        "home/log_writer.py",
        "test_view_logs.py::test_rows_that_were_taken_before_an_erasure_are_not_written_after_it",
    ),
    view(
        "a fault of parity is taken for late data",
        "        self._set(left, name, OTHER if is_there else GONE)\n",
        "        self._set(left, name, LATE if is_there else GONE)\n",
        "views/logged.py",
        "test_view_logs.py::test_a_parity_fault_is_told",
    ),
    view(
        "a function that runs out of values shifts the rows after it",
        "                for values in zip(*inputs, strict=True):  # `map` would take a StopIteration for its own end\n"
        "                    results.append(one.function(*values))  # noqa: PERF401 - those before a failing row are counted\n",
        "                results.extend(map(one.function, *inputs))\n",
        "request/functions.py",
        "test_views_in_use.py::test_a_function_that_raises_stopiteration_fails_and_shifts_no_row",
    ),
    view(
        "all answers share one default",
        "    return deepcopy(value) if isinstance(value, list | dict) else value\n",
        "    return value\n",
        "request/recipe.py",
        "test_views_in_use.py::test_who_changes_an_answer_changes_no_later_answer_and_no_log",
    ),
    view(
        "one odd key costs the answers of others their place in the log",
        "            if field.name not in self._keys:\n                raise\n",
        "            raise\n",
        "serve/answer_log.py",
        "test_views_in_use.py::test_a_key_that_no_entity_can_have_is_null_in_the_log_and_costs_no_other_answer",
    ),
    view(
        "a plain name means a version whose code is not there",
        "        able = [one for one in own if not lacks[one]]\n",
        "        able = []\n",
        "server/definitions.py",
        "test_served_views_over_http.py::test_changed_code_is_rolled_out_while_servers_of_the_old_code_go_on",
    ),
    view(
        "the functions of request values are never tried on real rows",
        "    _try(recipe, given, own)\n",
        "",
        "join/viewed.py",
        "test_views_in_use.py::test_the_rows_of_a_training_set_try_what_no_example_could",
    ),
)


def break_and_test(folder: Path, mutation: Mutation) -> Outcome:
    """Break a copy of the pristine copy and run the tests named for it."""
    outcome = run_tests(break_copy(folder, mutation), mutation.tests)
    print(f"  {mutation.name}: {verdict(outcome)}", flush=True)
    return outcome


def verdict(outcome: Outcome) -> str:
    """Return whether a mutation was caught, as text."""
    return "caught" if outcome.caught else "NOT CAUGHT"


def table(mutations: Sequence[Mutation], outcomes: Sequence[Outcome]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| change | in | caught by |", "|---|---|---|"]
    for mutation, outcome in zip(mutations, outcomes, strict=True):
        lines.append(f"| {mutation.name} | `{mutation.path}` | {outcome.first if outcome.caught else 'NONE'} |")
    return "\n".join(lines)


def main() -> int:
    """Run the script; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--some", type=int, default=len(MUTATIONS), help="how many of the mutations, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice")
    given = parser.parse_args()
    mutations = Random(given.seed).sample(MUTATIONS, given.some)
    mutations.sort(key=MUTATIONS.index)
    with tempfile.TemporaryDirectory(prefix="seeknal-break-") as name:
        folder = Path(name).resolve()
        copy_checkout(folder / "pristine")
        check_mutations(folder / "pristine", MUTATIONS)
        print(f"The tests on an unbroken copy ({len(MUTATIONS)} changes can be made) ...", flush=True)
        unbroken = run_tests(folder / "pristine", sorted({test for mutation in mutations for test in mutation.tests}))
        if not unbroken.passed:
            raise SystemExit(f"{unbroken.output}\nThe tests fail on the unbroken copy, so they can prove nothing.")
        print(f"  {unbroken.count}\nThe tests on broken copies ...", flush=True)
        with ThreadPoolExecutor(PARALLEL) as pool:
            outcomes = list(pool.map(partial(break_and_test, folder), mutations))
    print("", table(mutations, outcomes), sep="\n")
    missed = [outcome for outcome in outcomes if not outcome.caught]
    for outcome in missed:
        print(f"\nNot caught; pytest exited {outcome.returncode} and said:\n{outcome.output}")
    print(f"\n{len(outcomes) - len(missed)} of {len(outcomes)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
