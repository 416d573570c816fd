"""A client of the hub's API for any machine: standard library, `wire`, `kit` and msgspec only."""
