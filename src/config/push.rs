//! What `[metrics]` and `[liveness]` say: who is told of each run. Decides only.

use std::path::PathBuf;

use super::chains;
use super::endpoint::{Endpoint, Influx};
use super::keys;
use super::sections::Sections;
use super::settings::Reader;
use super::{Config, Finding, Severity};

/// What stands for the name of the chain in a liveness file or key.
pub const CHAIN_WORD: &str = "{chain}";

/// Who is told of each run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushSettings {
    /// `[metrics] textfile`.
    pub textfile: Option<PathBuf>,
    /// `[metrics] influxdb`.
    pub influxdb: Option<Influx>,
    /// `[metrics] pushgateway`.
    pub pushgateway: Option<Endpoint>,
    /// `[liveness] file`.
    pub file: Option<PathBuf>,
    /// `[liveness] consul`.
    pub consul: Option<Endpoint>,
    /// `[liveness] etcd`.
    pub etcd: Option<Endpoint>,
}

impl PushSettings {
    /// Reads both sections. Whatever is wrong goes to `findings`.
    pub fn new(config: &Config, findings: &mut Vec<Finding>) -> Self {
        let (metrics, liveness) = (Sections::for_metrics(config), Sections::for_liveness(config));
        let (metrics, liveness) = (metrics.of_chain(), liveness.of_chain());
        let mut reader = Reader { path: &metrics, findings };
        let (textfile, influxdb) = (reader.optional(&keys::TEXTFILE), reader.optional(&keys::INFLUXDB));
        let pushgateway = reader.optional(&keys::PUSHGATEWAY);
        let mut reader = Reader { path: &liveness, findings };
        let (file, consul, etcd) = (reader.optional(&keys::FILE), reader.optional(&keys::CONSUL), reader.optional(&keys::ETCD));
        if let Some(entry) = metrics.find(&keys::TEXTFILE.info).filter(|entry| textfile.is_some() && !entry.value.ends_with(".prom")) {
            let message = format!("textfile = {}: node exporter reads only files whose name ends with .prom", entry.value);
            findings.push(Finding::new(Severity::Warning, &entry.origin, message));
        }
        let several = chains::names(config).next().is_some();
        for key in [&keys::FILE.info, &keys::CONSUL.info, &keys::ETCD.info] {
            if let Some(entry) = liveness.find(key)
                && several
                && !entry.value.is_empty()
                && !entry.value.contains(CHAIN_WORD)
            {
                let message = format!(
                    "{}: all chains write the same record, so one that lives hides one that does not; write {CHAIN_WORD} where its name should stand",
                    key.name
                );
                findings.push(Finding::new(Severity::Warning, &entry.origin, message));
            }
        }
        let servers = [
            (&metrics, &keys::INFLUXDB.info),
            (&metrics, &keys::PUSHGATEWAY.info),
            (&liveness, &keys::CONSUL.info),
            (&liveness, &keys::ETCD.info),
        ];
        for (key, entry) in servers.iter().filter_map(|(path, key)| Some((key, path.find(key)?))) {
            if !cfg!(feature = "net") && !entry.value.is_empty() {
                let message = format!("{}: this program was built without the feature `net`: nobody is told", key.name);
                findings.push(Finding::new(Severity::Warning, &entry.origin, message));
            }
        }
        Self { textfile, influxdb, pushgateway, file, consul, etcd }
    }

    /// Whether nobody is told.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::{ini, judge};

    fn read(text: &str) -> (PushSettings, Vec<String>) {
        let (mut config, mut findings) = (Config::default(), Vec::new());
        let file: Arc<Path> = Path::new("/etc/r.cfg").into();
        config.add_document(&file, ini::parse(text.as_bytes()).unwrap(), &mut findings);
        judge::judge_keys(&config, &mut findings);
        let settings = PushSettings::new(&config, &mut findings);
        (settings, findings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn nothing_is_said_and_nobody_is_told() {
        let (settings, told) = read("[runner]\n[metrics]\ntextfile =\n");
        assert!(settings.is_empty() && told.is_empty(), "{told:?}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let (settings, told) = read("[metrics]\ntextfile = a.txt\ntextfiles = b\n[liveness]\nfile = alive\n[chain:a]\n");
        assert_eq!((settings.textfile, settings.file), (Some("/etc/a.txt".into()), Some("/etc/alive".into())));
        assert_eq!(told[0], "/etc/r.cfg:3: unknown key `textfiles` in [metrics]; did you mean `textfile`?");
        assert!(told[1].starts_with("/etc/r.cfg:2: textfile = a.txt: node exporter reads only"), "{told:?}");
        assert!(told[2].starts_with("/etc/r.cfg:5: file: all chains write the same record"), "{told:?}");
    }

    #[test]
    fn a_secret_is_not_repeated() {
        let (_, told) = read("[metrics]\npushgateway = http://me:hunter2@h\n");
        assert!(told.len() == 2 && told.iter().all(|line| line.contains("password") && !line.contains("hunter2")), "{told:?}");
    }
}
