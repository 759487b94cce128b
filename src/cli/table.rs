//! Tables on a terminal: columns as wide as they need to be. Where the screen ends the last one is cut, or, where there is no
//! room for that, what does not fit follows on lines of its own. What others wrote is shown so that it cannot steer the terminal.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::Seconds;
use crate::names::is_obeyed;

/// Blanks between two columns.
const GAP: usize = 2;
/// A last column is worth its place beside the others when so much of it is to be seen.
const ENOUGH: usize = 24;
/// How far lines below a row are indented.
const INDENT: usize = 4;

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
        let beside = width.map_or(columns, |width| beside(&widths, width));
        let mut text = String::new();
        for (at, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths).take(beside) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(&cut(line.trim_end(), width));
            text.push('\n');
            if let Some(width) = width.filter(|_| at > 0) {
                text.push_str(&self.below(row, beside, width));
            }
        }
        text
    }

    /// What has no room beside the others, each with its heading.
    fn below(&self, row: &[String], beside: usize, width: usize) -> String {
        let cells = self.rows[0].iter().zip(row).skip(beside).filter(|(_, cell)| !cell.is_empty() && *cell != "-");
        let parts: Vec<String> = cells.map(|(heading, cell)| format!("{}: {cell}", heading.to_lowercase())).collect();
        if parts.is_empty() { String::new() } else { wrapped(&parts.join(" · "), INDENT, INDENT, width) }
    }
}

/// How many of the columns stand beside one another on a screen of this width.
fn beside(widths: &[usize], width: usize) -> usize {
    let mut used = 0;
    let fits = |column: &&usize| {
        used += **column + GAP;
        used - GAP <= width
    };
    let whole = widths.iter().take_while(fits).count();
    let taken: usize = widths.iter().take(whole).map(|column| column + GAP).sum();
    // The last column is a text: enough of it says what it is.
    let cut_last = whole + 1 == widths.len() && taken + ENOUGH <= width;
    if cut_last { widths.len() } else { whole.max(1) }
}

/// A text in lines of at most `width`, broken at blanks (a word that is longer stays whole: it may be an id or a path); the first one is indented by `first`, the others by `rest`.
pub fn wrapped(text: &str, first: usize, rest: usize, width: usize) -> String {
    let (mut lines, mut line, mut length) = (String::new(), " ".repeat(first), first);
    for word in text.split(' ') {
        let long = word.chars().count();
        if length + long > width && !line.trim().is_empty() {
            lines.push_str(line.trim_end());
            lines.push('\n');
            (line, length) = (" ".repeat(rest), rest);
        }
        line.push_str(word);
        line.push(' ');
        length += long + 1;
    }
    lines.push_str(line.trim_end());
    lines.push('\n');
    lines
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

/// How many lines the terminal has, if standard output is one.
#[cfg(feature = "schedule")]
pub fn height() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_row)).filter(|lines| *lines > 1)
}

/// Text without anything that a terminal would obey: control characters, and marks that turn the direction of writing,
/// are shown as escapes. Line feeds and tabs stay.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_obeyed(letter) && !matches!(letter, '\n' | '\t') {
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
    fn what_has_no_room_beside_the_others_stands_below() {
        let mut table = Table::new(&["CHAIN", "STATE", "NEXT", "RESULT"]);
        table.add(vec!["nightly-backup".into(), "failed".into(), "in 12 h".into(), "gave up: the tries are all used up".into()]);
        table.add(vec!["off".into(), "not enabled".into(), "-".into(), "-".into()]);
        assert_eq!(table.text(Some(100)), table.text(None));
        let cut = "CHAIN           STATE        NEXT     RESULT\n\
                   nightly-backup  failed       in 12 h  gave up: the tries are a…\n\
                   off             not enabled  -        -\n";
        assert_eq!(table.text(Some(63)), cut);
        let below = "CHAIN           STATE        NEXT\n\
                     nightly-backup  failed       in 12 h\n    result: gave up: the tries are all\n    used up\n\
                     off             not enabled  -\n";
        assert_eq!(table.text(Some(40)), below);
        let narrow = "CHAIN           STATE\n\
                      nightly-backup  failed\n    next: in 12 h · result:\n    gave up: the tries are all\n    used up\n\
                      off             not enabled\n";
        assert_eq!(table.text(Some(30)), narrow);
    }

    #[test]
    fn a_table_is_cut_where_the_screen_ends_and_steers_no_terminal() {
        let mut table = Table::new(&["A", "LONG"]);
        table.add(vec!["one".into(), "x\u{1b}[2Jy\nz".into()]);
        assert_eq!(table.text(None), "A    LONG\none  x\\u{1b}[2Jy z\n");
        assert_eq!(table.text(Some(8)), "A\none\n    long:\n    x\\u{1b}[2Jy\n    z\n");
        #[cfg(feature = "schedule")]
        for (seconds, text) in
            [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (93_600, "1 d 2 h"), (900_000, "10 d")]
        {
            assert_eq!(about(jiff::SignedDuration::from_secs(seconds)), text);
        }
        assert_eq!(harmless("a\tb\r\u{202e}c\n"), "a\tb\\r\\u{202e}c\n");
    }
}
