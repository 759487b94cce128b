/* A task that writes down when it began, and does nothing else. a.out FILE. */
#include <stdio.h>
#include <time.h>

int main(int count, char **words) {
    struct timespec now;
    char beside[4096];
    clock_gettime(CLOCK_REALTIME, &now);
    if (count != 2 || snprintf(beside, sizeof beside, "%s.new", words[1]) >= (int)sizeof beside) return 64;
    FILE *file = fopen(beside, "w");
    if (file == NULL || fprintf(file, "%lld.%09ld\n", (long long)now.tv_sec, now.tv_nsec) < 0 || fclose(file) != 0) return 1;
    return rename(beside, words[1]) != 0;
}
