//! How a verb fails: one line for a person, a hint, and an exit code.

use std::fmt;

/// The exit codes of soloist itself; a workload's own code passes through beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The answer is no: nobody is active, a demo saw an overlap.
    No = 1,
    /// Wrong usage.
    Usage = 64,
    /// A record or other data cannot be read.
    Data = 65,
    /// The store cannot be reached.
    Unavailable = 69,
    /// A fault of soloist or of its host.
    Internal = 70,
    /// The lease was lost.
    Lost = 75,
    /// Not permitted.
    Permission = 77,
    /// The settings contradict each other, or the place they name.
    Configuration = 78,
    /// The command cannot be executed.
    NotExecutable = 126,
    /// The command was not found.
    NotFound = 127,
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Why a verb did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    /// What the process leaves with.
    pub code: Code,
    /// What failed, what was got and what is allowed, in one line.
    pub message: String,
    /// How to fix it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// Says how to fix it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A fault of soloist or of its host, with the whole chain of causes.
    pub fn internal(error: &anyhow::Error) -> Self {
        Self::new(Code::Internal, format!("{error:#}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::internal(&error)
    }
}
