#!/bin/sh
# Plays the other side: makes the repository that the checkout comes from, and adds a commit to it in every run.
# Where git.remote names another one there is nothing to do: exit 77, a skip code.
set -e
work_dir=$("$RUNNER_TASK_DIR/lib/work-dir")
remote=$($RUNNER_CONFIG_CMD -g git.remote)
if [ "$remote" != ./repository ]; then
    echo "the repository is not ours: $remote"
    exit 77
elif ! command -v git >/dev/null; then
    echo "git is not installed"
    exit 77
fi
# Somebody who was called by git may have handed its variables on to us.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
# Where cd fails, sh exits with 2, and that would be a halt.
cd "$work_dir" || exit 1
if [ ! -d repository ]; then
    git -c init.defaultBranch=main init --quiet repository
fi
git -C repository -c user.name=runner -c user.email=runner@localhost commit --quiet --allow-empty -m "$RUNNER_RUN_ID"
echo "the repository has $(git -C repository rev-list --count HEAD) commits"
