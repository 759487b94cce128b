/* What adding a job from the command line costs at least: a process that opens the file, adds a row, prints its id.
 * cc -O2 queue_bare_enqueue.c -lsqlite3; a.out FILE. */
#include <sqlite3.h>
#include <stdio.h>

int main(int count, char **words) {
    sqlite3 *database;
    if (count != 2 || sqlite3_open(words[1], &database) != SQLITE_OK) return 64;
    sqlite3_busy_timeout(database, 60000);
    sqlite3_db_config(database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (sqlite3_exec(database, "PRAGMA synchronous = FULL; INSERT INTO jobs (task, due) VALUES ('true', 32503680000000)",
        NULL, NULL, NULL) != SQLITE_OK) {
        fprintf(stderr, "%s\n", sqlite3_errmsg(database));
        return 1;
    }
    printf("%lld\n", sqlite3_last_insert_rowid(database));
    return sqlite3_close(database) != SQLITE_OK;
}
