//! Results on standard output, in one piece. Everything else goes to the log on standard error.

use std::io::Write;

use super::exit::Failure;

/// Prints text as it is.
///
/// # Errors
/// Standard output takes nothing more; a closed pipe among the reasons ends the program quietly.
pub fn text(text: &str) -> Result<(), Failure> {
    bytes(text.as_bytes())
}

/// Prints bytes as they are.
///
/// # Errors
/// As for [`text`].
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Prints one JSON document and a line feed.
///
/// # Errors
/// As for [`text`].
pub fn json(value: &serde_json::Value) -> Result<(), Failure> {
    text(&format!("{value:#}\n"))
}
