#!/bin/bash
# A PostgreSQL cluster of its own on loopback, from Debian's package (15 on Debian 12), tuned for
# tests: a power cut may lose it. Publishes PERIJOVE_TEST_POSTGRESQL, the URL of a role that may
# create databases. Run again, it leaves a running cluster alone.
TESTBED=postgresql
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
only_one

if running postgres; then
    say "is up"
    exit 0
fi

newest_bin() { find /usr/lib/postgresql -maxdepth 2 -name bin -type d 2>/dev/null | sort -V | tail -n 1; }
[ -x "$(newest_bin)/postgres" ] || apt_need postgresql
BIN=$(newest_bin)

# PostgreSQL refuses root, so root hands over to the account that Debian's package made.
if is_root; then
    owner=postgres
    as_owner() { setpriv --reuid postgres --regid postgres --init-groups env -i PATH=/usr/bin:/bin LANG=C.UTF-8 "$@"; }
else
    owner=$(id -un)
    as_owner() { "$@"; }
fi

# The place of the cluster, with its port and password, is kept, so that a stopped one comes back.
if [ ! -e "$STATE/place" ] || [ ! -d "$(cat "$STATE/place")/data" ]; then
    place=$(mktemp -d /var/tmp/perijove-postgresql-XXXXXXXX)
    chown "$owner" "$place"
    (
        umask 077
        od -An -N 24 -t x1 /dev/urandom | tr -d ' \n' >"$STATE/password"
        cp "$STATE/password" "$place/password"
    )
    chown "$owner" "$place/password"
    as_owner "$BIN/initdb" --pgdata "$place/data" --username perijove --pwfile "$place/password" \
        --auth scram-sha-256 --encoding UTF8 --locale C.UTF-8 --no-sync >"$STATE/initdb.log" 2>&1 ||
        { tail -n 20 "$STATE/initdb.log" >&2 && die "initdb failed"; }
    rm -f "$place/password"
    echo "$place" >"$STATE/place"
fi
place=$(cat "$STATE/place")

port=$("$("$ROOT/scripts/find-python")" -c \
    'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
# A cluster that was killed leaves its pid file behind; the process it names may be another by now.
as_owner rm -f "$place/data/postmaster.pid"
if is_root; then
    drop=(setpriv --reuid postgres --regid postgres --init-groups)
else
    drop=()
fi
start_daemon postgres "${drop[@]}" "$BIN/postgres" -D "$place/data" -p "$port" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c fsync=off -c synchronous_commit=off -c full_page_writes=off \
    -c max_connections=300 -c shared_buffers=64MB -c jit=off -c autovacuum_naptime=600
PGPASSWORD=$(cat "$STATE/password")
export PGPASSWORD
wait_for 60 "PostgreSQL" "$BIN/psql" -qX -h 127.0.0.1 -p "$port" -U perijove -d postgres -c 'select 1'
publish "PERIJOVE_TEST_POSTGRESQL=postgresql://perijove:$PGPASSWORD@127.0.0.1:$port/postgres"
say "up on 127.0.0.1:$port ($("$BIN/postgres" --version))"
