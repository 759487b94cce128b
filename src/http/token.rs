//! The secret that opens the guarded paths: read from a file, and again when the file changes; never printed.

use std::fmt;
use std::fs::{self, Metadata, OpenOptions};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use crate::config::keys::Trust;
use crate::plain::{self, LastLink};
use crate::trust::TrustCheck;

/// More than this is no token.
const MAX_FILE: u64 = 64 * 1024;
/// A shorter one can be guessed.
const SHORT: usize = 16;

/// The tokens of a file: one on each line, so that a new one can stand beside the old one for a while. Empty lines and
/// those that begin with `#` do not count.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tokens(Vec<Vec<u8>>);

impl Tokens {
    /// Reads the lines of a file.
    pub fn parse(bytes: &[u8]) -> Self {
        let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        Self(lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).map(<[u8]>::to_vec).collect())
    }

    /// Whether this is one of them. How long that takes says nothing of how much of it is right.
    pub fn know(&self, presented: &[u8]) -> bool {
        self.0.iter().fold(false, |known, token| known | same(token, presented))
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

/// Compares every byte, whatever the first ones are. The length is no secret.
fn same(token: &[u8], presented: &[u8]) -> bool {
    let differing = token.iter().zip(presented).fold(0, |differing, (one, other)| black_box(differing | (one ^ other)));
    token.len() == presented.len() && differing == 0
}

/// What the file looked like when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Look {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino(), size: file.size(), changed: (file.ctime(), file.ctime_nsec()) }
    }
}

/// Why the tokens in force are not those that the file has now; nothing while they are. For those who look at the daemon.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// What it is.
    pub fn words(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes it; whether it is news.
    fn note(&self, words: Option<&str>) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = known.as_deref() != words;
        *known = words.map(str::to_owned);
        is_news
    }
}

/// The file of the tokens.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    trust: Trust,
    look: Option<Look>,
    tokens: Tokens,
    trouble: Trouble,
}

/// What was found in the file.
struct Found {
    look: Look,
    tokens: Tokens,
    /// What makes it a poor secret.
    complaints: Vec<String>,
}

/// Why it is not taken.
enum Wrong {
    /// It cannot be read, or holds no token.
    Unreadable(String),
    /// Others could have written it.
    Untrusted(String),
}

impl Wrong {
    fn words(&self) -> &str {
        match self {
            Self::Unreadable(why) | Self::Untrusted(why) => why,
        }
    }
}

impl TokenFile {
    /// Reads the file; tells what makes the token a poor secret, too.
    ///
    /// # Errors
    /// It cannot be read, holds no token, or is not trusted.
    pub fn open(path: &Path, trust: Trust) -> Result<(Self, Vec<String>), Error> {
        let wrong = |wrong: Wrong| Error::Token { path: path.to_owned(), why: wrong.words().to_owned() };
        let Found { look, tokens, complaints } = read(path, trust).map_err(wrong)?;
        Ok((Self { path: path.to_owned(), trust, look: Some(look), tokens, trouble: Trouble::default() }, complaints))
    }

    /// Why the tokens in force are not those of the file, also when it is asked later.
    pub fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// The tokens that count now. A file that is not trusted changes nothing: whoever could write it would let himself in. While it
    /// cannot be read there are none, and everybody is refused.
    pub fn current(&mut self) -> &Tokens {
        let look = fs::metadata(&self.path).ok().as_ref().map(Look::of);
        if look.is_some() && look == self.look {
            return &self.tokens;
        }
        // What is wrong may be put right without the file itself being touched: until then it is looked at each time.
        self.look = None;
        let path = self.path.display();
        match read(&self.path, self.trust) {
            Ok(found) => {
                (self.look, self.tokens) = (Some(found.look), found.tokens);
                self.trouble.note(None);
                log::info!("[daemon] token_file: {path} has changed and was read again");
                found.complaints.iter().for_each(|complaint| log::warn!("[daemon] token_file: {complaint}"));
            }
            Err(Wrong::Untrusted(why)) => self.tell(&format!("{path} has changed and is {why}; the old token stays in force")),
            Err(Wrong::Unreadable(why)) => {
                self.tokens = Tokens::default();
                self.tell(&format!("{path} {why}; every guarded request is refused until it can be read"));
            }
        }
        &self.tokens
    }

    /// Tells of a trouble once.
    fn tell(&self, words: &str) {
        if self.trouble.note(Some(words)) {
            log::error!("[daemon] token_file: {words}");
        }
    }
}

fn read(path: &Path, trust: Trust) -> Result<Found, Wrong> {
    let unreadable = |error| Wrong::Unreadable(format!("cannot be read: {error}"));
    // Never waits for a writer: the thread that answers everybody reads it.
    let file = plain::open(OpenOptions::new().read(true), path, LastLink::Followed).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
    let tokens = Tokens::parse(&bytes);
    if tokens.0.is_empty() {
        return Err(Wrong::Unreadable("holds no token".to_owned()));
    }
    // Whoever can write the file lets himself in.
    let wrong = TrustCheck::for_root().map(|mut check| check.check(path)).unwrap_or_default();
    let untrusted = (!wrong.is_empty()).then(|| format!("not trusted: {}", wrong.join("; ")));
    match (untrusted, trust) {
        (Some(wrong), Trust::Refuse) => Err(Wrong::Untrusted(wrong)),
        (untrusted @ (Some(_) | None), Trust::Refuse | Trust::Warn) => {
            let complaints = untrusted.into_iter().chain(complaints(path, metadata.mode(), &tokens, wrong.is_empty())).collect();
            Ok(Found { look: Look::of(&metadata), tokens, complaints })
        }
    }
}

/// What makes the token a poor secret: others can read or change the file, or it is short. That they can change it is left out
/// where it has been said (not `writers`).
fn complaints(path: &Path, mode: u32, tokens: &Tokens, writers: bool) -> impl Iterator<Item = String> {
    let path = path.display();
    let complaints = [
        (mode & 0o004 != 0, format!("{path} can be read by everybody (chmod o-r {path})")),
        (writers && mode & 0o022 != 0, format!("{path} can be written by others (chmod go-w {path})")),
        (
            tokens.0.iter().any(|token| token.len() < SHORT),
            format!("{path} holds a token of less than {SHORT} characters, which can be guessed (openssl rand -hex 32)"),
        ),
    ];
    complaints.into_iter().filter(|(is_so, _)| *is_so).map(|(_, complaint)| complaint)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_pipe_is_no_file_of_tokens_and_nobody_waits_for_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "long-enough-to-be-one\n").unwrap();
        let (mut file, _) = TokenFile::open(&path, Trust::Refuse).unwrap();
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert!(!file.current().know(b"long-enough-to-be-one"), "while it cannot be read everybody is refused");
        assert!(TokenFile::open(&path, Trust::Refuse).unwrap_err().to_string().contains("no regular file"));
    }

    #[test]
    fn a_token_is_a_line_and_is_known_whole() {
        let tokens = Tokens::parse(b"# of the cluster\n\n  first-token \r\nsecond");
        for known in ["first-token", "second"] {
            assert!(tokens.know(known.as_bytes()));
        }
        for unknown in ["", "first-toke", "first-token2", "First-token", "# of the cluster", "secone"] {
            assert!(!tokens.know(unknown.as_bytes()), "{unknown}");
        }
        assert!(!Tokens::parse(b"").know(b""));
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_lost_one_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(TokenFile::open(&path, Trust::Refuse).is_err());
        fs::write(&path, "\n").unwrap();
        assert!(TokenFile::open(&path, Trust::Refuse).unwrap_err().to_string().contains("holds no token"));
        fs::write(&path, "old").unwrap();
        let (mut file, _) = TokenFile::open(&path, Trust::Refuse).unwrap();
        assert!(file.current().know(b"old"));
        let fresh = dir.path().join("fresh");
        fs::write(&fresh, "new").unwrap();
        fs::rename(&fresh, &path).unwrap();
        assert!(file.current().know(b"new") && !file.current().know(b"old"));
        fs::remove_file(&path).unwrap();
        assert!(!file.current().know(b"new"));
        assert!(file.trouble().words().unwrap().contains("every guarded request is refused"));
        fs::write(&path, "back").unwrap();
        assert!(file.current().know(b"back"));
        assert_eq!(file.trouble().words(), None);
    }

    #[test]
    fn a_file_that_others_could_have_written_changes_nothing() {
        if TrustCheck::for_root().is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let put = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        put("old", 0o666);
        assert!(TokenFile::open(&path, Trust::Refuse).unwrap_err().to_string().contains("not trusted: "));
        let (mut warned, complaints) = TokenFile::open(&path, Trust::Warn).unwrap();
        assert_eq!(complaints.iter().filter(|complaint| complaint.contains("chmod o-w")).count(), 1, "{complaints:?}");
        assert!(!complaints.iter().any(|complaint| complaint.contains("chmod go-w")), "said once: {complaints:?}");
        put("old", 0o600);
        let (mut file, _) = TokenFile::open(&path, Trust::Refuse).unwrap();
        let trouble = file.trouble();
        put("new", 0o622);
        for _ in 0..2 {
            assert!(file.current().know(b"old") && !file.current().know(b"new"));
            assert!(trouble.words().unwrap().ends_with("; the old token stays in force"));
        }
        assert!(warned.current().know(b"new"), "as `trust = warn` has it");
        assert_eq!(warned.trouble().words(), None);
        // The directory is put right, and the file is not touched.
        put("newer", 0o600);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(file.current().know(b"old") && trouble.words().unwrap().contains("can be written by everybody"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(file.current().know(b"newer") && !file.current().know(b"old"));
        assert_eq!(trouble.words(), None);
    }

    #[test]
    fn a_poor_secret_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let told = |mode, text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            TokenFile::open(&path, Trust::Refuse).unwrap().1
        };
        assert_eq!(told(0o640, "0123456789abcdef"), Vec::<String>::new());
        assert!(told(0o644, "0123456789abcdef")[0].contains("read by everybody"));
        assert!(told(0o620, "0123456789abcdef")[0].contains("written by others"));
        assert!(told(0o600, "short")[0].contains("guessed"));
    }
}
