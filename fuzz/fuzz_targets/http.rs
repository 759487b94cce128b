//! Any bytes given to the reader of requests: no panic; a head is the same whether it comes at once or in two pieces;
//! what is wrong stays wrong, whatever follows; nobody gets by the guard whose Host is not ours.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::http::guard::{Allow, Peer, decide};
use runner::http::request::{Head, MAX_HEAD, parse};
use runner::http::site::route;
use runner::http::token::Tokens;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    let half = parse(&bytes[..bytes.len() / 2]);
    match (&half, &whole) {
        (Head::Complete(first), Head::Complete(second)) => assert_eq!(first, second),
        (Head::Complete(_), other) => panic!("{half:?} became {other:?}"),
        (Head::Wrong(_), Head::Complete(second)) => panic!("{half:?} became {second:?}"),
        (Head::Partial | Head::Wrong(_), _) => {}
    }
    match whole {
        Head::Partial => assert!(bytes.len() < MAX_HEAD),
        Head::Wrong(wrong) => assert!((400..600).contains(&wrong.response().code.number())),
        Head::Complete(request) => {
            assert!(request.path.starts_with('/') || request.path == "*");
            let _ = route(&request);
            let here = Peer::Address([127, 0, 0, 1].into());
            let (allow, tokens) = (Allow::default(), Tokens::parse(b"secret"));
            let allowed = decide(&allow, None, here, &request).is_ok();
            assert!(!allowed || request.host.is_some_and(|host| allow.knows_host(&host)));
            let _ = tokens.know(request_token(bytes));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Allow::parse(text);
        let _ = runner::http::listen::ListenAddress::parse_list(text);
        let _ = runner::http::html::plain(text);
    }
});

fn request_token(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(16)]
}
