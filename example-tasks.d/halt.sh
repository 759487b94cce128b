#!/bin/sh
# The halt task: runs once when a task exits with 2, and when the tries are used up. It could power the machine off.
set -e
power_off=$($RUNNER_CONFIG_CMD -g halt.power_off)
because="reason $RUNNER_HALT_REASON${RUNNER_FAILED_TASK:+, task $RUNNER_FAILED_TASK}"
case $power_off in
    yes)
        echo "powering off: $because"
        exec poweroff
        ;;
    *) echo "would power this machine off now ($because); [halt] power_off = $power_off" ;;
esac
