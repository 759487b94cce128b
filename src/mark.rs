//! The mark of a named chain that runs: among all programs of one machine that share a database a chain runs once at a time. Touches
//! one file for each chain, which is locked while its run goes on; the kernel gives it back when the process ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf, absolute};

use jiff::Timestamp;

use crate::config::database::{DatabaseUrl, FILE_NAME};
use crate::names::{RunId, stable_hash};
use crate::plain::{self, LastLink};

/// The directory in the state directory where the marks are.
const DIR_NAME: &str = "running";

/// How many runs a mark remembers: who looks whether a run had it comes after a crash, and few can have had it since.
const REMEMBERED: usize = 16;
/// More of a mark is never read: it is some lines.
const LONGEST: u64 = 16 * 1024;

/// How the line begins that names the configuration whose run used a slot last.
const USED_BY: &str = "by ";

/// Where the marks of those are who share a state directory and a database: whoever has another database has other chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room(PathBuf);

impl Room {
    /// The room of this database; `None` is the one of the state directory itself.
    pub fn new(state_dir: &Path, database: Option<&DatabaseUrl>) -> Self {
        let own = real(&state_dir.join(FILE_NAME));
        let name = match database {
            None => None,
            Some(DatabaseUrl::Sqlite(path)) => {
                Some(real(path)).filter(|path| *path != own).map(|path| format!("sqlite:{}", path.display()))
            }
            // Who logs in, and how, does not make it another one.
            Some(DatabaseUrl::Postgres(url)) => {
                let place = url.split('?').next().unwrap_or(url);
                let place = place.split_once("://").map_or(place, |(_, place)| place);
                Some(place.rsplit_once('@').map_or(place, |(_, place)| place).to_owned())
            }
        };
        let all = state_dir.join(DIR_NAME);
        // No chain has such a name.
        Self(name.map_or(all.clone(), |name| all.join(format!("@{:016x}", stable_hash(name.bytes())))))
    }
}

/// The path without links as far as it is there: the file, and its directory, may be made later.
fn real(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| Some((fs::canonicalize(above).ok()?, path.strip_prefix(above).ok()?)));
    match found {
        Some((above, rest)) if !rest.as_os_str().is_empty() => above.join(rest),
        Some((whole, _)) => whole,
        None => path.to_owned(),
    }
}

/// The mark, given back when it is dropped; nothing where there is no state directory to keep it in.
pub type Mark = Option<File>;

/// Takes the mark of a chain for a run. Where it cannot be kept, the run goes on without: why is told beside it, in words.
/// `user` is the configuration for which the run uses a slot: see [`other_config`].
///
/// # Errors
/// Another run has it: which, in words.
pub fn take(room: Option<&Room>, chain: &str, run: &RunId, user: Option<&Path>) -> Result<(Mark, Option<String>), String> {
    take_at(None, room, chain, run, user)
}

/// The same where its place may have been opened before.
///
/// # Errors
/// Another run has it: which, in words.
pub fn take_at(
    place: Option<Place>,
    room: Option<&Room>,
    chain: &str,
    run: &RunId,
    user: Option<&Path>,
) -> Result<(Mark, Option<String>), String> {
    let Some(Room(dir)) = room else { return Ok((None, None)) };
    let opened = place.map_or_else(|| open_in(dir, chain).and_then(|file| Place::look(file, run, user)), Ok);
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
    fn look(file: File, run: &RunId, user: Option<&Path>) -> io::Result<Self> {
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
pub fn open_place(room: Option<&Room>, chain: &str, run: &RunId, user: Option<&Path>) -> Option<Place> {
    open_in(&room?.0, chain).and_then(|file| Place::look(file, run, user)).ok()
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

fn take_in(place: Place, run: &RunId, user: Option<&Path>) -> io::Result<Result<File, String>> {
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
fn compose(had: &str, length: usize, run: &RunId, user: Option<&Path>) -> String {
    let mut text = line(run.as_str());
    text.push_str(&format!(" of process {}\n", std::process::id()));
    let new = user.and_then(|file| Some(format!("{USED_BY}{}", absolute(file).ok()?.display())));
    let known = had.lines().find(|line| line.starts_with(USED_BY));
    text.extend(new.as_deref().or(known).into_iter().flat_map(|line| [line, "\n"]));
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
pub fn never_had(room: Option<&Room>, chain: &str, run: &str) -> bool {
    let Some(path) = room.map(|room| room.0.join(chain)) else { return false };
    let Ok((had, _)) = plain::open(OpenOptions::new().read(true).write(true), &path, LastLink::Refused).and_then(|file| read(&file)) else {
        return false;
    };
    let wanted = line(run);
    !had.lines().any(|line| line.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')))
}

/// The other configuration that used a slot of a chain of this name last, if its file is still there: the two share a database, and
/// what the one uses is lost to the other.
pub fn other_config(room: &Room, chain: &str, config_file: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(room.0.join(chain)).ok()?;
    let other = text.lines().find_map(|line| line.strip_prefix(USED_BY)).map(PathBuf::from)?;
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
pub fn look(room: &Room, chain: &str) -> Option<Holder> {
    let path = room.0.join(chain);
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
        let room = Room::new(dir.path(), None);
        let take = |chain, number| take(Some(&room), chain, &RunId::new("", number, 0), None).map(|(mark, _)| mark);
        let first = take("a", 1).unwrap();
        assert!(first.is_some());
        assert_eq!(take("a", 2).unwrap_err(), format!("run 00000000-1-0000000000000000 of process {}", std::process::id()));
        assert!(take("b", 3).is_ok());
        assert!(never_had(Some(&room), "a", &RunId::new("", 2, 0).to_string()), "it was refused");
        let seen = look(&room, "a").unwrap();
        assert_eq!((seen.run_id.as_str(), seen.pid), ("00000000-1-0000000000000000", std::process::id().try_into().unwrap()));
        drop(first);
        assert_eq!((look(&room, "a"), look(&room, "b"), look(&room, "c")), (None, None, None));
        assert!(take("a", 4).is_ok());
        assert!(!never_had(Some(&room), "a", &RunId::new("", 1, 0).to_string()), "it is remembered");
        assert!(!never_had(Some(&room), "c", &RunId::new("", 1, 0).to_string()), "nobody knows");
        let place = open_place(Some(&room), "c", &RunId::new("", 1, 0), None);
        assert!(never_had(Some(&room), "c", &RunId::new("", 1, 0).to_string()), "nobody ever had it");
        assert!(take_at(place, Some(&room), "c", &RunId::new("", 1, 0), None).unwrap().0.is_some());
        assert!(!never_had(Some(&room), "c", &RunId::new("", 1, 0).to_string()), "it was had where it was opened before");
        let place = open_place(Some(&room), "a", &RunId::new("", 7, 0), None);
        let held = take("a", 6).unwrap();
        assert!(take_at(place, Some(&room), "a", &RunId::new("", 7, 0), None).is_err(), "somebody came in between");
        drop(held);
        let place = open_place(Some(&room), "a", &RunId::new("", 8, 0), None);
        drop(take("a", 9).unwrap());
        assert!(take_at(place, Some(&room), "a", &RunId::new("", 8, 0), None).is_ok());
        let had = [6, 8, 9].map(|number| !never_had(Some(&room), "a", &RunId::new("", number, 0).to_string()));
        assert_eq!(had, [true; 3], "what was written in between is remembered");
        assert!(!never_had(Some(&room), "a", &RunId::new("", 1, 0).to_string()), "what is there stays");
        assert!(super::take(None, "a", &RunId::new("", 5, 0), None).unwrap().0.is_none());
    }

    #[test]
    fn a_text_that_was_longer_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::new(dir.path(), None);
        let by = |number, file: &str| drop(take(Some(&room), "a", &RunId::new("", number, 0), Some(Path::new(file))).unwrap());
        by(0, &format!("/{}", "x".repeat(500)));
        (1..=u32::try_from(REMEMBERED).unwrap()).for_each(|number| by(number, "/etc/r.cfg"));
        let text = fs::read_to_string(dir.path().join(DIR_NAME).join("a")).unwrap();
        assert!(!text.contains("xx") && text.trim_end().ends_with(&format!("of process {}", std::process::id())), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("run ")).count(), REMEMBERED);
        by(99, "/etc/r.cfg");
        assert!(!never_had(Some(&room), "a", &RunId::new("", 16, 0).to_string()), "what is behind it is remembered");
    }

    #[test]
    fn it_says_which_configuration_used_a_slot_last() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::new(dir.path(), None);
        let file = |name: &str| {
            fs::write(dir.path().join(name), "").unwrap();
            dir.path().join(name)
        };
        let (ours, other) = (file("ours.cfg"), file("other.cfg"));
        let used_by = |number, user| drop(take(Some(&room), "a", &RunId::new("", number, 0), user).unwrap());
        let seen_by = |chain, file: &Path| other_config(&room, chain, file);
        used_by(1, Some(other.as_path()));
        used_by(2, None);
        assert_eq!(seen_by("a", &ours), Some(other.clone()), "`now` uses no slot");
        assert_eq!([seen_by("a", &other), seen_by("b", &ours)], [None, None]);
        assert!(!never_had(Some(&room), "a", &RunId::new("", 1, 0).to_string()));
        fs::remove_file(&other).unwrap();
        assert_eq!(seen_by("a", &ours), None, "it is gone");
        used_by(3, Some(ours.as_path()));
        let text = fs::read_to_string(dir.path().join(DIR_NAME).join("a")).unwrap();
        assert_eq!(text.matches(USED_BY).count(), 1, "{text}");
    }

    #[test]
    fn who_has_another_database_has_other_marks() {
        let dir = tempfile::tempdir().unwrap();
        let room = |text: &str| Room::new(dir.path(), Some(&DatabaseUrl::parse(text, dir.path()).unwrap()));
        let own = Room::new(dir.path(), None);
        assert_eq!(own.0, dir.path().join(DIR_NAME));
        assert_eq!(room("sqlite:runner.db"), own, "named or not");
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        assert_eq!(room("sqlite:other.db"), room("sqlite:link/other.db"), "a file is one by all its names");
        let early = room("sqlite:link/later/other.db");
        fs::create_dir(dir.path().join("later")).unwrap();
        fs::write(dir.path().join("later/other.db"), "").unwrap();
        assert_eq!(early, room("sqlite:later/other.db"), "also before it was made");
        let server = room("postgresql://me:secret@db:5432/runner?sslmode=require");
        assert_eq!(server, room("postgresql://db:5432/runner"));
        let all = [own.clone(), room("sqlite:other.db"), server, room("postgresql://db:5432/more")];
        for (number, one) in all.iter().enumerate() {
            assert!(all[..number].iter().all(|other| other != one), "{one:?}");
            let run = RunId::new("", u32::try_from(number).unwrap(), 0);
            assert!(std::mem::ManuallyDrop::new(take(Some(one), "a", &run, None)).is_ok(), "each runs beside the others");
        }
        assert!(take(Some(&own), "a", &RunId::new("", 9, 0), None).is_err());
    }
}
