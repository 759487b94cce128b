-- A database of version 1, as it was written then. Never changed.
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
    output_tail text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C"
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
INSERT INTO runner.version VALUES (1);
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
