//! Whether others could have written what root is about to execute. Looks at owners and modes; changes nothing.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::process::user::group_name;

/// Links that lead to links: as many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Who a file belongs to, and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Ownership {
    /// Of a file that somebody has looked at.
    pub fn of(file: &Metadata) -> Self {
        Self { uid: file.uid(), gid: file.gid(), mode: file.mode() }
    }

    /// Of a file that somebody has looked at by system call.
    pub fn of_stat(file: &rustix::fs::Stat) -> Self {
        Self { uid: file.st_uid, gid: file.st_gid, mode: file.st_mode }
    }

    fn kind(self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }
}

/// Checks paths for one effective user, and remembers the directories it has seen.
#[derive(Debug)]
pub struct TrustCheck {
    user: u32,
    seen: HashSet<PathBuf>,
}

impl TrustCheck {
    /// A check for the user we are. Only root's is strict: nobody else executes what others may not change for more
    /// than themselves. `None` then.
    pub fn for_root() -> Option<Self> {
        let user = rustix::process::geteuid();
        user.is_root().then(|| Self { user: user.as_raw(), seen: HashSet::new() })
    }

    /// What is wrong with a file, the links it leads through, and every directory above each of them.
    /// A path that is not there is nobody's; what opens it will tell.
    pub fn check(&mut self, path: &Path) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Ok(path) = std::path::absolute(path) {
            self.walk(&path, MAX_LINKS, &mut wrong);
        }
        wrong
    }

    /// What is wrong with a plain file of a directory that has been checked. Whoever listed the directory has looked at
    /// the file; it is not looked at again.
    pub fn check_seen(&self, path: &Path, file: Ownership) -> Option<String> {
        self.judge(path, file)
    }

    fn walk(&mut self, path: &Path, links: usize, wrong: &mut Vec<String>) {
        let mut done = PathBuf::from("/");
        let mut parts: Vec<OsString> =
            path.components().rev().filter(|part| !matches!(part, Component::RootDir)).map(|part| part.as_os_str().to_owned()).collect();
        if self.look(&done, wrong).is_err() {
            return;
        }
        while let Some(part) = parts.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&part);
            match self.look(&next, wrong) {
                Ok(Some(target)) if links > 0 => {
                    let rest: PathBuf = parts.iter().rev().collect();
                    return self.walk(&done.join(target).join(rest), links - 1, wrong);
                }
                Ok(_) => done = next,
                Err(_) => return,
            }
        }
    }

    /// Looks at one file itself; tells where it leads if it is a link.
    fn look(&mut self, path: &Path, wrong: &mut Vec<String>) -> io::Result<Option<PathBuf>> {
        let file = fs::symlink_metadata(path)?;
        if self.seen.insert(path.to_owned()) {
            wrong.extend(self.judge(path, Ownership::of(&file)));
        }
        if file.is_symlink() { fs::read_link(path).map(Some) } else { Ok(None) }
    }

    fn judge(&self, path: &Path, file: Ownership) -> Option<String> {
        const STICKY: u32 = 0o1000;
        let name = path.display();
        if file.uid != 0 && file.uid != self.user {
            return Some(format!("{name} belongs to user {}, who could change it (chown root {name})", file.uid));
        }
        // What is written to a device (/dev/null) is not what is read from it.
        let (link, dir) = (file.kind() == FileType::Symlink, file.kind() == FileType::Directory);
        if !link && !dir && file.kind() != FileType::RegularFile {
            return None;
        }
        // The mode of a link says nothing, and in a sticky directory nobody can replace what is not theirs.
        if link || (dir && file.mode & STICKY != 0) {
            return None;
        }
        if file.mode & 0o002 != 0 {
            return Some(format!("{name} can be written by everybody (chmod o-w {name})"));
        }
        if file.mode & 0o020 != 0 && file.gid != 0 {
            return Some(format!("{name} can be written by the group {} (chmod g-w {name})", group_name(file.gid)));
        }
        // Where there is an access control list, these bits are its mask (acl(5)): without them it lets nobody write.
        if file.mode & 0o020 != 0 { self.judge_list(path) } else { None }
    }

    /// What is wrong with the access control list of a file, if it has one.
    fn judge_list(&self, path: &Path) -> Option<String> {
        let mut list = [0; LONGEST_LIST];
        let name = path.display();
        let writer = match rustix::fs::lgetxattr(path, "system.posix_acl_access", &mut list[..]) {
            Ok(length) => list_writer(&list[..length], self.user)?,
            Err(Errno::RANGE) => "more users and groups than can be looked at".to_owned(),
            // No list, or a file system without any.
            Err(_) => return None,
        };
        Some(format!("{name} can be written by {writer} through its access control list (setfacl -b {name})"))
    }
}

/// The longest access control list that is read, in bytes: four thousand entries.
const LONGEST_LIST: usize = 4 + 8 * 4096;

/// The first user or group but root, and `user`, that an access control list lets write. The form is that of
/// linux/posix_acl_xattr.h: a version, and entries of a tag, the rights and an id, all with the lowest byte first.
fn list_writer(list: &[u8], user: u32) -> Option<String> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    const WRITE: u8 = 0x02;
    let (entries, _) = list.get(4..)?.as_chunks::<8>();
    entries.iter().find_map(|[tag_low, tag_high, rights, _, id @ ..]| {
        let (tag, id) = (u16::from_le_bytes([*tag_low, *tag_high]), u32::from_le_bytes(*id));
        match tag {
            _ if rights & WRITE == 0 || id == 0 => None,
            USER if id != user => Some(format!("user {id}")),
            GROUP => Some(format!("the group {}", group_name(id))),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn check(path: &Path) -> Vec<String> {
        // Judged as ourselves, so that the table holds for whoever runs the tests.
        TrustCheck { user: rustix::process::geteuid().as_raw(), seen: HashSet::new() }.check(path)
    }

    #[test]
    fn what_others_can_write_is_told_wherever_it_stands_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("open")).unwrap();
        fs::write(path("open/task"), "").unwrap();
        symlink("open/task", path("link")).unwrap();
        assert_eq!(check(&path("link")), Vec::<String>::new());
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o777)).unwrap();
        let told = check(&path("link"));
        assert!(told.len() == 1 && told[0].contains("open can be written by everybody"), "{told:?}");
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(check(&path("link")), Vec::<String>::new(), "a sticky directory is safe");
        fs::set_permissions(path("open/task"), fs::Permissions::from_mode(0o757)).unwrap();
        assert_eq!(check(&path("link")).len(), 1);
        assert_eq!(check(&path("nowhere")), Vec::<String>::new());
    }

    /// A list as the kernel keeps it: the owner, one user and one group beside the owning one, the mask, the others.
    fn list(user_rights: u8, group_rights: u8) -> Vec<u8> {
        let entries = [(0x01, 7, u32::MAX), (0x02, user_rights, 65_534), (0x04, 7, u32::MAX), (0x08, group_rights, 65_533)];
        let rest = [(0x10, 7, u32::MAX), (0x20, 5, u32::MAX)];
        let bytes = entries
            .into_iter()
            .chain(rest)
            .flat_map(|(tag, rights, id): (u16, u8, u32)| [&tag.to_le_bytes()[..], &[rights, 0], &id.to_le_bytes()].concat());
        2_u32.to_le_bytes().into_iter().chain(bytes).collect()
    }

    #[test]
    fn an_access_control_list_lets_others_write_or_not() {
        assert_eq!(list_writer(&list(5, 5), 0), None);
        assert_eq!(list_writer(&list(7, 5), 0).as_deref(), Some("user 65534"));
        assert_eq!(list_writer(&list(7, 5), 65_534), None);
        assert!(list_writer(&list(5, 2), 0).is_some_and(|writer| writer.starts_with("the group ")));
        assert_eq!(list_writer(b"", 0), None);
    }

    #[test]
    fn links_in_a_circle_end() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        check(&dir.path().join("a"));
    }
}
