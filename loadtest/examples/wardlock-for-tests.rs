//! The server's program, built along with the tests that start it.

fn main() -> std::process::ExitCode {
    wardlock::cli::main()
}
