//! The one binary: every command of Wardlock.

#![forbid(unsafe_code)]

/// Messages come and go by the hundred thousand a second, of many sizes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    wardlock::cli::main()
}
