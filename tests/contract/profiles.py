"""How many examples Hypothesis draws for each property: few in each run, or many (SEEKNAL_TEST_PROFILE).

Each run draws new ones from a seed, which is printed; SEEKNAL_TEST_SEED repeats a run.

- `usual`: few, and a failing one is shown as it was drawn, since a search for a smaller one can take minutes;
- `fast`: a third of them, for `make fast`;
- `shrink`: as many as usual, and the smallest failing one is searched for;
- `long`: thousands in all, with such a search.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase

NAME = os.environ.get("SEEKNAL_TEST_PROFILE", "usual")
IS_LONG = NAME == "long"

# Every example has a project of its own, so they may share the home of their test.
_SHARED = {
    "deadline": None,
    "print_blob": True,
    "database": DirectoryBasedExampleDatabase(Path(__file__).parents[2] / ".hypothesis" / "examples"),
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}

_AS_DRAWN = [Phase.explicit, Phase.reuse, Phase.generate]
settings.register_profile("usual", max_examples=15, phases=_AS_DRAWN, **_SHARED)
settings.register_profile("fast", max_examples=5, phases=_AS_DRAWN, **_SHARED)
settings.register_profile("shrink", max_examples=15, **_SHARED)
settings.register_profile("long", max_examples=500, **_SHARED)

PROFILE = settings.get_profile(NAME)


def at_least(count: int) -> settings:
    """Return the settings of a property whose examples are cheap: this many, or a third for `make fast`."""
    return settings(PROFILE, max_examples=max(count // 3 if NAME == "fast" else count, PROFILE.max_examples))
