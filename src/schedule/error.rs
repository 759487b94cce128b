//! What can be wrong with a schedule, in words that name the field, what was expected and the way out.
//! Decides only.

use std::fmt;

/// One wrong rule of a schedule. The caller puts file, line and key before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ScheduleError {
    /// The line within the value, counted from 0.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// A field of a cron line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 0 to 59.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31, `L`, `LW`, `15W`.
    DayOfMonth,
    /// 1 to 12, jan to dec.
    Month,
    /// 0 to 7, sun to sat, `5L`, `5#3`.
    Weekday,
}

impl Field {
    /// The least and the greatest number the field takes.
    pub fn bounds(self) -> (u8, u8) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::Weekday => (0, 7),
        }
    }

    fn takes(self) -> &'static str {
        match self {
            Self::Minute => "0 to 59, `*`, a range `0-29`, a step `*/5`, or a list of these",
            Self::Hour => "0 to 23, `*`, a range `8-17`, a step `*/2`, or a list of these",
            Self::DayOfMonth => "1 to 31, `*`, a range `1-7`, a step `*/2`, `L`, `LW`, `15W`, or a list of these",
            Self::Month => "1 to 12, jan to dec, `*`, a range `apr-oct`, a step `*/3`, or a list of these",
            Self::Weekday => "0 to 7, sun to sat, `*`, a range `mon-fri`, a step `*/2`, `friL`, `fri#2`, or a list of these",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::Weekday => "weekday",
        })
    }
}

/// What can be wrong with a rule. The strings are what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No rule at all.
    #[error("expected a rule: `30 4 * * *`, a word such as `@daily`, days and times such as `mon..fri 9:00`, or `every 10min`")]
    Empty,
    /// A line that was meant as a comment; in a value it is text.
    #[error("`{0}` stands inside the value: begin a comment in the first column of the file")]
    Comment(String),
    /// The first word begins no rule.
    #[error("`{word}` begins no rule: expected five cron fields, a word such as `@daily`, a day such as `monday`, or `every`{near}")]
    UnknownRule {
        /// The first word.
        word: String,
        /// The tail with the nearest known word, or nothing.
        near: String,
    },
    /// Not five fields.
    #[error("`{rule}` has {}: expected five, minute, hour, day of month, month, weekday{hint}", crate::names::counted(*.count, "field"))]
    FieldCount {
        /// The line.
        rule: String,
        /// How many there are.
        count: usize,
        /// The tail with what was meant, or nothing.
        hint: String,
    },
    /// `1,2,,4`.
    #[error("{field} `{list}`: a place in the list is empty: take out the comma too much")]
    EmptyElement {
        /// The field.
        field: Field,
        /// Its text.
        list: String,
    },
    /// Nothing the field takes.
    #[error("{field} `{element}`: expected {}", .field.takes())]
    Malformed {
        /// The field.
        field: Field,
        /// The element of its list.
        element: String,
    },
    /// `?`, as Quartz writes a field that is not restricted.
    #[error("{0} `?`: write `*`")]
    QuestionMark(Field),
    /// A number beyond the field's bounds.
    #[error("{field} `{element}`: expected numbers from {} to {}", .field.bounds().0, .field.bounds().1)]
    OutOfRange {
        /// The field.
        field: Field,
        /// The element of its list.
        element: String,
    },
    /// `22-6`.
    #[error("{field} `{element}`: the range runs backwards: write it as two, `{way_out}`")]
    Backwards {
        /// The field.
        field: Field,
        /// The element of its list.
        element: String,
        /// The same as two ranges.
        way_out: String,
    },
    /// `5/10`.
    #[error("{field} `{element}`: a step needs a range: write `{way_out}`")]
    BareStep {
        /// The field.
        field: Field,
        /// The element of its list.
        element: String,
        /// The same with a range.
        way_out: String,
    },
    /// `*/0`, or wider than the field.
    #[error("{field} `{element}`: expected a step from 1 to {}", .field.bounds().1)]
    Step {
        /// The field.
        field: Field,
        /// The element of its list.
        element: String,
    },
    /// `mon#6`.
    #[error("weekday `{0}`: expected # and a number from 1 to 5, the how-manieth in its month")]
    Nth(String),
    /// An unknown word behind an `@`.
    #[error("`{word}` is no such word: expected @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or @boot{near}")]
    UnknownWord {
        /// As written.
        word: String,
        /// The tail with the nearest known word, or nothing.
        near: String,
    },
    /// `@daily 5:00`.
    #[error("`{0}`: nothing may stand behind an @ word; days and times are written `daily 5:00`")]
    BehindWord(String),
    /// No day.
    #[error("`{word}` is no day: expected monday to sunday, mon to sun, a range `mon..fri`, a list `mon,thu`, or daily{near}")]
    Day {
        /// As written.
        word: String,
        /// The tail with the nearest known word, or nothing.
        near: String,
    },
    /// Days without a time.
    #[error("`{0}` names no time: write one or more behind it, such as `{0} 9:00 17:30`")]
    NoTime(String),
    /// No time of day.
    #[error("`{}` is no time: expected 0:00 to 23:59, or 1:00 to 12:59 with am or pm behind it{}", .0, time_hint(.0))]
    Time(String),
    /// `every` without a duration.
    #[error("`{0}`: expected a duration behind `every`: seconds such as 90, `10min`, `1h30m`")]
    EveryDuration(String),
    /// Zero, below a second, or not whole.
    #[error("`{0}`: expected whole seconds, at least one")]
    EverySeconds(String),
    /// 30 February.
    #[error("`{0}` never fires: no such day is in the calendar; the last day of a month is L")]
    Never(String),
    /// `every infinity`.
    #[error("`{0}` never fires: leave the schedule out for a chain that only `runner now` starts")]
    EveryNever(String),
}

fn time_hint(text: &str) -> &'static str {
    if text.contains(',') {
        "; blanks part times, such as `9:00 17:30`"
    } else if text.starts_with('#') {
        "; begin a comment with ` ;`, or give it a line of its own in the first column"
    } else {
        ""
    }
}
