//! A cron line: five fields, as Vixie cron reads them, with `L`, `W` and `#`. Decides only.
//!
//! croner reads the elements of the fields; what stands around it here is ours:
//! - names, lists, the order of ranges and the bounds are looked at first, so that an error names the field and the way
//!   out; croner would take `1,2,,4`, `?`, `+5` and steps beyond the field;
//! - day of month and weekday: either one if both are given, and "given" is what does not begin with `*` (Vixie). croner
//!   asks whether a field is exactly `*`;
//! - each element gets a component of its own: in one component `L,15W` would turn `L` into `LW`;
//! - only the sets are kept. croner's own search takes a job for fixed when minute and hour are one number each, where
//!   Vixie cron asks for a `*`; and its expression holds a table of 5,000 years.

use croner::CronComponent;

use super::days::Days;
use super::error::{Field, Problem};
use super::local::{LocalRule, Times};
use super::weekly::time_of_day;

// The bits of croner's components, which it does not export.
const PLAIN: u8 = 1;
const NTH: [u8; 5] = [1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5];
const LAST: u8 = 1 << 6;
const NEAR_WORKDAY: u8 = 1 << 7;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A cron line and what is remarkable about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CronLine {
    pub rule: LocalRule,
    /// Day of month and weekday are both restricted, and no `+` says how it is meant.
    pub doubtful_days: bool,
    /// The hour is restricted, and does not begin with `*`.
    pub fixed_hours: bool,
    /// Every minute of those hours.
    pub every_minute: bool,
}

/// Reads the five fields of `rule`.
///
/// # Errors
/// The first field that is wrong, and how. Whether it ever fires is for the caller to ask.
pub(crate) fn parse(rule: &str) -> Result<CronLine, Problem> {
    let fields: Vec<&str> = rule.split_ascii_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return Err(Problem::FieldCount { rule: rule.to_owned(), count: fields.len(), hint: field_hint(rule, fields.len()) });
    };
    let minutes = read(Field::Minute, minute)?;
    let hours = read(Field::Hour, hour)?;
    let dates = read(Field::DayOfMonth, day)?;
    let months = read(Field::Month, month)?;
    let (plus, bare) = weekday.strip_prefix('+').map_or((false, weekday), |rest| (true, rest));
    let week = read(Field::Weekday, bare)?;
    let given = |field: &str| !field.starts_with('*');
    let days = Days {
        months: low(months.plain) as u16,
        in_month: low(dates.plain),
        last: dates.last,
        last_workday: dates.last_workday,
        near_workday: low(dates.near_workday),
        weekdays: sunday_is_zero(week.plain),
        nth: week.nth.map(sunday_is_zero),
        last_weekdays: sunday_is_zero(week.last_of),
        both: plus || !(given(day) && given(bare)),
    };
    let times = Times::Grid { minutes: minutes.plain, hours: low(hours.plain) };
    Ok(CronLine {
        rule: LocalRule { days, times, follows_clock: !(given(minute) && given(hour)) },
        doubtful_days: !plus && day != "*" && bare != "*",
        fixed_hours: given(hour),
        every_minute: minute == "*" || minute == "*/1",
    })
}

/// What was meant by a line that has not five fields.
fn field_hint(rule: &str, count: usize) -> String {
    match count {
        1 if time_of_day(rule).is_ok() => format!("; a time stands behind its days, `daily {rule}`"),
        0..=5 => String::new(),
        _ => "; there is none for seconds, years, users or commands".to_owned(),
    }
}

fn low(bits: u64) -> u32 {
    (bits & u64::from(u32::MAX)) as u32
}

/// 7 is Sunday as well.
fn sunday_is_zero(bits: u64) -> u8 {
    ((bits & 0x7f) | (bits >> 7 & 1)) as u8
}

/// What a field holds, as bits.
#[derive(Debug, Default)]
struct Set {
    plain: u64,
    last: bool,
    last_workday: bool,
    near_workday: u64,
    nth: [u64; 5],
    last_of: u64,
}

fn read(field: Field, list: &str) -> Result<Set, Problem> {
    let mut set = Set::default();
    for element in list.split(',') {
        if element.is_empty() {
            return Err(Problem::EmptyElement { field, list: list.to_owned() });
        }
        add(field, element, &canonical(field, element)?, &mut set)?;
    }
    Ok(set)
}

/// Hands one element to croner, and takes its sets.
fn add(field: Field, element: &str, canonical: &str, set: &mut Set) -> Result<(), Problem> {
    let features = match field {
        Field::Minute | Field::Hour | Field::Month => 0,
        Field::DayOfMonth => LAST | NEAR_WORKDAY,
        Field::Weekday => LAST | NTH.iter().fold(0, |all, bit| all | bit),
    };
    let (min, max) = field.bounds();
    let mut component = CronComponent::new(min.into(), max.into(), features, 0);
    component.parse(canonical).map_err(|_| Problem::Malformed { field, element: element.to_owned() })?;
    let bits = |bit: u8| component.get_set_values(bit).iter().fold(0_u64, |bits, value| bits | 1 << value);
    set.plain |= bits(PLAIN);
    match field {
        Field::Minute | Field::Hour | Field::Month => {}
        Field::DayOfMonth => {
            let (last, workday) = (component.is_feature_enabled(LAST), component.is_feature_enabled(NEAR_WORKDAY));
            set.last |= last && !workday;
            set.last_workday |= last && workday;
            set.near_workday |= bits(NEAR_WORKDAY);
        }
        Field::Weekday => {
            set.last_of |= bits(LAST);
            for (nth, bit) in set.nth.iter_mut().zip(NTH) {
                *nth |= bits(bit);
            }
        }
    }
    Ok(())
}

/// The element with numbers for names, when it is one that the field takes.
fn canonical(field: Field, element: &str) -> Result<String, Problem> {
    let upper = element.to_ascii_uppercase();
    match field {
        Field::Minute | Field::Hour | Field::Month => {}
        Field::DayOfMonth => {
            if upper == "L" || upper == "LW" {
                return Ok(upper);
            }
            if let Some(day) = upper.strip_suffix('W') {
                return Ok(format!("{}W", number(field, element, day)?));
            }
        }
        Field::Weekday => {
            if let Some(day) = upper.strip_suffix('L') {
                return Ok(format!("{}L", number(field, element, day)?));
            }
            if let Some((day, nth)) = upper.split_once('#') {
                let day = number(field, element, day)?;
                let known = matches!(nth, "1" | "2" | "3" | "4" | "5");
                return if known { Ok(format!("{day}#{nth}")) } else { Err(Problem::Nth(element.to_owned())) };
            }
        }
    }
    if upper == "?" {
        return Err(Problem::QuestionMark(field));
    }
    match upper.split_once('/') {
        None => span(field, element, &upper),
        Some((range, step)) => stepped(field, element, range, step),
    }
}

/// `*`, `5` or `1-5`.
fn span(field: Field, element: &str, text: &str) -> Result<String, Problem> {
    if text == "*" {
        return Ok("*".to_owned());
    }
    let Some((first, last)) = text.split_once('-') else { return Ok(number(field, element, text)?.to_string()) };
    let first = number(field, element, first)?;
    // A week may end with its Sunday.
    let last = if field == Field::Weekday && last == "SUN" && first > 0 { 7 } else { number(field, element, last)? };
    if first > last {
        let (min, max) = field.bounds();
        let max = if field == Field::Weekday { 6 } else { max };
        let part = |from: u8, to: u8| if from == to { from.to_string() } else { format!("{from}-{to}") };
        let way_out = format!("{},{}", part(first.min(max), max), part(min, last));
        return Err(Problem::Backwards { field, element: element.to_owned(), way_out });
    }
    Ok(format!("{first}-{last}"))
}

fn stepped(field: Field, element: &str, range: &str, step: &str) -> Result<String, Problem> {
    let (_, max) = field.bounds();
    let digits = !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
    let step = step.parse::<u8>().ok().filter(|step| digits && (1..=max).contains(step));
    let step = step.ok_or_else(|| Problem::Step { field, element: element.to_owned() })?;
    let range = span(field, element, range)?;
    if range != "*" && !range.contains('-') {
        let max = if field == Field::Weekday { 6 } else { max };
        let way_out = format!("{range}-{max}/{step}");
        return Err(Problem::BareStep { field, element: element.to_owned(), way_out });
    }
    Ok(format!("{range}/{step}"))
}

/// A number, or the name of one. `text` is in capitals.
fn number(field: Field, element: &str, text: &str) -> Result<u8, Problem> {
    let names: &[&str] = match field {
        Field::Month => &MONTHS,
        Field::Weekday => &WEEKDAYS,
        Field::Minute | Field::Hour | Field::DayOfMonth => &[],
    };
    let (min, max) = field.bounds();
    if let Some(place) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(place as u8 + min);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::Malformed { field, element: element.to_owned() });
    }
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| Problem::OutOfRange { field, element: element.to_owned() })
}
