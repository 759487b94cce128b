/*
 * Counts the instructions a program executes in user space between its FIRST and its LAST child, one ptrace(2) step
 * at a time: slow, but with every system call the kernel has, where a simulator knows only those of its own time.
 *
 *   steps FIRST LAST CMD...     prints the count
 *
 * The children are let go at once. A repeated string instruction counts once for each repetition. An instruction of the
 * vDSO counts once for each reading of the clock: its loop begins again when the kernel's tick came in between
 * (lib/vdso/gettimeofday.c), as it does to nearly nobody who is not stepped through.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static uint64_t vdso, vdso_end;
static long *executed; /* for each byte of the vDSO, the reading that executed it last */

static int find_vdso(pid_t tracee)
{
	char path[64], line[512];
	snprintf(path, sizeof path, "/proc/%d/maps", (int)tracee);
	FILE *maps = fopen(path, "r");
	while (maps && fgets(line, sizeof line, maps))
		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &vdso, &vdso_end) == 2)
			executed = calloc(vdso_end - vdso, sizeof *executed);
	if (maps)
		fclose(maps);
	return executed != NULL;
}

/* Whether the instruction that comes next counts. */
static int counts(pid_t tracee)
{
	static long reading = 1, was_inside;
	struct __ptrace_syscall_info info = { 0 };
	ptrace(PTRACE_GET_SYSCALL_INFO, tracee, sizeof info, &info);
	int inside = info.instruction_pointer >= vdso && info.instruction_pointer < vdso_end;
	reading += was_inside && !inside;
	was_inside = inside;
	if (!inside)
		return 1;
	long *last = &executed[info.instruction_pointer - vdso];
	int again = *last == reading;
	*last = reading;
	return !again;
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
		if (within && !executed && !find_vdso(tracee))
			return 1;
		steps += within && counts(tracee);
		if (ptrace(within ? PTRACE_SINGLESTEP : PTRACE_CONT, tracee, 0, signal) != 0 || waitpid(tracee, &status, 0) < 0)
			return 1;
		if (!WIFSTOPPED(status))
			break;
		int event = status >> 16;
		signal = event == 0 && WSTOPSIG(status) != SIGTRAP ? WSTOPSIG(status) : 0;
		if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
			children++;
			let_go(tracee);
		}
	}
	printf("%ld\n", steps);
	return children >= last && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
