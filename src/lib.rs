//! `runner` runs the executables of a directory in order, as separate processes, until it worked.
//!
//! The way of a task: `cli` reads the command line and the configuration, `task` finds the files and their order,
//! `chain` drives them by the table in `chain::step`, `process` supervises each of them by the table in
//! `process::state`, `outcome` says what an exit means, and `cli::exit` makes the exit code of it all.
//! docs/way-of-a-task.md walks it with the file names.

#[cfg(feature = "schedule")]
pub mod alarm;
#[cfg(all(feature = "schedule", feature = "store"))]
pub mod board;
pub mod chain;
pub mod cli;
#[cfg(feature = "net")]
pub mod client;
pub mod clock;
pub mod config;
#[cfg(all(feature = "schedule", feature = "store"))]
pub mod daemon;
pub mod environment;
pub mod event;
pub mod hook;
#[cfg(feature = "http")]
pub mod http;
pub mod lock;
#[cfg(feature = "schedule")]
pub mod mark;
pub mod metrics;
pub mod names;
pub mod notify;
pub mod opinion;
pub mod outcome;
pub mod output;
pub mod plain;
#[cfg(all(feature = "schedule", feature = "store"))]
pub mod presence;
pub mod process;
pub mod push;
#[cfg(feature = "store")]
pub mod queue;
pub mod report;
pub mod retry;
#[cfg(feature = "schedule")]
pub mod schedule;
pub mod status;
#[cfg(feature = "store")]
pub mod store;
pub mod task;
pub mod trigger;
pub mod trust;
#[cfg(feature = "store")]
pub mod worker;
pub mod zone;
