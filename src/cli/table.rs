//! Tables on a terminal: columns as wide as they need to be, the last one cut where the screen ends. What others wrote is
//! shown so that it cannot steer the terminal.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::Seconds;

/// A table with a line of headings.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn add(&mut self, row: Vec<String>) {
        self.rows.push(row.iter().map(|text| harmless(text).replace(['\n', '\t'], " ")).collect());
    }

    /// The lines, none of them wider than `width` where there is one.
    pub fn text(&self, width: Option<usize>) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let length = |text: &String| text.chars().count();
        let widths: Vec<usize> =
            (0..columns).map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(length).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(&cut(line.trim_end(), width));
            text.push('\n');
        }
        text
    }
}

fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width => line.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        Some(_) | None => line.to_owned(),
    }
}

/// How wide the terminal is, if standard output is one.
pub fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 20)
}

/// Text without anything that a terminal would obey: control characters, and marks that turn the direction of writing,
/// are shown as escapes. Line feeds and tabs stay.
pub fn harmless(text: &str) -> String {
    let turns = |letter: char| matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if (letter.is_control() && !matches!(letter, '\n' | '\t')) || turns(letter) {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// A time in the machine's zone, as the log has it.
pub fn time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

/// A length of time, if it is known.
pub fn length(millis: Option<u64>) -> String {
    millis.map(|millis| Seconds(Duration::from_millis(millis)).to_string()).unwrap_or_default()
}

/// A length of time in its greatest unit, or its two greatest: for people who look whether it is soon.
#[cfg(feature = "schedule")]
pub fn about(length: jiff::SignedDuration) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let seconds = length.as_secs().max(0);
    let Some(first) = UNITS.iter().position(|(unit, _)| seconds >= *unit) else { return "0 s".to_owned() };
    let (unit, word) = UNITS[first];
    let (whole, rest) = (seconds / unit, seconds % unit);
    match UNITS.get(first + 1) {
        // Two days and three hours are of interest, twenty days and three hours are not.
        Some((smaller, small_word)) if whole < 10 && rest >= *smaller => format!("{whole} {word} {} {small_word}", rest / smaller),
        Some(_) | None => format!("{whole} {word}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_cut_where_the_screen_ends_and_steers_no_terminal() {
        let mut table = Table::new(&["A", "LONG"]);
        table.add(vec!["one".into(), "x\u{1b}[2Jy\nz".into()]);
        assert_eq!(table.text(None), "A    LONG\none  x\\u{1b}[2Jy z\n");
        assert_eq!(table.text(Some(8)), "A    LO…\none  x\\…\n");
        #[cfg(feature = "schedule")]
        for (seconds, text) in
            [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (93_600, "1 d 2 h"), (900_000, "10 d")]
        {
            assert_eq!(about(jiff::SignedDuration::from_secs(seconds)), text);
        }
        assert_eq!(harmless("a\tb\r\u{202e}c\n"), "a\tb\\r\\u{202e}c\n");
    }
}
