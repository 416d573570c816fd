#!/bin/bash
# Debian's Chromium and axe-core, for the browser tests. Publishes PERIJOVE_TEST_CHROMIUM (the
# program; Playwright drives it and downloads none) and PERIJOVE_TEST_AXE (axe.min.js).
TESTBED=chromium
# shellcheck source=testbeds/common.sh
. "$(dirname "$(readlink -f "$0")")/../common.sh"
only_one

chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$chromium" ]; then
    # Without fonts every page is empty boxes, and the screenshots say nothing.
    apt_need chromium fonts-dejavu-core
    chromium=$(command -v chromium)
fi
npm_need "$ROOT/.venvs/axe" axe-core@4.14.1
publish "PERIJOVE_TEST_CHROMIUM=$chromium" \
    "PERIJOVE_TEST_AXE=$ROOT/.venvs/axe/node_modules/axe-core/axe.min.js"
say "up: $("$chromium" --version 2>/dev/null || echo "$chromium")"
