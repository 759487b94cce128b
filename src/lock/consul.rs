//! A lock in Consul: a session holds KEY. Touches HTTP.
//!
//! KEY holds the token and the owner's record and stays when the session ends; KEY.token is the counter behind the
//! token. Consul promises that a session lives at least its TTL; it may let it live up to twice as long, and keeps the
//! key from others for `lock_delay` more. The session is bound to no health check: a node that is thought ill for a moment
//! would lose the lock before its TTL is over.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use ureq::http::Method;

use super::address::{HttpAddress, LockSettings};
use super::http::{Answer, Client, from_record, number, to_record};
use super::lease::Token;
use super::owner::Owner;
use super::{Attempt, Bid, Engine, Holder, LockError, Renewal};
use crate::config::url::encode;

/// How often the counter is tried again that somebody else was faster with.
const RACES: usize = 5;

/// How soon a key is asked for again that is kept back for its lock-delay: nobody says how much of that is left.
const SOON: Duration = Duration::from_millis(100);

/// The engine of `consul://`.
#[derive(Debug)]
pub struct ConsulEngine {
    client: Client,
    path: String,
    ttl_ms: u128,
    delay_ms: u128,
    held: Option<Held>,
}

#[derive(Debug, Clone)]
struct Held {
    session: String,
    token: Option<Token>,
}

/// What is there.
#[derive(Default)]
struct Seen {
    session: Option<String>,
    text: String,
    token: Option<Token>,
    owner: Option<Owner>,
}

impl ConsulEngine {
    /// A lock in this key.
    ///
    /// # Errors
    /// A certificate or the token cannot be read.
    pub fn new(address: &HttpAddress, settings: &LockSettings) -> Result<Self, LockError> {
        let client = Client::new(address, settings.terms.call_limit() / 3)?;
        client.secret()?;
        let path = format!("/v1/kv/{}", encode(&address.key));
        Ok(Self { client, path, ttl_ms: settings.ttl.as_millis(), delay_ms: settings.delay.as_millis(), held: None })
    }

    fn ask(&mut self, method: Method, path: &str, body: &str) -> Result<Answer, LockError> {
        let secret = self.client.secret()?;
        self.client.ask(method, path, secret.as_deref().map(|token| ("x-consul-token", token)), body)
    }

    /// A PUT whose answer is `true` or `false`.
    fn put(&mut self, path: &str, body: &str) -> Result<bool, LockError> {
        let answer = self.ask(Method::PUT, path, body)?;
        match answer.json.as_bool() {
            Some(done) if answer.status == 200 => Ok(done),
            Some(_) | None => Err(self.client.refused("writing", &answer)),
        }
    }

    /// The value of a key and the index of its last change; nothing when it is not there.
    fn get(&mut self, path: &str) -> Result<Option<(String, Option<String>, u64)>, LockError> {
        let answer = self.ask(Method::GET, &format!("{path}?consistent"), "")?;
        if answer.status == 404 {
            return Ok(None);
        }
        let entry = &answer.json[0];
        let (200, Some(index)) = (answer.status, number(&entry["ModifyIndex"])) else {
            return Err(self.client.refused("reading", &answer));
        };
        let value = entry["Value"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        let session = entry["Session"].as_str().filter(|session| !session.is_empty()).map(str::to_owned);
        Ok(Some((String::from_utf8_lossy(&value).into_owned(), session, index)))
    }

    fn see(&mut self) -> Result<Seen, LockError> {
        let path = self.path.clone();
        let Some((text, session, _)) = self.get(&path)? else { return Ok(Seen::default()) };
        let (token, owner) = from_record(&text);
        Ok(Seen { session, text, token, owner })
    }

    fn create_session(&mut self) -> Result<String, LockError> {
        let body = json!({
            "Name": "runner lock",
            "TTL": format!("{}ms", self.ttl_ms),
            "LockDelay": format!("{}ms", self.delay_ms),
            "Behavior": "release",
            "Checks": [],
            "NodeChecks": [],
        });
        let answer = self.ask(Method::PUT, "/v1/session/create", &body.to_string())?;
        match answer.json["ID"].as_str() {
            Some(id) if answer.status == 200 => Ok(id.to_owned()),
            Some(_) | None => Err(self.client.refused("creating a session", &answer)),
        }
    }

    fn destroy_session(&mut self, session: &str) -> Result<(), LockError> {
        let answer = self.ask(Method::PUT, &format!("/v1/session/destroy/{session}"), "")?;
        if answer.status == 200 { Ok(()) } else { Err(self.client.refused("destroying a session", &answer)) }
    }

    /// Takes the next number. Only who holds KEY comes here, or did before its session ended.
    fn next_token(&mut self, wall_ms: u64) -> Result<Token, LockError> {
        let path = format!("{}.token", self.path);
        for _ in 0..RACES {
            let (last, index) = match self.get(&path)? {
                Some((text, _, index)) => (text.trim().parse().ok().map(Token), index),
                None => (None, 0),
            };
            let token = Token::after(last, wall_ms);
            if self.put(&format!("{path}?cas={index}"), &token.to_string())? {
                return Ok(token);
            }
        }
        Err(self.client.senseless("the counter"))
    }

    /// KEY is ours: a number for it, and the record beside it.
    fn enter(&mut self, session: &str, bid: &Bid<'_>) -> Result<Token, LockError> {
        let token = self.next_token(bid.wall_ms)?;
        let path = format!("{}?acquire={session}", self.path);
        if self.put(&path, &to_record(Some(token), Some(bid.owner)))? {
            Ok(token)
        } else {
            Err(self.client.senseless("the session that had the key a moment ago"))
        }
    }
}

impl Engine for ConsulEngine {
    fn acquire(&mut self, bid: &Bid<'_>) -> Result<Attempt, LockError> {
        self.held = None;
        let seen = self.see()?;
        let over = bid.over.is_some() && bid.over == seen.token;
        match &seen.session {
            // Letting go for the dead holder, rather than ending its session: that would begin the lock-delay.
            Some(session) if over => {
                let path = format!("{}?release={session}", self.path);
                self.put(&path, &seen.text)?;
                self.destroy_session(session)?;
            }
            Some(_) => return Ok(Attempt::Busy(Holder { owner: seen.owner, token: seen.token, rest: None })),
            None => {}
        }
        let session = self.create_session()?;
        let path = format!("{}?acquire={session}", self.path);
        // Without a number at first: that is taken from the counter, which only who holds the key may touch.
        match self.put(&path, &to_record(None, Some(bid.owner))) {
            Ok(true) => {}
            answer @ (Ok(false) | Err(_)) => {
                // A session that holds nothing must not stay: they would pile up on the server.
                let _ = self.destroy_session(&session);
                answer?;
                let now = self.see()?;
                // Free, and not to be had: the lock-delay after a holder that did not let go.
                let rest = now.session.is_none().then_some(SOON);
                return Ok(Attempt::Busy(Holder { owner: now.owner, token: now.token, rest }));
            }
        }
        self.held = Some(Held { session: session.clone(), token: None });
        let token = match self.enter(&session, bid) {
            Ok(token) => token,
            Err(error) => {
                let _ = self.release();
                return Err(error);
            }
        };
        self.held = Some(Held { session, token: Some(token) });
        Ok(Attempt::Won { token, previous: seen.owner.filter(|_| !over) })
    }

    fn renew(&mut self, owner: &Owner) -> Result<Renewal, LockError> {
        let Some(held) = self.held.clone() else { return Ok(Renewal::Gone) };
        let answer = self.ask(Method::PUT, &format!("/v1/session/renew/{}", held.session), "")?;
        match answer.status {
            200 => {}
            404 => return Ok(Renewal::Gone),
            _ => return Err(self.client.refused("renewing the session", &answer)),
        }
        // Whoever removed the key, or let it go for us, has taken the lock from us: then this would take it again.
        if self.see()?.session.as_ref() != Some(&held.session) {
            return Ok(Renewal::Gone);
        }
        let path = format!("{}?acquire={}", self.path, held.session);
        Ok(if self.put(&path, &to_record(held.token, Some(owner)))? { Renewal::Held } else { Renewal::Gone })
    }

    fn release(&mut self) -> Result<(), LockError> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let path = format!("{}?release={}", self.path, held.session);
        self.put(&path, &to_record(held.token, None))?;
        self.destroy_session(&held.session)
    }

    fn look(&mut self) -> Result<Option<Holder>, LockError> {
        let seen = self.see()?;
        Ok(seen.session.map(|_| Holder { owner: seen.owner, token: seen.token, rest: None }))
    }
}
