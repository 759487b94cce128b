//! The secret that opens the guarded paths: read from a file, and again when the file changes; never printed.

use std::fmt;
use std::fs::{self, Metadata, OpenOptions};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Error;
use crate::plain::{self, LastLink};

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

/// The file of the tokens.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    look: Option<Look>,
    tokens: Tokens,
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or holds no token.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut file = Self { path: path.to_owned(), look: None, tokens: Tokens::default() };
        file.read().map_err(|why| Error::Token { path: path.to_owned(), why })?;
        Ok(file)
    }

    /// The tokens as they are now. While the file cannot be read there are none, and everybody is refused.
    pub fn current(&mut self) -> &Tokens {
        let look = fs::metadata(&self.path).ok().as_ref().map(Look::of);
        if look.is_none() || look != self.look {
            let had_some = !self.tokens.0.is_empty();
            match self.read() {
                Ok(()) => {
                    log::info!("[daemon] token_file: {} has changed and was read again", self.path.display());
                    self.complaints().iter().for_each(|complaint| log::warn!("[daemon] token_file: {complaint}"));
                }
                Err(why) if had_some => {
                    log::error!(
                        "[daemon] token_file: {} {why}; every guarded request is refused until it can be read",
                        self.path.display()
                    );
                }
                Err(_) => {}
            }
        }
        &self.tokens
    }

    fn read(&mut self) -> Result<(), String> {
        self.tokens = Tokens::default();
        self.look = None;
        let unreadable = |error| format!("cannot be read: {error}");
        // Never waits for a writer: the thread that answers everybody reads it.
        let file = plain::open(OpenOptions::new().read(true), &self.path, LastLink::Followed).map_err(unreadable)?;
        let look = Look::of(&file.metadata().map_err(unreadable)?);
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(unreadable)?;
        self.look = Some(look);
        self.tokens = Tokens::parse(&bytes);
        if self.tokens.0.is_empty() { Err("holds no token".to_owned()) } else { Ok(()) }
    }

    /// What makes the token a poor secret: others can read or change the file, or it is short. Whether that is a
    /// warning or an error is for `trust` to say.
    pub fn complaints(&self) -> Vec<String> {
        let path = self.path.display();
        let mode = fs::metadata(&self.path).map(|file| file.mode()).unwrap_or_default();
        let mut complaints = Vec::new();
        if mode & 0o004 != 0 {
            complaints.push(format!("{path} can be read by everybody (chmod o-r {path})"));
        }
        if mode & 0o022 != 0 {
            complaints.push(format!("{path} can be written by others (chmod go-w {path})"));
        }
        if self.tokens.0.iter().any(|token| token.len() < SHORT) {
            complaints.push(format!("{path} holds a token of less than {SHORT} characters, which can be guessed (openssl rand -hex 32)"));
        }
        complaints
    }
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
        let mut file = TokenFile::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
        assert!(!file.current().know(b"long-enough-to-be-one"), "while it cannot be read everybody is refused");
        assert!(TokenFile::open(&path).unwrap_err().to_string().contains("no regular file"));
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
        assert!(TokenFile::open(&path).is_err());
        fs::write(&path, "\n").unwrap();
        assert!(TokenFile::open(&path).unwrap_err().to_string().contains("holds no token"));
        fs::write(&path, "old").unwrap();
        let mut file = TokenFile::open(&path).unwrap();
        assert!(file.current().know(b"old"));
        let fresh = dir.path().join("fresh");
        fs::write(&fresh, "new").unwrap();
        fs::rename(&fresh, &path).unwrap();
        assert!(file.current().know(b"new") && !file.current().know(b"old"));
        fs::remove_file(&path).unwrap();
        assert!(!file.current().know(b"new"));
        fs::write(&path, "back").unwrap();
        assert!(file.current().know(b"back"));
    }

    #[test]
    fn a_poor_secret_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let told = |mode, text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            TokenFile::open(&path).unwrap().complaints()
        };
        assert_eq!(told(0o640, "0123456789abcdef"), Vec::<String>::new());
        assert!(told(0o644, "0123456789abcdef")[0].contains("read by everybody"));
        assert!(told(0o620, "0123456789abcdef")[0].contains("written by others"));
        assert!(told(0o600, "short")[0].contains("guessed"));
    }
}
