//! Who is there to fire slots and to work queues: each daemon, worker and tick has a file in the state directory, which is locked as
//! long as the process lives, however it ends. Written once, at its start. Touches that directory and nothing else.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The directory in the state directory where the files are.
const DIR_NAME: &str = "present";
/// How the name of a file ends that is not locked yet.
const UNFINISHED: &str = ".new";

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// It fires slots, and works the queues that its configuration names.
    Daemon,
    /// It works queues.
    Worker,
    /// It fires what is due in a minute, and waits for that.
    Tick,
}

/// A process that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// What for.
    pub work: Work,
    /// Its number, where it runs.
    pub pid: u32,
    /// Its configuration file, absolute.
    pub config: Option<PathBuf>,
    /// The queues of a worker.
    #[serde(default)]
    pub queues: Vec<String>,
}

/// The file of this process: its lock is given back and it is taken away when this is dropped.
#[derive(Debug)]
pub struct Here {
    path: PathBuf,
    _locked: File,
}

impl Drop for Here {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Says that we are there. Where that cannot be kept it is told, and nothing else changes.
pub fn announce(state_dir: Option<&Path>, presence: &Presence) -> Option<Here> {
    let dir = state_dir?.join(DIR_NAME);
    match announce_in(&dir, presence) {
        Ok(here) => Some(here),
        Err(error) => {
            // One that comes each minute would say it each minute.
            let level = if presence.work == Work::Tick { log::Level::Debug } else { log::Level::Info };
            log::log!(level, "`runner status` cannot see that we are there: {}: {error}", dir.display());
            None
        }
    }
}

fn announce_in(dir: &Path, presence: &Presence) -> io::Result<Here> {
    // As the state directory itself is made.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    sweep(dir)?;
    // Containers that share the directory may each have a process of our number.
    let mut names = (0..100).map(|number| dir.join(format!("{}-{number}", presence.pid)));
    let path = names.find(|path| !path.exists()).ok_or(io::ErrorKind::AlreadyExists)?;
    let mut unfinished = path.clone().into_os_string();
    unfinished.push(UNFINISHED);
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&unfinished)?;
    file.write_all(&serde_json::to_vec(presence)?)?;
    // Locked before anybody looks at it: whoever looks tries the lock, too.
    file.try_lock()?;
    fs::rename(&unfinished, &path)?;
    Ok(Here { path, _locked: file })
}

/// Takes away what those have left who were killed.
fn sweep(dir: &Path) -> io::Result<()> {
    for path in files(dir)? {
        if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let found = fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(found.filter(|path| !path.to_string_lossy().ends_with(UNFINISHED)).collect())
}

/// Those who are there, as far as they share this state directory.
///
/// # Errors
/// It may not be looked at: nobody knows.
pub fn look(state_dir: &Path) -> io::Result<Vec<Presence>> {
    let files = match files(&state_dir.join(DIR_NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files?,
    };
    let mut all = Vec::new();
    for path in files {
        match File::open(&path) {
            Ok(file) => all.extend(read_locked(file)),
            // Somebody left in this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A shared lock keeps nobody: the owner has had his since before the file had its name.
fn read_locked(file: File) -> Option<Presence> {
    let is_locked = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    if is_locked { serde_json::from_reader(file).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_is_seen_and_who_was_killed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let of = |work, queues: &[&str]| Presence {
            work,
            pid: std::process::id(),
            config: Some("/x.cfg".into()),
            queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
        };
        let look = |dir: &Path| look(dir).unwrap();
        assert_eq!(look(dir.path()), []);
        let daemon = announce(Some(dir.path()), &of(Work::Daemon, &[])).unwrap();
        let worker = announce(Some(dir.path()), &of(Work::Worker, &["a"])).unwrap();
        let mut seen = look(dir.path());
        seen.sort_by_key(|presence| presence.queues.len());
        assert_eq!(seen, [of(Work::Daemon, &[]), of(Work::Worker, &["a"])]);
        drop(worker);
        assert_eq!(look(dir.path()), [of(Work::Daemon, &[])]);
        // Killed: the file stays, its lock does not.
        let left = dir.path().join(DIR_NAME).join("1-0");
        fs::copy(&daemon.path, &left).unwrap();
        assert_eq!(look(dir.path()).len(), 1);
        let _next = announce(Some(dir.path()), &of(Work::Daemon, &[])).unwrap();
        assert!(!left.exists() && look(dir.path()).len() == 2);
        assert!(announce(None, &of(Work::Daemon, &[])).is_none());
    }
}
