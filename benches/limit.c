/*
 * The limit: the least that running the files of a directory one after the other can cost.
 *
 *   limit bare DIR      posix_spawn and waitpid for each file, in order; prints nothing
 *   limit group DIR     the same, each file in a process group of its own with its signals at default
 *   limit print DIR     the same, with two lines on stderr for each file
 *   limit wide DIR      the same, sixteen at a time
 *   limit list DIR      reads and sorts the names, starts nothing
 *   limit meter CMD...  runs one command with its output discarded and prints, for it and all it waited for, the time
 *                       that passed and the time of the processors in us, and the peak memory in KiB (wait4(2))
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#define WIDTH 16

extern char **environ;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static pid_t start(char **argv, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes)
{
	pid_t pid;
	int error = posix_spawn(&pid, argv[0], actions, attributes, argv, environ);
	if (error != 0) {
		fprintf(stderr, "%s: %s\n", argv[0], strerror(error));
		exit(1);
	}
	return pid;
}

static long microseconds(struct timeval time)
{
	return time.tv_sec * 1000000L + time.tv_usec;
}

static int meter(char **argv)
{
	posix_spawn_file_actions_t discard;
	struct timespec began, ended;
	struct rusage usage;
	int status;
	posix_spawn_file_actions_init(&discard);
	posix_spawn_file_actions_addopen(&discard, 1, "/dev/null", O_WRONLY, 0);
	clock_gettime(CLOCK_MONOTONIC, &began);
	if (wait4(start(argv, &discard, NULL), &status, 0, &usage) < 0)
		die("wait4");
	clock_gettime(CLOCK_MONOTONIC, &ended);
	long passed = (ended.tv_sec - began.tv_sec) * 1000000L + (ended.tv_nsec - began.tv_nsec) / 1000;
	printf("%ld %ld %ld\n", passed, microseconds(usage.ru_utime) + microseconds(usage.ru_stime), usage.ru_maxrss);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void run(const char *dir, const char *name, const posix_spawnattr_t *attributes, int tell)
{
	char path[PATH_MAX];
	char *argv[] = {path, NULL};
	int status;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	if (tell)
		dprintf(2, "%s: started\n", name);
	pid_t pid = start(argv, NULL, attributes);
	if (waitpid(pid, &status, 0) != pid || status != 0)
		die("waitpid");
	if (tell)
		dprintf(2, "%s: ok\n", name);
}

static void run_wide(const char *dir, struct dirent **names, int count)
{
	char path[PATH_MAX];
	char *argv[] = {path, NULL};
	int status, running = 0;
	for (int at = 0; at < count || running > 0;) {
		if (at < count && running < WIDTH) {
			snprintf(path, sizeof path, "%s/%s", dir, names[at++]->d_name);
			start(argv, NULL, NULL);
			running++;
		} else {
			if (wait(&status) < 0 || status != 0)
				die("wait");
			running--;
		}
	}
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 64;
	const char *mode = argv[1], *dir = argv[2];
	if (strcmp(mode, "meter") == 0)
		return meter(argv + 2);

	posix_spawnattr_t own_group;
	sigset_t defaults;
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_init(&own_group);
	posix_spawnattr_setpgroup(&own_group, 0);
	posix_spawnattr_setsigdefault(&own_group, &defaults);
	posix_spawnattr_setflags(&own_group, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);

	struct dirent **names;
	int count = scandir(dir, &names, is_visible, alphasort);
	if (count < 0)
		die(dir);
	if (strcmp(mode, "list") == 0)
		return 0;
	if (strcmp(mode, "wide") == 0) {
		run_wide(dir, names, count);
		return 0;
	}
	for (int at = 0; at < count; at++)
		run(dir, names[at]->d_name, strcmp(mode, "group") == 0 ? &own_group : NULL, strcmp(mode, "print") == 0);
	return 0;
}
