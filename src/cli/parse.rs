//! Reads a command line with as little of its definition as it needs. To put all of it together takes longer than all else
//! that most calls do before they begin, and boot scripts and tasks call often. One rule: whatever the small definition does
//! not understand is for the whole one to judge, so that help, errors and suggestions are always the whole one's.

use std::ffi::{OsStr, OsString};

use clap::{Args, FromArgMatches, Parser, Subcommand};

use super::args::{Cli, Command, GlobalArgs, MainArgs};

/// What was typed; the first word is the program.
///
/// # Errors
/// What clap says of it: help and version are such errors, too.
pub fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    parse_small(arguments).map_or_else(|| Cli::try_parse_from(arguments), Ok)
}

/// What was typed, if the options of every command and the commands that it names are enough to understand it; if it names
/// none, those options and what is typed for the main chain. Only a word that is the name of a command can call one, and a
/// word that is there for another reason adds a command that is not called: either way the answer is that of the whole.
fn parse_small(arguments: &[OsString]) -> Option<Cli> {
    let words = arguments.get(1..)?;
    let names_command = words.iter().filter_map(|word| word.to_str()).any(Command::has_subcommand);
    let small = GlobalArgs::augment_args(clap::Command::new("runner").disable_help_subcommand(true));
    let small = if names_command { small.subcommands(commands_named(words)) } else { MainArgs::augment_args(small) };
    let mut matches = small.try_get_matches_from(arguments).ok()?;
    let global = GlobalArgs::from_arg_matches_mut(&mut matches).ok()?;
    let main = if names_command { MainArgs::default() } else { MainArgs::from_arg_matches_mut(&mut matches).ok()? };
    let called = matches.subcommand_name().is_some();
    let command = called.then(|| Command::from_arg_matches_mut(&mut matches)).transpose().ok()?;
    Some(Cli { global, main, command })
}

/// The commands whose names stand among the words, without what each is given: clap adds that to the one that is called.
fn commands_named(words: &[OsString]) -> Vec<clap::Command> {
    let all = Command::augment_subcommands(clap::Command::new("runner"));
    let named = |command: &&clap::Command| words.iter().any(|word| word == OsStr::new(command.get_name()));
    all.get_subcommands().filter(named).cloned().collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use proptest::prelude::*;

    use super::*;

    /// A command line as the shell would part it.
    fn words(line: &str) -> Vec<OsString> {
        ["runner"].into_iter().chain(line.split(' ')).map(OsString::from).collect()
    }

    /// Holds both ways against each other; whether the small definition was enough.
    fn compare(arguments: &[OsString]) -> bool {
        let whole = Cli::try_parse_from(arguments);
        let Some(small) = parse_small(arguments) else {
            // What the whole one says is what is heard.
            assert_eq!(format!("{:?}", parse(arguments).map_err(|error| error.to_string())), said(whole), "{arguments:?}");
            return false;
        };
        assert_eq!(format!("{:?}", Ok::<_, String>(small)), said(whole), "{arguments:?}");
        true
    }

    fn said(parsed: Result<Cli, clap::Error>) -> String {
        format!("{:?}", parsed.map_err(|error| error.to_string()))
    }

    #[cfg(all(feature = "schedule", feature = "store"))]
    #[test]
    fn what_is_typed_every_day_is_understood_the_small_way() {
        let lines = [
            "-c f",
            "-n 3 -H tasks.d",
            "-v -c runner.cfg -n 1 --only a,b tasks.d",
            "-g hg.remote -c f",
            "--syslog -s a.b=c --log-format json",
            "-c check",
            "run -n 3 tasks.d",
            "-q -c f check",
            "list main --json",
            "enqueue a.sh",
            "-c f enqueue a.sh x -y --in 3 -- z",
            "enqueue -c f --json -q --priority -3 -Q q --in 1h --key k --existing replace a.sh",
            "enqueue --repeat 1h --repeat-until 14:00 --at 12:00 --name n --creator c --max-attempts 0 a.sh -h",
            "--set a.b=c enqueue --stdin --creator me",
            "enqueue -- -h",
            "enqueue queue list",
            "queue list -Q q -n 3",
            "lock k -- enqueue a",
            "lock-guard 3",
            "import crontab - --user",
            "history -n 5",
            "enq",
        ];
        for line in lines.map(words) {
            assert!(compare(&line), "{line:?}");
        }
        assert!(compare(&words("-c f")[..1]));
    }

    #[cfg(all(feature = "schedule", feature = "store"))]
    #[test]
    fn what_the_small_way_does_not_understand_is_the_whole_ones() {
        let lines = [
            "enqueue -h",
            "check --help",
            "-V enqueue a",
            "--help",
            "enqueue",
            "enqueue --stdin a.sh",
            "enqueue --in 1h --at 2h a",
            "-v -q enqueue a",
            "-n 3 enqueue a",
            "tasks.d enqueue a",
            "help enqueue",
            "queue enqueue",
            "queue lst",
            "enqeue a b",
            "-g enqueue",
            "run --jsn",
            "--jsn",
        ];
        for line in lines.map(words) {
            assert!(!compare(&line), "{line:?}");
        }
    }

    /// The names of all commands, those of commands below them too.
    fn names(of: &clap::Command) -> Vec<String> {
        of.get_subcommands().flat_map(|command| [vec![command.get_name().to_owned()], names(command)].concat()).collect()
    }

    #[test]
    fn help_and_mistakes_of_every_command_are_those_of_the_whole() {
        let mut whole = Cli::command();
        whole.build();
        for name in names(&whole) {
            for rest in ["--help", "-h", "--no-such", "-Z x", "--jsn", "--version", "a b c d e f", "-v -q"] {
                compare(&words(&format!("{name} {rest}")));
                compare(&words(&format!("queue {name} {rest}")));
            }
        }
    }

    #[test]
    fn help_of_all_and_of_each_say_the_same() {
        let said = |of: &clap::Command| -> Vec<(String, Option<String>)> {
            of.get_subcommands().map(|command| (command.get_name().to_owned(), command.get_about().map(ToString::to_string))).collect()
        };
        let mut whole = Cli::command();
        let listed = said(&whole);
        whole.build();
        assert_eq!(listed, said(&whole));
    }

    #[test]
    fn a_command_has_one_name() {
        // Else a word that calls it could be missed.
        let whole = Cli::command();
        for command in whole.get_subcommands() {
            let other_names = command.get_all_aliases().count() + usize::from(command.get_short_flag().is_some());
            assert!(Command::has_subcommand(command.get_name()) && other_names == 0 && command.get_long_flag().is_none());
        }
        assert!(!whole.is_allow_external_subcommands_set());
    }

    /// Words that mean something somewhere, and some that mean nothing.
    fn any_word() -> impl Strategy<Value = String> {
        let mut whole = Cli::command();
        whole.build();
        let options = |command: &clap::Command| -> Vec<String> {
            let long = command.get_arguments().filter_map(|arg| arg.get_long()).map(|long| format!("--{long}"));
            long.chain(command.get_arguments().filter_map(|arg| arg.get_short()).map(|short| format!("-{short}"))).collect()
        };
        let mut known = names(&whole);
        known.extend(options(&whole));
        known.extend(whole.get_subcommands().flat_map(options));
        let plain = ["--", "-", "a", "tasks.d", "3", "-3", "1h", "json", "a.b=c", "--set=a.b=c", "-qv", "-n2", "help", "--stdin=", ""];
        prop_oneof![proptest::sample::select(known), proptest::sample::select(plain.map(str::to_owned).to_vec())]
    }

    proptest! {
        // Each puts the whole definition together.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn both_ways_agree_on_any_words(typed in proptest::collection::vec(any_word(), 0..7)) {
            let arguments: Vec<OsString> = ["runner".to_owned()].into_iter().chain(typed).map(OsString::from).collect();
            compare(&arguments);
        }
    }
}
