//! The configuration as it was read: sections, keys, and the file and line each came from.
//! Decides only; `load` opens the files, `ini` knows the syntax, `settings` the meaning.

pub mod chains;
pub mod database;
pub mod endpoint;
pub mod ini;
pub mod judge;
pub mod keys;
pub mod load;
pub mod push;
pub mod queue_values;
pub mod queues;
pub mod sections;
pub mod settings;
pub mod url;
pub mod value;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use sections::Spoken;

/// The section whose keys stand in for missing ones of every section (RawConfigParser).
pub const DEFAULT_SECTION: &str = "DEFAULT";

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said it; it is the default.
    Default,
    /// `--set`, or an option of the command line.
    CommandLine,
    /// A line of a file, counted from 1.
    File {
        /// The file.
        file: Arc<Path>,
        /// The line of the key, or of the section's header.
        line: u32,
    },
}

impl Origin {
    /// The directory that relative paths of this value start from; `None` is the working directory.
    pub fn base(&self) -> Option<&Path> {
        match self {
            Self::File { file, .. } => file.parent(),
            Self::Default | Self::CommandLine => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::CommandLine => f.write_str("command line"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
        }
    }
}

/// One value and where it was said.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key, in its own case.
    pub key: String,
    /// The value, literally.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
}

/// One section, with all the places it is written in taken together.
#[derive(Debug, Clone)]
pub struct Section {
    /// The name between the brackets.
    pub name: String,
    /// Its first header.
    pub origin: Origin,
    entries: Vec<Entry>,
    /// Where each key is among the entries, where they are many: a section of a task's own may hold hundreds of thousands.
    index: HashMap<String, usize>,
}

/// Up to so many entries are gone through faster than a key is hashed.
const FEW_ENTRIES: usize = 16;

impl Section {
    /// The section's own entries, in order of their first appearance.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The section's own value of `key`; `[DEFAULT]` is not asked.
    pub fn own(&self, key: &str) -> Option<&Entry> {
        self.find(key).map(|at| &self.entries[at])
    }

    fn find(&self, key: &str) -> Option<usize> {
        if self.entries.len() > FEW_ENTRIES {
            return self.index.get(key).copied();
        }
        self.entries.iter().position(|entry| entry.key == key)
    }

    /// Takes in an entry in place of an earlier one of its key, which it gives back.
    fn put(&mut self, entry: Entry) -> Option<Entry> {
        if let Some(at) = self.find(&entry.key) {
            return Some(std::mem::replace(&mut self.entries[at], entry));
        }
        self.entries.push(entry);
        if self.entries.len() > FEW_ENTRIES {
            let without_index = self.index.len();
            self.index.extend(self.entries.iter().enumerate().skip(without_index).map(|(at, entry)| (entry.key.clone(), at)));
        }
        None
    }
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Note,
    /// Looks wrong, and works.
    Warning,
    /// Looks wrong, and the old runner took it: a warning at boot, an error for `check` and `--strict`.
    Suspect,
    /// Wrong; nothing is run.
    Error,
}

/// Something that was found wrong, or worth knowing, in what the user wrote.
#[derive(Debug, Clone)]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// Where it stands, if it stands anywhere.
    pub origin: Origin,
    /// What is wrong, what was expected, and the way out.
    pub message: String,
}

impl Finding {
    /// A finding of this severity about what stands at `origin`.
    pub fn new(severity: Severity, origin: &Origin, message: impl Into<String>) -> Self {
        Self { severity, origin: origin.clone(), message: message.into() }
    }

    /// An error about what stands at `origin`.
    pub fn error(origin: &Origin, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, origin, message)
    }

    /// A finding about a path of the file system, which stands in no line.
    pub fn about(severity: Severity, message: impl Into<String>) -> Self {
        Self::new(severity, &Origin::Default, message)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.message),
            origin @ (Origin::CommandLine | Origin::File { .. }) => write!(f, "{origin}: {}", self.message),
        }
    }
}

/// Everything the configuration files and `--set` said. A clone shares it until one of the two is changed.
#[derive(Debug, Clone, Default)]
pub struct Config {
    said: Arc<Said>,
}

#[derive(Debug, Clone, Default)]
struct Said {
    sections: Vec<Section>,
    index: HashMap<String, usize>,
    spoken: Spoken,
    /// For each chain the sections that speak of its tasks alone; made when somebody asks.
    of_chains: OnceLock<HashMap<String, Vec<usize>>>,
    files: Vec<Arc<Path>>,
}

impl Config {
    /// Takes in one file; what it says wins over what was said before.
    pub fn add_document(&mut self, file: &Arc<Path>, document: ini::Document, findings: &mut Vec<Finding>) {
        Arc::make_mut(&mut self.said).files.push(file.clone());
        for section in document.sections {
            let at = |line| Origin::File { file: file.clone(), line };
            let target = self.section_mut(&section.name, at(section.line));
            for option in section.options {
                let entry = Entry { key: option.key, value: option.value, origin: at(option.line) };
                if let Some(known) = target.put(entry)
                    && matches!(&known.origin, Origin::File { file: earlier, .. } if earlier == file)
                {
                    let message =
                        format!("`{}` in [{}] was said in {} already; the last one counts", known.key, section.name, known.origin);
                    findings.push(Finding::new(Severity::Warning, &at(option.line), message));
                }
            }
        }
    }

    /// Takes in one `--set SECTION.KEY=VALUE`; it wins over every file.
    pub fn add_override(&mut self, section: &str, key: &str, value: &str) {
        let target = self.section_mut(section, Origin::CommandLine);
        let entry = Entry { key: key.to_owned(), value: value.to_owned(), origin: Origin::CommandLine };
        target.put(entry);
    }

    fn section_mut(&mut self, name: &str, origin: Origin) -> &mut Section {
        let said = Arc::make_mut(&mut self.said);
        let at = match said.index.get(name) {
            Some(at) => *at,
            None => {
                said.index.insert(name.to_owned(), said.sections.len());
                said.spoken.note(name);
                said.of_chains.take();
                said.sections.push(Section { name: name.to_owned(), origin, entries: Vec::new(), index: HashMap::new() });
                said.sections.len() - 1
            }
        };
        &mut said.sections[at]
    }

    /// The files that were read, in their order.
    pub fn files(&self) -> &[Arc<Path>] {
        &self.said.files
    }

    /// The sections in order of their first appearance, `[DEFAULT]` among them.
    pub fn sections(&self) -> impl Iterator<Item = &Section> {
        self.said.sections.iter()
    }

    /// The sections that speak of tasks of this chain alone, in their order: found at once, whatever others have.
    pub fn sections_of(&self, chain: &str) -> impl Iterator<Item = &Section> {
        let of_chains = self.said.of_chains.get_or_init(|| {
            let mut of_chains: HashMap<String, Vec<usize>> = HashMap::new();
            for (at, section) in self.said.sections.iter().enumerate() {
                if let Some(chain) = sections::chain_of(&section.name) {
                    of_chains.entry(chain.to_owned()).or_default().push(at);
                }
            }
            of_chains
        });
        of_chains.get(chain).into_iter().flatten().map(|at| &self.said.sections[*at])
    }

    /// Which kinds of sections there are.
    fn spoken(&self) -> Spoken {
        self.said.spoken
    }

    /// The section of this name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.said.index.get(name).map(|at| &self.said.sections[*at])
    }

    /// The value of `key` in `section`, or the one `[DEFAULT]` lends it if the section exists.
    pub fn get(&self, section: &str, key: &str) -> Option<&Entry> {
        let section = self.section(section)?;
        section.own(key).or_else(|| self.section(DEFAULT_SECTION)?.own(key))
    }

    /// The entries of `section` as a reader of the old one saw them: its own, then those of `[DEFAULT]`.
    pub fn items(&self, section: &str) -> impl Iterator<Item = &Entry> {
        let own = self.section(section);
        let defaults = own.and_then(|_| self.section(DEFAULT_SECTION)).filter(|_| section != DEFAULT_SECTION);
        let lent = defaults.into_iter().flat_map(Section::entries).filter(move |entry| own.is_none_or(|own| own.own(&entry.key).is_none()));
        own.into_iter().flat_map(Section::entries).chain(lent)
    }

    /// Finds the value that `SECTION.KEY` names. Both may hold dots; the first way to part it that is there counts.
    pub fn lookup(&self, dotted: &str) -> Option<&Entry> {
        dotted.match_indices('.').find_map(|(dot, _)| self.get(&dotted[..dot], &dotted[dot + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(texts: &[&str]) -> (Config, Vec<Finding>) {
        let (mut config, mut findings) = (Config::default(), Vec::new());
        for (number, text) in texts.iter().enumerate() {
            let file: Arc<Path> = Path::new(&format!("/etc/{number}.cfg")).into();
            config.add_document(&file, ini::parse(text.as_bytes()).unwrap(), &mut findings);
        }
        (config, findings)
    }

    #[test]
    fn the_last_word_counts_and_both_lines_are_told() {
        let (config, findings) = config(&["[a]\nx = 1\nx = 2\n", "[a]\nx = 3\n"]);
        assert_eq!(config.get("a", "x").map(|entry| entry.value.as_str()), Some("3"));
        let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["/etc/0.cfg:3: `x` in [a] was said in /etc/0.cfg:2 already; the last one counts"]);
    }

    #[test]
    fn the_default_section_lends_its_keys_to_sections_that_exist() {
        let (config, _) = config(&["[DEFAULT]\nx = d\ny = d\n[a]\nx = own\n"]);
        let items: Vec<_> = config.items("a").map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
        assert_eq!(items, [("x", "own"), ("y", "d")]);
        assert!(config.get("b", "x").is_none());
    }

    #[test]
    fn a_dotted_name_is_parted_where_something_is_there() {
        let (mut config, _) = config(&["[a.b]\nc = 1\n[a]\nb.d = 2\n"]);
        let value = |config: &Config, name: &str| config.lookup(name).map(|entry| entry.value.clone());
        assert_eq!(value(&config, "a.b.c").as_deref(), Some("1"));
        assert_eq!(value(&config, "a.b.d").as_deref(), Some("2"));
        assert_eq!(value(&config, "a.b"), None);
        config.add_override("a", "b", "3");
        assert_eq!(value(&config, "a.b").as_deref(), Some("3"));
    }
}
