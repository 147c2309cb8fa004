//! The one binary: every command of Wardlock.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    wardlock::cli::main()
}
