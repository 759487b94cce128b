//! Any bytes given to the INI reader: no panic, true line numbers, and what was read can be printed
//! and read again. The same properties as in `src/config/ini/tests.rs`, by a search that sees the code.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runner::config::ini::{self, Document, Problem};

fuzz_target!(|bytes: &[u8]| {
    let lines = bytes.split(|byte| *byte == b'\n').count() as u32;
    match ini::parse(bytes) {
        Ok(document) => {
            check_lines(&document, lines);
            let printed = document.to_string();
            let again = ini::parse(printed.as_bytes()).expect("what was read reads again");
            assert_eq!(without_lines(again), without_lines(document));
        }
        Err(errors) => {
            assert!(!errors.is_empty() && errors.is_sorted_by_key(|error| error.line));
            for error in errors {
                assert!(
                    (1..=lines).contains(&error.line),
                    "line {} of {lines}",
                    error.line
                );
                assert!(!matches!(error.problem, Problem::Refused(_)), "{error}");
                assert!(!error.to_string().contains(char::is_control), "{error:?}");
            }
        }
    }
});

/// Headers and options stand one below the other, each on a line of its own.
fn check_lines(document: &Document, lines: u32) {
    let mut above = 0;
    for section in &document.sections {
        for line in
            std::iter::once(section.line).chain(section.options.iter().map(|entry| entry.line))
        {
            assert!(
                above < line && line <= lines,
                "line {line} of {lines} below {above}"
            );
            above = line;
        }
    }
}

/// Comments and blank lines are not printed, so line numbers change.
fn without_lines(mut document: Document) -> Document {
    for section in &mut document.sections {
        section.line = 0;
        section.options.iter_mut().for_each(|entry| entry.line = 0);
    }
    document
}
