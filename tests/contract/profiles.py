"""How many examples Hypothesis tries: few and always the same ones, or many (SEEKNAL_TEST_PROFILE=long)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# Every example has a project of its own, so they may share the home of their test.
_SHARED = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}

# The fast one does not look for a smaller example, which can take minutes; the long one does, and prints how to see it again.
_FAST = {"max_examples": 15, "derandomize": True, "database": None, "phases": [Phase.explicit, Phase.generate]}

settings.register_profile("fast", **_FAST, **_SHARED)
settings.register_profile("long", max_examples=2000, **_SHARED)

PROFILE = settings.get_profile(os.environ.get("SEEKNAL_TEST_PROFILE", "fast"))
