//! A sign that a worker lives, for whoever shares its SQLite file and cannot see its process: a locked file in the
//! directory of the workers' sockets. All who have that file open are on one machine, where such a lock (flock(2)) holds
//! across containers, and ends with its holder and no sooner: one that is frozen, or whose disk is full, lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Owner;

/// What the names of these files end in.
const ENDING: &str = ".alive";

/// The sign of this process, for as long as it is not dropped.
#[derive(Debug)]
pub struct Sign {
    file: File,
    path: PathBuf,
}

impl Sign {
    /// Puts it into this directory. Takes those away that dead ones have left.
    pub fn new(dir: &Path, owner: &Owner) -> Option<Self> {
        sweep(dir);
        let path = dir.join(name_of(owner)?);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).ok()?;
        file.try_lock().ok()?;
        Some(Self { file, path }).filter(Self::holds)
    }

    /// Whether others see it: the file still has its name.
    pub fn holds(&self) -> bool {
        let inode = |found: fs::Metadata| (found.dev(), found.ino());
        self.file.metadata().map(inode).ok().is_some_and(|ours| fs::metadata(&self.path).map(inode).is_ok_and(|there| there == ours))
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        if self.holds() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The directory of the workers of this file, the same by whatever name the file is known.
pub(super) fn dir_of(file: &Path) -> PathBuf {
    let mut name = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()).into_os_string();
    name.push("-workers");
    name.into()
}

/// Whether there is a sign of this process in the directory.
pub fn is_seen(dir: &Path, owner: &Owner) -> bool {
    name_of(owner).is_some_and(|name| is_locked(&dir.join(name)))
}

fn is_locked(path: &Path) -> bool {
    // A shared lock: two who look at the same time do not take each other for the holder.
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Processes in two containers may have one number, and processes that follow each other, too.
fn name_of(owner: &Owner) -> Option<String> {
    let namespace: String = owner.place.split(' ').nth(1)?.chars().filter(char::is_ascii_digit).collect();
    (!namespace.is_empty()).then(|| format!("{}-{namespace}-{}{ENDING}", owner.pid, owner.start_time))
}

fn sweep(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| path.to_string_lossy().ends_with(ENDING)) {
        // Whoever has made the file and not yet locked it sees that its name is gone, and does without.
        if !is_locked(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_is_seen_until_its_process_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let owner = Owner { place: "id pid:[402] time:[7]".into(), ..Owner::look() };
        assert!(!is_seen(home.path(), &owner));
        let sign = Sign::new(home.path(), &owner).unwrap();
        assert!(sign.holds() && is_seen(home.path(), &owner));
        let others = [
            Owner { pid: owner.pid + 1, ..owner.clone() },
            Owner { start_time: owner.start_time + 1, ..owner.clone() },
            Owner { place: "id pid:[403] time:[7]".into(), ..owner.clone() },
        ];
        assert!(others.iter().all(|other| !is_seen(home.path(), other)), "processes of the same number");
        let next = Sign::new(home.path(), &others[1]).unwrap();
        assert!(sign.holds(), "what lives is not swept away");
        drop(next);
        let path = sign.path.clone();
        fs::remove_file(&path).unwrap();
        assert!(!sign.holds(), "nobody sees it any more");
        drop(sign);
        // What a killed one leaves.
        fs::write(&path, "").unwrap();
        assert!(!is_seen(home.path(), &owner));
        assert!(Sign::new(home.path(), &others[0]).is_some() && !path.exists());
        assert!(Sign::new(home.path(), &Owner { place: "id ".into(), ..owner }).is_none(), "nobody could find it");
    }
}
