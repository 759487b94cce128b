//! A terminal as a person sees it: a pseudo-terminal of a size, and a screen that understands what is drawn on it
//! (ECMA-48: CUP, CUU .. CUB, ED, EL; colours are passed over).

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

pub(crate) struct Terminal {
    side: OwnedFd,
    name: String,
    screen: RefCell<Screen>,
}

struct Screen {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    width: usize,
    /// What has come and is not whole yet.
    pending: Vec<u8>,
    /// Lines that went out at the top.
    scrolled: Vec<String>,
    /// A line was longer than the screen is wide.
    wrapped: Option<String>,
}

impl Terminal {
    pub(crate) fn new(columns: u16, lines: u16) -> Self {
        let side = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&side).unwrap();
        unlockpt(&side).unwrap();
        let size = rustix::termios::Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&side, size).unwrap();
        rustix::io::ioctl_fionbio(&side, true).unwrap();
        let name = ptsname(&side, Vec::new()).unwrap().into_string().unwrap();
        let width = usize::from(columns);
        let rows = vec![vec![' '; width]; usize::from(lines)];
        let screen = Screen { rows, row: 0, column: 0, width, pending: Vec::new(), scrolled: Vec::new(), wrapped: None };
        Self { side, name, screen: RefCell::new(screen) }
    }

    /// The end that the program writes to.
    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.name)
    }

    /// What is to be seen now, line by line, without what is empty at its end.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut screen = self.screen.borrow_mut();
        let mut buffer = [0_u8; 8192];
        while let Ok(length) = rustix::io::read(&self.side, &mut buffer) {
            if length == 0 {
                break;
            }
            screen.take(&buffer[..length]);
        }
        let mut lines: Vec<String> = screen.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    /// Everything that was ever to be seen on a line that is whole, and what is to be seen now.
    pub(crate) fn all(&self) -> String {
        let lines = self.lines();
        [self.screen.borrow().scrolled.join("\n"), lines.join("\n")].join("\n")
    }

    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// A line that was longer than the screen is wide.
    pub(crate) fn wrapped(&self) -> Option<String> {
        self.lines();
        self.screen.borrow().wrapped.clone()
    }
}

impl Screen {
    fn take(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
        let whole = match std::str::from_utf8(&self.pending) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8(self.pending.drain(..whole).collect()).unwrap();
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            if first == '\u{1b}' {
                let Some(end) = rest.find(|letter: char| letter.is_ascii_alphabetic()) else {
                    self.pending.splice(0..0, rest.bytes());
                    return;
                };
                self.obey(&rest[2..end], rest.as_bytes()[end]);
                rest = &rest[end + 1..];
                continue;
            }
            self.put(first);
            rest = &rest[first.len_utf8()..];
        }
    }

    fn put(&mut self, letter: char) {
        match letter {
            '\r' => self.column = 0,
            '\n' if self.row + 1 < self.rows.len() => self.row += 1,
            '\n' => {
                let top = self.rows.remove(0);
                self.scrolled.push(top.iter().collect::<String>().trim_end().to_owned());
                self.rows.push(vec![' '; self.width]);
            }
            letter => {
                if self.column >= self.width {
                    self.wrapped = Some(self.rows[self.row].iter().collect());
                    self.column = 0;
                    self.put('\n');
                }
                self.rows[self.row][self.column] = letter;
                self.column += 1;
            }
        }
    }

    fn obey(&mut self, parameter: &str, order: u8) {
        let count = parameter.parse().unwrap_or(1);
        match order {
            b'A' => self.row = self.row.saturating_sub(count),
            b'B' => self.row = (self.row + count).min(self.rows.len() - 1),
            b'C' => self.column = (self.column + count).min(self.width - 1),
            b'D' => self.column = self.column.saturating_sub(count),
            b'H' => (self.row, self.column) = (0, 0),
            b'J' => {
                self.rows[self.row][self.column.min(self.width)..].fill(' ');
                self.rows[self.row + 1..].iter_mut().for_each(|row| row.fill(' '));
            }
            b'K' if parameter == "2" => self.rows[self.row].fill(' '),
            b'K' => self.rows[self.row][self.column.min(self.width)..].fill(' '),
            b'm' | b'h' | b'l' => {}
            other => panic!("the screen does not know {parameter:?}{}", char::from(other)),
        }
    }
}
