"""Entities: the things that features describe, and the columns that identify them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from seeknal.errors import DefinitionError, notice, plural
from seeknal.names import check_name, check_names, is_generic, join_keys_of


@dataclass(frozen=True, init=False)
class Entity:
    """A kind of thing that features describe, such as a customer or an airport.

    Args:
        name: Name of the kind of thing, in the singular.
        join_keys: Columns that together identify one such thing, in order.
        description: A sentence for readers.
        pii_keys: The join keys that are personal data; `seeknal debug` masks them. A list passed as the third argument
            is taken as `pii_keys`, since that was their position in the first Seeknal.

    Raises:
        DefinitionError: A name breaks the rule for names, or the keys are missing, repeated or not a list.
    """

    name: str
    join_keys: tuple[str, ...]
    description: str | None
    pii_keys: tuple[str, ...]

    def __init__(
        self,
        name: str,
        join_keys: Sequence[str] = (),
        description: str | None = None,
        pii_keys: Sequence[str] | None = None,
    ) -> None:
        if isinstance(description, list | tuple):
            description, pii_keys = pii_keys, description  # their order in the first Seeknal
        if description is not None and not isinstance(description, str):
            raise DefinitionError(
                f"description={description!r} of entity {name!r} is not text. Leave it out, or write a sentence."
            )
        self._set(
            check_name("entity", name),
            _columns("join_keys", join_keys),
            description,
            () if pii_keys is None else _columns("pii_keys", pii_keys),
        )
        if not self.join_keys:
            raise DefinitionError(
                f'Entity {name!r} has no join keys. Write join_keys=["{name}_id"], for example, or take the registered '
                f"entity: FeatureStore().entities.get({name!r}).entity."
            )
        if unknown := set(self.pii_keys) - set(self.join_keys):
            raise DefinitionError(
                f"pii_keys of entity {name!r} names {', '.join(sorted(unknown))}, but only join keys can be personal data "
                f"here: {', '.join(self.join_keys)}."
            )
        _advise(self)

    @classmethod
    def stored(
        cls, name: str, join_keys: Sequence[str], description: str | None = None, pii_keys: Sequence[str] = ()
    ) -> Entity:
        """Return an entity read from the store. Its checks and notices came when it was first created."""
        entity = object.__new__(cls)
        entity._set(name, tuple(join_keys), description, tuple(pii_keys))
        return entity

    def get_or_create(self) -> Entity:
        """Return this entity. The first group that uses it registers it, and each later one checks its join keys."""
        return self

    @staticmethod
    def list() -> NoReturn:
        """Refuse to list the entities, which the first Seeknal printed.

        Raises:
            DefinitionError: Always; it names the calls that list them.
        """
        raise DefinitionError(
            "Entity.list() no longer exists. Call FeatureStore().entities.all(), or run: seeknal list entities"
        )

    def set_key_values(self, *values: object) -> dict[str, object]:
        """Return these values of the join keys, in order, by their names: one of the keys that `get_features` takes.

        Raises:
            DefinitionError: The number of values is not that of the join keys.
        """
        if len(values) != len(self.join_keys):
            raise DefinitionError(
                f"{join_keys_of(f'entity {self.name!r}', self.join_keys)}; set_key_values was given "
                f"{plural(len(values), 'value')}. Pass one for each key."
            )
        return dict(zip(self.join_keys, values, strict=True))

    def _set(self, *values: object) -> None:
        # The dataclass is frozen, so even its own `__init__` cannot assign attributes in the usual way.
        for field, value in zip(("name", "join_keys", "description", "pii_keys"), values, strict=True):
            object.__setattr__(self, field, value)


def _columns(argument: str, names: Sequence[str]) -> tuple[str, ...]:
    columns = check_names(argument, names)
    if "" in columns:
        raise DefinitionError(f"{argument} contains an empty name: {columns!r}. Leave it out.")
    if len(set(columns)) != len(columns):
        raise DefinitionError(f"{argument} names a column twice: {', '.join(columns)}. Remove one.")
    return columns


def _advise(entity: Entity) -> None:
    vague = [name for name in (entity.name, *entity.join_keys) if is_generic(name)]
    if vague:
        notice(
            f"{' and '.join(map(repr, vague))} in an entity will mean nothing to the next reader. "
            'Say what it identifies: Entity(name="customer", join_keys=["customer_id"]).'
        )
