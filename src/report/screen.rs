//! The terminal as bars are drawn on it: through the sink, so that a terminal which nobody reads delays nothing.
//! Says where the cursor goes; decides nothing.

use std::io;
use std::sync::{Mutex, PoisonError};

use indicatif::TermLike;

use super::sink::{self, Stream};

/// The size of a terminal that does not tell its own.
const SIZE: (u16, u16) = (80, 24);

/// Standard error, which is a terminal. What is drawn is kept until it is whole.
#[derive(Debug, Default)]
pub struct Screen {
    drawn: Mutex<String>,
}

impl Screen {
    fn add(&self, text: &str) -> io::Result<()> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    fn move_cursor(&self, count: usize, way: char) -> io::Result<()> {
        // No number means one, and so does a zero.
        if count == 0 { Ok(()) } else { self.add(&format!("\x1b[{count}{way}")) }
    }

    /// How many lines it has.
    pub(super) fn lines() -> u16 {
        Self::size().1
    }

    /// How many columns it has.
    pub(super) fn columns() -> u16 {
        Self::size().0
    }

    fn size() -> (u16, u16) {
        let size = rustix::termios::tcgetwinsize(io::stderr()).map(|size| (size.ws_col, size.ws_row));
        size.ok().filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(SIZE)
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        Self::size().0
    }

    fn height(&self) -> u16 {
        Self::size().1
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text)?;
        self.add("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let drawn = std::mem::take(&mut *self.drawn.lock().unwrap_or_else(PoisonError::into_inner));
        sink::write_raw(Stream::Err, drawn.as_bytes());
        Ok(())
    }
}
