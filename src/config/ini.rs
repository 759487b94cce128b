//! Reads the INI text of a configuration as the old runner read it: bytes in, a document with line
//! numbers out. It decides only: no file access, no merging, no meaning of a key.
//!
//! The rules ([`parse`] lists them) are those of Python 2.7's `RawConfigParser` with the case of keys
//! kept, but for six: `""` stays two quotes; a line that begins with `rem` is a line like any other; one
//! that begins with `[` is a header or an error (there, `[env:x` with its bracket forgotten became a key
//! of the section above); a `;` at the very beginning of a value obeys the rule of every other `;` (there,
//! it hung on a blank at the end of the line); a BOM is skipped; what is not UTF-8 or holds a NUL is refused.
//!
//! Why rust-ini stands behind a scan of our own. It reads the pairs, but by itself it reads another
//! dialect, and none of its options changes that:
//! - a key without `=` swallows the lines after it, even `[section]`, up to the next `=`;
//! - indented text is lost, glued to the next key, or taken for a key or a header;
//! - a `\` at the end of a line joins two lines although escapes are off;
//! - `[a] ; note` is an error, or junk in the next key; behind a value `; note` is part of it;
//! - names, keys and values lose their outer blanks by the Unicode rule: a no-break space goes, too;
//! - `get` and `section` return the first of duplicates, and nothing has a line number.
//!
//! So the scan decides what each line is, and writes one line for each header and each option, with the
//! text escaped and in quotes: `["name"]`, `"key"="value"`. Nothing is left in it that the crate could
//! read in two ways. The crate takes the escapes off all three, and the quotes off the values; those of
//! names and keys it leaves, which saves their outer blanks, and we take them off. It keeps the order and
//! all duplicates, so line numbers are put back by position. The tests hold that nothing gets lost.

use std::borrow::Cow;
use std::fmt;
use std::mem::{Discriminant, discriminant};

use ini::Ini;

#[cfg(test)]
mod tests;

/// What a file says, in its order: nothing merged, only comments dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// One for each header line: a section that comes again appears again, an empty one is there, too.
    pub sections: Vec<Section>,
}

/// A header line and the options below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The text between the brackets as it stands; outer blanks belong to it.
    pub name: String,
    /// The header's line, counted from 1.
    pub line: u32,
    /// In order. A key that comes again appears again: the caller takes the last, and warns with both lines.
    pub options: Vec<Entry>,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As written: upper case stays, inner blanks stay. Never empty.
    pub key: String,
    /// Without outer blanks; lines of a continued value are joined by `\n`.
    pub value: String,
    /// The line of the key, counted from 1; a continued value ends further down.
    pub line: u32,
}

/// One thing that is wrong with a file. The text names neither file nor line, because the caller puts
/// `file:line: ` before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct IniError {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a line. The strings are what stands there, shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Told once for a file, at the first bad byte: one way of saving it mends all of them.
    #[error("expected UTF-8 text, found other bytes: save the file as UTF-8")]
    NotUtf8,
    /// Told once for a file. Nearly always UTF-16; and no argument of a program could hold it.
    #[error("expected text, found a NUL byte: save the file as UTF-8, without NUL bytes")]
    Nul,
    /// Told once for a file: one header mends all the options above the first section.
    #[error("`{0}` stands before any section: put a header such as `[runner]` above it")]
    BeforeSection(String),
    /// Neither header nor option.
    #[error(
        "`{0}` has neither `=` nor `:`: write `{first} = value`, or begin the line with # to make it a comment",
        first = first_word(.0)
    )]
    NoSeparator(String),
    /// Begins as a header and does not end as one.
    #[error("`{0}` has no closing bracket: write `[name]`")]
    UnclosedHeader(String),
    /// `[]`.
    #[error("`{0}` names no section: write a name between the brackets")]
    EmptyName(String),
    /// `= value`.
    #[error("`{0}` has no key: write `key = value`, or begin the line with # to make it a comment")]
    EmptyKey(String),
    /// Indented below a header or at the top.
    #[error("`{0}` is indented, but no option stands above that it could go on with: begin it in the first column")]
    NothingToContinue(String),
    /// What the scan handed on did not come back, in the crate's words. The tests hold that it does.
    #[error("the reader of pairs did not take this line ({0}): please report it with the file")]
    Refused(String),
}

/// Reads a whole file, or says everything that is wrong with it, in the order of its lines.
///
/// - Lines end at `\n`; a `\r` before it is a blank like any other. Blanks are the six of ASCII.
/// - A line that begins with `#` or `;` is a comment; blank lines mean nothing, also inside a value.
/// - `[name]` in the first column is a header, whatever follows the first `]`.
/// - Any other line in the first column is an option: the first `=` or `:` ends its key. The first `;` of
///   its value begins a comment if a blank precedes it; if none does, no later `;` begins one.
/// - An indented line goes on with the value above it, whatever it holds, also `# text` and `a = b`.
/// - Values are literal: quotes, `\`, `%` and `$` mean nothing. `[DEFAULT]` is a section like any other.
///
/// # Errors
/// All faults of the file, each with its line; see [`Problem`].
pub fn parse(bytes: &[u8]) -> Result<Document, Vec<IniError>> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut scan = Scan::default();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        scan.number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        scan.take_bytes(line);
    }
    scan.close_value();
    if !scan.errors.is_empty() {
        return Err(scan.errors);
    }
    read_pairs(&scan.text, &scan.lines).map_err(|refused| vec![refused])
}

/// What an indented line would go on with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Above {
    #[default]
    Nothing,
    /// The value at the end of `Scan::text`, whose quote is still open.
    Value,
    /// A line that was told already: what hangs below it is no second fault.
    Fault,
}

#[derive(Debug, Default)]
struct Scan {
    /// The line at hand, counted from 1.
    number: u32,
    in_section: bool,
    above: Above,
    /// What rust-ini will read, and for each of its lines the line it came from.
    text: String,
    lines: Vec<u32>,
    errors: Vec<IniError>,
    told_once: Vec<Discriminant<Problem>>,
}

impl Scan {
    fn take_bytes(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if matches!(text, Cow::Owned(_)) {
            self.report_once(Problem::NotUtf8);
        }
        if text.contains('\0') {
            self.report_once(Problem::Nul);
        }
        // A comment or a name with a bad byte is still what it is: going on finds the other faults.
        self.take_line(&text);
    }

    fn take_line(&mut self, line: &str) {
        let content = line.trim_matches(is_blank);
        if content.is_empty() || line.starts_with(['#', ';']) {
            return;
        }
        if line.starts_with(is_blank) {
            match self.above {
                Above::Value => {
                    push_escaped(&mut self.text, "\n");
                    push_escaped(&mut self.text, content);
                }
                Above::Nothing => self.report(Problem::NothingToContinue(shorten(content))),
                Above::Fault => {}
            }
            return;
        }
        self.close_value();
        if let Some(rest) = line.strip_prefix('[') { self.take_header(rest, content) } else { self.take_option(line, content) }
    }

    fn take_header(&mut self, rest: &str, content: &str) {
        // Also after a broken header: its options are no second fault.
        self.in_section = true;
        self.above = Above::Fault;
        match rest.split_once(']') {
            None => self.report(Problem::UnclosedHeader(shorten(content))),
            Some(("", _)) => self.report(Problem::EmptyName(shorten(content))),
            Some((name, _)) => {
                self.lines.push(self.number);
                self.text.push_str("[\"");
                push_escaped(&mut self.text, name);
                self.text.push_str("\"]\n");
                self.above = Above::Nothing;
            }
        }
    }

    fn take_option(&mut self, line: &str, content: &str) {
        self.above = Above::Fault;
        let Some((key, value)) = line.split_once(['=', ':']) else {
            return self.report(Problem::NoSeparator(shorten(content)));
        };
        let key = key.trim_end_matches(is_blank);
        if key.is_empty() {
            return self.report(Problem::EmptyKey(shorten(content)));
        }
        if !self.in_section {
            return self.report_once(Problem::BeforeSection(shorten(key)));
        }
        let value = match value.split_once(';') {
            Some((before, _)) if before.ends_with(is_blank) => before,
            _ => value,
        };
        self.lines.push(self.number);
        self.text.push('"');
        push_escaped(&mut self.text, key);
        self.text.push_str("\"=\"");
        push_escaped(&mut self.text, value.trim_matches(is_blank));
        self.above = Above::Value;
    }

    fn close_value(&mut self) {
        if self.above == Above::Value {
            self.text.push_str("\"\n");
            self.above = Above::Nothing;
        }
    }

    fn report(&mut self, problem: Problem) {
        self.errors.push(IniError { line: self.number, problem });
    }

    fn report_once(&mut self, problem: Problem) {
        let kind = discriminant(&problem);
        if !self.told_once.contains(&kind) {
            self.told_once.push(kind);
            self.report(problem);
        }
    }
}

/// Lets rust-ini read the canonical text, and puts the line numbers back by position.
fn read_pairs(text: &str, lines: &[u32]) -> Result<Document, IniError> {
    let refused = |line: u32, reason: &str| IniError { line, problem: Problem::Refused(reason.to_owned()) };
    let last = lines.last().copied().unwrap_or(1);
    let pairs = Ini::load_from_str(text).map_err(|error| {
        let line = lines.get(error.line.saturating_sub(1)).copied();
        refused(line.unwrap_or(last), &error.msg)
    })?;
    let mut lines = lines.iter().copied();
    let mut document = Document::default();
    for (name, properties) in &pairs {
        // The section without a name, which the crate always puts first: nothing of ours is in it.
        let Some(name) = name else { continue };
        let line = lines.next().ok_or_else(|| refused(last, "one header too many"))?;
        let mut section = Section { name: unquote(name), line, options: Vec::new() };
        for (key, value) in properties {
            let line = lines.next().ok_or_else(|| refused(last, "one option too many"))?;
            section.options.push(Entry { key: unquote(key), value: value.to_owned(), line });
        }
        document.sections.push(section);
    }
    lines.next().map_or(Ok(document), |line| Err(refused(line, "it did not come back")))
}

fn unquote(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(text).to_owned()
}

/// Letters, digits, the space, what names and paths are made of, and all that is not ASCII mean nothing to
/// rust-ini inside quotes; anything else could, now or with another of its features, so it goes by its number.
fn push_escaped(to: &mut String, text: &str) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '/') || !c.is_ascii();
    let hex = |digit: u32| char::from_digit(digit, 16).unwrap_or('0');
    let mut rest = text;
    while let Some(at) = rest.find(|c| !is_plain(c)) {
        // What is not plain is ASCII, so it is one byte long and two digits are enough.
        let number = u32::from(rest.as_bytes()[at]);
        to.push_str(&rest[..at]);
        to.push_str("\\x00");
        to.extend([hex(number >> 4), hex(number & 0xf)]);
        rest = &rest[at + 1..];
    }
    to.push_str(rest);
}

/// The blanks of ASCII as C's `isspace` has them, which the old reader used: the vertical tab is one,
/// which `is_ascii_whitespace` leaves out, and the no-break space is none, which `is_whitespace` takes.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// Fit for one line on a terminal: a stray binary file must not steer it, nor fill it.
fn shorten(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short.replace(char::is_control, "\u{fffd}")
}

fn first_word(text: &str) -> &str {
    text.split(is_blank).next().unwrap_or(text)
}

impl Document {
    /// Every option of the file in its order, with the section it stands in.
    pub fn options(&self) -> impl Iterator<Item = (&Section, &Entry)> {
        self.sections.iter().flat_map(|section| section.options.iter().map(move |entry| (section, entry)))
    }
}

/// Canonical text, without comments: what [`parse`] made reads back as the same, but for the line numbers.
impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            writeln!(f, "[{}]", section.name)?;
            for Entry { key, value, .. } in &section.options {
                // No blank behind the `=`: a value may begin with `;`.
                writeln!(f, "{key}={}", value.replace('\n', "\n\t"))?;
            }
        }
        Ok(())
    }
}
