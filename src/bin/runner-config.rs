//! `runner-config`: see `runner::cli`.

fn main() -> std::process::ExitCode {
    runner::cli::config_main()
}
