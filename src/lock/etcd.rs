//! A lock in etcd, through the JSON gateway of its v3 interface. Touches HTTP.
//!
//! KEY is bound to an etcd lease and vanishes with it. KEY.owner stays: it holds the last token and the owner's record.
//! Every change is one transaction that compares what was seen with what is there. etcd counts leases in whole seconds
//! and looks about twice a second which of them are over.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::http::Method;

use super::address::{HttpAddress, LockSettings};
use super::http::{Answer, Client, from_record, number, to_record};
use super::lease::Token;
use super::owner::Owner;
use super::{Attempt, Bid, Engine, Holder, LockError, Renewal};

/// How often a transaction is tried again that somebody else was faster than.
const RACES: usize = 3;

/// The engine of `etcd://`.
#[derive(Debug)]
pub struct EtcdEngine {
    client: Client,
    user: Option<String>,
    session: Option<String>,
    key: String,
    record: String,
    lease_seconds: u64,
    held: Option<Held>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    lease: u64,
    /// The revision in which KEY became ours; nobody but us writes it while it is.
    revision: u64,
    token: Token,
}

/// How soon it is asked again for a lease of which etcd says that nothing is left: it looks about twice a second.
const SOON: Duration = Duration::from_millis(100);

/// What is there.
struct Seen {
    /// The revision of KEY, 0 when it is not there.
    revision: u64,
    /// The lease that KEY is bound to.
    lease: Option<u64>,
    /// That of KEY.owner.
    record_revision: u64,
    token: Option<Token>,
    owner: Option<Owner>,
}

impl EtcdEngine {
    /// A lock in this key.
    ///
    /// # Errors
    /// A certificate or the password cannot be read.
    pub fn new(address: &HttpAddress, settings: &LockSettings) -> Result<Self, LockError> {
        let client = Client::new(address, settings.terms.call_limit() / 2)?;
        client.secret()?;
        let whole = settings.ttl.as_secs() + u64::from(settings.ttl.subsec_nanos() > 0);
        // What etcd itself adds until it looks is a part of the delay.
        let lease_seconds = whole + settings.delay.as_secs().saturating_sub(1);
        let (key, record) = (STANDARD.encode(&address.key), STANDARD.encode(format!("{}.owner", address.key)));
        Ok(Self { client, user: address.user.clone(), session: None, key, record, lease_seconds, held: None })
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Answer, LockError> {
        let text = body.to_string();
        for fresh in [false, true] {
            if self.session.is_none() || fresh {
                self.log_in()?;
            }
            let header = self.session.as_deref().map(|session| ("authorization", session));
            let answer = self.client.ask(Method::POST, path, header, &text)?;
            // Sessions run out on the server; then once more with a new one.
            let run_out = answer.status == 401 || number(&answer.json["code"]) == Some(16);
            if fresh || self.user.is_none() || !run_out {
                return Ok(answer);
            }
        }
        Err(self.client.senseless(path))
    }

    fn log_in(&mut self) -> Result<(), LockError> {
        let Some(user) = &self.user else { return Ok(()) };
        let password = self.client.secret()?.unwrap_or_default();
        let body = json!({ "name": user, "password": password }).to_string();
        let answer = self.client.ask(Method::POST, "/v3/auth/authenticate", None, &body)?;
        match answer.json["token"].as_str() {
            Some(token) if answer.status == 200 => {
                self.session = Some(token.to_owned());
                Ok(())
            }
            Some(_) | None => Err(self.client.refused("logging in", &answer)),
        }
    }

    fn good(&mut self, path: &str, body: &Value) -> Result<Value, LockError> {
        let answer = self.post(path, body)?;
        if answer.status == 200 { Ok(answer.json) } else { Err(self.client.refused(path, &answer)) }
    }

    fn see(&mut self) -> Result<Seen, LockError> {
        let range = |key: &str| json!({ "request_range": { "key": key } });
        let body = json!({ "success": [range(&self.key), range(&self.record)] });
        let answer = self.good("/v3/kv/txn", &body)?;
        let kv = |at: usize| &answer["responses"][at]["response_range"]["kvs"][0];
        if !answer["responses"][1]["response_range"].is_object() {
            return Err(self.client.senseless("a transaction"));
        }
        let revision = |at| number(&kv(at)["mod_revision"]).unwrap_or(0);
        let text = kv(1)["value"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        let (token, owner) = from_record(&String::from_utf8_lossy(&text));
        let lease = number(&kv(0)["lease"]);
        Ok(Seen { revision: revision(0), lease, record_revision: revision(1), token, owner })
    }

    /// How long the lease lasts if nobody renews it. etcd tells whole seconds, and a negative number when it is over.
    fn rest(&mut self, lease: u64) -> Option<Duration> {
        let answer = self.good("/v3/lease/timetolive", &json!({ "ID": lease.to_string() })).ok()?;
        Some(number(&answer["TTL"]).map_or(SOON, |seconds| Duration::from_secs(seconds).max(SOON)))
    }

    fn grant(&mut self) -> Result<u64, LockError> {
        let answer = self.good("/v3/lease/grant", &json!({ "TTL": self.lease_seconds }))?;
        number(&answer["ID"]).ok_or_else(|| self.client.senseless("granting a lease"))
    }

    fn revoke(&mut self, lease: u64) -> Result<(), LockError> {
        let answer = self.post("/v3/lease/revoke", &json!({ "ID": lease.to_string() }))?;
        // 404: it is over already.
        if answer.status == 200 || answer.status == 404 { Ok(()) } else { Err(self.client.refused("revoking a lease", &answer)) }
    }

    /// Takes KEY if nothing has changed since it was seen; tells the revision.
    fn take(&mut self, seen: &Seen, lease: u64, token: Token, owner: &Owner) -> Result<Option<u64>, LockError> {
        let unchanged =
            |key: &str, revision: u64| json!({ "target": "MOD", "key": key, "result": "EQUAL", "mod_revision": revision.to_string() });
        let body = json!({
            "compare": [unchanged(&self.key, seen.revision), unchanged(&self.record, seen.record_revision)],
            "success": [
                { "request_put": { "key": self.key, "value": STANDARD.encode(token.to_string()), "lease": lease.to_string() } },
                self.put_record(Some(token), Some(owner)),
            ],
        });
        let answer = self.good("/v3/kv/txn", &body)?;
        let revision = number(&answer["header"]["revision"]).ok_or_else(|| self.client.senseless("a transaction"))?;
        Ok((answer["succeeded"] == true).then_some(revision))
    }

    fn put_record(&self, token: Option<Token>, owner: Option<&Owner>) -> Value {
        json!({ "request_put": { "key": self.record, "value": STANDARD.encode(to_record(token, owner)) } })
    }

    /// Does this if KEY still is ours; tells whether it was.
    fn if_ours(&mut self, held: Held, requests: Value) -> Result<bool, LockError> {
        let ours = json!({ "target": "MOD", "key": self.key, "result": "EQUAL", "mod_revision": held.revision.to_string() });
        let answer = self.good("/v3/kv/txn", &json!({ "compare": [ours], "success": requests }))?;
        if number(&answer["header"]["revision"]).is_none() {
            return Err(self.client.senseless("a transaction"));
        }
        Ok(answer["succeeded"] == true)
    }
}

impl Engine for EtcdEngine {
    fn acquire(&mut self, bid: &Bid<'_>) -> Result<Attempt, LockError> {
        self.held = None;
        let mut seen = self.see()?;
        for _ in 0..RACES {
            let over = bid.over.is_some() && bid.over == seen.token;
            if seen.revision > 0 && !over {
                break;
            }
            let token = Token::after(seen.token, bid.wall_ms);
            let lease = self.grant()?;
            if let Some(revision) = self.take(&seen, lease, token, bid.owner)? {
                self.held = Some(Held { lease, revision, token });
                return Ok(Attempt::Won { token, previous: seen.owner.filter(|_| !over) });
            }
            self.revoke(lease)?;
            seen = self.see()?;
        }
        let rest = seen.lease.and_then(|lease| self.rest(lease));
        Ok(Attempt::Busy(Holder { owner: seen.owner, token: seen.token, rest }))
    }

    fn renew(&mut self, owner: &Owner) -> Result<Renewal, LockError> {
        let Some(held) = self.held else { return Ok(Renewal::Gone) };
        let answer = self.good("/v3/lease/keepalive", &json!({ "ID": held.lease.to_string() }))?;
        if number(&answer["result"]["ID"]).is_none() {
            return Err(self.client.senseless("a keepalive"));
        }
        // A lease that is over has no TTL.
        let lives = number(&answer["result"]["TTL"]).is_some_and(|ttl| ttl > 0);
        let put = json!([self.put_record(Some(held.token), Some(owner))]);
        Ok(if lives && self.if_ours(held, put)? { Renewal::Held } else { Renewal::Gone })
    }

    fn release(&mut self) -> Result<(), LockError> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let requests = json!([{ "request_delete_range": { "key": self.key } }, self.put_record(Some(held.token), None)]);
        self.if_ours(held, requests)?;
        self.revoke(held.lease)
    }

    fn look(&mut self) -> Result<Option<Holder>, LockError> {
        let seen = self.see()?;
        Ok((seen.revision > 0).then_some(Holder { owner: seen.owner, token: seen.token, rest: None }))
    }
}
