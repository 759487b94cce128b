//! From the text of one value to what it means. Each reader tells what it would have taken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::Limit;
use crate::names::suggestion;

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
    if found {
        return Ok(text.to_owned());
    }
    let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    let near = suggestion(text, known.iter().map(String::as_str));
    Err(format!("expected the name of a time zone, such as UTC or Europe/Prague{near}"))
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

/// What a value that is none may come from: the tail of a message.
pub fn slip(text: &str) -> &'static str {
    let ends_line = |before: char| before == ' ' || before == '\t';
    if text.contains('\n') {
        "; an indented line goes on with the value above it: begin a key of its own in the first column"
    } else if text.match_indices('#').any(|(at, _)| text[..at].ends_with(ends_line)) {
        "; a `#` behind a value is part of it: begin a comment there with ` ;`, or give it a line of its own"
    } else {
        ""
    }
}

/// The value as it may be shown: `***` for each password of a URL, of who logs in (`scheme://user:password@host`) and of a
/// parameter (`?password=..`). A URL ends at a blank.
pub fn mask_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme) = rest.find("://") {
        let (before, after) = rest.split_at(scheme + 3);
        shown.push_str(before);
        let (url, behind) = after.split_at(after.find(char::is_whitespace).unwrap_or(after.len()));
        let behind_login = match login_password(url) {
            Some((from, to)) => {
                shown.push_str(&url[..from]);
                shown.push_str("***");
                &url[to..]
            }
            None => url,
        };
        mask_parameters(behind_login, &mut shown);
        rest = behind;
    }
    shown.push_str(rest);
    shown
}

/// Where the password of who logs in begins and ends in a URL without its scheme.
fn login_password(url: &str) -> Option<(usize, usize)> {
    let end = url.find(['/', '?', '#']).unwrap_or(url.len());
    let authority = &url[..end];
    if let Some(at) = authority.rfind('@') {
        return Some((authority[..at].find(':')? + 1, at));
    }
    // A password may hold what should have been written as %2F: then what stands behind the colon is no port.
    let is_host =
        |host: &str| host.starts_with('[') || host.split_once(':').is_none_or(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    if authority.split(',').all(is_host) {
        return None;
    }
    let path_end = url.find('?').unwrap_or(url.len());
    Some((authority.find(':')? + 1, url[..path_end].rfind('@').or_else(|| url.rfind('@'))?))
}

/// Writes a URL without its login, its secret parameters masked.
fn mask_parameters(url: &str, shown: &mut String) {
    let Some((path, query)) = url.split_once('?') else { return shown.push_str(url) };
    shown.push_str(path);
    let mut before = '?';
    for parameter in query.split('&') {
        shown.push(before);
        before = '&';
        match parameter.split_once('=') {
            Some((name, value)) if is_secret(name) && !value.is_empty() => {
                shown.push_str(name);
                shown.push_str("=***");
            }
            Some(_) | None => shown.push_str(parameter),
        }
    }
}

/// Whether the value of a parameter of this name is a secret. The name of a file that holds one is none.
fn is_secret(name: &str) -> bool {
    const ENDS: [&str; 6] = ["password", "passwd", "passphrase", "secret", "token", "api_key"];
    const WHOLE: [&str; 3] = ["pass", "pwd", "apikey"];
    let name = name.to_ascii_lowercase();
    WHOLE.contains(&name.as_str()) || ENDS.iter().any(|end| name.ends_with(end))
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

    #[test]
    fn slips_are_known() {
        assert!(slip("5\nmax_tries = 2").contains("indented") && slip("5 # s").contains("` ;`"));
        assert_eq!((slip("5#s"), slip("5 s"), slip("#")), ("", "", ""));
    }

    #[rstest]
    #[case("postgresql://me:secret@db/x?key=1", "postgresql://me:***@db/x?key=1")]
    #[case("https://a:b@c@host/ and http://u:p@h", "https://a:***@host/ and http://u:***@h")]
    #[case("https://host:8500/a:b@c", "https://host:8500/a:b@c")]
    #[case("nothing", "nothing")]
    #[case("postgresql://h/db?user=me&password=secret&x=1 b", "postgresql://h/db?user=me&password=***&x=1 b")]
    #[case("u://h?sslPassword=a#b&password_file=f&token=&Token=t", "u://h?sslPassword=***&password_file=f&token=&Token=***")]
    #[case("u = https://me:sec/ret@h/x?mail=a@b", "u = https://me:***@h/x?mail=a@b")]
    #[case("https://me:sec?r/et@h", "https://me:***@h")]
    #[case("https://me:s@h?password=t", "https://me:***@h?password=***")]
    #[case("postgresql://a:1,[::1]:2,c/d@e?key=k", "postgresql://a:1,[::1]:2,c/d@e?key=k")]
    #[case("http://[::1]:80/a@b", "http://[::1]:80/a@b")]
    #[case("https://host:a/b", "https://host:a/b")]
    fn passwords_are_masked(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(mask_secrets(text), shown);
        assert_eq!(holds_secret(text), text != shown);
    }
}
