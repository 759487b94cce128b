//! Opens regular files that others may have exchanged for something else: never waits for the other end of a pipe, never reads
//! a device. Touches the file that is named.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file with these options, whose own flags are replaced.
///
/// # Errors
/// It cannot be opened, or is no regular file.
pub fn open(options: &mut OpenOptions, path: &Path, end: LastLink) -> io::Result<File> {
    let flags = match end {
        LastLink::Followed => libc::O_NONBLOCK,
        LastLink::Refused => libc::O_NONBLOCK | libc::O_NOFOLLOW,
    };
    let file = options.custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")) }
}

/// What becomes of a link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLink {
    /// Where it leads is opened.
    Followed,
    /// It is an error.
    Refused,
}

/// The longest file of a secret, of certificates or of a record that is read, in bytes.
pub const LONGEST: u64 = 1024 * 1024;

/// The bytes of a file, of which no more than `most` are read.
///
/// # Errors
/// It cannot be read, or is no regular file.
pub fn read(path: &Path, end: LastLink, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(OpenOptions::new().read(true), path, end)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a file, of which no more than `most` bytes are read.
///
/// # Errors
/// It cannot be read, is no regular file, or no text.
pub fn read_text(path: &Path, end: LastLink, most: u64) -> io::Result<String> {
    let mut text = String::new();
    open(OpenOptions::new().read(true), path, end)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// What stands in a file of a password or token, without the end of its line. Read it each time: it may be exchanged.
///
/// # Errors
/// As for [`read_text`].
pub fn read_secret(path: &Path) -> io::Result<String> {
    Ok(read_text(path, LastLink::Followed, LONGEST)?.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nobody_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        symlink("file", path("link")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(read_text(&path("file"), LastLink::Refused, 3).unwrap(), "tex");
        assert_eq!(read_text(&path("link"), LastLink::Followed, 9).unwrap(), "text");
        assert_eq!(read(&path("link"), LastLink::Followed, 2).unwrap(), b"te");
        assert!(read_text(&path("link"), LastLink::Refused, 9).is_err());
        std::fs::write(path("secret"), " a b \r\n").unwrap();
        assert_eq!(read_secret(&path("secret")).unwrap(), " a b ");
        for end in [LastLink::Followed, LastLink::Refused] {
            assert!(read_text(&path("pipe"), end, 9).unwrap_err().to_string().contains("no regular file"));
            assert!(read_text(Path::new("/dev/null"), end, 9).is_err() && read(&path("pipe"), end, 9).is_err());
        }
    }
}
