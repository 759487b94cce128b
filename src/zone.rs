//! The machine's time zone, for the dates people read: one file is looked at, and only when a date is printed.
//!
//! jiff would index the whole zone database for this; at boot that is a hundred directories for one offset.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use jiff::tz::TimeZone;

/// Where the zones are (tzset(3)).
const ZONES: &str = "/usr/share/zoneinfo";
/// The zone of the machine (localtime(5)).
const LOCAL: &str = "/etc/localtime";

/// The zone that `tz`, the value of TZ, names; without one the machine's. What cannot be read is UTC, as in libc.
pub fn local(tz: Option<&OsStr>) -> TimeZone {
    match tz {
        None => read(Path::new(LOCAL)),
        Some(tz) => {
            let Some(name) = tz.to_str() else { return TimeZone::UTC };
            let name = name.strip_prefix(':').unwrap_or(name);
            let file = Path::new(ZONES).join(name);
            if !name.is_empty() && file.is_file() { read(&file) } else { TimeZone::posix(name).unwrap_or(TimeZone::UTC) }
        }
    }
}

fn read(file: &Path) -> TimeZone {
    let data = fs::read(file).ok();
    data.and_then(|data| TimeZone::tzif("local", &data).ok()).unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn a_zone_is_a_name_a_file_or_a_rule() {
        let offset = |tz: &str| local(Some(OsStr::new(tz))).to_offset(Timestamp::UNIX_EPOCH).seconds();
        assert_eq!(
            [offset("UTC"), offset(""), offset("CET-1CEST,M3.5.0,M10.5.0/3"), offset("EST5EDT,M3.2.0,M11.1.0"), offset("no such zone")],
            [0, 0, 3600, -18000, 0]
        );
        if Path::new(ZONES).join("Europe/Prague").is_file() {
            assert_eq!([offset("Europe/Prague"), offset(":Europe/Prague")], [3600, 3600]);
        }
    }
}
