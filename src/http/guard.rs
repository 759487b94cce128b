//! Who may ask. Decides by the socket's address, the Host, what a browser says of the page behind a request, and the
//! token; never by a header that whoever asks could choose to his advantage.

use std::fmt;
use std::net::IpAddr;

use super::request::{Method, Request};
use super::token::{TokenFile, Tokens};

/// Who is at the other end of a connection, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An address of the network; IPv4 in IPv6 is IPv4.
    Address(IpAddr),
    /// Somebody on this machine who may open our socket file.
    Local,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Local => f.write_str("the socket file"),
        }
    }
}

/// A range of addresses in the notation of RFC 4632: `10.0.0.0/8`, `fd00::/8`; a single address is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Reads a network.
    ///
    /// # Errors
    /// What is expected, if it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address and no network (`192.168.1.5`, `10.0.0.0/8`, `fd00::/8`)");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) if !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(prefix.parse::<u32>().map_err(|_| wrong())?))
            }
            Some(_) => return Err(wrong()),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.unwrap_or(width(written));
        if prefix > width(written) {
            return Err(wrong());
        }
        // IPv4 in IPv6 is IPv4 here and in `contains`, if the whole network is.
        let address = if prefix >= 96 { written.to_canonical() } else { written };
        let network = Self { address, prefix: prefix - (width(written) - width(address)) };
        if network.base() == bits(address) { Ok(network) } else { Err(format!("`{text}` is no network: it has bits below its prefix")) }
    }

    /// Whether an address lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.address) && Self { address, prefix: self.prefix }.base() == self.base()
    }

    /// The bits of the prefix, the others zero.
    fn base(self) -> u128 {
        let low = width(self.address) - self.prefix;
        bits(self.address).checked_shr(low).and_then(|high| high.checked_shl(low)).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Whom `[daemon] allow` lets in, and by which names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    networks: Vec<Network>,
    names: Vec<String>,
}

impl Default for Allow {
    /// This machine.
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1"].iter().filter_map(|text| Network::parse(text).ok());
        Self { networks: loopback.collect(), names: Vec::new() }
    }
}

impl Allow {
    /// Reads a list of addresses, networks and host names, separated by blanks, commas or lines. The addresses are who
    /// may ask (none: this machine); the names are what our host may be called in a request besides `localhost` and
    /// its addresses.
    ///
    /// # Errors
    /// What is wrong with the first word that is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut allow = Self { networks: Vec::new(), names: Vec::new() };
        for word in text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()) {
            if is_name(word) {
                allow.names.push(word.trim_end_matches('.').to_ascii_lowercase());
            } else {
                allow.networks.push(Network::parse(word)?);
            }
        }
        if allow.networks.is_empty() {
            allow.networks = Self::default().networks;
        }
        Ok(allow)
    }

    /// Whether somebody there may ask at all.
    pub fn lets_in(&self, peer: Peer) -> bool {
        match peer {
            Peer::Address(address) => self.networks.iter().any(|network| network.contains(address)),
            Peer::Local => true,
        }
    }

    /// Whether our host may be called this. Anybody can let a name of his own lead to our address, and a page of his
    /// in somebody's browser is then of the same origin as ours; an address cannot be made to lead anywhere else.
    pub fn knows_host(&self, host: &str) -> bool {
        let name = without_port(host);
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        let literal = literal.split('%').next().unwrap_or(literal);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        literal.parse::<IpAddr>().is_ok() || name == "localhost" || self.names.contains(&name)
    }
}

/// Whether a word is a host's name rather than an address with a slip in it: no last part that is a number.
fn is_name(word: &str) -> bool {
    let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let last = word.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    plain && !last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && (name.ends_with(']') || !name.contains(':')) => name,
        _ => host,
    }
}

/// Why somebody is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `allow` does not have the address.
    Address,
    /// The Host is none of ours.
    Host,
    /// A page of somebody else asks, through the browser of somebody who may.
    OtherSite,
    /// There is no token, or a wrong one.
    Token,
}

impl Refusal {
    /// Why, for whoever asked.
    pub fn text(self) -> &'static str {
        match self {
            Self::Address => "refused: your address is not in [daemon] allow",
            Self::Host => "refused: the Host is no address, not localhost, and not named in [daemon] allow",
            Self::OtherSite => "refused: a page of another site asks",
            Self::Token => "refused: the token is missing or wrong (Authorization: Bearer TOKEN)",
        }
    }
}

/// Decides on one request; `tokens` are `None` where no token is asked for.
///
/// # Errors
/// Why it is refused.
pub fn decide(allow: &Allow, tokens: Option<&Tokens>, peer: Peer, request: &Request) -> Result<(), Refusal> {
    if !allow.lets_in(peer) {
        return Err(Refusal::Address);
    }
    if !request.host.as_deref().is_some_and(|host| allow.knows_host(host)) {
        return Err(Refusal::Host);
    }
    if comes_from_another_site(request) {
        return Err(Refusal::OtherSite);
    }
    match tokens {
        Some(tokens) if !presented(request).is_some_and(|token| tokens.know(token)) => Err(Refusal::Token),
        Some(_) | None => Ok(()),
    }
}

/// Whether a browser says that the page behind this request is not ours (Fetch Metadata, RFC 6454 section 7). A link
/// that somebody follows to look at our page is fine.
fn comes_from_another_site(request: &Request) -> bool {
    let says = |name, values: &[&[u8]]| request.header(name).is_some_and(|value| values.contains(&value));
    let follows_link = says("sec-fetch-mode", &[b"navigate"]) && says("sec-fetch-dest", &[b"document"]);
    let looks = request.method != Method::Post && request.path != "/cron";
    let elsewhere = says("sec-fetch-site", &[b"cross-site", b"same-site"]) && !(follows_link && looks);
    let ours = |origin: &[u8]| {
        let host = origin.strip_prefix(b"http://").or(origin.strip_prefix(b"https://"));
        host.is_some() && host == request.host.as_deref().map(str::as_bytes)
    };
    elsewhere || request.header("origin").is_some_and(|origin| !ours(origin))
}

fn presented(request: &Request) -> Option<&[u8]> {
    let value = request.header("authorization")?.trim_ascii();
    let space = value.iter().position(|byte| *byte == b' ')?;
    value[..space].eq_ignore_ascii_case(b"bearer").then(|| value[space..].trim_ascii())
}

/// The rules, and the file of the token.
#[derive(Debug, Default)]
pub struct Guard {
    allow: Allow,
    token: Option<TokenFile>,
}

impl Guard {
    /// A guard with these rules.
    pub fn new(allow: Allow, token: Option<TokenFile>) -> Self {
        Self { allow, token }
    }

    /// Whether somebody there may ask at all.
    pub fn lets_in(&self, peer: Peer) -> bool {
        self.allow.lets_in(peer)
    }

    /// Decides on a request; looks first whether the token's file has changed.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn judge(&mut self, peer: Peer, request: &Request) -> Result<(), Refusal> {
        decide(&self.allow, self.token.as_mut().map(TokenFile::current), peer, request)
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::{Head, parse};
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn request(line: &str, headers: &[&str]) -> Request {
        let text = format!("{line} HTTP/1.1\r\n{}\r\n", headers.iter().map(|header| format!("{header}\r\n")).collect::<String>());
        match parse(text.as_bytes()) {
            Head::Complete(request) => request,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        let table = [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("192.168.1.5", "192.168.1.5", true),
            ("192.168.1.5", "192.168.1.6", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "8.8.8.8", false),
            ("::/0", "fd00::1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::1", "127.0.0.1", false),
            ("::ffff:10.0.0.0/104", "10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "11.1.1.1", false),
            ("127.0.0.1/32", "::ffff:127.0.0.1", true),
        ];
        for (network, other, holds) in table {
            assert_eq!(Network::parse(network).unwrap().contains(address(other)), holds, "{other} in {network}");
        }
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.1/8", "10.0.0.300", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "x/8"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_has_addresses_and_names_and_is_this_machine_without_addresses() {
        let allow = Allow::parse("10.0.0.0/8, Status.Example.org\n::1").unwrap();
        assert!(allow.lets_in(Peer::Address(address("10.1.1.1"))) && !allow.lets_in(Peer::Address(address("127.0.0.1"))));
        assert!(allow.knows_host("status.example.org.:7780") && !allow.knows_host("example.org"));
        assert_eq!(Allow::parse(" ").unwrap(), Allow::default());
        assert!(Allow::parse("nas").unwrap().lets_in(Peer::Address(address("::ffff:127.0.0.1"))));
        for wrong in ["10.0.0.300", "10.0.0", "http://x", "*"] {
            assert!(Allow::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_is_an_address_or_a_name_of_ours() {
        let allow = Allow::parse("nas.lan").unwrap();
        for ours in ["127.0.0.1", "127.0.0.1:7780", "[::1]", "[::1]:7780", "[fe80::1%25eth0]:1", "LOCALHOST:1", "nas.lan", "10.9.8.7:1"] {
            assert!(allow.knows_host(ours), "{ours}");
        }
        for other in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "nas.lan.evil", "evil@localhost", "nas", ":80"]
        {
            assert!(!allow.knows_host(other), "{other}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_refuses() {
        let (allow, tokens) = (Allow::default(), Tokens::parse(b"secret"));
        let here = Peer::Address(address("127.0.0.1"));
        let (host, right) = ("Host: localhost", "Authorization: bearer  secret");
        let decide = |peer, headers: &[&str]| decide(&allow, Some(&tokens), peer, &request("GET /metrics", headers));
        assert_eq!(decide(Peer::Address(address("10.0.0.1")), &[host, right]), Err(Refusal::Address));
        // Whoever says that he comes from here says nothing.
        assert_eq!(decide(Peer::Address(address("10.0.0.1")), &[host, right, "X-Forwarded-For: 127.0.0.1"]), Err(Refusal::Address));
        assert_eq!(decide(here, &["Host: evil.example", right]), Err(Refusal::Host));
        assert_eq!(decide(here, &[host]), Err(Refusal::Token));
        for wrong in ["Bearer", "Bearer ", "Bearer Secret", "Basic secret", "secret", "Bearer secret secret"] {
            assert_eq!(decide(here, &[host, &format!("Authorization: {wrong}")]), Err(Refusal::Token), "{wrong}");
        }
        assert_eq!(decide(here, &[host, right]), Ok(()));
        assert_eq!(decide(Peer::Local, &[host, right]), Ok(()));
    }

    #[test]
    fn a_page_of_another_site_asks_for_nothing_but_to_be_left() {
        let allow = Allow::default();
        let decide = |line: &str, headers: &[&str]| {
            let headers = [&["Host: localhost:1"], headers].concat();
            decide(&allow, None, Peer::Local, &request(line, &headers))
        };
        let link = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"];
        assert_eq!(decide("GET /", &link), Ok(()));
        assert_eq!(decide("GET /cron", &link), Err(Refusal::OtherSite));
        assert_eq!(decide("POST /cron", &link), Err(Refusal::OtherSite));
        assert_eq!(decide("GET /cron", &["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"]), Err(Refusal::OtherSite));
        assert_eq!(decide("POST /cron", &["Origin: http://evil.example"]), Err(Refusal::OtherSite));
        assert_eq!(decide("POST /cron", &["Origin: null"]), Err(Refusal::OtherSite));
        assert_eq!(decide("POST /cron", &["Origin: http://localhost:1", "Sec-Fetch-Site: same-origin"]), Ok(()));
        assert_eq!(decide("GET /style.css", &["Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: no-cors"]), Ok(()));
    }
}
