"""Frozen values, transitions, scope algebra and rules: pure functions, no library."""
