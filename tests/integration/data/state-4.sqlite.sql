-- A database of version 4, as it was written then. Never changed.
BEGIN TRANSACTION;
CREATE TABLE clocks (
    machine TEXT NOT NULL PRIMARY KEY,
    newest INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "clocks" VALUES('machine',1790000001000);
CREATE TABLE pruned (
    what TEXT NOT NULL PRIMARY KEY,
    up_to TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "pruned" VALUES('slots','2026-06-21T00:00:00Z');
CREATE TABLE runs (
    run_id TEXT NOT NULL PRIMARY KEY,
    chain TEXT NOT NULL,
    run_trigger TEXT NOT NULL,
    scheduled_at INTEGER,
    host TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    pid INTEGER NOT NULL,
    start_time INTEGER NOT NULL,
    began INTEGER NOT NULL,
    ended INTEGER,
    duration_ms INTEGER,
    outcome TEXT,
    exit_code INTEGER,
    signal INTEGER,
    failed_task TEXT,
    message TEXT,
    tries_left_out INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0 CHECK (failed IN (0, 1)),
    place TEXT NOT NULL DEFAULT '',
    said TEXT,
    CHECK (outcome IS NULL OR ended IS NOT NULL)
) STRICT, WITHOUT ROWID;
INSERT INTO "runs" VALUES('1f8e60d2-0-77804e1ae0716e17','nightly','schedule',1790000001000,'host','boot',12,34,1790000001000,1790000002500,1500,'gave_up',1,NULL,'10-disk.sh','the tries are used up',0,1,'id pid:[1] time:[2]',NULL);
INSERT INTO "runs" VALUES('1f8e60d2-1-0000000000000001','nightly','schedule',1790000002000,'host','boot',12,34,1790000002000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,0,'id pid:[1] time:[2]',NULL);
CREATE TABLE slots (
    machine TEXT NOT NULL,
    chain TEXT NOT NULL,
    slot TEXT NOT NULL,
    run_id TEXT NOT NULL,
    claimed_at INTEGER NOT NULL,
    host TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    pid INTEGER NOT NULL,
    start_time INTEGER NOT NULL,
    begun INTEGER NOT NULL DEFAULT 0 CHECK (begun IN (0, 1)),
    place TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (machine, chain, slot)
) STRICT, WITHOUT ROWID;
INSERT INTO "slots" VALUES('machine','nightly','2026-09-21T14:13:20Z','1f8e60d2-0-77804e1ae0716e17',1790000001000,'host','boot',12,34,1,'id pid:[1] time:[2]');
INSERT INTO "slots" VALUES('machine','nightly','2026-09-21T14:14:20Z','waits',1790000001000,'host','boot',12,34,0,'id pid:[1] time:[2]');
CREATE TABLE tries (
    run_id TEXT NOT NULL,
    place INTEGER NOT NULL,
    task TEXT NOT NULL,
    try_num INTEGER NOT NULL,
    began INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    verdict TEXT NOT NULL,
    exit_code INTEGER,
    signal INTEGER,
    timed_out TEXT,
    not_started TEXT,
    left_behind INTEGER NOT NULL DEFAULT 0,
    output_tail TEXT NOT NULL DEFAULT '',
    said TEXT,
    PRIMARY KEY (run_id, place)
) STRICT, WITHOUT ROWID;
INSERT INTO "tries" VALUES('1f8e60d2-0-77804e1ae0716e17',1,'10-disk.sh',1,1790000001000,12,'RETRY',1,NULL,NULL,NULL,0,'',NULL);
INSERT INTO "tries" VALUES('1f8e60d2-0-77804e1ae0716e17',2,'10-disk.sh',2,1790000001000,12,'RETRY',1,NULL,NULL,NULL,0,'no space
','warning');
CREATE TABLE watermarks (
    machine TEXT NOT NULL,
    chain TEXT NOT NULL,
    considered INTEGER NOT NULL,
    PRIMARY KEY (machine, chain)
) STRICT, WITHOUT ROWID;
INSERT INTO "watermarks" VALUES('machine','nightly',1790000000000);
CREATE INDEX slots_by_slot ON slots (slot);
CREATE INDEX slots_by_run ON slots (run_id);
CREATE INDEX slots_waiting ON slots (host) WHERE begun = 0;
CREATE INDEX runs_by_time ON runs (began, run_id);
CREATE INDEX runs_by_chain ON runs (chain, began, run_id);
CREATE INDEX runs_failed ON runs (began, run_id) WHERE failed = 1;
CREATE INDEX runs_failed_by_chain ON runs (chain, began, run_id) WHERE failed = 1;
CREATE INDEX runs_open ON runs (host) WHERE outcome IS NULL;
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL DEFAULT 'default' CHECK (queue <> ''),
    task TEXT NOT NULL CHECK (task <> '' AND task NOT LIKE '%/%'),
    args TEXT NOT NULL DEFAULT '[]',
    name TEXT,
    creator TEXT,
    job_key TEXT,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    priority INTEGER NOT NULL DEFAULT 0,
    due INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    planned INTEGER,
    repeat_ms INTEGER CHECK (repeat_ms > 0),
    repeat_until INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER,
    created INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    claim TEXT,
    host TEXT,
    boot_id TEXT,
    pid INTEGER,
    start_time INTEGER,
    lease_until INTEGER,
    cancel INTEGER NOT NULL DEFAULT 0 CHECK (cancel IN (0, 1)),
    began INTEGER,
    ended INTEGER,
    result TEXT,
    exit_code INTEGER,
    signal INTEGER,
    message TEXT,
    last_error TEXT,
    place TEXT,
    CHECK (state <> 'running' OR (claim IS NOT NULL AND lease_until IS NOT NULL))
) STRICT;
CREATE INDEX jobs_waiting ON jobs (queue, priority, due, id) WHERE state = 'waiting';
CREATE INDEX jobs_running ON jobs (claim) WHERE state = 'running';
CREATE INDEX jobs_ended ON jobs (queue, state, ended, id) WHERE ended IS NOT NULL;
CREATE INDEX jobs_by_key ON jobs (queue, job_key, state) WHERE job_key IS NOT NULL;
INSERT INTO jobs (id, queue, task, args, name, creator, job_key, state, priority, due, planned, repeat_ms, repeat_until, attempts, max_attempts, created, claim, host, boot_id, pid, start_time, lease_until, cancel, began, ended, result, exit_code, signal, message, last_error) VALUES (7, 'mail', 'send.py', '["a b"]', 'a name', 'me', 'k', 'waiting', 5, 1790000100000, 1790000100000, 60000, 1790000900000, 0, 3, 1790000000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobs (id, queue, task, args, name, creator, job_key, state, priority, due, planned, repeat_ms, repeat_until, attempts, max_attempts, created, claim, host, boot_id, pid, start_time, lease_until, cancel, began, ended, result, exit_code, signal, message, last_error) VALUES (8, 'mail', 'send.py', '[]', NULL, NULL, NULL, 'running', 0, 1790000000000, 1790000000000, NULL, NULL, 1, NULL, 1790000000000, '1f8e60d2-4-0000000000000002.8', 'host', 'boot', 12, 34, 1790000060000, 0, 1790000000000, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO jobs (id, queue, task, args, name, creator, job_key, state, priority, due, planned, repeat_ms, repeat_until, attempts, max_attempts, created, claim, host, boot_id, pid, start_time, lease_until, cancel, began, ended, result, exit_code, signal, message, last_error) VALUES (9, 'mail', 'send.py', '[]', NULL, NULL, NULL, 'failed', 0, 1790000000000, 1790000000000, NULL, NULL, 25, NULL, 1790000000000, NULL, 'host', 'boot', 12, 34, NULL, 0, 1790000000000, 1790000002000, 'RETRY', 1, NULL, 'exit 1', 'why');
UPDATE slots SET place = 'id pid:[1] time:[2]';
UPDATE runs SET place = 'id pid:[1] time:[2]';
UPDATE jobs SET place = 'id pid:[1] time:[2]' WHERE id <> 7;
UPDATE runs SET said = 'warning' WHERE outcome = 'gave_up';
COMMIT;
PRAGMA application_id = 1920298610;
PRAGMA user_version = 4;
