//! How the programs are linked, so that a start has little to find, map and bind. What a machine has no means for is left out,
//! and the programs are the same but for that.
//!
//! - The part of libgcc that unwinds is linked in, where the compiler has it as an archive (every gcc on Linux with glibc): one
//!   shared library less to find, map and bind is a tenth of a start of runner-config, which tasks call often.
//! - Addresses to relocate are packed (RELR), where the loader can read that: that of glibc from 2.36 on.
//! - What a chain executes stands in one place of a release (`link/first.ld`): the kernel maps sixteen pages around each that is
//!   touched. Where somebody has chosen a linker, which may not read that, it is left out.

#![expect(clippy::disallowed_methods, reason = "cargo tells a build script by the environment, and the compiler is asked by a call")]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let native = env::var_os("HOST") == env::var_os("TARGET");
    if !native || !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    link_in("gcc_eh");
    let chosen = env::var_os("RUSTC_LINKER").is_some() || env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link"));
    if is("PROFILE", "release") && !chosen {
        let script = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("link/first.ld");
        println!("cargo::rerun-if-changed={}", script.display());
        pass_on(&format!("-T{}", script.display()));
    }
    pass_on("-Wl,-z,pack-relative-relocs");
}

/// Hands an option to the linker of the programs, if a small program that is linked with it runs.
fn pass_on(option: &str) {
    let dir = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let (source, program) = (dir.join("linked.c"), dir.join("linked"));
    if fs::write(&source, "static int zero; int *address = &zero; int main(void) { return *address; }").is_err() {
        return;
    }
    let linked = said(Command::new("cc").arg(option).arg("-o").args([&program, &source]));
    if linked.is_some() && said(&mut Command::new(&program)).is_some() {
        println!("cargo::rustc-link-arg-bins={option}");
    }
}

/// Links the archive of a library in, if the compiler has one.
fn link_in(library: &str) {
    // It prints a path where it has the file, and the bare name where it has not.
    let Some(asked) = said(Command::new("cc").arg(format!("-print-file-name=lib{library}.a"))) else { return };
    let archive = PathBuf::from(asked);
    if let Some(dir) = archive.parent().filter(|_| archive.is_absolute() && archive.is_file()) {
        println!("cargo::rustc-link-search=native={}", dir.display());
        println!("cargo::rustc-link-lib=static:-bundle={library}");
    }
}

/// What a command writes, if it ends well.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
