//! Small files against what is in them, and properties: no input panics, nothing gets lost on the way
//! through the crate, line numbers are true. The comparison with Python's reader is in
//! `tests/integration/ini_reference.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

/// An option: section, key, value, line.
type Row = (&'static str, &'static str, &'static str, u32);

#[test]
fn options_with_their_lines() {
    let table: &[(&str, &[Row])] = &[
        ("", &[]),
        ("# only\n; comments\n\n", &[]),
        ("[a]\n", &[]),
        ("[a]\nx = 1", &[("a", "x", "1", 2)]),
        ("[a]\nx: 1\n", &[("a", "x", "1", 2)]),
        ("[a]\nx=1=2:3\n", &[("a", "x", "1=2:3", 2)]),
        ("[a]\nx:1=2\n", &[("a", "x", "1=2", 2)]),
        ("[a]\nurl = http://h:1/\n", &[("a", "url", "http://h:1/", 2)]),
        ("[a]\nx =\ny:\n", &[("a", "x", "", 2), ("a", "y", "", 3)]),
        ("[a]\nKey With Blanks \t= v\n", &[("a", "Key With Blanks", "v", 2)]),
        // Comments.
        ("[a]\n#x = 1\n;y = 2\nz = 3\n", &[("a", "z", "3", 4)]),
        ("[a]\nx = 1 # 2\n", &[("a", "x", "1 # 2", 2)]),
        ("[a]\nx = 1 ; 2\n", &[("a", "x", "1", 2)]),
        ("[a]\nx = 1\t; 2\n", &[("a", "x", "1", 2)]),
        ("[a]\nx = 1;2 ; 3\n", &[("a", "x", "1;2 ; 3", 2)]),
        ("[a]\nx = ; 1\n", &[("a", "x", "", 2)]),
        ("[a]\nx =;1\n", &[("a", "x", ";1", 2)]),
        ("[a]\nx ; y = 1\n", &[("a", "x ; y", "1", 2)]),
        // Continued values.
        ("[a]\nx = 1\n  2\n\t3 \n", &[("a", "x", "1\n2\n3", 2)]),
        ("[a]\nx =\n  1\n", &[("a", "x", "\n1", 2)]),
        ("[a]\nx = 1 ; no\n  2 ; yes\n", &[("a", "x", "1\n2 ; yes", 2)]),
        ("[a]\nx = 1\n  # 2\n  ; 3\n", &[("a", "x", "1\n# 2\n; 3", 2)]),
        ("[a]\nx = 1\n  [b]\n  y = 2\n", &[("a", "x", "1\n[b]\ny = 2", 2)]),
        ("[a]\nx = 1\n\n  \n# c\n  2\n", &[("a", "x", "1\n2", 2)]),
        ("[a]\nx = 1\n\n\ny = 2\n", &[("a", "x", "1", 2), ("a", "y", "2", 5)]),
        // Literal values.
        ("[a]\nx = \"1\"\n", &[("a", "x", "\"1\"", 2)]),
        ("[a]\nx = \"\"\n", &[("a", "x", "\"\"", 2)]),
        ("[a]\nx = 'y\nz = \"\n", &[("a", "x", "'y", 2), ("a", "z", "\"", 3)]),
        ("[a]\nx = C:\\new\\\ny = \\x0041\\\n", &[("a", "x", "C:\\new\\", 2), ("a", "y", "\\x0041\\", 3)]),
        ("[a]\nx = 100% %(y)s $y ${y}\n", &[("a", "x", "100% %(y)s $y ${y}", 2)]),
        // Sections.
        ("[a]\nx = 1\n[b]\nx = 2\n", &[("a", "x", "1", 2), ("b", "x", "2", 4)]),
        ("[a]\nx = 1\n[b]\n[a]\nx = 2\n", &[("a", "x", "1", 2), ("a", "x", "2", 5)]),
        ("[a] ; note\nx = 1\n", &[("a", "x", "1", 2)]),
        ("[a]x = 1\ny = 2\n", &[("a", "y", "2", 2)]),
        ("[ a ]\nx = 1\n", &[(" a ", "x", "1", 2)]),
        ("[a[b]]\nx = 1\n", &[("a[b", "x", "1", 2)]),
        ("[env:x=y;#]\nx = 1\n", &[("env:x=y;#", "x", "1", 2)]),
        ("[DEFAULT]\nx = 1\n", &[("DEFAULT", "x", "1", 2)]),
        // Keys.
        ("[a]\nx = 1\nX = 2\nx = 3\n", &[("a", "x", "1", 2), ("a", "X", "2", 3), ("a", "x", "3", 4)]),
        ("[a]\nx] = 1\n", &[("a", "x]", "1", 2)]),
        ("[a]\n\"x\" = 1\n", &[("a", "\"x\"", "1", 2)]),
        ("[a]\nrem x = 1\n", &[("a", "rem x", "1", 2)]),
        // Line ends and bytes.
        ("[a]\r\nx = 1\r\n  2\r\n\r\ny =\r\n", &[("a", "x", "1\n2", 2), ("a", "y", "", 5)]),
        ("[a]\nx = 1\r", &[("a", "x", "1", 2)]),
        ("[a]\nx = 1\r2\n", &[("a", "x", "1\r2", 2)]),
        ("\u{feff}[a]\nx = 1\n", &[("a", "x", "1", 2)]),
        ("[ü]\nö = \u{a0}é\u{a0}\n", &[("ü", "ö", "\u{a0}é\u{a0}", 2)]),
        ("[a]\n\u{a0}x\u{2003} = \u{85}1\u{1f}\n", &[("a", "\u{a0}x\u{2003}", "\u{85}1\u{1f}", 2)]),
        ("[a]\nx = \x0b1\x0c\n", &[("a", "x", "1", 2)]),
    ];
    for (text, rows) in table {
        let document = parse(text.as_bytes()).unwrap();
        let found: Vec<_> = document
            .options()
            .map(|(section, entry)| (section.name.as_str(), entry.key.as_str(), entry.value.as_str(), entry.line))
            .collect();
        assert_eq!(&found, rows, "in {text:?}");
    }
}

#[test]
fn every_header_is_a_section_with_its_line() {
    let document = parse(b"\n[a]\n[b]\nx = 1\n[a]\n").unwrap();
    let found: Vec<_> = document.sections.iter().map(|s| (s.name.as_str(), s.line, s.options.len())).collect();
    assert_eq!(found, [("a", 2, 0), ("b", 3, 1), ("a", 5, 0)]);
}

#[test]
fn faults_with_their_lines() {
    use Problem::*;
    let bad = |line, problem: fn(String) -> Problem, text: &str| IniError { line, problem: problem(text.into()) };
    let bytes = |line, problem| IniError { line, problem };
    let table: &[(&[u8], &[IniError])] = &[
        (b"x = 1\n", &[bad(1, BeforeSection, "x")]),
        // One header mends both options; the line between them is a fault of its own.
        (b"x = 1\nfoo\ny = 2\n", &[bad(1, BeforeSection, "x"), bad(2, NoSeparator, "foo")]),
        (b"[a]\nfoo\nx = 1\nbar baz\n", &[bad(2, NoSeparator, "foo"), bad(4, NoSeparator, "bar baz")]),
        (b"[a]\nrem note\n", &[bad(2, NoSeparator, "rem note")]),
        // What hangs below a fault is no second one, neither what follows a broken header.
        (b"[a]\nfoo\n  bar\n", &[bad(2, NoSeparator, "foo")]),
        (b"[a\n  x = 1\ny = 2\n", &[bad(1, UnclosedHeader, "[a")]),
        (b"[a]\n[env:b\nx = 1\n", &[bad(2, UnclosedHeader, "[env:b")]),
        (b"[]\n[]]\n", &[bad(1, EmptyName, "[]"), bad(2, EmptyName, "[]]")]),
        (b"[a]\n= 1\n: 2\n", &[bad(2, EmptyKey, "= 1"), bad(3, EmptyKey, ": 2")]),
        (b"[a]\n  x = 1\n\t[b]\n", &[bad(2, NothingToContinue, "x = 1"), bad(3, NothingToContinue, "[b]")]),
        (b"  x = 1\n", &[bad(1, NothingToContinue, "x = 1")]),
        (b"[a]\n# \xe9\nx = \xff\nfoo\n", &[bytes(2, NotUtf8), bad(4, NoSeparator, "foo")]),
        (b"[a]\nx = \xe2\x82\n\xac = 1\n", &[bytes(2, NotUtf8)]),
        (b"[a]\nx = \0\n\0\n", &[bytes(2, Nul), bad(3, NoSeparator, "\u{fffd}")]),
        (
            b"\xff\xfe[\0a\0]\0\n\0",
            &[
                bytes(1, NotUtf8),
                bytes(1, Nul),
                bad(1, NoSeparator, "\u{fffd}\u{fffd}[\u{fffd}a\u{fffd}]\u{fffd}"),
                bad(2, NoSeparator, "\u{fffd}"),
            ],
        ),
    ];
    for (text, errors) in table {
        assert_eq!(parse(text).as_ref(), Err(&errors.to_vec()), "in {:?}", text.escape_ascii().to_string());
    }
}

#[test]
fn a_fault_says_what_was_expected_and_the_way_out() {
    let told = |text: &str| {
        let errors = parse(text.as_bytes()).unwrap_err();
        errors.iter().map(IniError::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        told("[a]\nfoo bar\n"),
        "`foo bar` has neither `=` nor `:`: write `foo = value`, or begin the line with # to make it a comment"
    );
    assert_eq!(told("x = 1\n"), "`x` stands before any section: put a header such as `[runner]` above it");
    assert_eq!(told("[a\n"), "`[a` has no closing bracket: write `[name]`");
    // A line from anywhere neither fills the terminal nor steers it.
    let long = told(&format!("[a]\n\x1b[2J{}\n", "é".repeat(500)));
    assert!(long.starts_with(&format!("`\u{fffd}[2J{}...` has neither", "é".repeat(36))), "{long}");
}

/// Everything but the line numbers, which change when comments and blank lines go.
fn without_lines(mut document: Document) -> Document {
    for section in &mut document.sections {
        section.line = 0;
        section.options.iter_mut().for_each(|entry| entry.line = 0);
    }
    document
}

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let count = u32::try_from(bytes.split(|byte| *byte == b'\n').count()).unwrap();
    match parse(bytes) {
        Ok(document) => {
            let mut last = 0;
            for section in &document.sections {
                prop_assert!(section.line > last && section.line <= count);
                last = section.line;
                for entry in &section.options {
                    prop_assert!(entry.line > last && entry.line <= count);
                    last = entry.line;
                }
            }
            let again = parse(document.to_string().as_bytes());
            prop_assert_eq!(again.map(without_lines), Ok(without_lines(document)));
        }
        Err(errors) => {
            prop_assert!(!errors.is_empty() && errors.is_sorted_by_key(|error| error.line));
            for error in &errors {
                prop_assert!(error.line >= 1 && error.line <= count);
                prop_assert!(!matches!(error.problem, Problem::Refused(_)), "{}", error);
                prop_assert!(!error.to_string().contains(char::is_control));
            }
        }
    }
    Ok(())
}

/// A piece of a line: any character, and often one that means something to some reader of INI.
fn text(length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let c = prop_oneof![
        prop::sample::select(r#"[]=:;#\"'%${}x0nab A"#.chars().collect::<Vec<_>>()),
        prop::sample::select(vec![' ', '\t', '\r', '\x0b', '\x0c', '\x1c', '\u{85}', '\u{a0}', '\u{2028}', '\u{feff}']),
        any::<char>(),
    ];
    let c = c.prop_filter("ends or spoils the line", |c| !matches!(c, '\n' | '\0'));
    prop::collection::vec(c, length).prop_map(String::from_iter)
}

fn trimmed(text: &str) -> String {
    text.trim_matches(is_blank).to_owned()
}

prop_compose! {
    fn key()(text in text(1..12)) -> String {
        let key = text.replace(['=', ':'], "").trim_start_matches(['[', '#', ';', ' ', '\t', '\r', '\x0b', '\x0c']).to_owned();
        // The rest has no use for an empty one.
        format!("{}k", trimmed(&key))
    }
}

prop_compose! {
    fn value()(first in text(0..12), more in prop::collection::vec(text(1..12), 0..3)) -> String {
        let mut value = match first.split_once(';') {
            Some((before, _)) if before.ends_with(is_blank) => trimmed(before),
            _ => trimmed(&first),
        };
        for piece in more.iter().map(|piece| trimmed(piece)).filter(|piece| !piece.is_empty()) {
            value.push('\n');
            value.push_str(&piece);
        }
        value
    }
}

prop_compose! {
    fn section()(name in text(1..12), options in prop::collection::vec((key(), value()), 0..5)) -> Section {
        let name = match name.replace(']', "") { name if name.is_empty() => " ".to_owned(), name => name };
        let options = options.into_iter().map(|(key, value)| Entry { key, value, line: 0 }).collect();
        Section { name, line: 0, options }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check(&bytes)?;
    }

    #[test]
    fn bytes_of_ini(bytes in prop::collection::vec(prop::sample::select(b"[[]]==::;;##\\\"' \t\n\n\n\n\r\x0b\xc3\xa9\xffaxn0".to_vec()), 0..200)) {
        check(&bytes)?;
    }

    #[test]
    fn lines_of_ini(lines in prop::collection::vec((prop::sample::select(vec!["", "[a]", "[", "x = ", "y=", "  ", "#"]), text(0..12)), 0..12)) {
        let file: String = lines.iter().map(|(start, rest)| format!("{start}{rest}\n")).collect();
        check(file.as_bytes())?;
        check(format!("[s]\n{file}").as_bytes())?;
    }

    /// Any name, key and value that INI can hold comes through, duplicates and order, too: so rust-ini
    /// loses nothing.
    #[test]
    fn printed_and_read_again(sections in prop::collection::vec(section(), 0..4)) {
        let document = Document { sections };
        prop_assert_eq!(parse(document.to_string().as_bytes()).map(without_lines), Ok(document));
    }

    /// A bad line is told with its number wherever it stands, and nothing else is.
    #[test]
    fn one_bad_line(sections in prop::collection::vec(section(), 1..4), at in any::<prop::sample::Index>()) {
        let file = Document { sections }.to_string();
        let mut lines: Vec<&str> = file.split_terminator('\n').collect();
        // Not before the first header; there it is told, too, but with all the options above.
        let at = 1 + at.index(lines.len());
        lines.insert(at, "no separator");
        let line = u32::try_from(at + 1).unwrap();
        let problem = Problem::NoSeparator("no separator".into());
        prop_assert_eq!(parse(lines.join("\n").as_bytes()), Err(vec![IniError { line, problem }]));
    }
}
