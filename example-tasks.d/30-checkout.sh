#!/bin/sh
# Makes a checkout of git.remote, or brings the one there is up to date. Without git it is skipped.
set -e
work_dir=$("$RUNNER_TASK_DIR/lib/work-dir")
remote=$($RUNNER_CONFIG_CMD -g git.remote)
if ! command -v git >/dev/null; then
    echo "git is not installed"
    exit 77
fi
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
# Where cd fails, sh exits with 2, and that would be a halt.
cd "$work_dir" || exit 1
case $remote in
    ./*) remote=$work_dir/${remote#./} ;;
esac
# A clone that was cut off must not look like a checkout: it gets its name when it is whole.
if [ ! -d checkout ]; then
    rm -rf checkout.new
    git clone --quiet -- "$remote" checkout.new
    mv checkout.new checkout
else
    git -C checkout fetch --quiet -- "$remote" HEAD
    git -C checkout reset --quiet --hard FETCH_HEAD
fi
echo "the checkout is at $(git -C checkout log -1 --format='%h, %s')"
