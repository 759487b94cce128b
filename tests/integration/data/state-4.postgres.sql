-- A database of version 4, as it was written then. Never changed.
CREATE SCHEMA runner;
CREATE TABLE runner.clocks (
    machine text NOT NULL COLLATE pg_catalog."C",
    newest bigint NOT NULL
);
CREATE TABLE runner.pruned (
    what text NOT NULL COLLATE pg_catalog."C",
    up_to text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE runner.runs (
    run_id text NOT NULL COLLATE pg_catalog."C",
    chain text NOT NULL COLLATE pg_catalog."C",
    run_trigger text NOT NULL COLLATE pg_catalog."C",
    scheduled_at bigint,
    host text NOT NULL COLLATE pg_catalog."C",
    boot_id text NOT NULL COLLATE pg_catalog."C",
    pid bigint NOT NULL,
    start_time bigint NOT NULL,
    began bigint NOT NULL,
    ended bigint,
    duration_ms bigint,
    outcome text COLLATE pg_catalog."C",
    exit_code bigint,
    signal bigint,
    failed_task text COLLATE pg_catalog."C",
    message text COLLATE pg_catalog."C",
    tries_left_out bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    place TEXT COLLATE "C" NOT NULL DEFAULT '',
    said TEXT COLLATE "C",
    CONSTRAINT runs_check CHECK (((outcome IS NULL) OR (ended IS NOT NULL))),
    CONSTRAINT runs_failed_check CHECK ((failed = ANY (ARRAY[(0)::bigint, (1)::bigint])))
);
CREATE TABLE runner.slots (
    machine text NOT NULL COLLATE pg_catalog."C",
    chain text NOT NULL COLLATE pg_catalog."C",
    slot text NOT NULL COLLATE pg_catalog."C",
    run_id text NOT NULL COLLATE pg_catalog."C",
    claimed_at bigint NOT NULL,
    host text NOT NULL COLLATE pg_catalog."C",
    boot_id text NOT NULL COLLATE pg_catalog."C",
    pid bigint NOT NULL,
    start_time bigint NOT NULL,
    begun bigint DEFAULT 0 NOT NULL,
    place TEXT COLLATE "C" NOT NULL DEFAULT '',
    CONSTRAINT slots_begun_check CHECK ((begun = ANY (ARRAY[(0)::bigint, (1)::bigint])))
);
CREATE TABLE runner.tries (
    run_id text NOT NULL COLLATE pg_catalog."C",
    place bigint NOT NULL,
    task text NOT NULL COLLATE pg_catalog."C",
    try_num bigint NOT NULL,
    began bigint NOT NULL,
    duration_ms bigint NOT NULL,
    verdict text NOT NULL COLLATE pg_catalog."C",
    exit_code bigint,
    signal bigint,
    timed_out text COLLATE pg_catalog."C",
    not_started text COLLATE pg_catalog."C",
    left_behind bigint DEFAULT 0 NOT NULL,
    output_tail text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    said TEXT COLLATE "C"
);
CREATE TABLE runner.version (
    version bigint NOT NULL
);
CREATE TABLE runner.watermarks (
    machine text NOT NULL COLLATE pg_catalog."C",
    chain text NOT NULL COLLATE pg_catalog."C",
    considered bigint NOT NULL
);
INSERT INTO runner.clocks VALUES ('machine', 1790000001000);
INSERT INTO runner.pruned VALUES ('slots', '2026-06-21T00:00:00Z');
INSERT INTO runner.runs VALUES ('1f8e60d2-0-77804e1ae0716e17', 'nightly', 'schedule', 1790000001000, 'host', 'boot', 12, 34, 1790000001000, 1790000002500, 1500, 'gave_up', 1, NULL, '10-disk.sh', 'the tries are used up', 0, 1);
INSERT INTO runner.runs VALUES ('1f8e60d2-1-0000000000000001', 'nightly', 'schedule', 1790000002000, 'host', 'boot', 12, 34, 1790000002000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0);
INSERT INTO runner.slots VALUES ('machine', 'nightly', '2026-09-21T14:14:20Z', 'waits', 1790000001000, 'host', 'boot', 12, 34, 0);
INSERT INTO runner.slots VALUES ('machine', 'nightly', '2026-09-21T14:13:20Z', '1f8e60d2-0-77804e1ae0716e17', 1790000001000, 'host', 'boot', 12, 34, 1);
INSERT INTO runner.tries VALUES ('1f8e60d2-0-77804e1ae0716e17', 1, '10-disk.sh', 1, 1790000001000, 12, 'RETRY', 1, NULL, NULL, NULL, 0, '');
INSERT INTO runner.tries VALUES ('1f8e60d2-0-77804e1ae0716e17', 2, '10-disk.sh', 2, 1790000001000, 12, 'RETRY', 1, NULL, NULL, NULL, 0, 'no space
');
INSERT INTO runner.version VALUES (4);
INSERT INTO runner.watermarks VALUES ('machine', 'nightly', 1790000000000);
ALTER TABLE ONLY runner.clocks
    ADD CONSTRAINT clocks_pkey PRIMARY KEY (machine);
ALTER TABLE ONLY runner.pruned
    ADD CONSTRAINT pruned_pkey PRIMARY KEY (what);
ALTER TABLE ONLY runner.runs
    ADD CONSTRAINT runs_pkey PRIMARY KEY (run_id);
ALTER TABLE ONLY runner.slots
    ADD CONSTRAINT slots_pkey PRIMARY KEY (machine, chain, slot);
ALTER TABLE ONLY runner.tries
    ADD CONSTRAINT tries_pkey PRIMARY KEY (run_id, place);
ALTER TABLE ONLY runner.watermarks
    ADD CONSTRAINT watermarks_pkey PRIMARY KEY (machine, chain);
CREATE INDEX runs_by_chain ON runner.runs USING btree (chain, began, run_id);
CREATE INDEX runs_by_time ON runner.runs USING btree (began, run_id);
CREATE INDEX runs_failed ON runner.runs USING btree (began, run_id) WHERE (failed = 1);
CREATE INDEX runs_failed_by_chain ON runner.runs USING btree (chain, began, run_id) WHERE (failed = 1);
CREATE INDEX runs_open ON runner.runs USING btree (host) WHERE (outcome IS NULL);
CREATE INDEX slots_by_run ON runner.slots USING btree (run_id);
CREATE INDEX slots_by_slot ON runner.slots USING btree (slot);
CREATE INDEX slots_waiting ON runner.slots USING btree (host) WHERE (begun = 0);
CREATE TABLE runner.jobs (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    queue TEXT COLLATE "C" NOT NULL DEFAULT 'default' CHECK (queue <> ''),
    task TEXT COLLATE "C" NOT NULL CHECK (task <> '' AND task NOT LIKE '%/%'),
    args TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    name TEXT COLLATE "C",
    creator TEXT COLLATE "C",
    job_key TEXT COLLATE "C",
    state TEXT COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    priority BIGINT NOT NULL DEFAULT 0,
    due BIGINT NOT NULL DEFAULT (CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)),
    planned BIGINT,
    repeat_ms BIGINT CHECK (repeat_ms > 0),
    repeat_until BIGINT,
    attempts BIGINT NOT NULL DEFAULT 0,
    max_attempts BIGINT,
    created BIGINT NOT NULL DEFAULT (CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)),
    claim TEXT COLLATE "C",
    host TEXT COLLATE "C",
    boot_id TEXT COLLATE "C",
    pid BIGINT,
    start_time BIGINT,
    lease_until BIGINT,
    cancel BIGINT NOT NULL DEFAULT 0 CHECK (cancel IN (0, 1)),
    began BIGINT,
    ended BIGINT,
    result TEXT COLLATE "C",
    exit_code BIGINT,
    signal BIGINT,
    message TEXT COLLATE "C",
    last_error TEXT COLLATE "C",
    place TEXT COLLATE "C",
    CHECK (state <> 'running' OR (claim IS NOT NULL AND lease_until IS NOT NULL))
);
CREATE INDEX jobs_waiting ON runner.jobs (queue, priority, due, id) WHERE state = 'waiting';
CREATE INDEX jobs_running ON runner.jobs (claim) WHERE state = 'running';
CREATE INDEX jobs_ended ON runner.jobs (queue, state, ended, id) WHERE ended IS NOT NULL;
CREATE INDEX jobs_by_key ON runner.jobs (queue, job_key, state) WHERE job_key IS NOT NULL;
CREATE FUNCTION runner.wake_workers() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('runner_jobs', ''); RETURN NULL; END $$;
CREATE TRIGGER jobs_wake AFTER INSERT ON runner.jobs FOR EACH STATEMENT EXECUTE FUNCTION runner.wake_workers();
INSERT INTO runner.jobs (id, queue, task, args, name, creator, job_key, state, priority, due, planned, repeat_ms, repeat_until, attempts, max_attempts, created, claim, host, boot_id, pid, start_time, lease_until, cancel, began, ended, result, exit_code, signal, message, last_error) VALUES (7, 'mail', 'send.py', '["a b"]', 'a name', 'me', 'k', 'waiting', 5, 1790000100000, 1790000100000, 60000, 1790000900000, 0, 3, 1790000000000, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO runner.jobs (id, queue, task, args, name, creator, job_key, state, priority, due, planned, repeat_ms, repeat_until, attempts, max_attempts, created, claim, host, boot_id, pid, start_time, lease_until, cancel, began, ended, result, exit_code, signal, message, last_error) VALUES (8, 'mail', 'send.py', '[]', NULL, NULL, NULL, 'running', 0, 1790000000000, 1790000000000, NULL, NULL, 1, NULL, 1790000000000, '1f8e60d2-4-0000000000000002.8', 'host', 'boot', 12, 34, 1790000060000, 0, 1790000000000, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO runner.jobs (id, queue, task, args, name, creator, job_key, state, priority, due, planned, repeat_ms, repeat_until, attempts, max_attempts, created, claim, host, boot_id, pid, start_time, lease_until, cancel, began, ended, result, exit_code, signal, message, last_error) VALUES (9, 'mail', 'send.py', '[]', NULL, NULL, NULL, 'failed', 0, 1790000000000, 1790000000000, NULL, NULL, 25, NULL, 1790000000000, NULL, 'host', 'boot', 12, 34, NULL, 0, 1790000000000, 1790000002000, 'RETRY', 1, NULL, 'exit 1', 'why');
SELECT setval(pg_get_serial_sequence('runner.jobs', 'id'), 9);
UPDATE runner.slots SET place = 'id pid:[1] time:[2]';
UPDATE runner.runs SET place = 'id pid:[1] time:[2]';
UPDATE runner.jobs SET place = 'id pid:[1] time:[2]' WHERE id <> 7;
UPDATE runner.runs SET said = 'warning' WHERE outcome = 'gave_up';
UPDATE runner.tries SET said = 'warning' WHERE place = 2;
