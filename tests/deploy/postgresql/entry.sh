#!/bin/sh
# Makes the database at the first start, then becomes the server.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s\n' "$POSTGRES_PASSWORD" |
        initdb --username="$POSTGRES_USER" --auth=scram-sha-256 --pwfile=/dev/stdin --no-sync --pgdata="$PGDATA" >/dev/null
    echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres >/dev/null
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
fi
exec "$@" -D "$PGDATA" -c listen_addresses='*'
