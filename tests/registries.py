"""Where tests keep their registries. All others run where SEEKNAL_TEST_REGISTRY says: in files, or with "postgres" in PostgreSQL."""

import pytest

both = pytest.mark.parametrize(
    "registry_kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True
)
"""On both kinds, one after the other."""
in_a_file = pytest.mark.parametrize("registry_kind", ["sqlite"], indirect=True)
"""In a file only: a test with several homes, or of the file itself."""
alone_and_shared = pytest.mark.parametrize(
    ("storage", "registry_kind"),
    [
        pytest.param("folder", "sqlite", id="alone"),
        pytest.param("s3", "postgres", id="shared", marks=pytest.mark.slow),
    ],
    indirect=True,
)
"""With all on one machine, and with the tables in an object store as well as the registry in PostgreSQL."""
