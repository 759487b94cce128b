#!/bin/sh
# Both hooks: adds the JSON object, the last argument, to hook.log in the work directory. The log of the run before
# is kept as hook.log.old.
set -e
log=$("$RUNNER_TASK_DIR/lib/work-dir")/hook.log
for json; do :; done
# RUNNER_HOOK is chain or task.
case $RUNNER_HOOK,$json in
    chain,*'"event":"start"'*) [ ! -e "$log" ] || mv "$log" "$log.old" ;;
esac
printf '%s\n' "$json" >>"$log"
