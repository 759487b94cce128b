//! Who is told of a run, and how each of them is told once. Touches a file or a server, whichever it names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::report::{Liveness, Report, merged};
use super::{PushError, file};
#[cfg(feature = "net")]
use crate::config::endpoint::{Endpoint, Influx};
use crate::config::push::{CHAIN_WORD, PushSettings};
use crate::plain::{self, LONGEST, LastLink};

/// Somebody who is told.
pub enum Target {
    /// `[metrics] textfile`.
    Textfile(PathBuf),
    /// `[metrics] influxdb`.
    #[cfg(feature = "net")]
    Influx(Influx),
    /// `[metrics] pushgateway`.
    #[cfg(feature = "net")]
    Gateway(Endpoint),
    /// `[liveness] file`.
    File(PathBuf, TimeZone),
    /// `[liveness] consul`.
    #[cfg(feature = "net")]
    Consul(Endpoint, TimeZone),
    /// `[liveness] etcd`.
    #[cfg(feature = "net")]
    Etcd(Endpoint, TimeZone),
}

impl Target {
    /// All that the settings name. `zone` is that of the machine.
    pub fn all(settings: &PushSettings, zone: &TimeZone) -> Vec<Self> {
        let mut all = Vec::new();
        all.extend(settings.textfile.clone().map(Self::Textfile));
        all.extend(settings.file.clone().map(|path| Self::File(path, zone.clone())));
        #[cfg(feature = "net")]
        {
            all.extend(settings.influxdb.clone().map(Self::Influx));
            all.extend(settings.pushgateway.clone().map(Self::Gateway));
            all.extend(settings.consul.clone().map(|server| Self::Consul(server, zone.clone())));
            all.extend(settings.etcd.clone().map(|server| Self::Etcd(server, zone.clone())));
        }
        all
    }

    /// The key that names it, with its section.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Textfile(_) => "[metrics] textfile",
            #[cfg(feature = "net")]
            Self::Influx(_) => "[metrics] influxdb",
            #[cfg(feature = "net")]
            Self::Gateway(_) => "[metrics] pushgateway",
            Self::File(..) => "[liveness] file",
            #[cfg(feature = "net")]
            Self::Consul(..) => "[liveness] consul",
            #[cfg(feature = "net")]
            Self::Etcd(..) => "[liveness] etcd",
        }
    }

    /// What it wants to hear of: metrics of everything, a sign of life where there is one.
    pub fn wants(&self) -> fn(&Report) -> bool {
        match self {
            Self::Textfile(_) => |_| true,
            #[cfg(feature = "net")]
            Self::Influx(_) | Self::Gateway(_) => |_| true,
            Self::File(..) => Report::is_good,
            #[cfg(feature = "net")]
            Self::Consul(..) | Self::Etcd(..) => Report::is_good,
        }
    }

    /// Tells it, once. A server gets `limit` to answer.
    ///
    /// # Errors
    /// It did not take it.
    #[cfg_attr(not(feature = "net"), expect(unused_variables, reason = "no server is asked in this program"))]
    pub fn deliver(&self, report: &Report, limit: Duration) -> Result<(), PushError> {
        match self {
            Self::Textfile(path) => file::change(path, |text| merged(text, &report.prometheus(), report.subject())),
            #[cfg(feature = "net")]
            Self::Influx(influx) => super::remote::write_points(influx, report, limit),
            #[cfg(feature = "net")]
            Self::Gateway(server) => super::remote::push_metrics(server, report, limit),
            Self::File(path, zone) => report.liveness(zone).map_or(Ok(()), |liveness| {
                let path = file_of(path, &report.chain);
                file::replace(&path, &format!("{}\n", liveness.json()))
            }),
            #[cfg(feature = "net")]
            Self::Consul(server, zone) => {
                report.liveness(zone).map_or(Ok(()), |liveness| super::remote::put_in_consul(server, &report.chain, &liveness, limit))
            }
            #[cfg(feature = "net")]
            Self::Etcd(server, zone) => {
                report.liveness(zone).map_or(Ok(()), |liveness| super::remote::put_in_etcd(server, &report.chain, &liveness, limit))
            }
        }
    }
}
/// The liveness file of a chain.
fn file_of(path: &Path, chain: &str) -> PathBuf {
    PathBuf::from(path.to_string_lossy().replace(CHAIN_WORD, chain))
}

/// When a run of a chain last ended well, as the liveness file at `path` has it. A file that all chains share tells only of
/// the last one.
pub fn sign_of_life(path: &Path, chain: &str) -> Option<Timestamp> {
    let record = Liveness::read(&plain::read_text(&file_of(path, chain), LastLink::Followed, LONGEST).ok()?)?;
    Timestamp::from_second(record.timestamp).ok().filter(|_| record.chain.is_none_or(|of| of == chain))
}
