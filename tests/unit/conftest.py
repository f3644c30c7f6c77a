"""Unit tests take seconds: hypothesis looks at fewer examples in each; ``HYPOTHESIS_PROFILE=deep`` at many."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("deep", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
