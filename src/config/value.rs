//! From the text of one value to what it means. Each reader tells what it would have taken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Limit;

/// What a reader of a value says when it cannot take it.
pub type Parsed<T> = Result<T, String>;

/// A command split into words, none of them expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// The words; there is always a first one.
    pub fn words(&self) -> &[String] {
        &self.0
    }

    /// The program, the first word.
    pub fn program(&self) -> &str {
        &self.0[0]
    }
}

/// How many tries there are. Zero says: as many as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries(u32);

impl Tries {
    /// Reads the number of tries off a configured number.
    pub fn of(tries: u32) -> Self {
        Self(if tries == 0 { u32::MAX } else { tries })
    }

    /// The number of tries; without a limit the largest there is, so that "try <= tries" always holds.
    pub fn count(self) -> u32 {
        self.0
    }
}

/// A duration: bare seconds (decimals allowed), `5min 20s`, `1h30m`, or `infinity`.
pub fn duration(text: &str) -> Parsed<Duration> {
    const EXPECTED: &str = "expected a duration: seconds such as 90 or 0.5, `10min`, `1h30m`, or `infinity`";
    if text.eq_ignore_ascii_case("infinity") {
        return Ok(Duration::MAX);
    }
    let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if bare {
        let seconds: f64 = text.parse().map_err(|_| EXPECTED.to_owned())?;
        return Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    humantime::parse_duration(text).map_err(|_| EXPECTED.to_owned())
}

/// A duration that comes to its end: for what nobody can wait for.
pub fn finite(text: &str) -> Parsed<Duration> {
    const EXPECTED: &str = "expected a duration: seconds such as 90 or 0.5, `10min`, or `1h30m`";
    match duration(text) {
        Ok(Duration::MAX) => Err(format!("{EXPECTED}; not `infinity`")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(EXPECTED.to_owned()),
    }
}

/// A limit of time, in which 0 and `infinity` mean none.
pub fn limit(text: &str) -> Parsed<Limit> {
    duration(text).map(|duration| if duration == Duration::MAX { Limit::NONE } else { Limit::of(duration) })
}

/// `yes`, `no` and their kin, as Python's getboolean has them.
pub fn boolean(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        _ => Err("expected yes or no".to_owned()),
    }
}

/// A whole number that is not negative.
pub fn count(text: &str) -> Parsed<u32> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u32::MAX))
}

/// A number of tries; 0 is no limit.
pub fn tries(text: &str) -> Parsed<Tries> {
    count(text).map(Tries::of)
}

/// A whole number, at least 1.
pub fn width(text: &str) -> Parsed<usize> {
    text.parse().ok().filter(|width| *width > 0).ok_or_else(|| "expected a whole number, at least 1".to_owned())
}

/// A factor that does not shrink what it is multiplied with.
pub fn factor(text: &str) -> Parsed<f64> {
    text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor >= 1.0).ok_or_else(|| "expected a number, at least 1".to_owned())
}

/// Exit codes, by comma or blank.
pub fn codes(text: &str) -> Parsed<Vec<u8>> {
    words(text)
        .iter()
        .map(|word| word.parse().map_err(|_| format!("expected exit codes from 0 to 255, by comma or blank; `{word}` is none")))
        .collect()
}

/// Words by comma or blank, as the lists of `depends_on`.
pub fn words(text: &str) -> Vec<String> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Arguments, split as a shell splits and never expanded.
pub fn arguments(text: &str) -> Parsed<Vec<String>> {
    let words = shell_words::split(text).map_err(|_| "expected words as a shell splits them; a quote is not closed".to_owned())?;
    if words.iter().any(|word| word.contains('\0')) {
        return Err("expected words without NUL bytes".to_owned());
    }
    Ok(words)
}

/// A command: its words, and the first one resolved against `base` when it holds a `/`.
pub fn command(text: &str, base: &Path) -> Parsed<CommandLine> {
    let mut words = arguments(text)?;
    match words.first_mut() {
        None => Err("expected a command".to_owned()),
        Some(first) if first.is_empty() => Err("expected a command; the first word is empty".to_owned()),
        Some(first) => {
            if first.contains('/') {
                *first = base.join(&first).to_string_lossy().into_owned();
            }
            Ok(CommandLine(words))
        }
    }
}

/// A path, resolved against `base`.
pub fn path(text: &str, base: &Path) -> Parsed<PathBuf> {
    if text.is_empty() || text.contains('\0') {
        return Err("expected a path".to_owned());
    }
    // Without the `.` of `./x` and what else says nothing: it is shown.
    Ok(base.join(text).components().collect())
}

/// The name of a time zone, as the IANA database has it.
pub fn time_zone(text: &str) -> Parsed<String> {
    let found = text == "UTC" || jiff::tz::TimeZone::get(text).is_ok();
    if found { Ok(text.to_owned()) } else { Err("expected the name of a time zone, such as UTC or Europe/Prague".to_owned()) }
}

/// A niceness.
pub fn nice(text: &str) -> Parsed<i32> {
    text.parse().ok().filter(|nice| (-20..=19).contains(nice)).ok_or_else(|| "expected a number from -20 to 19".to_owned())
}

/// A file mode creation mask.
pub fn umask(text: &str) -> Parsed<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777 && !text.starts_with('+'))
        .ok_or_else(|| "expected an octal number such as 022".to_owned())
}

/// One of a few words.
pub fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Parsed<T> {
    choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        format!("expected one of {}", words.join(", "))
    })
}

/// The value as it may be shown: the password of a URL (`scheme://user:password@host`) is `***`.
pub fn mask_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme) = rest.find("://") {
        let (before, after) = rest.split_at(scheme + 3);
        shown.push_str(before);
        // The authority ends at a path, a query or a blank; in it, everything before the last `@` is who logs in.
        let end = after.find(|c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace()).unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rfind('@').and_then(|at| authority[..at].find(':').map(|colon| (colon, at))) {
            Some((colon, at)) => {
                shown.push_str(&authority[..=colon]);
                shown.push_str("***");
                shown.push_str(&authority[at..]);
            }
            None => shown.push_str(authority),
        }
        rest = &after[end..];
    }
    shown.push_str(rest);
    shown
}

/// Whether a URL in the value carries a password.
pub fn holds_secret(text: &str) -> bool {
    mask_secrets(text) != text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("90", 90_000)]
    #[case("0.5", 500)]
    #[case("0", 0)]
    #[case("5min 20s", 320_000)]
    #[case("1h30m", 5_400_000)]
    #[case("2m", 120_000)]
    #[case("250ms", 250)]
    fn durations(#[case] text: &str, #[case] millis: u64) {
        assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
    }

    #[rstest]
    #[case("")]
    #[case("-1")]
    #[case("ten")]
    #[case("1.2.3")]
    #[case("5 parsecs")]
    #[case("1e9")]
    #[case(".")]
    fn no_durations(#[case] text: &str) {
        assert!(duration(text).unwrap_err().contains("expected a duration"));
    }

    #[test]
    fn zero_and_infinity_are_no_limit() {
        assert_eq!(limit("0"), Ok(Limit::NONE));
        assert_eq!(limit("infinity"), Ok(Limit::NONE));
        assert_eq!(limit("99999999999999999999999"), Ok(Limit::NONE));
    }

    #[test]
    fn what_is_waited_for_comes_to_its_end() {
        assert_eq!(finite("1h30m"), duration("1h30m"));
        for text in ["infinity", "Infinity", "99999999999999999999999"] {
            assert!(finite(text).unwrap_err().ends_with("not `infinity`"), "{text}");
        }
        assert!(!finite("soon").unwrap_err().contains("infinity"));
    }

    #[test]
    fn lists_commands_and_masks() {
        assert_eq!(codes("0, 3 4,5"), Ok(vec![0, 3, 4, 5]));
        assert!(codes("256").unwrap_err().contains("`256`"));
        let base = Path::new("/etc/runner");
        assert_eq!(command("hooks/say 'two words'", base).unwrap().words(), ["/etc/runner/hooks/say", "two words"]);
        assert_eq!(command("bash -e", base).unwrap().words(), ["bash", "-e"]);
        assert!(command("say 'open", base).is_err() && command("", base).is_err() && command("''", base).is_err());
        assert_eq!(umask("022"), Ok(0o22));
        assert!(umask("8").is_err() && umask("1777").is_err() && nice("20").is_err());
    }

    #[rstest]
    #[case("postgresql://me:secret@db/x?key=1", "postgresql://me:***@db/x?key=1")]
    #[case("https://a:b@c@host/ and http://u:p@h", "https://a:***@host/ and http://u:***@h")]
    #[case("https://host:8500/a:b@c", "https://host:8500/a:b@c")]
    #[case("nothing", "nothing")]
    fn passwords_are_masked(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(mask_secrets(text), shown);
    }
}
