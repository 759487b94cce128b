//! The variables of tasks and hooks: ours without what is private, then `[env]`, `[env:NAME]`, then RUNNER_*.
//! Decides only.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::config::Entry;
use crate::names::Decimal;

/// Variables of ours that are between us and whoever started us; a task that saw them could speak in our name
/// (sd_notify(3), sd_listen_fds(3), systemd.exec(5)).
const PRIVATE: [&str; 5] = ["NOTIFY_SOCKET", "MAINPID", "INVOCATION_ID", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"];
const PRIVATE_PREFIXES: [&str; 3] = ["RUNNER_", "WATCHDOG_", "LISTEN_"];

/// The variables that all processes of a chain start from.
#[derive(Debug, Clone)]
pub struct Environment {
    inherited: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Takes over what may be taken over of our own variables.
    pub fn new(ours: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let private = |name: &OsStr| {
            let bytes = name.as_bytes();
            PRIVATE.iter().any(|private| bytes == private.as_bytes())
                || PRIVATE_PREFIXES.iter().any(|prefix| bytes.starts_with(prefix.as_bytes()))
        };
        Self { inherited: ours.into_iter().filter(|(name, _)| !private(name)).collect() }
    }

    /// The variables of one task, or of all that have none of their own, as `NAME=value`. Entries of the
    /// configuration are literal and come later, so they win; the `login` variables of a user lose against them.
    pub fn variables<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>, login: &[(&str, Vec<u8>)]) -> Variables {
        let mut all = self.inherited.clone();
        for (name, value) in login {
            all.insert(OsString::from(name), OsString::from_vec(value.clone()));
        }
        for entry in entries {
            // The socket for progress is ours to give.
            if entry.key != "NOTIFY_SOCKET" {
                all.insert(OsString::from(&entry.key), OsString::from(&entry.value));
            }
        }
        let search = all.get(OsStr::new("PATH")).cloned();
        let block = all.iter().filter_map(|(name, value)| variable(name.as_bytes(), value.as_bytes())).collect();
        Variables { block, search }
    }
}

/// Variables as the kernel takes them.
#[derive(Debug, Clone)]
pub struct Variables {
    /// Each as `NAME=value`.
    pub block: Block,
    /// The value of PATH, by which programs are found.
    pub search: Option<OsString>,
}

/// Strings for processes, with their addresses as C wants them: many processes get the same ones.
#[derive(Debug, Default)]
pub struct Block {
    strings: Vec<CString>,
    /// Where each string lies. A `CString` keeps its text in its place as long as it lives, wherever it is moved itself.
    addresses: Vec<*mut c_char>,
}

impl Block {
    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    /// The address of each string, good as long as the block is there; nothing may be written to them.
    pub fn addresses(&self) -> &[*mut c_char] {
        &self.addresses
    }
}

impl Clone for Block {
    fn clone(&self) -> Self {
        self.strings.iter().cloned().collect()
    }
}

impl FromIterator<CString> for Block {
    fn from_iter<I: IntoIterator<Item = CString>>(strings: I) -> Self {
        let mut block = Self::default();
        block.extend(strings);
        block
    }
}

impl Extend<CString> for Block {
    fn extend<I: IntoIterator<Item = CString>>(&mut self, strings: I) {
        for string in strings {
            self.addresses.push(string.as_ptr().cast_mut());
            self.strings.push(string);
        }
    }
}

/// The few variables that one process has for itself, in one piece of memory.
#[derive(Debug, Clone, Default)]
pub struct OwnVariables {
    /// `NAME=value` and a NUL, one after the other.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl OwnVariables {
    /// None so far.
    pub fn new() -> Self {
        // Those of a try fit in, unless its name is a long one.
        Self { bytes: Vec::with_capacity(160), ends: Vec::with_capacity(6) }
    }

    /// Adds one. A value with a NUL byte, which the kernel could not take, is left out.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        if !value.contains(&0) {
            self.put(name, value);
        }
    }

    fn put(&mut self, name: &str, value: &[u8]) {
        self.bytes.reserve(name.len() + value.len() + 2);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'=');
        self.bytes.extend_from_slice(value);
        self.bytes.push(0);
        self.ends.push(self.bytes.len());
    }

    /// Adds one whose value is a number.
    pub fn add_number(&mut self, name: &str, number: i64) {
        self.put(name, Decimal::of(number).as_bytes());
    }

    /// Leaves so many of them, the first.
    pub fn truncate(&mut self, count: usize) {
        let end = count.checked_sub(1).map_or(0, |last| self.ends.get(last).copied().unwrap_or(self.bytes.len()));
        self.bytes.truncate(end);
        self.ends.truncate(count);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Each as `NAME=value`, its NUL included.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| &self.bytes[std::mem::replace(&mut start, *end)..*end])
    }

    /// The same as strings of their own, for a process that has still others.
    pub fn to_strings(&self) -> Block {
        self.iter().filter_map(|variable| CString::from_vec_with_nul(variable.to_vec()).ok()).collect()
    }
}

/// One variable; `None` when the kernel could not take it.
pub fn variable(name: &[u8], value: &[u8]) -> Option<CString> {
    // Room for the NUL, too: then the string is made without being moved.
    let mut text = Vec::with_capacity(name.len() + value.len() + 2);
    text.extend_from_slice(name);
    text.push(b'=');
    text.extend_from_slice(value);
    CString::new(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    #[test]
    fn what_is_private_stays_here_and_the_configuration_wins() {
        let ours =
            ["PATH=/bin", "NOTIFY_SOCKET=/run/x", "WATCHDOG_USEC=1", "LISTEN_FDS=1", "RUNNER_TASK=x", "HOME=/root", "INVOCATION_ID=1"];
        let pairs = ours.iter().filter_map(|pair| pair.split_once('=')).map(|(name, value)| (name.into(), value.into()));
        let entry = |key: &str, value: &str| Entry { key: key.into(), value: value.into(), origin: Origin::Default };
        let entries = [entry("HOME", "/h"), entry("A", "$x ' \\"), entry("NOTIFY_SOCKET", "/mine")];
        let variables = Environment::new(pairs).variables(&entries, &[]);
        let texts: Vec<_> = variables.block.strings().iter().map(|variable| variable.to_str().unwrap()).collect();
        assert_eq!(texts, ["A=$x ' \\", "HOME=/h", "PATH=/bin"]);
        assert_eq!(variables.search.as_deref(), Some(OsStr::new("/bin")));
    }

    #[test]
    fn own_variables_end_in_a_nul_and_hold_none() {
        let mut own = OwnVariables::new();
        own.add("A", b"x y");
        own.add("BAD", b"x\0y");
        own.add_number("N", -5);
        own.add_number("LEAST", i64::MIN);
        own.add_number("ZERO", 0);
        own.add("EMPTY", b"");
        assert_eq!(own.iter().collect::<Vec<_>>(), [&b"A=x y\0"[..], b"N=-5\0", b"LEAST=-9223372036854775808\0", b"ZERO=0\0", b"EMPTY=\0"]);
        assert_eq!(own.to_strings().strings()[3..], [c"ZERO=0".to_owned(), c"EMPTY=".to_owned()]);
        own.truncate(9);
        assert_eq!(own.len(), 5);
        own.truncate(1);
        own.add("B", b"z");
        assert_eq!(own.iter().collect::<Vec<_>>(), [&b"A=x y\0"[..], b"B=z\0"]);
        own.truncate(0);
        assert!(own.is_empty());
    }
}
