"""A multi-user notebook hub."""
