#!/bin/sh
# Makes a build directory with the next number, so that there is something to purge.
set -e
work_dir=$("$RUNNER_TASK_DIR/lib/work-dir")
builds=$work_dir/builds
mkdir -p "$builds"
number=$(cat "$builds/last" 2>/dev/null || echo 0)
# Past those that a try made which did not come to write its number down.
while
    number=$((number + 1))
    build=$builds/build-$(printf '%06d' "$number")
    [ -e "$build" ]
do :; done
mkdir "$build"
echo "$RUNNER_RUN_ID" >"$build/made-by"
echo "$number" >"$builds/last"
echo "made $build"
