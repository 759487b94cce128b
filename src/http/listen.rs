//! Where the daemon listens: what a line of `[daemon] listen` means, and the socket it becomes.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::Error;

/// An address to listen on: `127.0.0.1:7780`, `[::1]:7780`, or the path of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address of the network and a port.
    Tcp(SocketAddr),
    /// A file; who may open it may ask.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Reads one address. A relative path is not taken: a daemon has no working directory worth the name.
    ///
    /// # Errors
    /// What is expected, if it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(text)));
        }
        let example = if text.contains(':') { "127.0.0.1:7780` or `[::1]:7780" } else { "127.0.0.1:7780" };
        let unknown = || {
            format!("`{text}` is no address with a port (`{example}`; all addresses: `0.0.0.0:7780` or `[::]:7780`) and no absolute path")
        };
        text.parse().map(Self::Tcp).map_err(|_| unknown())
    }

    /// Reads a list, separated by blanks, commas or lines.
    ///
    /// # Errors
    /// What is expected of the first that is no address.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        let mut addresses: Vec<Self> = Vec::new();
        for word in words {
            let address = Self::parse(word)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What is wrong with listening on these addresses without a token: everybody who reaches the port could ask.
/// The caller exits with 78.
pub fn missing_token(addresses: &[ListenAddress], has_token: bool) -> Option<String> {
    let open = addresses.iter().find(|address| !address.is_local()).filter(|_| !has_token)?;
    Some(format!("{open} can be reached from other machines, and that needs a token_file; or listen on 127.0.0.1"))
}

/// A socket that listens. A socket file is removed with it.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    address: ListenAddress,
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Listens on an address. A socket file that nobody listens on any more is replaced, any other file is not; a new
    /// one is for its owner alone (0600).
    ///
    /// # Errors
    /// The address is taken, or not for us.
    pub fn bind(address: &ListenAddress) -> Result<Self, Error> {
        Self::open(address).map_err(|why| Error::Listen { address: address.to_string(), why })
    }

    fn open(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(wanted) => {
                let socket = TcpListener::bind(wanted)?;
                socket.set_nonblocking(true)?;
                // Port 0 is a free port; here is which.
                let address = ListenAddress::Tcp(socket.local_addr()?);
                Ok(Self { fd: socket.into(), address, file: None })
            }
            ListenAddress::Unix(path) => {
                let socket = match UnixListener::bind(path) {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
                        fs::remove_file(path)?;
                        UnixListener::bind(path)?
                    }
                    other => other?,
                };
                socket.set_nonblocking(true)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                let file = fs::symlink_metadata(path)?;
                Ok(Self { fd: socket.into(), address: address.clone(), file: Some((file.dev(), file.ino())) })
            }
        }
    }

    /// Where it listens; the port is the real one.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Becomes readable when somebody comes.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a path is a socket that nobody listens on.
fn is_left_over(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl Drop for Listener {
    fn drop(&mut self) {
        let (ListenAddress::Unix(path), Some(own)) = (&self.address, self.file) else { return };
        // Somebody else may have taken the place meanwhile.
        if fs::symlink_metadata(path).is_ok_and(|file| (file.dev(), file.ino()) == own) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_or_is_a_path() {
        let parsed = |text| ListenAddress::parse(text).map(|address| address.to_string());
        for text in ["127.0.0.1:7780", "[::1]:7780", "[::]:80", "/run/runner.sock"] {
            assert_eq!(parsed(text), Ok(text.to_owned()));
        }
        for text in ["", "7780", ":7780", "localhost:7780", "*:7780", "::1:7780", "127.0.0.1", "run.sock", "1.2.3.4:99999"] {
            assert!(parsed(text).is_err_and(|why| why.contains("127.0.0.1:7780")), "{text}");
        }
        assert_eq!(ListenAddress::parse_list("127.0.0.1:1, [::1]:1\n/x 127.0.0.1:1").map(|list| list.len()), Ok(3));
    }

    #[test]
    fn only_what_other_machines_reach_needs_a_token() {
        let missing = |text: &str, has| missing_token(&ListenAddress::parse_list(text).unwrap(), has);
        for local in ["", "127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "/run/x"] {
            assert_eq!(missing(local, false), None, "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "127.0.0.1:1 192.168.1.1:1"] {
            assert!(missing(open, false).is_some_and(|why| why.contains("token_file")), "{open}");
            assert_eq!(missing(open, true), None);
        }
    }

    #[test]
    fn a_port_that_is_taken_is_told_with_its_address() {
        let first = Listener::bind(&ListenAddress::parse("127.0.0.1:0").unwrap()).unwrap();
        let error = Listener::bind(first.address()).unwrap_err().to_string();
        assert!(error.contains(&first.address().to_string()) && error.contains("another daemon has it"), "{error}");
    }

    #[test]
    fn a_socket_file_comes_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let address = ListenAddress::Unix(path.clone());
        let first = Listener::bind(&address).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Listener::bind(&address).is_err(), "somebody listens there");
        drop(first);
        assert!(!path.exists());
        // Left over by a process that was killed.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::bind(&address).unwrap());
        fs::write(&path, "mine").unwrap();
        assert!(Listener::bind(&address).is_err() && path.exists(), "another file stays");
    }
}
