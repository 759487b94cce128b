//! Who a task runs as: the user database, looked up once and before anything is started.

use nix::unistd::{Group, User, getgrouplist};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use thiserror::Error;

/// A user with its groups, as the kernel and a login shell's environment want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: libc::uid_t,
    /// The primary group id.
    pub gid: libc::gid_t,
    /// All group ids.
    pub groups: Vec<libc::gid_t>,
    /// HOME, USER, LOGNAME, SHELL of that user.
    pub variables: [(&'static str, Vec<u8>); 4],
}

/// Why nobody can run as a user.
#[derive(Debug, Error)]
pub enum UserError {
    /// The database does not know the name.
    #[error("there is no user `{0}`")]
    Unknown(String),
    /// Only root can become somebody else.
    #[error("to run as {0} runner has to run as root")]
    NotRoot(String),
    /// The database could not be asked.
    #[error("the user database could not be asked for `{0}`: {1}")]
    Unreadable(String, nix::errno::Errno),
}

impl Identity {
    /// Looks a user up by name.
    ///
    /// # Errors
    /// The user is not known, the database cannot be read, or we are not root.
    pub fn look_up(name: &str) -> Result<Self, UserError> {
        let unreadable = |errno| UserError::Unreadable(name.to_owned(), errno);
        let user = User::from_name(name).map_err(unreadable)?.ok_or_else(|| UserError::Unknown(name.to_owned()))?;
        if !rustix::process::geteuid().is_root() {
            return Err(UserError::NotRoot(name.to_owned()));
        }
        let c_name = CString::new(name).map_err(|_| UserError::Unknown(name.to_owned()))?;
        let groups = getgrouplist(&c_name, user.gid).map_err(unreadable)?;
        let variables = [
            ("HOME", user.dir.as_os_str().as_bytes().to_vec()),
            ("USER", name.as_bytes().to_vec()),
            ("LOGNAME", name.as_bytes().to_vec()),
            ("SHELL", user.shell.as_os_str().as_bytes().to_vec()),
        ];
        Ok(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups: groups.iter().map(|group| group.as_raw()).collect(), variables })
    }
}

/// The name of a group for messages; its number where the database does not know it.
pub fn group_name(gid: u32) -> String {
    Group::from_gid(gid.into()).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name)
}
