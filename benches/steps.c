/*
 * Counts the instructions a program executes in user space between its FIRST and its LAST child, one ptrace(2) step
 * at a time: slow, but with every system call the kernel has, where a simulator knows only those of its own time.
 *
 *   steps FIRST LAST CMD...     prints the count
 *
 * The children are let go at once. A repeated string instruction counts once for each repetition.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPTIONS (PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

static void let_go(pid_t tracee)
{
	unsigned long child;
	int status;
	ptrace(PTRACE_GETEVENTMSG, tracee, 0, &child);
	if (waitpid(child, &status, __WALL) == (pid_t)child)
		ptrace(PTRACE_DETACH, child, 0, 0);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 64;
	long first = atol(argv[1]), last = atol(argv[2]), children = 0, steps = 0;
	pid_t tracee = fork();
	int status;
	if (tracee == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execv(argv[3], argv + 3);
		_exit(127);
	}
	waitpid(tracee, &status, 0);
	ptrace(PTRACE_SETOPTIONS, tracee, 0, OPTIONS);
	for (int signal = 0;;) {
		int within = children >= first && children < last;
		if (ptrace(within ? PTRACE_SINGLESTEP : PTRACE_CONT, tracee, 0, signal) != 0 || waitpid(tracee, &status, 0) < 0)
			return 1;
		if (!WIFSTOPPED(status))
			break;
		int event = status >> 16;
		steps += within;
		signal = event == 0 && WSTOPSIG(status) != SIGTRAP ? WSTOPSIG(status) : 0;
		if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
			children++;
			let_go(tracee);
		}
	}
	printf("%ld\n", steps);
	return children >= last && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
