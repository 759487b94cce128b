//! `runner`: see `runner::cli`.

fn main() -> std::process::ExitCode {
    runner::cli::runner_main()
}
