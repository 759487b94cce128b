//! Which files of a directory are tasks, and why the others are not. Touches the task directory only.

pub mod graph;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

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
    /// Reads a directory. `halt_task` is the path of a file that is never a task; `interpreted` says whether a task
    /// is run by an interpreter and so need not be executable.
    ///
    /// # Errors
    /// The directory is not there, is none, or may not be read.
    pub fn read(dir: &Path, halt_task: Option<&Path>, interpreted: impl Fn(&TaskName) -> bool) -> Result<Self, DirError> {
        let failed = |source| DirError { dir: dir.to_owned(), source };
        let mut found = Self::default();
        let halt_name = halt_task.filter(|halt| halt.parent() == Some(dir)).and_then(Path::file_name);
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = TaskName::parse(&entry.file_name());
            let path = entry.path();
            let judged = if halt_name == Some(name.file()) { Err(LeftOut::HaltTask) } else { judge(&name, &path, &interpreted) };
            match judged {
                Err(reason) => found.left_out.push((name, reason)),
                Ok(ownership) => {
                    let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
                    found.tasks.push((name, (!is_link).then_some(ownership)));
                }
            }
        }
        found.tasks.sort_by(|(a, _), (b, _)| a.sort_order(b));
        found.left_out.sort_by(|(a, _), (b, _)| a.file().cmp(b.file()));
        Ok(found)
    }
}

fn judge(name: &TaskName, path: &Path, interpreted: impl Fn(&TaskName) -> bool) -> Result<Ownership, LeftOut> {
    if name.file().as_bytes().starts_with(b".") {
        return Err(LeftOut::Hidden);
    }
    if let Some(pattern) = left_over(name.text()) {
        return Err(LeftOut::LeftOver(pattern));
    }
    // The target of a link counts.
    let file = match fs::metadata(path) {
        Ok(file) => file,
        Err(error) => return Err(LeftOut::Unreadable(error.to_string())),
    };
    if file.is_dir() {
        return Err(LeftOut::Directory);
    }
    if !file.is_file() {
        return Err(LeftOut::Special);
    }
    if interpreted(name) {
        return if name.text().starts_with("README") { Err(LeftOut::Readme) } else { Ok(Ownership::of(&file)) };
    }
    if file.permissions().mode() & 0o111 == 0 { Err(LeftOut::NotExecutable) } else { Ok(Ownership::of(&file)) }
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
        let read = |interpreted| TaskDir::read(dir.path(), Some(&halt), move |_: &TaskName| interpreted).unwrap();
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
