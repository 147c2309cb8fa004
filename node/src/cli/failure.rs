//! How a command ends otherwise than well: one line for people, one exit code for scripts.

use std::{fmt, process::ExitCode};

/// The exit codes that a script may rely on. `lock run` also ends with its child's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Something failed.
    Error = 1,
    /// The command line or the configuration makes no sense.
    Usage = 2,
    /// The lock was not acquired; `EX_TEMPFAIL`, so that a retry makes sense.
    NotAcquired = 75,
    /// The lock or the leadership was lost before it was given back.
    Lost = 76,
    /// The command given to `lock run` was found and cannot be run.
    CannotRun = 126,
    /// The command given to `lock run` was not found.
    NotFound = 127,
}

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    /// For scripts.
    pub code: Code,
    /// For people: one line, no full stop.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(code: Code, message: impl fmt::Display) -> Failure {
        Failure { code, message: message.to_string() }
    }

    /// A plain error.
    pub fn error(message: impl fmt::Display) -> Failure {
        Failure::new(Code::Error, message)
    }

    /// A command line that makes no sense.
    pub fn usage(message: impl fmt::Display) -> Failure {
        Failure::new(Code::Usage, message)
    }

    /// Says it on stderr and becomes the process's exit code.
    pub fn report(&self) -> ExitCode {
        crate::cli::output::complain(&format!("wardlock: {}\n", self.message));
        ExitCode::from(self.code as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error with all its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Many errors print their cause themselves.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}
