#!/bin/sh
# Waits for the network by failing: runner waits and tries again. Nothing here sends anything; the link of the example
# is up from the try on that network.up_on_try names.
set -e
up_on_try=$($RUNNER_CONFIG_CMD -g network.up_on_try)
if [ "$RUNNER_TRY" -lt "$up_on_try" ]; then
    echo "the network is not yet up" >&2
    exit 1
fi
interfaces=
for interface in /sys/class/net/*; do
    [ -e "$interface" ] && interfaces="$interfaces ${interface##*/}"
done
echo "the network is up; interfaces:${interfaces:- none}"
