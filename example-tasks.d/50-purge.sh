#!/bin/sh
# Removes the oldest build directories until only purge.keep are left.
set -e
work_dir=$("$RUNNER_TASK_DIR/lib/work-dir")
keep=$($RUNNER_CONFIG_CMD -g purge.keep)
set -- "$work_dir"/builds/build-*
removed=0
while [ "$#" -gt "$keep" ]; do
    rm -rf "$1"
    removed=$((removed + 1))
    shift
done
echo "removed $removed build directories, kept $#"
