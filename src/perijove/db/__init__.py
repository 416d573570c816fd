"""State: engine and units of work, tables, repositories, migrations."""
