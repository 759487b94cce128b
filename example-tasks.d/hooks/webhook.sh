#!/bin/sh
# chain_hook: sends the message to [notify] webhook when a run has ended or did not begin. Needs curl.
set -e
for json; do :; done
case $json in *'"event":"start"'*) exit 0 ;; esac
# shellcheck disable=SC2086 # it is a command and its arguments
url=$($RUNNER_CONFIG_CMD -g notify.webhook)
printf '%s' "$json" |
    curl --fail --silent --show-error --max-time 10 --retry 2 --header 'Content-Type: application/json' --data-binary @- "$url"
