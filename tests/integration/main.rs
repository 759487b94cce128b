//! The integration program: the two programs as their users see them, one file per feature. How a
//! test is written stands in `scene.rs`; the child that misbehaves is the example `probe`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "in a test a surprise is a failure, and the clock is only read in order to fail"
)]

mod alive;
#[cfg(all(feature = "schedule", feature = "store", feature = "http", feature = "net"))]
mod browser;
#[cfg(all(feature = "net", feature = "postgres"))]
mod consul_double;
#[cfg(all(feature = "net", feature = "postgres"))]
mod lock_servers;
mod outcome;
mod running;
mod scene;
mod terminal;

mod bars;
mod boot_path;
mod check_list;
mod cli;
mod config;
mod config_values;
#[cfg(feature = "store")]
mod contract;
#[cfg(feature = "store")]
mod contract_jobs;
#[cfg(all(feature = "schedule", feature = "store"))]
mod daemon;
#[cfg(all(feature = "schedule", feature = "store"))]
mod daemon_changes;
#[cfg(all(feature = "schedule", feature = "store", feature = "http"))]
mod daemon_http;
#[cfg(all(feature = "schedule", feature = "store"))]
mod daemon_order;
#[cfg(all(feature = "schedule", feature = "store", feature = "http"))]
mod daemon_queue;
#[cfg(all(feature = "schedule", feature = "http", feature = "postgres"))]
mod daemon_queue_server;
#[cfg(all(feature = "schedule", feature = "store"))]
mod daemon_stop;
mod depends;
mod docs;
mod env;
mod examples;
mod filters;
#[cfg(all(feature = "schedule", feature = "store"))]
mod going;
mod halt;
#[cfg(feature = "store")]
mod history;
mod hooks;
mod hostile;
#[cfg(feature = "http")]
mod http;
#[cfg(all(feature = "schedule", feature = "store"))]
mod import;
mod ini_reference;
#[cfg(all(feature = "schedule", feature = "store"))]
mod killed;
#[cfg(all(feature = "net", feature = "postgres"))]
mod lock_chain;
#[cfg(all(feature = "schedule", feature = "store", feature = "net", feature = "postgres"))]
mod lock_clock;
mod lock_command;
#[cfg(all(feature = "schedule", feature = "store", feature = "net", feature = "postgres"))]
mod lock_cut;
#[cfg(all(feature = "net", feature = "postgres"))]
mod lock_engines;
#[cfg(all(feature = "schedule", feature = "store", feature = "net", feature = "postgres"))]
mod lock_hurricane;
#[cfg(all(feature = "schedule", feature = "store", feature = "net", feature = "postgres"))]
mod lock_named;
#[cfg(all(feature = "net", feature = "postgres"))]
mod lock_secure;
#[cfg(all(feature = "net", feature = "postgres"))]
mod lock_storm;
mod loops;
#[cfg(all(feature = "schedule", feature = "store"))]
mod night;
#[cfg(feature = "schedule")]
mod now;
mod old_faults;
mod old_kernel;
mod order;
mod output;
mod packaging;
#[cfg(all(feature = "schedule", feature = "store", feature = "http", feature = "net"))]
mod page;
mod parallel;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(all(feature = "schedule", feature = "store"))]
mod power_cut;
mod probes;
mod progress;
mod push;
#[cfg(feature = "net")]
mod push_servers;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queue;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queue_crash;
#[cfg(all(feature = "schedule", feature = "store", feature = "http"))]
mod queue_disk;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queue_moved;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queue_places;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queue_plans;
#[cfg(all(feature = "schedule", feature = "postgres"))]
mod queue_server;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queue_soak;
#[cfg(all(feature = "schedule", feature = "store"))]
mod queue_state;
mod retry;
mod runner_config;
#[cfg(feature = "schedule")]
mod schedule;
#[cfg(all(feature = "schedule", feature = "store"))]
mod schedule_command;
mod slips;
#[cfg(all(feature = "schedule", feature = "store"))]
mod status;
mod stop;
#[cfg(all(feature = "schedule", feature = "store"))]
mod stop_command;
#[cfg(feature = "store")]
mod store;
#[cfg(feature = "postgres")]
mod store_server;
mod supervise;
mod sweep;
mod trust;
#[cfg(all(feature = "schedule", feature = "store"))]
mod trust_daemon;
#[cfg(all(feature = "schedule", feature = "store"))]
mod why;
