//! Holds the INI reader against Python's, from which old configurations expect to be read as ever.
//!
//! `ini_reference.py` carries the rules of Python 2.7 itself, because hardly any machine still has
//! that version; where one has, it is asked, too. Every file goes to every reader, also the files on
//! which we differ on purpose: those stand in `known_differences` with what each side makes of them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says what it skipped, and starts the program it compares with"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};

use runner::config::ini;
use serde_json::{Map, Value, json};

const SCRIPT: &str = include_str!("ini_reference.py");
const GENERATED: usize = 500;

#[test]
fn ini_reads_as_python_does() {
    let Some(python3) = find(&["python3"]) else {
        eprintln!("skipped: ini_reference: python3 is not installed");
        return;
    };
    let same: Vec<Vec<u8>> = handwritten()
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .chain((0..GENERATED).map(|seed| generate(seed as u64).into_bytes()))
        .collect();
    let compared = compare(python3, &same);
    // Else the port was held against nothing.
    assert!(compared >= 150, "only {compared} files mean the same to Python 2 and 3");
    if let Some(python2) = find(&["python2", "python2.7"]) {
        assert_eq!(compare(python2, &same), same.len());
    }
}

/// Asks one process about all files; returns how many of them its own library could confirm.
fn compare(python: &str, same: &[Vec<u8>]) -> usize {
    let differing = known_differences();
    let files = same.iter().map(Vec::as_slice).chain(differing.iter().map(|known| known.text));
    let answers = ask(python, files);
    assert_eq!(answers.len(), same.len() + differing.len());
    for (text, answer) in same.iter().zip(&answers) {
        let shown = text.escape_ascii();
        assert_eq!(ours(text), answer["reader"], "runner (left) and the port of Python 2 differ on {shown}");
    }
    for (known, answer) in differing.iter().zip(&answers[same.len()..]) {
        let (why, shown) = (known.why, known.text.escape_ascii());
        assert_eq!(ours(known.text), known.ours, "runner changed on {shown}: {why}");
        assert_eq!(answer["reader"], known.python, "the port of Python 2 changed on {shown}: {why}");
    }
    let mut compared = 0;
    let texts = same.iter().map(Vec::as_slice).chain(differing.iter().map(|known| known.text));
    for (index, (text, answer)) in texts.zip(&answers).enumerate() {
        if answer["comparable"] == json!(true) {
            let shown = text.escape_ascii();
            assert_eq!(answer["reader"], answer["stdlib"], "the port (left) and {python} differ on {shown}");
            compared += usize::from(index < same.len());
        }
    }
    compared
}

fn find(names: &[&'static str]) -> Option<&'static str> {
    // A name that is there may still not run: version managers leave such stand-ins.
    let runs = |name: &str| Command::new(name).args(["-c", "import json"]).output().is_ok_and(|o| o.status.success());
    names.iter().copied().find(|name| runs(name))
}

fn ask<'a>(python: &str, files: impl Iterator<Item = &'a [u8]>) -> Vec<Value> {
    let mut child =
        Command::new(python).args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let questions: String = files.map(|text| format!("{}\n", json!({ "text": latin1(text) }))).collect();
    // An error here means that it ended early; what it said then is below.
    let _ = child.stdin.take().unwrap().write_all(questions.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{python}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Bytes as the script sends and takes them: each the character of the same number.
fn latin1(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().copied().map(char::from).collect()
}

/// What runner reads, put together as Python does: same sections into one, the last of the same keys.
fn ours(text: &[u8]) -> Value {
    let document = match ini::parse(text) {
        Ok(document) => document,
        Err(errors) => return json!({ "line": errors[0].line }),
    };
    let mut defaults = Map::new();
    let mut sections: Vec<(String, Map<String, Value>)> = Vec::new();
    for section in document.sections {
        let name = latin1(section.name);
        let options = if name == "DEFAULT" {
            &mut defaults
        } else {
            let index = sections.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
                sections.push((name, Map::new()));
                sections.len() - 1
            });
            &mut sections[index].1
        };
        for entry in section.options {
            options.insert(latin1(entry.key), latin1(entry.value).into());
        }
    }
    json!({ "defaults": defaults, "sections": sections })
}

struct Known {
    why: &'static str,
    text: &'static [u8],
    ours: Value,
    python: Value,
}

fn known_differences() -> Vec<Known> {
    let read = |options: Value| json!({ "defaults": {}, "sections": [["a", options]] });
    let bad = |line: u32| json!({ "line": line });
    vec![
        Known {
            why: "two quotes are literal like any quotes; Python 2 made nothing of exactly these two",
            text: b"[a]\nx = \"\"\n",
            ours: read(json!({ "x": "\"\"" })),
            python: read(json!({ "x": "" })),
        },
        Known {
            why: "nobody expects a line to be a comment because it begins with `rem`: without separator it is an error",
            text: b"[a]\nrem note\nx = 1\n",
            ours: bad(2),
            python: read(json!({ "x": "1" })),
        },
        Known {
            why: "the same, and with a separator it is an option",
            text: b"[a]\nREM x = 1\n",
            ours: read(json!({ "REM x": "1" })),
            python: read(json!({})),
        },
        Known {
            why: "a `;` with a blank before it begins a comment, also where the value is nothing else; Python 2 looked for the blank at the end of the line",
            text: b"[a]\nx = ; note\n",
            ours: read(json!({ "x": "" })),
            python: read(json!({ "x": "; note" })),
        },
        Known {
            why: "the same the other way round: no blank before the `;`, but one at the end of the line",
            text: b"[a]\nx =;1 \n",
            ours: read(json!({ "x": ";1" })),
            python: read(json!({ "x": "" })),
        },
        Known {
            why: "the same; a carriage return was a blank at the end of the line",
            text: b"[a]\r\nx =;1\r\n",
            ours: read(json!({ "x": ";1" })),
            python: read(json!({ "x": "" })),
        },
        Known {
            why: "a forgotten bracket is an error; Python 2 put `[env` as a key into the section above, with all that follows",
            text: b"[a]\n[env:b\nx = 1\n",
            ours: bad(2),
            python: read(json!({ "[env": "b", "x": "1" })),
        },
        Known {
            why: "a header without a name is an error even with a separator behind it",
            text: b"[a]\n[] = 1\n",
            ours: bad(2),
            python: read(json!({ "[]": "1" })),
        },
        Known {
            why: "editors leave a byte order mark; Python 2 took it for text before the first header",
            text: b"\xef\xbb\xbf[a]\nx = 1\n",
            ours: read(json!({ "x": "1" })),
            python: bad(1),
        },
        Known {
            why: "keys and values are text; Python 2 passed any bytes on",
            text: b"[a]\nx = \xe9\n",
            ours: bad(2),
            python: read(json!({ "x": "\u{e9}" })),
        },
        Known {
            why: "what is not text is told, also in a comment",
            text: b"[a]\n# \xe9\nx = 1\n",
            ours: bad(2),
            python: read(json!({ "x": "1" })),
        },
        Known {
            why: "no argument or variable of a program can hold a NUL",
            text: b"[a]\nx = 1\0\n",
            ours: bad(2),
            python: read(json!({ "x": "1\0" })),
        },
    ]
}

/// Files that every reader must read the same, grouped by the rule they try.
#[rustfmt::skip]
fn handwritten() -> Vec<&'static str> {
    vec![
        // Nothing, or hardly anything.
        "", "\n", "\n\n  \n\t\n", "# note", "; note\n", "[a]", "[a]\n", "[a]\n\n# x\n", "\r\n[a]\r\n",
        // Separators.
        "[a]\nx=1", "[a]\nx = 1\n", "[a]\nx: 1\n", "[a]\nx :1\n", "[a]\nx=\n", "[a]\nx:\n", "[a]\nx =", "[a]\nx = 1 = 2\n",
        "[a]\nx : 1 = 2\n", "[a]\nx = 1 : 2\n", "[a]\nx == 1\n", "[a]\nx := 1\n", "[a]\nx::1\n", "[a]\nurl = http://h:80/?q=1\n",
        "[a]\nx\t=\t1\t\n", "[a]\nx\x0b=\x0c1\x0b\n", "[a]\nC:\\dir = 1\n",
        // Keys.
        "[a]\nX = 1\nx = 2\n", "[a]\nx y  z = 1\n", "[a]\nx\ty = 1\n", "[a]\nx = 1\nx = 2\n", "[a]\nx = 1\nx =\n", "[a]\n'x' = 1\n",
        "[a]\n\"x = 1\n", "[a]\nx;y = 1\n", "[a]\nx ; y = 1\n", "[a]\nx # y = 1\n", "[a]\nx] = 1\n", "[a]\nx[0] = 1\n", "[a]\n\\ = 1\n", "[a]\n% = 1\n",
        "[a]\nremx = 1\n", "[a]\nrem= 1\n", "[a]\nré = é\n", "[a]\n\u{a0}x\u{a0} = 1\n", "[a]\n\u{85} = 1\n", "[a]\n\x1cx\x1f = 1\n",
        // Comments.
        "#\n;\n[a]\nx = 1\n", "[a]\n#x = 1\n;y = 2\nz = 3\n", "[a]\nx = 1 # note\n", "[a]\nx = 1 ; note\n", "[a]\nx = 1\t; note\n",
        "[a]\nx = 1;note\n", "[a]\nx = 1; note\n", "[a]\nx = 1;2 ; note\n", "[a]\nx = 1 ; 2 ; 3\n", "[a]\nx = 1 ;\n", "[a]\nx = 1;\n",
        "[a]\nx = 1 ;= 2\n", "[a]\nx = a;b;c\n", "[a]\nx = #1\n", "[a]\nx = 1 \\; 2\n", "[a]\nx = 1\r; note\n", "[a]\nx = 1\u{a0}; note\n",
        "[a]\nx = \"1 ; 2\"\n", "# a\n# b\n[a]\nx = 1\n# c",
        // Continued values.
        "[a]\nx = 1\n 2\n", "[a]\nx = 1\n\t2\n   3\n 4\n", "[a]\nx =\n  1\n  2\n", "[a]\nx = 1\n  2  \n", "[a]\nx = 1\n  y = 2\n", "[a]\nx = 1\n  y: 2\n",
        "[a]\nx = 1\n  [b]\n", "[a]\nx = 1\n  # note\n  2\n", "[a]\nx = 1\n  ; note\n", "[a]\nx = 1\n  2 ; note\n", "[a]\nx = 1 ; note\n  2\n",
        "[a]\nx = 1\n\n  2\n", "[a]\nx = 1\n# note\n  2\n", "[a]\nx = 1\n \n \n  2\n", "[a]\nx = 1\n\x0b2\n", "[a]\nx = 1\n\x0c2\n", "[a]\nx = 1\n\r2\n",
        "[a]\nx = 1\n  2\ny = 3\n  4\n", "[a]\nx = 1\n  2\nx = 3\n", "[a]\nx = 1\nx = 2\n  3\n", "[a]\nx = 1\n  rem 2\n", "[a]\nx = 1\n  \"\"\n", "[a]\nx = 1\n  =\n", "[a]\nx = 1\\\n  2\n",
        // Literal values.
        "[a]\nx = \"1\"\n", "[a]\nx = '1'\n", "[a]\nx = ''\n", "[a]\nx = \"\n", "[a]\nx = \"1\ny = 2\"\n", "[a]\nx = \\n\\t\\x41\\\\\n", "[a]\nx = 1\\\ny = 2\n",
        "[a]\nx = %(y)s %% $y ${y} ${a:y}\ny = 1\n", "[a]\nx = [b]\n", "[a]\nx = a  b\tc\n", "[a]\nx = 1\r2\n", "[a]\nx = \u{a0}1\u{2003}\n", "[a]\nx = ünïcödé 🐈\n",
        // Sections.
        "[a]\nx = 1\n[b]\nx = 2\n", "[a]\nx = 1\n[b]\n[a]\ny = 2\n", "[a]\nx = 1\n[a]\nx = 2\n", "[b]\n[a]\n", "[A]\n[a]\n", "[ a ]\nx = 1\n", "[ ]\nx = 1\n", "[a b]\nx = 1\n",
        "[a] ; note\nx = 1\n", "[a] # note\n", "[a]x = 1\n", "[a]]\nx = 1\n", "[a][b]\nx = 1\n", "[[a]]\nx = 1\n", "[a[b]\nx = 1\n", "[env:a]\nx = 1\n", "[a=b]\nx = 1\n", "[#]\n[;]\n",
        "[DEFAULT]\nx = 1\n[a]\ny = 2\n", "[a]\n[DEFAULT]\nx = 1\n[DEFAULT]\nx = 2\n", "[default]\nx = 1\n", "[DEFAULT]\n", "[DEFAULT ]\nx = 1\n", "[é]\nx = 1\n",
        // Line ends.
        "[a]\r\nx = 1\r\n", "[a]\r\nx = 1\r\n  2\r\n\r\n[b]\r\ny =\r\n", "[a]\nx = 1\r", "[a]\rx = 1\r", "[a]\n\rx = 1\n", "[a]\nx\r= 1\n", "[a]\nx = 1 ; note\r\n",
        // Faults.
        "x", "x = 1\n", " x = 1\n", "\n# a\nx\n[a]\n", "[a]\nx\n", "[a]\nx\ny\n", "[a]\nx = 1\ny\n  z\n", "[a]\n= 1\n", "[a]\n: 1\n", "[a]\n=\n", "[a]\n  x = 1\n", "[a]\n  # x\n", "[a]\n  [b]\n",
        "[\n", "[]\n", "[a\n", "[a]\n[\n", "[a]\n[]\n", "[a]\n[b\n", "[a]\n]\n", "[a]\nx = 1\n[b]\n  y = 2\n", "[a]\n\r\n\rx\n", "[a]\nrem: 1\nx\n", "[a]\nexport X\n",
    ]
}

/// A stream of numbers that is the same everywhere (splitmix64), so that a failing file can be had again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn pieces(&mut self, from: &[&str], most: usize) -> String {
        (0..self.below(most + 1)).map(|_| self.pick(from)).collect()
    }
}

fn generate(seed: u64) -> String {
    const WORDS: &[&str] = &["x", "Y", "max_time", "a b", "10", "5min 20s", "/srv/tasks", "é", "-"];
    const MARKS: &[&str] = &[
        "=", ":", ";", " ;", "#", " #", "[", "]", "\"", "'", "\\", "%", "$", " ", "  ", "\t", "\r", "\x0b", "\x0c", "\x1c", "\u{a0}",
        "\u{85}", "\u{2028}",
    ];
    let mut numbers = Numbers(seed);
    let end = numbers.pick(&["\n", "\n", "\n", "\r\n"]);
    // Half of the files are what people write, which Python 3 reads the same; the others try the rules.
    let wild = numbers.below(2) == 1;
    let broken = numbers.below(4) == 0;
    let mut file = String::new();
    if !broken {
        file.push_str(&format!("[{}]{end}", numbers.pick(&["a", "b", "DEFAULT"])));
    }
    let mut lines = 2 + numbers.below(12);
    while lines > 0 {
        let mut line = match numbers.below(if wild { 12 } else { 8 }) {
            0 => format!("[{}]", numbers.pick(&["a", "b", " a", "env:a", "DEFAULT"])),
            1 => format!("{}{}", numbers.pick(&["#", ";"]), numbers.pick(WORDS)),
            2 => numbers.pick(&["", " ", "\t"]).to_owned(),
            3..=6 => format!("{}{}{}", numbers.pick(WORDS), numbers.pick(&["=", " = ", ": ", "\t:", "="]), numbers.pieces(WORDS, 3)),
            7 => format!("{}{}", numbers.pick(&[" ", "\t", "    "]), numbers.pick(WORDS)),
            8 => format!(" {}{}", numbers.pieces(MARKS, 3), numbers.pieces(WORDS, 2)),
            9 => format!("[{}{}]{}", numbers.pick(WORDS), numbers.pieces(MARKS, 2), numbers.pieces(MARKS, 2)),
            10 => format!("{}{}{}", numbers.pieces(WORDS, 1), numbers.pieces(MARKS, 2), numbers.pieces(WORDS, 1)),
            _ => format!("k{}={}{}", numbers.pieces(MARKS, 2), numbers.pieces(WORDS, 2), numbers.pieces(MARKS, 5)),
        };
        if wild && numbers.below(3) == 0 {
            line.push_str(&numbers.pieces(MARKS, 3));
            line.push_str(&numbers.pieces(WORDS, 1));
        }
        // Else most of the wild files would be known by nothing but their first fault.
        let fault = !broken && ini::parse(format!("{file}{line}{end}").as_bytes()).is_err();
        if !fault && !is_known_to_differ(&line) {
            file.push_str(&line);
            file.push_str(end);
            lines -= 1;
        }
    }
    file
}

/// Lines that belong into `known_differences`, and some others that look like them.
fn is_known_to_differ(line: &str) -> bool {
    let value = line.split_once(['=', ':']).map_or("", |(_, value)| value);
    (line.starts_with('[') && line.find(']').is_none_or(|end| end == 1)) || value.trim_start().starts_with(';') || value.contains("\"\"")
}
