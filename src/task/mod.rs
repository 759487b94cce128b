//! Which files of a directory are tasks, and why the others are not. Touches the task directory only.

pub mod graph;

use std::ffi::OsStr;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use thiserror::Error;

use crate::names::TaskName;
use crate::trust::Ownership;

/// Why a file of a task directory is no task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// Its name begins with a dot.
    Hidden,
    /// Its name is that of a backup, of an editor's or of a package manager's left-over, and the pattern that says so.
    LeftOver(&'static str),
    /// A directory.
    Directory,
    /// Not a regular file: a socket, a device, a fifo.
    Special,
    /// Nobody may execute it, and no interpreter is set.
    NotExecutable,
    /// A README, under an interpreter.
    Readme,
    /// The halt task.
    HaltTask,
    /// The halt task of the main chain, by its name, where the chain names none of its own.
    UnnamedHaltTask,
    /// It cannot be looked at; a link that leads nowhere, mostly.
    Unreadable(String),
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden => f.write_str("its name begins with a dot"),
            Self::LeftOver(pattern) => write!(f, "a left-over, its name is {pattern}"),
            Self::Directory => f.write_str("a directory"),
            Self::Special => f.write_str("not a regular file"),
            Self::NotExecutable => f.write_str("not executable (chmod +x makes it a task)"),
            Self::Readme => f.write_str("a README"),
            Self::HaltTask => f.write_str("the halt task"),
            Self::UnnamedHaltTask => f.write_str("named as the halt task of [runner], and this chain has none of its own"),
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
        }
    }
}

/// A task directory that cannot be read.
#[derive(Debug, Error)]
#[error("the task directory {dir} cannot be read: {source}")]
pub struct DirError {
    /// The directory.
    pub dir: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// The tasks of a directory in their sort order, and what was left out.
#[derive(Debug, Default)]
pub struct TaskDir {
    /// The tasks, each with what was seen of its file; nothing for a link, whose way and target have to be looked at.
    pub tasks: Vec<(TaskName, Option<Ownership>)>,
    /// The other files, by name, each with the reason.
    pub left_out: Vec<(TaskName, LeftOut)>,
}

impl TaskDir {
    /// Reads a directory. `halt_task` is the path of a file that is never a task, and why; `interpreted` says whether a
    /// task is run by an interpreter and so need not be executable.
    ///
    /// # Errors
    /// The directory is not there, is none, or may not be read.
    pub fn read(dir: &Path, halt_task: Option<(&Path, LeftOut)>, interpreted: impl Fn(&TaskName) -> bool) -> Result<Self, DirError> {
        let failed = |error: rustix::io::Errno| DirError { dir: dir.to_owned(), source: error.into() };
        let mut found = Self::default();
        let never = halt_task.filter(|(halt, _)| halt.parent() == Some(dir));
        let never = never.and_then(|(halt, reason)| Some((halt.file_name()?, reason)));
        let open_dir = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir_fd = rustix::fs::open(dir, open_dir, Mode::empty()).map_err(failed)?;
        // Each file is looked at by its name in the open directory: no path is put together for it, nor walked.
        let look = |name: &TaskName, flags| rustix::fs::statat(&dir_fd, name.file(), flags);
        let mut buffer = Vec::with_capacity(READ_AT_ONCE);
        let mut entries = RawDir::new(&dir_fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(failed)?;
            let file = entry.file_name().to_bytes();
            if file == b"." || file == b".." {
                continue;
            }
            let name = TaskName::parse(OsStr::from_bytes(file));
            // The target of a link counts.
            let target = || look(&name, AtFlags::empty());
            let judged = match &never {
                Some((never, reason)) if *never == name.file() => Err(reason.clone()),
                Some(_) | None => judge(&name, target, &interpreted),
            };
            let is_link = || match entry.file_type() {
                // Some file systems do not say it in the directory.
                FileType::Unknown => look(&name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|file| kind_of(&file) == FileType::Symlink),
                kind => kind == FileType::Symlink,
            };
            match judged {
                Err(reason) => found.left_out.push((name, reason)),
                Ok(ownership) => {
                    let seen = (!is_link()).then_some(ownership);
                    found.tasks.push((name, seen));
                }
            }
        }
        // The numbers stand beside the names while it is sorted: each name is somewhere else in the memory, and would be looked at
        // a dozen times. No two files of a directory are equal in this.
        let mut ranked: Vec<_> = found.tasks.into_iter().map(|task| (task.0.rank(), task)).collect();
        ranked.sort_unstable_by(|(a_rank, (a, _)), (b_rank, (b, _))| a_rank.cmp(b_rank).then_with(|| a.sort_order(b)));
        found.tasks = ranked.into_iter().map(|(_, task)| task).collect();
        found.left_out.sort_by(|(a, _), (b, _)| a.file().cmp(b.file()));
        Ok(found)
    }
}

/// How much of a directory is read by one system call, in bytes: a thousand names.
const READ_AT_ONCE: usize = 32 * 1024;

fn kind_of(file: &Stat) -> FileType {
    FileType::from_raw_mode(file.st_mode)
}

fn judge(
    name: &TaskName,
    look: impl Fn() -> rustix::io::Result<Stat>,
    interpreted: impl Fn(&TaskName) -> bool,
) -> Result<Ownership, LeftOut> {
    if name.file().as_bytes().starts_with(b".") {
        return Err(LeftOut::Hidden);
    }
    if let Some(pattern) = left_over(name.text()) {
        return Err(LeftOut::LeftOver(pattern));
    }
    let file = look().map_err(|error| LeftOut::Unreadable(io::Error::from(error).to_string()))?;
    let kind = kind_of(&file);
    if kind == FileType::Directory {
        return Err(LeftOut::Directory);
    }
    if kind != FileType::RegularFile {
        return Err(LeftOut::Special);
    }
    if interpreted(name) {
        return if name.text().starts_with("README") { Err(LeftOut::Readme) } else { Ok(Ownership::of_stat(&file)) };
    }
    if file.st_mode & 0o111 == 0 { Err(LeftOut::NotExecutable) } else { Ok(Ownership::of_stat(&file)) }
}

/// Looks whether an interpreter could read a file, without waiting for the writer of a pipe that has taken its place.
///
/// # Errors
/// Why it could not.
pub fn look_into(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(()) } else { Err(io::Error::other("it is no regular file")) }
}

/// The pattern of left-over files that a name fits: backups, editors, version control, package managers.
pub fn left_over(name: &str) -> Option<&'static str> {
    const SUFFIXES: [(&str, &str); 11] = [
        ("~", "*~"),
        (".bak", "*.bak"),
        (".orig", "*.orig"),
        (".rej", "*.rej"),
        (".swp", "*.swp"),
        (".pyc", "*.pyc"),
        (".disabled", "*.disabled"),
        (",v", "*,v"),
        (".rpmsave", "*.rpmsave"),
        (".rpmnew", "*.rpmnew"),
        (".rpmorig", "*.rpmorig"),
    ];
    // Most names hold none of these, and need no closer look.
    if !name.bytes().any(|byte| matches!(byte, b'~' | b'#' | b'.' | b',')) {
        return None;
    }
    if name.len() > 1 && name.starts_with('#') && name.ends_with('#') {
        return Some("#*#");
    }
    for (part, pattern) in [(".dpkg-", "*.dpkg-*"), (".ucf-", "*.ucf-*")] {
        if name.contains(part) {
            return Some(pattern);
        }
    }
    SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix)).map(|(_, pattern)| *pattern)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn left_overs_are_known_by_their_names() {
        for name in
            ["a~", "#a#", "a.bak", "a.orig", "a.rej", "a.swp", "a.pyc", "a.disabled", "a.dpkg-old", "a.ucf-dist", "a.rpmsave", "a,v"]
        {
            assert!(left_over(name).is_some(), "{name}");
        }
        for name in ["a", "#", "bak", "a.bak.sh", "10-dpkg.sh", "a.rpm"] {
            assert!(left_over(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_directory_is_parted_into_tasks_and_reasons() {
        let dir = tempfile::tempdir().unwrap();
        let add = |name: &str, mode: u32| {
            fs::write(dir.path().join(name), "").unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        for (name, mode) in [("10-b", 0o755), ("9-a", 0o700), ("plain", 0o644), (".dot", 0o755), ("halt.sh", 0o755), ("README.md", 0o755)] {
            add(name, mode);
        }
        fs::create_dir(dir.path().join("sub")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("broken")).unwrap();
        std::os::unix::fs::symlink("9-a", dir.path().join("link")).unwrap();
        let halt = dir.path().join("halt.sh");
        let never = || Some((halt.as_path(), LeftOut::HaltTask));
        let read = |interpreted| TaskDir::read(dir.path(), never(), move |_: &TaskName| interpreted).unwrap();
        let names = |found: &TaskDir| found.tasks.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        let found = read(false);
        assert_eq!(names(&found), ["9-a", "10-b", "README.md", "link"]);
        let links: Vec<_> = found.tasks.iter().filter(|(_, seen)| seen.is_none()).map(|(name, _)| name.text()).collect();
        assert_eq!(links, ["link"]);
        let out: Vec<_> = found.left_out.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        assert_eq!(out.len(), 5, "{out:?}");
        assert!(out[1].starts_with("broken: it cannot be read"), "{out:?}");
        assert_eq!(names(&read(true)), ["9-a", "10-b", "link", "plain"]);
        assert!(TaskDir::read(&dir.path().join("gone"), None, |_: &TaskName| false).is_err());
    }
}
