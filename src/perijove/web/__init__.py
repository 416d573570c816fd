"""HTTP: the REST API, the pages, the OAuth provider, and how errors become answers."""
