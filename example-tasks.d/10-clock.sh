#!/bin/sh
# A machine that has just started may believe that it is 1970. What compares dates has to wait until it does not.
set -e
not_before=$($RUNNER_CONFIG_CMD -g clock.not_before)
if [ "$(date +%s)" -lt "$not_before" ]; then
    echo "the clock says $(date): that cannot be, try again" >&2
    exit 1
fi
echo "the clock says $(date)"
