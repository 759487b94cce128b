//! The daemon's HTTP: who listens where, and the way of a question to the loop and back.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use rustix::event::{EventfdFlags, eventfd};

use super::exit::Failure;
use crate::config::keys::Trust;
use crate::config::settings::DaemonSettings;
use crate::config::{Finding, Origin, Severity};
use crate::http::Error;
use crate::http::guard::{Allow, Guard};
use crate::http::listen::{ListenAddress, Listener, missing_token};
use crate::http::response::{Code, Response};
use crate::http::server::{Handler, Limits, Reply, Server};
use crate::http::site::{Fired, Route, fired};
use crate::http::token::{TokenFile, Trouble};
use crate::plain::{self, LastLink};

/// The server, and the questions that wait for the loop.
pub struct Web {
    server: Server,
    questions: Receiver<(Route, Reply)>,
    bell: Arc<OwnedFd>,
    trouble: Trouble,
}

/// What `[daemon]` says of HTTP, understood.
struct Rules {
    addresses: Vec<ListenAddress>,
    guard: Guard,
    trouble: Trouble,
}

/// What is wrong with what `[daemon]` says of HTTP. Looks at no file.
pub fn judge(settings: &DaemonSettings, findings: &mut Vec<Finding>) {
    let mut error = |(_, origin): &(String, Origin), key: &str, why: String| findings.push(Finding::error(origin, format!("{key}: {why}")));
    let addresses = settings.listen.as_ref().map(|said| (said, ListenAddress::parse_list(&said.0)));
    match addresses {
        Some((said, Err(why))) => error(said, "listen", why),
        Some((said, Ok(addresses))) => {
            if let Some(why) = missing_token(&addresses, settings.token_file.is_some()) {
                error(said, "listen", why);
            }
        }
        None => {}
    }
    if let Some(said) = &settings.allow
        && let Err(why) = Allow::parse(&said.0)
    {
        error(said, "allow", why);
    }
}

/// What is wrong with the token itself; its file is read only where somebody listens. How grave it is that this user may not
/// read it is for the caller to say: whoever only checks need not be the user of the daemon.
pub fn judge_token(settings: &DaemonSettings, unreadable: Severity, findings: &mut Vec<Finding>) {
    let (Some(_), Some((path, origin))) = (&settings.listen, &settings.token_file) else { return };
    match open_token(path, settings.trust) {
        Ok((_, complaints)) => {
            let told = complaints.iter().map(|complaint| Finding::new(Severity::Warning, origin, format!("token_file: {complaint}")));
            findings.extend(told);
        }
        Err(why) => {
            let opened = plain::open(OpenOptions::new().read(true), path, LastLink::Followed);
            let denied = opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
            let severity = if denied { unreadable } else { Severity::Error };
            findings.push(Finding::new(severity, origin, format!("token_file: {why}")));
        }
    }
}

impl Rules {
    /// `None` where nobody listens.
    fn of(settings: &DaemonSettings) -> Result<Option<Self>, Failure> {
        let wrong = |why: String| Failure::config(format!("[daemon]: {why}"));
        let addresses = match &settings.listen {
            Some((text, _)) => ListenAddress::parse_list(text).map_err(wrong)?,
            None => return Ok(None),
        };
        let allow = settings.allow.as_ref().map(|(text, _)| Allow::parse(text)).transpose().map_err(wrong)?.unwrap_or_default();
        // What makes it a poor secret was told when the configuration was judged.
        let token = settings.token_file.as_ref().map(|(path, _)| open_token(path, settings.trust)).transpose();
        let token = token.map_err(|why| wrong(format!("token_file: {why}")))?.map(|(file, _)| file);
        let trouble = token.as_ref().map(TokenFile::trouble).unwrap_or_default();
        Ok((!addresses.is_empty()).then(|| Self { addresses, guard: Guard::new(allow, token), trouble }))
    }
}

/// The tokens, and what makes them poor secrets.
fn open_token(path: &Path, trust: Trust) -> Result<(TokenFile, Vec<String>), String> {
    TokenFile::open(path, trust).map_err(|error| match error {
        Error::Token { path, why } => format!("{} {why}", path.display()),
        other @ (Error::Listen { .. } | Error::Restart { .. } | Error::Start(_) | Error::Ended) => other.to_string(),
    })
}

/// A port that is taken is a resource that is not there (74); a token that cannot be read is the configuration's fault.
fn failure(error: Error) -> Failure {
    match error {
        Error::Token { .. } => Failure::config(error.to_string()),
        Error::Listen { .. } | Error::Restart { .. } | Error::Start(_) | Error::Ended => Failure::State(error.to_string()),
    }
}

impl Web {
    /// Begins to answer, if `[daemon] listen` says where.
    ///
    /// # Errors
    /// An address is taken or not ours; the token cannot be read.
    pub fn start(settings: &DaemonSettings) -> Result<Option<Self>, Failure> {
        let Some(Rules { addresses, guard, trouble }) = Rules::of(settings)? else { return Ok(None) };
        let listeners = addresses.iter().map(Listener::bind).collect::<Result<Vec<_>, _>>().map_err(failure)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| failure(Error::Start(error.into())))?;
        let (bell, (sender, questions)) = (Arc::new(bell), channel());
        let server = Server::start(listeners, guard, Limits::default(), handler(sender, bell.clone())).map_err(failure)?;
        for address in server.addresses() {
            log::info!("answers on {address}");
        }
        Ok(Some(Self { server, questions, bell, trouble }))
    }

    /// Takes over what `[daemon]` says now.
    ///
    /// # Errors
    /// A new address cannot be listened on; then everything stays as it was.
    pub fn reload(&mut self, settings: &DaemonSettings) -> Result<(), String> {
        let rules = Rules::of(settings).map_err(|failure| failure.to_string())?;
        let Some(Rules { addresses, guard, trouble }) = rules else {
            return Err("[daemon] listen: restart the daemon to close its address".to_owned());
        };
        self.server.reload(guard, &addresses).map_err(|error| error.to_string())?;
        self.trouble = trouble;
        Ok(())
    }

    /// Why the tokens in force are not those that the file has now.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.words()
    }

    /// Readable when there is a question.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The questions that have come.
    pub fn questions(&mut self) -> Vec<(Route, Reply)> {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        self.questions.try_iter().collect()
    }
}

fn handler(sender: Sender<(Route, Reply)>, bell: Arc<OwnedFd>) -> Handler {
    Box::new(move |route, reply| {
        // Whoever has ended drops the reply, which says so.
        let _ = sender.send((route, reply));
        let _ = rustix::io::write(&bell, &1_u64.to_ne_bytes());
    })
}

/// The answer of `/cron`.
pub fn answer_tick(begun: Result<&[crate::event::RunRef], &str>) -> Response {
    let fired_by = |run: &crate::event::RunRef| Fired { chain: run.chain.clone(), run_id: run.id.as_str().to_owned() };
    match begun {
        Ok(runs) => fired(&runs.iter().map(fired_by).collect::<Vec<_>>()),
        Err(why) => Response::text(Code::Unavailable, why),
    }
}
