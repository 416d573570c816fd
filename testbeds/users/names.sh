# shellcheck shell=bash
# The accounts of the bed `users`. Sourced, never run.

# shellcheck disable=SC2034  # for those who source this
PEOPLE=(alice bob carol dave) EXPIRED=pj-expired LOCKED=pj-locked HUB=perijove-hub GROUP=perijove-users
PAM_SERVICE=perijove-testbed
# The environment of the stock single-user server that these accounts and their jobs can read.
SINGLEUSER=/opt/perijove-testbeds/singleuser-5
# What a hub under the account $HUB runs by; the clone's own may stand where that cannot go.
HUB_PREFIX=/opt/perijove-testbeds/hub
