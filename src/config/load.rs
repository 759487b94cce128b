//! Reads the configuration file and its drop-ins. Touches these files and nothing else.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::{Config, Finding, Origin, Severity, ini, keys, sections};
use crate::task::left_over;

/// Where the configuration is when nobody says.
pub const DEFAULT_FILE: &str = "/etc/runner/runner.cfg";

/// What is longer than this is no configuration but a slip (a device, somebody's log), and must not fill the memory.
const LONGEST: u64 = 16 * 1024 * 1024;

/// A configuration file that cannot be read.
#[derive(Debug, Error)]
#[error("{what} {file} cannot be read: {source}{way_out}", way_out = if *.origin == Origin::Default { "" } else { "; name a directory, whose *.cfg are read" })]
pub struct LoadError {
    /// What the path is.
    what: &'static str,
    /// Where the path was said; nowhere if it is the configuration itself.
    pub origin: Origin,
    /// The file, or the directory of drop-ins.
    pub file: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Reads `file` and the drop-ins it names, then takes in `overrides` (section, key, value).
///
/// What is wrong inside a file goes to `findings`; nothing of a line that is wrong is swallowed.
///
/// # Errors
/// A file cannot be read.
pub fn load(file: Option<&Path>, overrides: &[Override], findings: &mut Vec<Finding>) -> Result<Config, LoadError> {
    let mut config = Config::default();
    if let Some(file) = file {
        read_file(&mut config, file, findings)?;
        if let Some((dir, origin)) = include_dir(&config) {
            for drop_in in drop_ins(&dir, &origin, findings)? {
                read_file(&mut config, &drop_in, findings)?;
            }
        }
    }
    for wanted in overrides {
        wanted.apply(&mut config);
    }
    Ok(config)
}

fn read_file(config: &mut Config, file: &Path, findings: &mut Vec<Finding>) -> Result<(), LoadError> {
    let failed = |source| LoadError { what: "the configuration", origin: Origin::Default, file: file.to_owned(), source };
    let file: Arc<Path> = std::path::absolute(file).map_err(failed)?.into();
    let bytes = read_bytes(&file).map_err(failed)?;
    match ini::parse(&bytes) {
        Ok(document) => config.add_document(&file, document, findings),
        Err(errors) => findings.extend(errors.into_iter().map(|error| {
            let origin = Origin::File { file: file.clone(), line: error.line };
            Finding::error(&origin, error.problem.to_string())
        })),
    }
    Ok(())
}

/// Reads a file without ever waiting for a writer: at boot nobody would come and end that.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("it is a pipe, and tasks would read it again: write it into a file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("it is longer than {} MiB, which no configuration is", LONGEST >> 20)));
    }
    Ok(bytes)
}

/// The directory of drop-in files, and where it was said.
pub fn include_dir(config: &Config) -> Option<(PathBuf, Origin)> {
    let entry = config.get(sections::RUNNER_SECTION, keys::INCLUDE_DIR.info.name).filter(|entry| !entry.value.is_empty())?;
    let dir = entry.origin.base().unwrap_or(Path::new("")).join(&entry.value);
    Some((dir, entry.origin.clone()))
}

/// The drop-ins of a directory: `*.cfg` by the bytes of their names, without left-overs of editors and packages. What else somebody may
/// take for one is told.
fn drop_ins(dir: &Path, origin: &Origin, findings: &mut Vec<Finding>) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError { what: "include_dir =", origin: origin.clone(), file: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.push(Finding::new(Severity::Suspect, origin, format!("include_dir {} is not there", dir.display())));
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with('.') || left_over(&text).is_some() {
            continue;
        }
        if text.ends_with(".cfg") {
            files.push(dir.join(&name));
        } else if !text.starts_with("README") {
            let message = format!("include_dir: {} is left out: its name does not end in .cfg", dir.join(&name).display());
            findings.push(Finding::new(Severity::Note, origin, message));
        }
    }
    files.sort();
    Ok(files)
}

/// One `--set SECTION.KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    name: String,
    value: String,
}

impl Override {
    /// Reads what was typed.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected SECTION.KEY=VALUE";
        let (name, value) = text.split_once('=').ok_or(expected)?;
        let (section, key) = name.rsplit_once('.').ok_or(expected)?;
        if section.is_empty() || key.is_empty() {
            return Err(expected.to_owned());
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }

    /// As it is handed on in RUNNER_OVERRIDES.
    pub fn text(&self) -> String {
        format!("{}={}", self.name, self.value)
    }

    /// Names may hold dots. A key that is there is meant first, then a section that is there, then the last dot parts.
    fn apply(&self, config: &mut Config) {
        let splits = || self.name.match_indices('.').map(|(dot, _)| (&self.name[..dot], &self.name[dot + 1..]));
        let known_key = splits().find(|(section, key)| config.get(section, key).is_some());
        let known_section = || splits().rfind(|(section, _)| config.section(section).is_some());
        if let Some((section, key)) = known_key.or_else(known_section).or_else(|| self.name.rsplit_once('.')) {
            let (section, key) = (section.to_owned(), key.to_owned());
            config.add_override(&section, &key, &self.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_come_in_the_order_of_their_bytes_and_win() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("main.cfg", "[runner]\ninclude_dir = d\nmax_tries = 1\n");
        fs::create_dir(dir.path().join("d")).unwrap();
        for (name, tries) in [
            ("d/10.cfg", 10),
            ("d/9.cfg", 9),
            ("d/B.cfg", 2),
            ("d/.x.cfg", 7),
            ("d/z.cfg~", 7),
            ("d/z.cfg.dpkg-old", 7),
            ("d/z.conf", 7),
            ("d/README", 7),
        ] {
            write(name, &format!("[runner]\nmax_tries = {tries}\n"));
        }
        let mut findings = Vec::new();
        let config = load(Some(&dir.path().join("main.cfg")), &[], &mut findings).unwrap();
        let names: Vec<_> = config.files().iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["main.cfg", "10.cfg", "9.cfg", "B.cfg"]);
        assert_eq!(config.get("runner", "max_tries").map(|entry| entry.value.as_str()), Some("2"));
        let told: Vec<_> = findings.iter().map(|finding| (finding.severity, finding.to_string())).collect();
        let line = format!("{0}/main.cfg:2: include_dir: {0}/d/z.conf is left out: its name does not end in .cfg", dir.path().display());
        assert_eq!(told, [(Severity::Note, line)], "what packages and editors leave is not told");
    }

    #[test]
    fn an_override_finds_the_key_it_means() {
        let mut config = Config::default();
        config.add_override("task:a.v2", "max_time", "1");
        config.add_override("hg", "a.b", "1");
        for text in ["task:a.v2.max_tries=3", "hg.a.b=2", "new.one=x=y"] {
            Override::parse(text).unwrap().apply(&mut config);
        }
        let value = |section, key| config.get(section, key).map(|entry| entry.value.clone());
        assert_eq!(value("task:a.v2", "max_tries").as_deref(), Some("3"));
        assert_eq!(value("hg", "a.b").as_deref(), Some("2"));
        assert_eq!(value("new", "one").as_deref(), Some("x=y"));
        assert!(Override::parse("a=b").is_err() && Override::parse("a.b").is_err() && Override::parse(".b=c").is_err());
    }
}
