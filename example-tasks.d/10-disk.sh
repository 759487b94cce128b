#!/bin/sh
# Looks for room. A full disk is nothing that a retry cures, and a machine with one is of no use: exit 2, halt.
set -e
work_dir=$("$RUNNER_TASK_DIR/lib/work-dir")
wanted=$($RUNNER_CONFIG_CMD -g disk.min_free_mb)
free=$(($(df -Pk "$work_dir" | { read -r _; read -r _ _ _ free _; echo "$free"; }) / 1024))
if [ "$free" -lt "$wanted" ]; then
    echo "$free MB free, $wanted wanted (disk.min_free_mb)" >&2
    exit 2
fi
echo "$free MB free"
