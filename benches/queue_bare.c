/* What a queue costs at least: jobs taken from the table one by one, each a process of its own, each commit synced.
 * cc -O2 queue_bare.c -lsqlite3; a.out FILE WORKERS PROGRAM works until there is nothing to do; a.out FILE SOCKET PROGRAM
 * ARGUMENT begins anew whenever the socket is rung, until it is killed. */
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int wait_for_others(void *unused, int times) {
    (void)unused;
    poll(NULL, 0, 1);
    return times < 60000;
}

static void must(int code, sqlite3 *database) {
    if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_ROW) {
        fprintf(stderr, "%s\n", sqlite3_errmsg(database));
        exit(1);
    }
}

static void work(const char *file, char *program, char *argument, int bell) {
    sqlite3 *database;
    sqlite3_stmt *take, *end;
    must(sqlite3_open(file, &database), database);
    sqlite3_busy_handler(database, wait_for_others, NULL);
    must(sqlite3_exec(database, "PRAGMA synchronous = FULL", NULL, NULL, NULL), database);
    must(sqlite3_prepare_v2(database,
        "UPDATE jobs SET state = 'running', claim = 'x', lease_until = 0, attempts = attempts + 1 WHERE id = "
        "(SELECT id FROM jobs WHERE queue = 'default' AND state = 'waiting' AND priority = 0 ORDER BY due, id LIMIT 1) "
        "RETURNING id", -1, &take, NULL), database);
    must(sqlite3_prepare_v2(database, "UPDATE jobs SET state = 'done', ended = 1 WHERE id = ?", -1, &end, NULL), database);
    for (;;) {
        must(sqlite3_exec(database, "BEGIN IMMEDIATE", NULL, NULL, NULL), database);
        int code = sqlite3_step(take);
        must(code, database);
        sqlite3_int64 id = code == SQLITE_ROW ? sqlite3_column_int64(take, 0) : 0;
        if (id != 0) must(sqlite3_step(take), database);
        sqlite3_reset(take);
        must(sqlite3_exec(database, "COMMIT", NULL, NULL, NULL), database);
        if (id == 0) {
            char rings[64];
            if (bell < 0 || recv(bell, rings, sizeof rings, 0) < 0) break;
            continue;
        }
        char *arguments[] = {program, argument, NULL};
        pid_t pid;
        int status;
        if (posix_spawn(&pid, program, NULL, NULL, arguments, environ) != 0) exit(1);
        waitpid(pid, &status, 0);
        must(sqlite3_exec(database, "BEGIN IMMEDIATE", NULL, NULL, NULL), database);
        sqlite3_bind_int64(end, 1, id);
        must(sqlite3_step(end), database);
        sqlite3_reset(end);
        must(sqlite3_exec(database, "COMMIT", NULL, NULL, NULL), database);
    }
    sqlite3_close(database);
}

static int listen_at(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int bell = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bell < 0 || strlen(name) >= sizeof address.sun_path) exit(64);
    strcpy(address.sun_path, name);
    if (bind(bell, (struct sockaddr *)&address, sizeof address) != 0) exit(64);
    return bell;
}

int main(int count, char **words) {
    if (count == 5) {
        work(words[1], words[3], words[4], listen_at(words[2]));
        return 1;
    }
    if (count != 4) return 64;
    for (int worker = atoi(words[2]); worker > 0; worker--) {
        if (fork() == 0) {
            work(words[1], words[3], NULL, -1);
            _exit(0);
        }
    }
    int status, failed = 0;
    while (wait(&status) > 0) failed |= status;
    return failed != 0;
}
