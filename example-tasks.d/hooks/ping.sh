#!/bin/sh
# chain_hook: calls [notify] ping after a run that is done, and [notify] ping/fail after another. Somebody else
# misses the call when this machine is off or runner does not run: a dead man's switch. Needs curl.
set -e
for json; do :; done
case $json in
    *'"event":"end"'*'"outcome":"done"'*) path= ;;
    *'"event":"start"'*) exit 0 ;;
    *) path=/fail ;;
esac
# shellcheck disable=SC2086 # it is a command and its arguments
url=$($RUNNER_CONFIG_CMD -g notify.ping)
curl --fail --silent --show-error --max-time 10 --retry 2 --output /dev/null "$url$path"
