"""Helpers that know nothing of hubs: time, ids, loops, files, configuration sections."""
