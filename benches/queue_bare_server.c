/* What a queue in PostgreSQL costs at least: jobs taken from the table one by one, each a process of its own, each commit
 * synced by the server. cc -O2 -I/usr/include/postgresql queue_bare_server.c -lpq; a.out URL WORKERS PROGRAM. */
#include <libpq-fe.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static PGresult *must(PGresult *result, PGconn *server) {
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fprintf(stderr, "%s\n", PQerrorMessage(server));
        exit(1);
    }
    return result;
}

static void work(const char *url, char *program) {
    PGconn *server = PQconnectdb(url);
    PQclear(must(PQprepare(server, "take",
        "UPDATE runner.jobs SET state = 'running', claim = 'x', lease_until = 0, attempts = attempts + 1 WHERE id = "
        "(SELECT id FROM runner.jobs WHERE queue = 'default' AND state = 'waiting' AND priority = 0 ORDER BY due, id LIMIT 1 "
        "FOR UPDATE SKIP LOCKED) RETURNING id", 0, NULL), server));
    PQclear(must(PQprepare(server, "end", "UPDATE runner.jobs SET state = 'done', ended = 1 WHERE id = $1", 1, NULL), server));
    for (;;) {
        PGresult *taken = must(PQexecPrepared(server, "take", 0, NULL, NULL, NULL, 0), server);
        if (PQntuples(taken) == 0) break;
        char *arguments[] = {program, NULL};
        pid_t pid;
        int status;
        if (posix_spawn(&pid, program, NULL, NULL, arguments, environ) != 0) exit(1);
        waitpid(pid, &status, 0);
        const char *id = PQgetvalue(taken, 0, 0);
        PQclear(must(PQexecPrepared(server, "end", 1, &id, NULL, NULL, 0), server));
        PQclear(taken);
    }
    PQfinish(server);
}

int main(int count, char **words) {
    if (count != 4) return 64;
    for (int worker = atoi(words[2]); worker > 0; worker--) {
        if (fork() == 0) {
            work(words[1], words[3]);
            _exit(0);
        }
    }
    int status, failed = 0;
    while (wait(&status) > 0) failed |= status;
    return failed != 0;
}
