"""Profiles of other hubs as profiles of ours: ``perijove import-profiles``."""
