//! Links the part of libgcc that unwinds into the programs, where the compiler has it as an archive (every gcc on Linux with
//! glibc): one shared library less to find, map and bind costs a tenth of a start of runner-config, which tasks call often.
//! Where there is none, nothing is changed, and the programs load libgcc_s.so.1 as all programs of Rust do.

#![expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment, and the compiler is asked by a call")]

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let native = env::var_os("HOST") == env::var_os("TARGET");
    if !native || !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    // It prints a path where it has the file, and the bare name where it has not.
    let Ok(asked) = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output() else { return };
    let archive = PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim());
    if let Some(dir) = archive.parent().filter(|_| archive.is_absolute() && archive.is_file()) {
        println!("cargo::rustc-link-search=native={}", dir.display());
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
