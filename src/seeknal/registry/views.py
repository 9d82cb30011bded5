"""Registering versions of feature views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seeknal.errors import StoreError, notice
from seeknal.registry.protocol import Registry
from seeknal.registry.records import ViewRecord
from seeknal.registry.view_content import ViewContent
from seeknal.values.times import now

_TRIES = 20
"""How often a version is registered whose number another process took meanwhile."""


def save_version(  # noqa: PLR0913 - what is said about a view beside its content
    registry: Registry,
    project: str,
    name: str,
    content: ViewContent,
    *,
    description: str | None = None,
    owner: str | None = None,
    tags: Sequence[str] = (),
    tells: bool = True,
) -> ViewRecord:
    """Return the version of a view that has this content, and register it if there is none.

    A version that was retired is taken up again. Unless `tells` is false, a new version gives a notice.

    Raises:
        StoreError: Other processes register versions all the time.
    """
    meaning = content.meaning
    for _ in range(_TRIES):
        versions = registry.views(project, name)
        same = next((one for one in reversed(versions) if one.content.meaning == meaning), None)
        number = same.number if same else (versions[-1].number if versions else 0) + 1
        text = same.text if same else content.dumps()
        made = ViewRecord(project, name, number, text, now(), None, description, owner, tuple(tags))
        if same and same.retired_at is None and not (description or owner or tags):
            return same
        if (saved := registry.save_view(made)) is None:
            continue
        if same and same.retired_at is not None:
            registry.retire_view(same, None)
            saved = replace(saved, retired_at=None)
            notice(f"{same.label} was retired, and is in use again.")
        if tells and versions and not same:
            changes = "; ".join(versions[-1].content.changes(content))
            notice(f"{project}/{name} is now at version {number}: {changes}.")
        return saved
    raise StoreError(f"Feature view {project}/{name} is being registered by others all the time. Try again.")
