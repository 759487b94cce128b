//! `runner completions` and `runner man`: made from the definition of the command line itself.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::{Cli, ConfigCli};
use super::exit::{Exit, Failure};
use super::print;

/// Prints what a shell needs to complete the command lines of both programs.
///
/// # Errors
/// The result cannot be written.
pub fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "runner", &mut text);
    clap_complete::generate(shell, &mut ConfigCli::command(), "runner-config", &mut text);
    print::bytes(&text)?;
    Ok(Exit::Done)
}

/// Writes the man pages of both programs, and one for each command, into a directory.
///
/// # Errors
/// The directory cannot be written.
pub fn man(dir: &Path) -> Result<Exit, Failure> {
    fs::create_dir_all(dir).map_err(Failure::Output)?;
    for command in [Cli::command(), ConfigCli::command()] {
        clap_mangen::generate_to(command, dir).map_err(Failure::Output)?;
    }
    Ok(Exit::Done)
}
