"""Use cases, one module for each noun: they authorise, and write what is wanted, with events."""
