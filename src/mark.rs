//! The mark of a named chain that runs: among all programs of one machine a chain runs once at a time. Touches one file for each
//! chain, which is locked while its run goes on; the kernel gives it back when the process ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use crate::names::RunId;
use crate::plain::{self, LastLink};

/// The directory in the state directory where the marks are.
const DIR_NAME: &str = "running";

/// How many runs a mark remembers: who looks whether a run had it comes after a crash, and few can have had it since.
const REMEMBERED: usize = 16;
/// More of a mark is never read: it is some lines.
const LONGEST: u64 = 16 * 1024;

/// The mark, given back when it is dropped; nothing where there is no state directory to keep it in.
pub type Mark = Option<File>;

/// Takes the mark of a chain for a run. Where it cannot be kept, the run goes on without: why is told beside it, in words.
///
/// # Errors
/// Another run has it: which, in words.
pub fn take(state_dir: Option<&Path>, chain: &str, run: &RunId) -> Result<(Mark, Option<String>), String> {
    let Some(dir) = state_dir.map(|dir| dir.join(DIR_NAME)) else { return Ok((None, None)) };
    match take_in(&dir, chain, run) {
        Ok(Ok(file)) => Ok((Some(file), None)),
        Ok(Err(holder)) => Err(holder),
        Err(error) => Ok((None, Some(format!("other programs cannot see that it runs: {}: {error}", dir.display())))),
    }
}

fn take_in(dir: &Path, chain: &str, run: &RunId) -> io::Result<Result<File, String>> {
    fs::create_dir_all(dir)?;
    let mut file =
        plain::open(OpenOptions::new().create(true).truncate(false).read(true).write(true), &dir.join(chain), LastLink::Refused)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let had = read(&mut file)?;
            return Ok(Err(had.lines().next().unwrap_or_default().trim().to_owned()));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let had = read(&mut file)?;
    let mut text = line(run.as_str());
    text.push_str(&format!(" of process {}\n", std::process::id()));
    text.extend(had.lines().take(REMEMBERED - 1).flat_map(|line| [line, "\n"]));
    file.rewind()?;
    // In one piece, and cut afterwards: whoever is killed here leaves the run in it or not, but nothing else.
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    Ok(Ok(file))
}

fn line(run: &str) -> String {
    format!("run {run}")
}

fn read(file: &mut File) -> io::Result<String> {
    let mut had = Vec::new();
    file.take(LONGEST).read_to_end(&mut had)?;
    Ok(String::from_utf8_lossy(&had).into_owned())
}

/// Whether it is sure that a run never had the mark of its chain, and so that nothing of it was started. Only of runs of this
/// boot, and only where marks can be kept: otherwise nobody knows.
pub fn never_had(state_dir: Option<&Path>, chain: &str, run: &str) -> bool {
    let Some(path) = state_dir.map(|dir| dir.join(DIR_NAME).join(chain)) else { return false };
    let Ok(had) = plain::open(OpenOptions::new().read(true).write(true), &path, LastLink::Refused).and_then(|mut file| read(&mut file))
    else {
        return false;
    };
    let wanted = line(run);
    !had.lines().any(|line| line.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
}

/// A run that has the mark of its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The id of the run.
    pub run_id: String,
    /// The process.
    pub pid: i32,
    /// When it took the mark: to the second, the begin of the run.
    pub since: Timestamp,
}

/// Who has the mark of a chain, for those who only want to know: nothing is locked, so nobody is kept from taking it.
/// `None` also where that cannot be seen.
pub fn look(state_dir: &Path, chain: &str) -> Option<Holder> {
    let path = state_dir.join(DIR_NAME).join(chain);
    let text = plain::read_text(&path, LastLink::Refused, LONGEST).ok()?;
    let (run_id, pid) = text.lines().next()?.trim().strip_prefix("run ")?.split_once(" of process ")?;
    let file = fs::metadata(&path).ok()?;
    // The file stays when its run has ended; the kernel knows whether it is locked (proc_locks(5)). The device is not
    // compared: file systems that lie over others show another one there.
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let end = format!(":{}", file.ino());
    let is_this = |line: &&str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        words.get(1) == Some(&"FLOCK") && words.get(4) == Some(&pid) && words.get(5).is_some_and(|word| word.ends_with(&end))
    };
    locks.lines().find(is_this)?;
    let since = Timestamp::from_second(file.mtime()).ok()?;
    Some(Holder { run_id: run_id.to_owned(), pid: pid.parse().ok()?, since })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_had_by_one_run_at_a_time_and_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let take = |chain, number| take(Some(dir.path()), chain, &RunId::new("", number, 0)).map(|(mark, _)| mark);
        let first = take("a", 1).unwrap();
        assert!(first.is_some());
        assert_eq!(take("a", 2).unwrap_err(), format!("run 00000000-1-0000000000000000 of process {}", std::process::id()));
        assert!(take("b", 3).is_ok());
        assert!(never_had(Some(dir.path()), "a", &RunId::new("", 2, 0).to_string()), "it was refused");
        let seen = look(dir.path(), "a").unwrap();
        assert_eq!((seen.run_id.as_str(), seen.pid), ("00000000-1-0000000000000000", std::process::id().try_into().unwrap()));
        drop(first);
        assert_eq!((look(dir.path(), "a"), look(dir.path(), "b"), look(dir.path(), "c")), (None, None, None));
        assert!(take("a", 4).is_ok());
        assert!(!never_had(Some(dir.path()), "a", &RunId::new("", 1, 0).to_string()), "it is remembered");
        assert!(!never_had(Some(dir.path()), "c", &RunId::new("", 1, 0).to_string()), "nobody knows");
        assert!(super::take(None, "a", &RunId::new("", 5, 0)).unwrap().0.is_none());
    }
}
