/*
 * The tasks. Linked statically, so that what is measured is the start of a process and not that of a loader.
 *
 * NAP_MS     how long it sleeps; 0 does nothing at all
 * GRANDCHILD leaves a child in a session of its own, which sleeps as long
 */
#include <time.h>
#include <unistd.h>

#ifndef NAP_MS
#define NAP_MS 0
#endif

int main(void)
{
#ifdef GRANDCHILD
	if (fork() == 0)
		setsid();
#endif
	if (NAP_MS > 0) {
		struct timespec nap = {NAP_MS / 1000, NAP_MS % 1000 * 1000000L};
		nanosleep(&nap, 0);
	}
	return 0;
}
