//! What the daemon answers over HTTP: a small server for its own use, and what it shows. Reads, and asks for a tick;
//! there is no other control from outside.
//!
//! [`request`] reads heads, [`guard`] says who may ask, [`site`] which path is what, [`page`] writes the page for
//! people; they decide and touch nothing, but for the token's file. [`server`] has the sockets: one thread, one poll.

mod connection;
pub mod guard;
pub mod html;
pub mod listen;
pub mod page;
pub mod request;
pub mod response;
pub mod server;
pub mod site;
pub mod token;

use std::io;
use std::path::PathBuf;

/// What can go wrong before the first request is heard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, not ours, or not allowed.
    #[error("[daemon] listen: {address} cannot be listened on: {why}{hint}", hint = hint(why))]
    Listen {
        /// The address.
        address: String,
        /// What the kernel says.
        why: io::Error,
    },
    /// We have the port ourselves, at another address.
    #[error("[daemon] listen: {address} cannot be listened on beside {own}, which is; restart the daemon to change the address of a port")]
    Restart {
        /// The new address.
        address: String,
        /// The old one.
        own: String,
    },
    /// The file of the token cannot be used.
    #[error("[daemon] token_file: {path} {why}", path = path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel gives no descriptor or no thread.
    #[error("the HTTP server cannot start: {0}")]
    Start(io::Error),
    /// The server's thread is gone.
    #[error("the HTTP server has ended")]
    Ended,
}

fn hint(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::AddrInUse => "; another program or another daemon has it (ss -ltnp), choose another port",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address (ip addr)",
        io::ErrorKind::PermissionDenied => "; a port below 1024 needs root",
        _ => "",
    }
}
