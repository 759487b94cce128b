//! Writes a file so that whoever reads it sees the old one or the new one. Touches only that file and its directory.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::PushError;
use crate::plain::{self, LastLink};

/// Longer than this is no file of ours, in bytes.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Puts `text` in the place of `path`: written beside, synced, renamed, readable for everybody.
///
/// # Errors
/// The directory is not there or takes no file.
pub fn replace(path: &Path, text: &str) -> Result<(), PushError> {
    write(path, text).map_err(|error| failed(path, error))
}

/// The same with what `change` makes of the text that is there. One process at a time: the directory is locked meanwhile.
///
/// # Errors
/// It cannot be read or written, or `change` does not know what stands there.
pub fn change(path: &Path, change: impl FnOnce(&str) -> Option<String>) -> Result<(), PushError> {
    let locked = || -> io::Result<String> {
        // Released when the descriptor is closed. A lock file would stand between the files that node exporter reads.
        let dir = File::open(parent(path))?;
        dir.lock()?;
        let text = match plain::read_text(path, LastLink::Followed, LONGEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let text = change(&text).ok_or_else(|| io::Error::other("it was not written by runner; take it away or name another file"))?;
        write(path, &text)?;
        drop(dir);
        Ok(text)
    };
    locked().map(|_| ()).map_err(|error| failed(path, error))
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::IsADirectory)?);
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    // Never through a link or into a file that somebody else has put there.
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside);
    let file = create().or_else(|error| match error.kind() {
        // A process with our number was killed while it wrote.
        io::ErrorKind::AlreadyExists => fs::remove_file(&beside).and_then(|()| create()),
        _ => Err(error),
    })?;
    let written = fill(file, text).and_then(|()| fs::rename(&beside, path)).and_then(|()| File::open(parent(path))?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn fill(mut file: File, text: &str) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(path: &Path, error: io::Error) -> PushError {
    PushError::File { path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody is waited for who would write into it.
    #[test]
    fn a_pipe_in_the_place_of_a_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("runner.prom");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let why = change(&pipe, |_| panic!("it was read")).unwrap_err().to_string();
        assert!(why.contains("no regular file"), "{why}");
        assert_eq!(crate::push::target::sign_of_life(&pipe, "main"), None);
    }

    #[test]
    fn it_is_readable_for_everybody_and_nothing_is_left_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.prom");
        replace(&path, "one\n").unwrap();
        change(&path, |text| Some(format!("{text}two\n"))).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        assert!(change(&path, |_| None).unwrap_err().to_string().contains("not written by runner"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(replace(&dir.path().join("no/where"), "").is_err() && replace(dir.path(), "").is_err());
    }

    #[test]
    fn many_change_one_file_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.prom");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || (0..10).for_each(|turn| change(path, |text| Some(format!("{text}{number}.{turn}\n"))).unwrap()));
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 80);
    }
}
