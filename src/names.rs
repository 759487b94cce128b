//! What things are called: task files, their short names and numbers, chains, runs.
//! Knows nobody and touches nothing; names are made by parsing and never change.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The name of the main chain, the one `[runner]` describes.
pub const MAIN_CHAIN: &str = "main";

/// One task file and the two things its name says: the number it sorts by and the short name.
///
/// `30-buildbot.py` has the number 30 and the name `buildbot`: a leading `digits-` and the last
/// suffix are dropped, nothing else. `setup-ami.sh` is `setup-ami`, `6-foo-bar.v2.py` is
/// `foo-bar.v2`, and `30_x.py` has no number.
///
/// A chain may have thousands, and each is held by its task, its events and its outcome: a clone is a counted reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskName(Arc<Parts>);

#[derive(Debug, PartialEq, Eq)]
struct Parts {
    text: String,
    /// The name itself, where it is not UTF-8 and `text` is not all of it.
    file: Option<OsString>,
    number: Option<u128>,
    short: (usize, usize),
}

impl TaskName {
    /// Reads the number and the short name off a file name.
    pub fn parse(file: impl Into<OsString>) -> Self {
        let (text, file) = match file.into().into_string() {
            Ok(text) => (text, None),
            Err(file) => (file.to_string_lossy().into_owned(), Some(file)),
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let numbered = digits > 0 && text[digits..].starts_with('-') && text.len() > digits + 1;
        let start = if numbered { digits + 1 } else { 0 };
        // More digits than fit are all "very late"; the file name still orders them.
        let read = |digits: &str| digits.parse::<u64>().map(u128::from).or_else(|_| digits.parse()).unwrap_or(u128::MAX);
        let number = numbered.then(|| read(&text[..digits]));
        let end = match text.as_bytes()[start..].iter().rposition(|byte| *byte == b'.') {
            Some(dot) if dot > 0 => start + dot,
            _ => text.len(),
        };
        Self(Arc::new(Parts { text, file, number, short: (start, end) }))
    }

    /// The name of the file, byte for byte.
    pub fn file(&self) -> &OsStr {
        self.0.file.as_deref().unwrap_or_else(|| OsStr::new(&self.0.text))
    }

    /// The name of the file for people and JSON; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The short name that sections and `depends_on` may use.
    pub fn short(&self) -> &str {
        &self.0.text[self.0.short.0..self.0.short.1]
    }

    /// The number the task sorts by, if the file name begins with `digits-`.
    pub fn number(&self) -> Option<u128> {
        self.0.number
    }

    /// Its order among tasks as far as 64 bits say it; those of one rank are in [`Self::sort_order`].
    pub fn rank(&self) -> u64 {
        self.number().and_then(|number| u64::try_from(number).ok()).unwrap_or(u64::MAX)
    }

    /// Whether somebody who wrote `word` means this task.
    pub fn answers_to(&self, word: &str) -> bool {
        self.text() == word || self.short() == word
    }

    /// The order of tasks: numbers first and as numbers, then the bytes of the file name.
    pub fn sort_order(&self, other: &Self) -> Ordering {
        let by_number = match (self.number(), other.number()) {
            (Some(own), Some(others)) => own.cmp(&others),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        by_number.then_with(|| self.file().as_bytes().cmp(other.file().as_bytes()))
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Names one run for ever without asking a clock: boot id, counter, random part.
///
/// A machine that has just started may believe that it is 1970; two runs of it still differ,
/// because the kernel's boot id does and the random part does.
///
/// Each process of the run is known by it: a clone is a counted reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunId(Arc<str>);

impl RunId {
    /// Puts a run id together. `boot_id` may be empty where the kernel does not tell it.
    pub fn new(boot_id: &str, counter: u32, random: u64) -> Self {
        let boot: String = boot_id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        Self(format!("{boot:0>8}-{counter}-{random:016x}").into())
    }

    /// The id of an attempt of a job, as its worker has written it down: an id of a run, and the number of the job.
    pub fn of_attempt(claim: &str) -> Self {
        Self(claim.into())
    }

    /// The id as it is printed, exported and accepted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes the run ids of one program.
#[derive(Debug)]
pub struct RunIds {
    boot_id: String,
    counter: u32,
    random: SmallRng,
}

impl RunIds {
    /// Ids of the boot with this id, which may be empty; `seed` is random.
    pub fn new(boot_id: String, seed: u64) -> Self {
        Self { boot_id, counter: 0, random: SmallRng::seed_from_u64(seed) }
    }

    /// A source of its own for somebody else in this program.
    #[must_use]
    pub fn branch(&mut self) -> Self {
        Self::new(self.boot_id.clone(), self.random.random())
    }

    /// The next one.
    pub fn fresh(&mut self) -> RunId {
        let id = RunId::new(&self.boot_id, self.counter, self.random.random());
        self.counter = self.counter.wrapping_add(1);
        id
    }
}

/// A number in decimal digits. Each task takes a dozen of them, and the formatter of the language, which can pad and
/// align, costs several times as much.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    /// The longest number has 19 digits, and a sign.
    text: [u8; 20],
    start: usize,
}

/// The numbers below a hundred, in two digits each.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let (mut tens, mut place) = (0, 0);
    while tens < 10 {
        let mut ones = 0;
        while ones < 10 {
            pairs[place] = [b'0' + tens, b'0' + ones];
            (ones, place) = (ones + 1, place + 1);
        }
        tens += 1;
    }
    pairs
};

impl Decimal {
    /// The digits of a number.
    pub fn of(number: impl Into<i64>) -> Self {
        let number = number.into();
        // From the last to the first, two at a time.
        let (mut text, mut start, mut rest) = ([b'0'; 20], 20, number.unsigned_abs());
        while rest >= 10 {
            start -= 2;
            text[start..start + 2].copy_from_slice(&PAIRS[usize::try_from(rest % 100).unwrap_or(0)]);
            rest /= 100;
        }
        if rest > 0 || start == 20 {
            start -= 1;
            text[start] = PAIRS[usize::try_from(rest).unwrap_or(0)][1];
        }
        if number < 0 {
            start -= 1;
            text[start] = b'-';
        }
        Self { text, start }
    }

    /// With zeros before it, `width` places at least, 19 at most.
    #[must_use]
    pub fn padded(mut self, width: usize) -> Self {
        self.start = self.start.min(20 - width.min(19));
        self
    }

    /// The digits, as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The last decimal digit of a number that is not negative.
pub fn digit(number: i64) -> u8 {
    b'0' + u8::try_from(number % 10).unwrap_or(0)
}

/// A number that is always the same for the same bytes, and hardly ever for others.
///
/// A hash that is written down here (FNV-1a, and the last step of SplitMix64), so that it is the same in every version.
pub fn stable_hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let hash = bytes.into_iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Whether a letter is obeyed instead of shown: control characters, and marks that turn the direction of writing (UAX #9).
pub fn is_obeyed(letter: char) -> bool {
    let turns = matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || turns
}

/// Text for people with everything escaped that a terminal would obey: a file name must not move the reader's cursor, begin a
/// line of its own, or read as another.
pub fn printable(text: &str) -> Cow<'_, str> {
    // Every line of the log comes by, and most have nothing but the printable letters of ASCII. All bytes are looked at, without
    // a way out on the first other one: the compiler makes one step of sixteen of them then.
    let plain = text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'));
    if plain || !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_obeyed(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// A number and the word for it: `1 task`, `2 tasks`.
pub fn counted(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {}", plural(word)) }
}

fn plural(word: &str) -> String {
    match word.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if word.ends_with('s') => format!("{word}es"),
        None => format!("{word}s"),
    }
}

/// The known word nearest to one that was not known, if it is near enough to be a slip of the hand; never that one itself.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .filter(|candidate| *candidate != word)
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.chars().count().max(word.chars().count()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The tail of a message about an unknown word of a file: `; did you mean X?`, or nothing.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean(word, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// The same about a word of the command line: with the quotes that a shell needs.
pub fn typed_suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean(word, known).map(|near| format!("; did you mean `{}`?", shell_words::quote(near))).unwrap_or_default()
}

/// The tail of a message about an unknown word of a few: the nearest that was typed by a slip, else which there are.
pub fn typed_or_all<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: BTreeSet<&str> = known.into_iter().collect();
    let near = typed_suggestion(word, known.iter().copied());
    if !near.is_empty() || known.is_empty() {
        return near;
    }
    format!("; there is {}", known.into_iter().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_put_right_and_who_knows_no_name_hears_them_all() {
        let told = |word, known: &[&str]| typed_or_all(word, known.iter().copied());
        assert_eq!(told("mial", &["mail", "paint"]), "; did you mean `mail`?");
        assert_eq!(told("default", &["paint", "mail", "paint"]), "; there is mail, paint");
        assert_eq!(told("default", &[]), "");
    }

    #[test]
    fn number_and_name_come_off_the_file_name_and_nothing_else_does() {
        let cases: &[(&str, Option<u128>, &str)] = &[
            ("30-buildbot.py", Some(30), "buildbot"),
            ("setup-ami.sh", None, "setup-ami"),
            ("30_x.py", None, "30_x"),
            ("6-foo-bar.v2.py", Some(6), "foo-bar.v2"),
            ("007-bond", Some(7), "bond"),
            ("30", None, "30"),
            ("30-", None, "30-"),
            ("30-.sh", Some(30), ".sh"),
            ("a.b.c", None, "a.b"),
            ("340282366920938463463374607431768211456-x.sh", Some(u128::MAX), "x"),
        ];
        for (file, number, short) in cases {
            let name = TaskName::parse(OsStr::new(file));
            assert_eq!((name.number(), name.short(), name.text()), (*number, *short, *file));
        }
    }

    #[test]
    fn control_characters_are_shown_and_the_rest_stays() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{9b}m\r\t"), "a\\nb\\u{1b}[31m\\u{9b}m\\r\\t");
        assert!(matches!(printable("\u{e9} \\n \"x\""), Cow::Borrowed(_)));
    }

    #[test]
    fn numbers_order_as_numbers_and_tasks_without_one_come_last() {
        let mut names: Vec<_> = ["b", "10-a", "9-z", "a", "9-a", "09-a"].iter().map(|n| TaskName::parse(OsStr::new(n))).collect();
        names.sort_by(TaskName::sort_order);
        let order: Vec<_> = names.iter().map(TaskName::text).collect();
        assert_eq!(order, ["09-a", "9-a", "9-z", "10-a", "a", "b"]);
    }

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["max_tries", "max_time", "sleep_time"];
        assert_eq!(did_you_mean("max_trys", known), Some("max_tries"));
        assert_eq!(did_you_mean("Max_Time", known), Some("max_time"));
        assert_eq!(did_you_mean("colour", known), None);
        assert_eq!(did_you_mean("a b", ["a b", "a c"]), Some("a c"));
        assert_eq!(did_you_mean("a b", ["a b"]), None, "nobody means what was not known");
        assert_eq!(suggestion("a c", ["a b"]), "; did you mean `a b`?");
        assert_eq!(typed_suggestion("a c", ["a b"]), "; did you mean `'a b'`?");
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [counted(1, "task"), counted(0, "task"), counted(2, "process"), counted(3, "try")],
            ["1 task", "0 tasks", "2 processes", "3 tries"]
        );
    }

    #[test]
    fn a_number_has_its_digits() {
        assert_eq!(
            [i64::MIN, -1, 0, 9, 10, 99, 100, 1_909, i64::MAX].map(|number| Decimal::of(number).to_string()),
            ["-9223372036854775808", "-1", "0", "9", "10", "99", "100", "1909", "9223372036854775807"]
        );
        assert_eq!([7, 12, 1234].map(|number| Decimal::of(number).padded(3).to_string()), ["007", "012", "1234"]);
    }

    #[test]
    fn a_hash_is_the_same_in_every_version() {
        assert_eq!(stable_hash(*b"sqlite:/srv/x.db"), 0xb720_48de_b19c_6164);
        assert_ne!(stable_hash(*b"sqlite:/srv/y.db"), 0xb720_48de_b19c_6164);
    }

    #[test]
    fn run_ids_need_no_boot_id() {
        assert_eq!(RunId::new("4f1c2a9b-77aa", 3, 255).as_str(), "4f1c2a9b-3-00000000000000ff");
        assert_eq!(RunId::new("", 0, 1).as_str(), "00000000-0-0000000000000001");
    }
}
