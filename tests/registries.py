"""Tests that run on both kinds of registry."""

import pytest

both = pytest.mark.parametrize(
    "registry_kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True
)
