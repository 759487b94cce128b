//! `runner` runs the executables of a directory in order, as separate processes, until it worked.
//!
//! The way of a task: `cli` reads the command line and the configuration, `task` finds the files and their order,
//! `chain` drives them by the table in `chain::step`, `process` supervises each of them by the table in
//! `process::state`, `outcome` says what an exit means, and `cli::exit` makes the exit code of it all.
//! docs/way-of-a-task.md walks it with the file names.

pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod environment;
pub mod event;
pub mod hook;
pub mod lock;
pub mod names;
pub mod notify;
pub mod outcome;
pub mod output;
pub mod process;
pub mod report;
pub mod retry;
pub mod task;
pub mod trust;
pub mod zone;
