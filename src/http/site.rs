//! Which path is what, and who may do what with it. Decides only.

use serde::Serialize;

use super::page;
use super::request::{Method, Request};
use super::response::{Code, Kind, Response};
use crate::metrics::prometheus;
use crate::status::Status;

/// The style of the page.
const STYLE: &str = include_str!("style.css");
/// How often a page may ask to be loaded again, in seconds.
const REFRESH: std::ops::RangeInclusive<u32> = 2..=3600;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/cron`: fire what is due, and tell what that was ([`fired`]).
    Tick,
    /// Something to look at ([`render`]).
    View(View),
}

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// `/`: the page for people.
    Page {
        /// The run that is looked at, by its id or the beginning of it; none for all chains.
        run: Option<String>,
        /// After how many seconds the browser loads it again.
        refresh: Option<u32>,
    },
    /// `/style.css`.
    Style,
    /// `/status.json`.
    Status,
    /// `/metrics`.
    Metrics,
    /// `/healthz`: whether the daemon answers; the only path that is open to everybody.
    Health,
}

/// What a request is for.
///
/// # Errors
/// The answer, if there is no such path, or it is not for this method.
pub fn route(request: &Request) -> Result<Route, Response> {
    let view = match request.path.as_str() {
        "/cron" => {
            return match request.method {
                Method::Get | Method::Post => Ok(Route::Tick),
                // HEAD changes nothing, wherever it is sent.
                Method::Head | Method::Other => Err(wrong_method("GET, POST")),
            };
        }
        "/" => View::Page { run: run(request), refresh: refresh(request) },
        "/style.css" => View::Style,
        "/status.json" => View::Status,
        "/metrics" => View::Metrics,
        "/healthz" => View::Health,
        _ => return Err(Response::text(Code::NotFound, "there is /, /status.json, /metrics, /healthz and /cron")),
    };
    match request.method {
        Method::Get | Method::Head => Ok(Route::View(view)),
        Method::Post | Method::Other => Err(wrong_method("GET, HEAD")),
    }
}

fn wrong_method(allow: &'static str) -> Response {
    Response { allow: Some(allow), ..Response::text(Code::MethodNotAllowed, &format!("this takes {allow}")) }
}

/// Run ids need no escaping in a query; what is longer than any is none.
fn run(request: &Request) -> Option<String> {
    let id = request.parameter("run").filter(|id| !id.is_empty())?;
    Some(id.chars().take(80).collect())
}

fn refresh(request: &Request) -> Option<u32> {
    let seconds = request.parameter("refresh")?.parse::<u32>().ok()?;
    Some(seconds.clamp(*REFRESH.start(), *REFRESH.end()))
}

/// What is shown.
pub fn render(view: &View, status: &Status) -> Response {
    match view {
        View::Page { run: None, refresh } => Response::new(Code::Ok, Kind::Html, page::overview(status, *refresh)),
        View::Page { run: Some(id), refresh } => match page::run(status, id, *refresh) {
            Some(page) => Response::new(Code::Ok, Kind::Html, page),
            None => Response::new(Code::NotFound, Kind::Html, page::no_run(status, id)),
        },
        View::Style => Response::new(Code::Ok, Kind::Css, STYLE),
        View::Status => Response::json(status),
        View::Metrics => Response::new(Code::Ok, Kind::Metrics, prometheus(status)),
        View::Health => Response::text(Code::Ok, "ok"),
    }
}

/// A run that a tick has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fired {
    /// The chain.
    pub chain: String,
    /// The id of the run.
    pub run_id: String,
}

/// The answer of `/cron`: what was begun; nothing where nothing was due.
pub fn fired(runs: &[Fired]) -> Response {
    #[derive(Serialize)]
    struct Tick<'a> {
        version: u32,
        runs: &'a [Fired],
    }
    Response::json(&Tick { version: crate::status::VERSION, runs })
}

#[cfg(test)]
mod tests {
    use super::super::request::{Head, parse};
    use super::*;

    fn answer(line: &str) -> Result<Route, (u16, Option<&'static str>)> {
        match parse(format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()) {
            Head::Complete(request) => route(&request).map_err(|response| (response.code.number(), response.allow)),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn each_path_takes_its_methods() {
        let page = |run: Option<&str>, refresh| Ok(Route::View(View::Page { run: run.map(str::to_owned), refresh }));
        let table = [
            ("GET /", page(None, None)),
            ("HEAD /?refresh=10", page(None, Some(10))),
            ("GET /?refresh=0&run=abc", page(Some("abc"), Some(2))),
            ("GET /?refresh=x&run=", page(None, None)),
            ("GET /cron", Ok(Route::Tick)),
            ("POST /cron", Ok(Route::Tick)),
            ("HEAD /cron", Err((405, Some("GET, POST")))),
            ("DELETE /cron", Err((405, Some("GET, POST")))),
            ("POST /", Err((405, Some("GET, HEAD")))),
            ("OPTIONS *", Err((404, None))),
            ("GET /nowhere", Err((404, None))),
            ("GET /cron/", Err((404, None))),
            ("GET //", Err((404, None))),
            ("GET /%63ron", Err((404, None))),
            ("GET /healthz", Ok(Route::View(View::Health))),
            ("GET /metrics?x=y", Ok(Route::View(View::Metrics))),
        ];
        for (line, wanted) in table {
            assert_eq!(answer(line), wanted, "{line}");
        }
    }

    #[test]
    fn a_tick_tells_what_it_began() {
        let body = fired(&[Fired { chain: "nightly".into(), run_id: "x-1".into() }]).body;
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&value["version"], &value["runs"][0]["run_id"]), (&1.into(), &"x-1".into()));
    }
}
