"""The requests of both clients: each call is one `PreparedRequest`, which is built here and sent by `Sender`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import msgspec

from seeknal.client.calls import (
    PreparedRequest,
    body_of,
    check_entities,
    check_spine,
    lookup_to_json,
    path_of,
    read_batches,
    read_pushed,
    read_table,
    read_view,
)
from seeknal.client.sending import Sender
from seeknal.define.feature_group import FeatureLookup, check_lookups
from seeknal.names import check_features
from seeknal.serve.keys import check_keys
from seeknal.serve.online_table import as_python, check_output
from seeknal.values import frames


class Calls(Sender):
    """The requests that both clients send."""

    @staticmethod
    def _get_features(
        kind_of_path: str,
        table: str,
        keys: object,
        output: str,
        features: Sequence[str] | None,
        project: str | None,
        *,
        with_status: bool,
    ) -> PreparedRequest:
        check_output(output)
        names = check_features(features)
        check_keys(keys)
        content, kind, params = body_of("keys", keys, {"features": names, "with_status": with_status})

        def read(body: IO[bytes]) -> Any:
            found = read_table(body)
            check_entities(content, kind, found)
            found = found.replace_schema_metadata(None)  # it names the join keys, for the check alone
            if output != "dicts":
                return frames.from_arrow(found, output)
            with as_python():
                return found.to_pylist()

        return PreparedRequest(path_of(kind_of_path, table, project), read, content, kind, params)

    @staticmethod
    def _view(name: str, project: str | None) -> PreparedRequest:
        path = path_of("views", name, project)
        label = path.removeprefix("/v1/views/")
        return PreparedRequest(path, lambda body: read_view(body, label))

    @staticmethod
    def _push(group: str, rows: object, project: str | None) -> PreparedRequest:
        content, kind, _ = body_of("rows", [rows] if isinstance(rows, Mapping) else rows, {})
        path = path_of("push", group, project)
        label = path.removeprefix("/v1/push/")
        if_unsure = "The rows may or may not be stored. Push them again: no row is stored twice."
        return PreparedRequest(
            path, lambda body: read_pushed(body, label), content, kind, is_long=True, if_unsure=if_unsure
        )

    @staticmethod
    def _historical(
        lookups: Sequence[FeatureLookup],
        spine: object,
        options: Mapping[str, Any],
        read: Callable[[IO[bytes]], Any] | None = None,
    ) -> PreparedRequest:
        lookups = check_lookups(lookups)
        query = {
            "lookups": [lookup_to_json(one) for one in lookups],
            **{name: value for name, value in options.items() if value is not None},
        }
        content = msgspec.json.encode(query)
        return PreparedRequest(
            "/v1/historical", read or read_batches, content, spine=spine, is_large=read is None, is_long=True
        )

    def _training_set(
        self, lookups: Sequence[FeatureLookup], spine: object, output: str | None, options: Mapping[str, Any]
    ) -> PreparedRequest:
        kind = frames.output_kind(spine, output)
        frame = frames.opened(spine).only()  # a spine is evaluated once: it is sent, and the features are added to it

        def read(body: IO[bytes]) -> Any:
            found = read_table(body)
            own = frame.names
            features = [name for name in found.column_names if name not in own]
            kept = [name for name in found.column_names if name in own]
            check_spine(frame.table(kept), found)
            return frames.with_columns(frame, kept, found.select(features), kind)

        return self._historical(lookups, frame, options, read)
