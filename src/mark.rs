//! The mark of a named chain that runs: among all programs of one machine a chain runs once at a time. Touches one file for each
//! chain, which is locked while its run goes on; the kernel gives it back when the process ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf, absolute};

use jiff::Timestamp;

use crate::names::RunId;
use crate::plain::{self, LastLink};

/// The directory in the state directory where the marks are.
const DIR_NAME: &str = "running";

/// How many runs a mark remembers: who looks whether a run had it comes after a crash, and few can have had it since.
const REMEMBERED: usize = 16;
/// More of a mark is never read: it is some lines.
const LONGEST: u64 = 16 * 1024;

/// How the lines begin that name, for each database, the configuration whose run used a slot last.
const USED_BY: &str = "by ";
/// What stands there between the configuration and its database.
const IN: &str = " in ";

/// The mark, given back when it is dropped; nothing where there is no state directory to keep it in.
pub type Mark = Option<File>;

/// Takes the mark of a chain for a run. Where it cannot be kept, the run goes on without: why is told beside it, in words.
/// `user` is the configuration for which the run uses a slot, and the database that knows of it: see [`other_config`].
///
/// # Errors
/// Another run has it: which, in words.
pub fn take(state_dir: Option<&Path>, chain: &str, run: &RunId, user: Option<(&Path, &str)>) -> Result<(Mark, Option<String>), String> {
    take_at(None, state_dir, chain, run, user)
}

/// The same where its place may have been opened before.
///
/// # Errors
/// Another run has it: which, in words.
pub fn take_at(
    place: Option<Place>,
    state_dir: Option<&Path>,
    chain: &str,
    run: &RunId,
    user: Option<(&Path, &str)>,
) -> Result<(Mark, Option<String>), String> {
    let Some(dir) = state_dir.map(|dir| dir.join(DIR_NAME)) else { return Ok((None, None)) };
    let opened = place.map_or_else(|| open_in(&dir, chain).and_then(|file| Place::look(file, run, user)), Ok);
    match opened.and_then(|place| take_in(place, run, user)) {
        Ok(Ok(file)) => Ok((Some(file), None)),
        Ok(Err(holder)) => Err(holder),
        Err(error) => Ok((None, Some(format!("other programs cannot see that it runs: {}: {error}", dir.display())))),
    }
}

/// Where the mark of a chain is taken, opened a moment before.
#[derive(Debug)]
pub struct Place {
    file: File,
    /// What stood in it, and what is to stand there.
    had: String,
    length: usize,
    text: String,
}

impl Place {
    fn look(file: File, run: &RunId, user: Option<(&Path, &str)>) -> io::Result<Self> {
        let (had, length) = read(&file)?;
        let text = compose(&had, length, run, user);
        Ok(Self { file, had, length, text })
    }

    /// Whether somebody has had the mark since: whoever takes it writes another first line. It is ours while we look.
    fn is_as_it_was(&self) -> io::Result<bool> {
        let first = self.had.lines().next().unwrap_or_default();
        let mut now = vec![0; first.len() + 1];
        let read = self.file.read_at(&mut now, 0)?;
        Ok(read == now.len().min(self.length) && now.starts_with(first.as_bytes()))
    }
}

/// Opens the file of a chain's mark for a run, and makes it, if there is none: without one nobody can tell of a run that it never
/// had it. Nothing is taken yet. What fails here is told when the mark is taken.
pub fn open_place(state_dir: Option<&Path>, chain: &str, run: &RunId, user: Option<(&Path, &str)>) -> Option<Place> {
    open_in(&state_dir?.join(DIR_NAME), chain).and_then(|file| Place::look(file, run, user)).ok()
}

/// Only the first one has to make the directory.
fn open_in(dir: &Path, chain: &str) -> io::Result<File> {
    let file = dir.join(chain);
    let open = || plain::open(OpenOptions::new().create(true).truncate(false).read(true).write(true), &file, LastLink::Refused);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(dir).and_then(|()| open()),
        opened => opened,
    }
}

fn take_in(place: Place, run: &RunId, user: Option<(&Path, &str)>) -> io::Result<Result<File, String>> {
    match place.file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let (had, _) = read(&place.file)?;
            return Ok(Err(had.lines().next().unwrap_or_default().trim().to_owned()));
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let place = if place.is_as_it_was()? { place } else { Place::look(place.file, run, user)? };
    // In one piece: whoever is killed here leaves the run in it or not, but nothing else.
    place.file.write_all_at(place.text.as_bytes(), 0)?;
    Ok(Ok(place.file))
}

/// What is to stand in a mark that had `length` bytes.
fn compose(had: &str, length: usize, run: &RunId, user: Option<(&Path, &str)>) -> String {
    let mut text = line(run.as_str());
    text.push_str(&format!(" of process {}\n", std::process::id()));
    let new = user.and_then(|(file, database)| Some(format!("{USED_BY}{}{IN}{database}", absolute(file).ok()?.display())));
    let of_database = |line: &str| user.is_some_and(|(_, database)| line.rsplit_once(IN).is_some_and(|(_, known)| known == database));
    let known = had.lines().filter(|line| line.starts_with(USED_BY) && !of_database(line));
    text.extend(new.as_deref().into_iter().chain(known).take(REMEMBERED).flat_map(|line| [line, "\n"]));
    let runs = had.lines().filter(|line| !line.starts_with(USED_BY) && !line.is_empty());
    text.extend(runs.take(REMEMBERED - 1).flat_map(|line| [line, "\n"]));
    // What was longer is filled up with empty lines: to cut it would be a second change, for which the journal of a file system
    // may have to be waited for.
    text.extend(std::iter::repeat_n('\n', length.saturating_sub(text.len())));
    text
}

fn line(run: &str) -> String {
    format!("run {run}")
}

/// What stands in a mark, and how many bytes that is.
fn read(file: &File) -> io::Result<(String, usize)> {
    let (mut had, mut length) = ([0; LONGEST as usize], 0);
    loop {
        match file.read_at(&mut had[length..], length as u64) {
            Ok(0) => return Ok((String::from_utf8_lossy(&had[..length]).into_owned(), length)),
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether it is sure that a run never had the mark of its chain, and so that nothing of it was started. Only of runs of this
/// boot, and only where marks can be kept: otherwise nobody knows.
pub fn never_had(state_dir: Option<&Path>, chain: &str, run: &str) -> bool {
    let Some(path) = state_dir.map(|dir| dir.join(DIR_NAME).join(chain)) else { return false };
    let Ok((had, _)) = plain::open(OpenOptions::new().read(true).write(true), &path, LastLink::Refused).and_then(|file| read(&file)) else {
        return false;
    };
    let wanted = line(run);
    !had.lines().any(|line| line.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
}

/// The other configuration that used a slot of a chain of this name last, if its file is still there: the two share a database, and
/// what the one uses is lost to the other.
pub fn other_config(state_dir: &Path, chain: &str, (config_file, database): (&Path, &str)) -> Option<PathBuf> {
    let text = fs::read_to_string(state_dir.join(DIR_NAME).join(chain)).ok()?;
    let users = text.lines().filter_map(|line| line.strip_prefix(USED_BY)?.rsplit_once(IN));
    let other = users.filter(|(_, its_database)| *its_database == database).map(|(file, _)| PathBuf::from(file)).next()?;
    let real = |file: &Path| fs::canonicalize(file).ok();
    (real(&other)? != real(config_file)?).then_some(other)
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
        let take = |chain, number| take(Some(dir.path()), chain, &RunId::new("", number, 0), None).map(|(mark, _)| mark);
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
        let place = open_place(Some(dir.path()), "c", &RunId::new("", 1, 0), None);
        assert!(never_had(Some(dir.path()), "c", &RunId::new("", 1, 0).to_string()), "nobody ever had it");
        assert!(take_at(place, Some(dir.path()), "c", &RunId::new("", 1, 0), None).unwrap().0.is_some());
        assert!(!never_had(Some(dir.path()), "c", &RunId::new("", 1, 0).to_string()), "it was had where it was opened before");
        let place = open_place(Some(dir.path()), "a", &RunId::new("", 7, 0), None);
        let held = take("a", 6).unwrap();
        assert!(take_at(place, Some(dir.path()), "a", &RunId::new("", 7, 0), None).is_err(), "somebody came in between");
        drop(held);
        let place = open_place(Some(dir.path()), "a", &RunId::new("", 8, 0), None);
        drop(take("a", 9).unwrap());
        assert!(take_at(place, Some(dir.path()), "a", &RunId::new("", 8, 0), None).is_ok());
        let had = [6, 8, 9].map(|number| !never_had(Some(dir.path()), "a", &RunId::new("", number, 0).to_string()));
        assert_eq!(had, [true; 3], "what was written in between is remembered");
        assert!(!never_had(Some(dir.path()), "a", &RunId::new("", 1, 0).to_string()), "what is there stays");
        assert!(super::take(None, "a", &RunId::new("", 5, 0), None).unwrap().0.is_none());
    }

    #[test]
    fn a_text_that_was_longer_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let long = "x".repeat(500);
        let by = |number, database: &str| {
            drop(take(Some(dir.path()), "a", &RunId::new("", number, 0), Some((Path::new("/etc/r.cfg"), database))).unwrap());
        };
        by(0, &long);
        // As many databases as are remembered, and so the long one is forgotten.
        (1..=u32::try_from(REMEMBERED).unwrap()).for_each(|number| by(number, &number.to_string()));
        let text = fs::read_to_string(dir.path().join(DIR_NAME).join("a")).unwrap();
        assert!(!text.contains("xx") && text.trim_end().ends_with(&format!("of process {}", std::process::id())), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("run ")).count(), REMEMBERED);
        by(99, "1");
        assert!(!never_had(Some(dir.path()), "a", &RunId::new("", 16, 0).to_string()), "what is behind it is remembered");
    }

    #[test]
    fn it_says_which_configuration_used_a_slot_last() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            fs::write(dir.path().join(name), "").unwrap();
            dir.path().join(name)
        };
        let (ours, other) = (file("ours.cfg"), file("other.cfg"));
        let used_by = |number, user| drop(take(Some(dir.path()), "a", &RunId::new("", number, 0), user).unwrap());
        let seen_by = |chain, file: &Path, database| other_config(dir.path(), chain, (file, database));
        used_by(1, Some((&other, "db")));
        used_by(2, None);
        assert_eq!(seen_by("a", &ours, "db"), Some(other.clone()), "`now` uses no slot");
        assert_eq!([seen_by("a", &other, "db"), seen_by("b", &ours, "db"), seen_by("a", &ours, "db 2")], [None, None, None]);
        assert!(!never_had(Some(dir.path()), "a", &RunId::new("", 1, 0).to_string()));
        fs::remove_file(&other).unwrap();
        assert_eq!(seen_by("a", &ours, "db"), None, "it is gone");
        used_by(3, Some((&ours, "db")));
        let text = fs::read_to_string(dir.path().join(DIR_NAME).join("a")).unwrap();
        assert_eq!(text.matches(USED_BY).count(), 1, "{text}");
    }
}
