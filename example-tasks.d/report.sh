#!/bin/sh
# Says what was done. A file without a number comes after all that have one.
set -e
work_dir=$("$RUNNER_TASK_DIR/lib/work-dir")
echo "done in try $RUNNER_TRY of $RUNNER_MAX_TRIES; everything is in $work_dir:"
ls "$work_dir"
