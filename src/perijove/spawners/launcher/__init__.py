"""Acting as the signed-in person: the launcher program, and how the hub calls it."""
