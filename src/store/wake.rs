//! How a worker hears at once that there are jobs. With SQLite each worker has a socket in a directory beside the file,
//! and whoever adds a job sends an empty datagram to all of them; with PostgreSQL the server tells (NOTIFY), and a
//! thread passes it on. Both are a hint: who misses one finds the job when it looks by itself.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::Owner;
use super::alive::{Sign, dir_of};
use super::open::Place;
use crate::config::database::DatabaseUrl;
use crate::process::tree;

/// Becomes readable when there may be jobs.
#[derive(Debug)]
pub struct Alarm {
    socket: UnixDatagram,
    /// Beside the file whose jobs it is for; a server has none.
    beside: Option<Beside>,
}

/// What stands in the directory of the workers of a file.
#[derive(Debug)]
struct Beside {
    file: PathBuf,
    /// The name of the socket, which goes with it, and what has that name as long as nobody takes it away.
    bound: Option<(PathBuf, Inode)>,
    /// By which others see that we live.
    sign: Option<Sign>,
    /// It was told that nobody finds it.
    told: bool,
}

/// Device and number.
type Inode = (u64, u64);

impl Alarm {
    /// An alarm for the jobs of this database. Where there is no room for its name yet, it is deaf until it has one: see
    /// [`Alarm::listen_again`].
    ///
    /// # Errors
    /// No socket is to be had: jobs are found all the same, a little later.
    pub fn new(place: &Place) -> io::Result<Self> {
        match place.url().map_err(io::Error::other)? {
            DatabaseUrl::Sqlite(file) => Self::beside(file),
            DatabaseUrl::Postgres(url) => Self::of_server(&url, place),
        }
    }

    fn beside(file: PathBuf) -> io::Result<Self> {
        let beside = Beside { file, bound: None, sign: None, told: false };
        let mut alarm = Self { socket: UnixDatagram::unbound()?, beside: Some(beside) };
        match alarm.listen_again() {
            // The directory comes with the file, from whoever makes that and sees to it that its name is on disk.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::info!("new jobs are not heard of at once, only looked for: {error}");
                alarm.beside.iter_mut().for_each(|beside| beside.told = true);
            }
            Ok(_) | Err(_) => {}
        }
        Ok(alarm)
    }

    /// Takes a name, if it has none or has lost it: its directory may have been deleted, and made anew by somebody else.
    /// Tells whether it did; what rang meanwhile was not heard.
    ///
    /// # Errors
    /// No name is to be had there: as before, jobs are found a little later.
    pub fn listen_again(&mut self) -> io::Result<bool> {
        let Some(beside) = self.beside.as_mut().filter(|beside| !beside.is_there()) else { return Ok(false) };
        let dir = dir_of(&beside.file);
        match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // Containers that share the file may each have a process of our number.
        let namespace: String = tree::namespaces().chars().take_while(|c| *c != ' ').filter(char::is_ascii_digit).collect();
        let name = format!("{}-{namespace}", std::process::id());
        let path = dir.join(&name);
        // Of a process that had our number before.
        let _ = fs::remove_file(&path);
        let open = fs::File::open(&dir)?;
        let socket = UnixDatagram::bind(short(&open, &name))?;
        socket.set_nonblocking(true)?;
        if std::mem::replace(&mut beside.told, false) || beside.bound.is_some() {
            log::info!("new jobs are heard of at once again");
        }
        beside.bound = inode(&path).map(|inode| (path, inode));
        beside.sign = beside.sign.take().filter(Sign::holds).or_else(|| Sign::new(&dir, &Owner::look_quickly("")));
        self.socket = socket;
        Ok(true)
    }

    #[cfg(feature = "postgres")]
    fn of_server(url: &str, place: &Place) -> io::Result<Self> {
        let server = super::postgres::Server::new(url, &place.secrets).map_err(io::Error::other)?;
        let (socket, ringer) = UnixDatagram::pair()?;
        socket.set_nonblocking(true)?;
        ringer.set_nonblocking(true)?;
        super::postgres::listen(server, ringer)?;
        Ok(Self { socket, beside: None })
    }

    #[cfg(not(feature = "postgres"))]
    fn of_server(_: &str, _: &Place) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Readable when it rings.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether whoever shares the database sees by a sign that we live, and takes no job of ours.
    pub fn shows_life(&self) -> bool {
        self.beside.as_ref().and_then(|beside| beside.sign.as_ref()).is_some_and(Sign::holds)
    }

    /// Silences it; tells for what it rang. A thousand rings are one.
    pub fn silence(&self) -> Rang {
        let (mut rang, mut word) = (Rang::default(), [0; 8]);
        while let Ok(length) = self.socket.recv(&mut word) {
            match word[..length].first() {
                Some(b'c') => rang.cancel = true,
                Some(_) | None => rang.jobs = true,
            }
        }
        rang
    }
}

impl Beside {
    /// Whether those who ring find the socket.
    fn is_there(&self) -> bool {
        self.bound.as_ref().is_some_and(|(path, ours)| inode(path) == Some(*ours))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some((path, _)) = self.bound.as_ref().filter(|_| self.is_there()) {
            let _ = fs::remove_file(path);
        }
    }
}

fn inode(path: &Path) -> Option<Inode> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Why it rang.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rang {
    /// There may be new jobs.
    pub jobs: bool,
    /// Running jobs may have been cancelled.
    pub cancel: bool,
}

/// Rings at every worker of this database: `cancel` when running jobs are to be ended, else for new ones. A server
/// does that itself.
pub fn ring(place: &Place, cancel: bool) {
    let word = if cancel { b"c" } else { b"j" };
    let Ok(DatabaseUrl::Sqlite(file)) = place.url() else { return };
    let dir = dir_of(&file);
    let (Ok(entries), Ok(open)) = (fs::read_dir(&dir), fs::File::open(&dir)) else { return };
    let Ok(socket) = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket)) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket())) {
        match socket.send_to(word, short(&open, entry.file_name())) {
            // Its worker is gone, and could not take the name along.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = fs::remove_file(entry.path());
            }
            // A worker whose box is full hears as well.
            Ok(_) | Err(_) => {}
        }
    }
}

/// A name in an open directory that is short whatever the directory is called: the address of a socket has 108 bytes
/// (unix(7)).
fn short(dir: &fs::File, name: impl AsRef<Path>) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt;

    use super::*;
    use crate::config::database::Secrets;
    use crate::store::Retention;

    #[test]
    fn an_alarm_whose_name_was_taken_away_takes_another() {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state");
        fs::create_dir(&state).unwrap();
        let database = Some(DatabaseUrl::Sqlite(state.join("runner.db")));
        let keep = Retention { runs: 1, age: std::time::Duration::ZERO };
        let place = Place { state_dir: None, database, config_file: None, keep, secrets: Secrets::default() };
        let jobs = Rang { jobs: true, cancel: false };
        let mut alarm = Alarm::new(&place).unwrap();
        ring(&place, false);
        assert_eq!(alarm.silence(), jobs);
        assert!(!alarm.listen_again().unwrap(), "it has its name");
        fs::remove_dir_all(&state).unwrap();
        ring(&place, false);
        assert_eq!(alarm.silence(), Rang::default(), "nobody finds it");
        assert!(alarm.listen_again().is_err(), "it makes no state directory: whoever does has to sync it");
        fs::create_dir(&state).unwrap();
        assert!(alarm.listen_again().unwrap());
        ring(&place, false);
        assert_eq!(alarm.silence(), jobs);
        assert!(!alarm.listen_again().unwrap());
        let sockets =
            || fs::read_dir(dir_of(&state.join("runner.db"))).unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_socket());
        assert_eq!(sockets().count(), 1);
        drop(alarm);
        assert_eq!(sockets().count(), 0, "its name goes with it");
        // A place where there cannot be one yet.
        fs::remove_dir_all(&state).unwrap();
        fs::write(&state, "").unwrap();
        let mut alarm = Alarm::new(&place).unwrap();
        assert!(alarm.listen_again().is_err());
        fs::remove_file(&state).unwrap();
        fs::create_dir(&state).unwrap();
        assert!(alarm.listen_again().unwrap());
        ring(&place, false);
        assert_eq!(alarm.silence(), jobs);
    }
}
