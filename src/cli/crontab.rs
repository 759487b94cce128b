//! A crontab, read: its jobs, each with the variables that held where it stands. Decides only. The grammar is that of
//! crontab(5) of Vixie cron and cronie.

use std::collections::HashSet;

/// One line of a crontab that runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its line, from 1.
    pub line: usize,
    /// As it stands there.
    pub text: String,
    /// A name for its chain; no other job has it.
    pub name: String,
    /// The fields of time, or the word.
    pub schedule: String,
    /// The column of the user, where there is one.
    pub user: Option<String>,
    /// What the shell is given.
    pub command: String,
    /// What stands behind the first `%`: the command's standard input.
    pub input: Option<String>,
    /// The variables that were set above it.
    pub variables: Vec<(String, String)>,
}

impl Job {
    /// The value of a variable that was set above it.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A line that says nothing cron would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Its line, from 1.
    pub line: usize,
    /// As it stands there.
    pub text: String,
    /// What was expected.
    pub why: String,
}

/// Reads a crontab. `of_user` says that it has no column for the user; `judge`, of a job without a name, what runner cannot do. Only
/// who is a job takes a name from the others.
pub fn parse(text: &str, of_user: bool, judge: impl Fn(&Job) -> Result<(), String>) -> (Vec<Job>, Vec<Doubt>) {
    let (mut jobs, mut doubts, mut names) = (Vec::new(), Vec::new(), HashSet::new());
    let mut variables: Vec<(String, String)> = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((name, value)) = assignment(line) {
            variables.retain(|(known, _)| *known != name);
            variables.push((name, value));
            continue;
        }
        let found = job(line, of_user).and_then(|(schedule, user, rest)| {
            let (command, input) = part_input(rest);
            let (text, variables) = (line.to_owned(), variables.clone());
            let job = Job { line: number, text, name: String::new(), schedule, user, command, input, variables };
            judge(&job).map(|()| job)
        });
        match found {
            Ok(job) => jobs.push(Job { name: free_name(&job.command, &mut names), ..job }),
            Err(why) => doubts.push(Doubt { line: number, text: line.to_owned(), why }),
        }
    }
    (jobs, doubts)
}

/// `NAME = value`, either of them in quotes or not.
fn assignment(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let name = unquoted(name.trim());
    let is_name =
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then(|| (name.to_owned(), unquoted(value.trim()).to_owned()))
}

fn unquoted(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// The first word and what follows its blanks.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    (word, rest.trim_start())
}

/// When, who, and the rest of the line.
fn job(line: &str, of_user: bool) -> Result<(String, Option<String>, &str), String> {
    // A job of root may begin with a dash: then cronie does not log it.
    let mut rest = line.strip_prefix('-').filter(|rest| !rest.starts_with(char::is_whitespace)).unwrap_or(line);
    if let Some(every) = rest.strip_prefix("@every").filter(|rest| rest.starts_with(char::is_whitespace)) {
        // Of the cron library of Go; the second word would be taken for a user.
        let length = word(every.trim_start()).0;
        return Err(format!("@every is no time of crontab(5); in a configuration it is `schedule = every {length}`"));
    }
    let fields = if rest.starts_with('@') { 1 } else { 5 };
    let mut schedule = Vec::new();
    for _ in 0..fields {
        let (field, more) = word(rest);
        schedule.push(field);
        rest = more;
    }
    let mut user = None;
    if !of_user {
        let (name, more) = word(rest);
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if !more.is_empty() && !is_name {
            return Err(format!("`{name}` is no name of a user; with --user the file has no column for one"));
        }
        user = Some(name.to_owned());
        rest = more;
    }
    if rest.is_empty() {
        let who = if of_user { "" } else { ", a user" };
        return Err(format!("expected five fields of time or a word such as @daily{who}, and a command"));
    }
    Ok((schedule.join(" "), user, rest))
}

/// A `%` ends the command and the others are line feeds of its standard input, unless a `\` stands before them.
fn part_input(text: &str) -> (String, Option<String>) {
    let mut parts = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek() == Some(&'%') => {
                letters.next();
                parts.iter_mut().last().into_iter().for_each(|part| part.push('%'));
            }
            '%' => parts.push(String::new()),
            other => parts.iter_mut().last().into_iter().for_each(|part| part.push(other)),
        }
    }
    let command = parts.remove(0);
    (command.trim_end().to_owned(), (!parts.is_empty()).then(|| parts.join("\n")))
}

/// A name from the first program of the command that has a path, else from its first word.
fn free_name(command: &str, names: &mut HashSet<String>) -> String {
    let words = || command.split(|c: char| c.is_whitespace() || "|&;<>()\"'`".contains(c));
    let last_part = |word: &str| word.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let paths = words().filter(|word| word.contains('/') && !word.starts_with("/dev/") && !word.contains(['=', '$'])).map(last_part);
    let mut found = paths.chain(words().take(1).map(last_part)).map(|name| as_name(&name)).find(|name| !name.is_empty() && name != "main");
    let base = found.get_or_insert_with(|| "job".to_owned());
    let free = std::iter::once(base.clone()).chain((2..).map(|number| format!("{base}-{number}"))).find(|name| !names.contains(name));
    let name = free.unwrap_or_default();
    names.insert(name.clone());
    name
}

fn as_name(text: &str) -> String {
    const ENDINGS: [&str; 6] = [".sh", ".py", ".pl", ".rb", ".php", ".bash"];
    let text = ENDINGS.iter().find_map(|ending| text.strip_suffix(ending)).unwrap_or(text);
    let name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' }).collect();
    name.trim_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_user(text: &str) -> Vec<Job> {
        let (jobs, doubts) = parse(text, true, |_| Ok(()));
        assert_eq!(doubts, []);
        jobs
    }

    #[test]
    fn jobs_have_the_variables_above_them() {
        let jobs = of_user("# a comment\nA=1\n0 4 * * * one\nA = \"2 3\"\n'B' = x y \n@daily two\n");
        let variables = |job: &Job| job.variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        assert_eq!((jobs[0].line, jobs[0].schedule.as_str(), variables(&jobs[0])), (3, "0 4 * * *", vec!["A=1".to_owned()]));
        assert_eq!((jobs[1].schedule.as_str(), variables(&jobs[1])), ("@daily", vec!["A=2 3".to_owned(), "B=x y".to_owned()]));
    }

    #[test]
    fn a_percent_begins_the_input_unless_it_is_escaped() {
        let job = &of_user("0 4 * * * date +\\%F | mail me%Hello,%it is\\%done\n")[0];
        assert_eq!((job.command.as_str(), job.input.as_deref()), ("date +%F | mail me", Some("Hello,\nit is%done")));
        assert_eq!(of_user("0 4 * * * a \\b")[0].command, "a \\b");
    }

    #[test]
    fn a_system_crontab_has_a_column_more() {
        let (jobs, doubts) = parse(
            "17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly\n0 4 * * * /usr/bin/x y\n0 4 * * * root\n0 4\n@every 5m root foo\n",
            false,
            |_| Ok(()),
        );
        assert_eq!(
            (jobs[0].schedule.as_str(), jobs[0].user.as_deref(), jobs[0].name.as_str()),
            ("17 * * * *", Some("root"), "cron.hourly")
        );
        assert_eq!(jobs[0].command, "cd / && run-parts --report /etc/cron.hourly");
        let why: Vec<_> = doubts.iter().map(|doubt| (doubt.line, doubt.why.as_str())).collect();
        assert_eq!(why[0], (2, "`/usr/bin/x` is no name of a user; with --user the file has no column for one"));
        assert_eq!((why[1].0, why[2].0), (3, 4));
        assert_eq!(why[3], (5, "@every is no time of crontab(5); in a configuration it is `schedule = every 5m`"));
    }

    #[test]
    fn names_come_from_the_command_and_are_distinct() {
        let names: Vec<_> = of_user(
            "@daily /opt/backup.sh >/dev/null\n@daily A=1 /opt/backup.sh -q\n@daily echo hi\n@daily \"\"\n@daily /opt/main\n@daily [ -x /usr/bin/\u{e9}t\u{e9} ]\n",
        )
        .into_iter()
        .map(|job| job.name)
        .collect();
        assert_eq!(names, ["backup", "backup-2", "echo", "job", "job-2", "t"]);
    }
}
