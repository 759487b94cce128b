//! A double of Consul, not Consul: the few paths of its sessions and keys that a lock needs, as its documentation
//! describes them (HTTP API, "Session" and "KV store"), with TTL and lock-delay. It ends a session right after its TTL,
//! the earliest moment that Consul allows itself, and has a clock that tests can set forward. No server package of Consul
//! is to be had where the tests run.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The double. Its thread lives as long as the test program.
pub(crate) struct Consul {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How far its clock was set forward.
    ahead: Duration,
    index: u64,
    keys: BTreeMap<String, Entry>,
    sessions: BTreeMap<String, Session>,
    /// Keys that nobody gets before this.
    delayed: BTreeMap<String, Instant>,
    /// The token that every question needs.
    token: Option<String>,
}

#[derive(Default, Clone)]
struct Entry {
    value: Vec<u8>,
    session: Option<String>,
    lock_index: u64,
    create_index: u64,
    modify_index: u64,
}

struct Session {
    ttl: Duration,
    delay: Duration,
    ends: Instant,
}

struct Question {
    method: String,
    path: String,
    parameters: BTreeMap<String, String>,
    token: Option<String>,
    body: Vec<u8>,
}

impl Consul {
    pub(crate) fn start() -> Self {
        Self::serve_on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// The same for those who reach this listener.
    pub(crate) fn serve_on(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { port, state }
    }

    /// Sets its clock forward.
    pub(crate) fn advance(&self, time: Duration) {
        self.state.lock().unwrap().ahead += time;
    }

    /// Answers nobody as long as the value lives.
    pub(crate) fn freeze(&self) -> impl Drop + '_ {
        self.state.lock().unwrap()
    }

    /// Grows with everything that is written.
    pub(crate) fn index(&self) -> u64 {
        self.state.lock().unwrap().index
    }

    /// From now on every question needs this token.
    pub(crate) fn need_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    /// How many sessions live.
    pub(crate) fn sessions(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        state.expire();
        state.sessions.len()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    // A client that goes away in the middle is nothing to us.
    while let Some(question) = read_question(&mut reader) {
        let (status, body, index) = {
            let mut state = state.lock().unwrap();
            let (status, body) = state.answer(&question);
            (status, body, state.index)
        };
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nX-Consul-Index: {index}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_question(reader: &mut impl BufRead) -> Option<Question> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut token) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "x-consul-token" => token = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let parameter = |part: &str| part.split_once('=').map_or((part.to_owned(), String::new()), |(name, value)| (name.into(), value.into()));
    let parameters = query.split('&').filter(|part| !part.is_empty()).map(parameter).collect();
    Some(Question { method, path: path.to_owned(), parameters, token, body })
}

/// A duration of Go's, `15s` or `500ms`.
fn duration(value: &Value) -> Option<Duration> {
    let text = value.as_str()?;
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs_f64),
    }
}

impl State {
    fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    fn expire(&mut self) {
        let now = self.now();
        let over: Vec<String> = self.sessions.iter().filter(|(_, session)| session.ends <= now).map(|(id, _)| id.clone()).collect();
        for id in over {
            self.invalidate(&id);
        }
    }

    /// Ends a session: its keys are free after its lock-delay.
    fn invalidate(&mut self, id: &str) -> bool {
        let Some(session) = self.sessions.remove(id) else { return false };
        // The delay counts from the end of the session, whenever we look.
        let from = session.ends.min(self.now());
        for (key, entry) in &mut self.keys {
            if entry.session.as_deref() == Some(id) {
                self.index += 1;
                entry.session = None;
                entry.modify_index = self.index;
                self.delayed.insert(key.clone(), from + session.delay);
            }
        }
        true
    }

    fn answer(&mut self, question: &Question) -> (u16, String) {
        self.expire();
        if self.token.is_some() && self.token != question.token {
            return (403, "Permission denied".to_owned());
        }
        let path = question.path.as_str();
        match (question.method.as_str(), path.strip_prefix("/v1/kv/"), path.strip_prefix("/v1/session/")) {
            ("GET", Some(key), _) => self.get(key),
            ("PUT", Some(key), _) => self.put(key, question),
            ("DELETE", Some(key), _) => (200, self.keys.remove(key).is_some().to_string()),
            ("PUT", None, Some("create")) => self.create(&question.body),
            ("PUT", None, Some(rest)) => match rest.split_once('/') {
                Some(("renew", id)) => self.renew(id),
                Some(("destroy", id)) => {
                    self.invalidate(id);
                    (200, "true".to_owned())
                }
                Some(_) | None => (404, String::new()),
            },
            _ => (404, String::new()),
        }
    }

    fn get(&self, key: &str) -> (u16, String) {
        let Some(entry) = self.keys.get(key) else { return (404, String::new()) };
        let mut shown = json!([{
            "Key": key, "Value": STANDARD.encode(&entry.value), "Flags": 0, "LockIndex": entry.lock_index,
            "CreateIndex": entry.create_index, "ModifyIndex": entry.modify_index,
        }]);
        if let Some(session) = &entry.session {
            shown[0]["Session"] = json!(session);
        }
        (200, shown.to_string())
    }

    fn put(&mut self, key: &str, question: &Question) -> (u16, String) {
        let now = self.now();
        let old = self.keys.get(key).cloned();
        let mut entry = old.clone().unwrap_or_default();
        if let Some(session) = question.parameters.get("acquire") {
            if !self.sessions.contains_key(session) {
                return (500, format!("invalid session \"{session}\""));
            }
            let delayed = entry.session.is_none() && self.delayed.get(key).is_some_and(|until| now < *until);
            if delayed || entry.session.as_ref().is_some_and(|holder| holder != session) {
                return (200, "false".to_owned());
            }
            if entry.session.is_none() {
                entry.lock_index += 1;
            }
            entry.session = Some(session.clone());
        } else if let Some(session) = question.parameters.get("release") {
            if entry.session.as_ref() != Some(session) {
                return (200, "false".to_owned());
            }
            entry.session = None;
        } else if let Some(index) = question.parameters.get("cas") {
            let there = old.as_ref().map_or(0, |entry| entry.modify_index);
            if index.parse() != Ok(there) {
                return (200, "false".to_owned());
            }
        }
        self.index += 1;
        entry.value.clone_from(&question.body);
        entry.modify_index = self.index;
        if old.is_none() {
            entry.create_index = self.index;
        }
        self.keys.insert(key.to_owned(), entry);
        (200, "true".to_owned())
    }

    fn create(&mut self, body: &[u8]) -> (u16, String) {
        let wish: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let ttl = duration(&wish["TTL"]).unwrap_or(Duration::from_secs(86_400));
        if ttl < Duration::from_secs(10) || ttl > Duration::from_secs(86_400) {
            return (400, "Invalid Session TTL, must be between [10s=24h0m0s]".to_owned());
        }
        let delay = duration(&wish["LockDelay"]).unwrap_or(Duration::from_secs(15));
        self.index += 1;
        let id = format!("00000000-0000-4000-8000-{:012x}", self.index);
        self.sessions.insert(id.clone(), Session { ttl, delay, ends: self.now() + ttl });
        (200, json!({ "ID": id }).to_string())
    }

    fn renew(&mut self, id: &str) -> (u16, String) {
        let now = self.now();
        let Some(session) = self.sessions.get_mut(id) else { return (404, format!("Session id '{id}' not found")) };
        session.ends = now + session.ttl;
        (200, json!([{ "ID": id, "TTL": format!("{}s", session.ttl.as_secs_f64()) }]).to_string())
    }
}
