#!/bin/sh
# chain_hook: mails [notify] mail_to when a run ended otherwise than done, or did not begin. Needs a sendmail.
set -e
for json; do :; done
value() { printf '%s' "$json" | sed -n "s/.*\"$1\":\"\\([^\"]*\\)\".*/\\1/p"; }
# Why a run did not begin, in words that may hold quotes.
why=$(printf '%s' "$json" | sed -nE 's/.*"message":"(([^"\\]|\\.)*)".*/\1/p' | sed 's/\\\(["\\]\)/\1/g; s/\\n/; /g')
case $json in
    *'"event":"end"'*'"outcome":"done"'*) exit 0 ;;
    *'"event":"end"'*) what="ended: $(value outcome | tr _ ' ')" ;;
    *'"event":"refused"'*) what="did not run: $(value reason)" ;;
    *) exit 0 ;;
esac
# shellcheck disable=SC2086 # it is a command and its arguments
to=$($RUNNER_CONFIG_CMD -g notify.mail_to)
# Commands as they can be typed anywhere.
runner="runner -c $RUNNER_CONFIG"
${SENDMAIL:-/usr/sbin/sendmail} -t <<END
To: $to
Subject: [runner] $(uname -n): chain $RUNNER_CHAIN $what

The chain $RUNNER_CHAIN on $(uname -n) $what.${why:+

$why}
${RUNNER_RUN_ID:+
What ran, and the end of its output:  $runner show $RUNNER_RUN_ID}
Why it does not run, what is next:    $runner why $RUNNER_CHAIN
Once more, now:                       $runner now $RUNNER_CHAIN

$json
END
