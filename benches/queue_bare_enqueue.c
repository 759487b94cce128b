/* What adding a job from the command line costs at least: a process that opens the file, adds a row, prints its id. With a
 * socket's name the job is due now, and whoever waits there is woken.
 * cc -O2 queue_bare_enqueue.c -lsqlite3; a.out FILE [SOCKET]. */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static int ring(const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int bell = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bell < 0 || strlen(name) >= sizeof address.sun_path) return -1;
    strcpy(address.sun_path, name);
    return (int)sendto(bell, "j", 1, 0, (struct sockaddr *)&address, sizeof address);
}

int main(int count, char **words) {
    sqlite3 *database;
    if (count < 2 || count > 3 || sqlite3_open(words[1], &database) != SQLITE_OK) return 64;
    sqlite3_busy_timeout(database, 60000);
    sqlite3_db_config(database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    const char *add = count == 3 ? "PRAGMA synchronous = FULL; INSERT INTO jobs (task) VALUES ('true')"
                                 : "PRAGMA synchronous = FULL; INSERT INTO jobs (task, due) VALUES ('true', 32503680000000)";
    if (sqlite3_exec(database, add, NULL, NULL, NULL) != SQLITE_OK) {
        fprintf(stderr, "%s\n", sqlite3_errmsg(database));
        return 1;
    }
    if (count == 3 && ring(words[2]) < 0) return 1;
    printf("%lld\n", sqlite3_last_insert_rowid(database));
    return sqlite3_close(database) != SQLITE_OK;
}
