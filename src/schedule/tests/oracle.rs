//! Schedules against a clock that is watched minute by minute: for each minute of a year, what the wall
//! showed, whether it showed it before, and what it skipped. It knows nothing of sets, months or searches.

use std::sync::LazyLock;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{LORD_HOWE, NEW_YORK, PRAGUE, schedule, zone};

/// Both changes of each zone lie in it.
const DAYS: usize = 345;
/// So far the watcher waits for a slot.
const PATIENCE: usize = 12 * 24 * 60;

/// A time of the wall: the day, counted from [`FIRST`], and the minute of that day.
type Wall = (u16, u16);
const FIRST: Date = jiff::civil::date(2025, 12, 30);

struct Minute {
    at: Timestamp,
    shows: Wall,
    /// Shown for the second time.
    again: bool,
    /// What the wall skipped just before.
    skipped: Vec<Wall>,
}

fn next(wall: Wall) -> Wall {
    if wall.1 == 1439 { (wall.0 + 1, 0) } else { (wall.0, wall.1 + 1) }
}

fn watch(name: &str) -> Vec<Minute> {
    let (zone, first) = (zone(name), super::at("2026-01-01T00:00Z"));
    let wall = |time: DateTime| ((time.date() - FIRST).get_days() as u16, (time.hour() as u16) * 60 + time.minute() as u16);
    let mut latest = wall(zone.to_datetime(first));
    let mut minutes = Vec::with_capacity(DAYS * 24 * 60);
    // No clock is put forward or back but at a quarter of an hour.
    for quarter in 0..DAYS * 96 {
        let begins = first + SignedDuration::from_secs(900 * quarter as i64);
        let mut shows = wall(zone.to_datetime(begins));
        for minute in 0..15 {
            let again = shows < latest;
            let mut skipped = Vec::new();
            if !again {
                while latest < shows {
                    skipped.push(latest);
                    latest = next(latest);
                }
                latest = next(latest);
            }
            minutes.push(Minute { at: begins + SignedDuration::from_secs(60 * minute), shows, again, skipped });
            shows = next(shows);
        }
    }
    minutes
}

/// A zone, its minutes, and where in them its clock is put forward or back.
struct Watched {
    zone: &'static str,
    minutes: Vec<Minute>,
    changes: Vec<usize>,
}

impl Watched {
    fn of(zone: &'static str) -> Self {
        let minutes = watch(zone);
        let change = |at: &usize| !minutes[*at].skipped.is_empty() || minutes[*at].again && !minutes[at - 1].again;
        Self { zone, changes: (1..minutes.len()).filter(change).collect(), minutes }
    }
}

static WATCHED: LazyLock<[Watched; 3]> = LazyLock::new(|| [PRAGUE, NEW_YORK, LORD_HOWE].map(Watched::of));

#[derive(Debug, Clone)]
enum Element {
    Star(i8),
    One(i8),
    Range(i8, i8, i8),
    Last,
    LastWorkday,
    NearWorkday(i8),
    LastOf(i8),
    Nth(i8, i8),
}

impl Element {
    fn text(&self, names: &[&str]) -> String {
        let name =
            |number: &i8| names.get(*number as usize).filter(|name| !name.is_empty()).map_or(number.to_string(), |name| (*name).to_owned());
        match self {
            Self::Star(1) => "*".to_owned(),
            Self::Star(step) => format!("*/{step}"),
            Self::One(number) => name(number),
            Self::Range(first, last, 1) => format!("{}-{}", name(first), name(last)),
            Self::Range(first, last, step) => format!("{first}-{last}/{step}"),
            Self::Last => "L".to_owned(),
            Self::LastWorkday => "LW".to_owned(),
            Self::NearWorkday(day) => format!("{day}W"),
            Self::LastOf(day) => format!("{}L", name(day)),
            Self::Nth(day, nth) => format!("{}#{nth}", name(day)),
        }
    }

    /// Whether a field with this element takes the number, counted from `least`; for days `date` says which.
    fn takes(&self, number: i8, least: i8, date: Option<Date>) -> bool {
        let workday = |date: &Date| !matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
        let days_of = |date: Date| (1..=date.days_in_month()).map(move |day| Date::new(date.year(), date.month(), day).unwrap());
        match (self, date) {
            (Self::Star(step), _) => (number - least) % step == 0,
            (Self::One(one), _) => number == *one,
            (Self::Range(first, last, step), _) => (*first..=*last).contains(&number) && (number - first) % step == 0,
            (Self::Last, Some(date)) => date == date.last_of_month(),
            (Self::LastWorkday, Some(date)) => days_of(date).rfind(workday) == Some(date),
            (Self::NearWorkday(day), Some(date)) => {
                let target = days_of(date).find(|other| other.day() == *day);
                let apart = |other: &Date| (other.day() - day).abs();
                target.is_some_and(|_| days_of(date).filter(workday).min_by_key(apart) == Some(date))
            }
            (Self::LastOf(day), Some(date)) => number == *day && date.day() + 7 > date.days_in_month(),
            (Self::Nth(day, nth), Some(date)) => number == *day && (date.day() - 1) / 7 + 1 == *nth,
            (Self::Last | Self::LastWorkday | Self::NearWorkday(_) | Self::LastOf(_) | Self::Nth(..), None) => false,
        }
    }
}

fn plain(least: i8, most: i8) -> impl Strategy<Value = Element> {
    prop_oneof![
        (1..=(most - least).min(12)).prop_map(Element::Star),
        (least..=most).prop_map(Element::One),
        (least..=most, least..=most, 1..5_i8).prop_map(|(one, other, step)| Element::Range(one.min(other), one.max(other), step)),
    ]
}

fn list<S: Strategy<Value = Element>>(element: S) -> impl Strategy<Value = Vec<Element>> {
    prop_oneof![3 => Just(vec![Element::Star(1)]), 5 => prop::collection::vec(element, 1..4)]
}

fn day_of_month() -> impl Strategy<Value = Vec<Element>> {
    list(
        prop_oneof![8 => plain(1, 31), 1 => Just(Element::Last), 1 => Just(Element::LastWorkday), 2 => (1..=31_i8).prop_map(Element::NearWorkday)],
    )
}

fn weekday() -> impl Strategy<Value = Vec<Element>> {
    list(
        prop_oneof![8 => plain(0, 6), 1 => (0..=6_i8).prop_map(Element::LastOf), 2 => (0..=6_i8, 1..=5_i8).prop_map(|(day, nth)| Element::Nth(day, nth))],
    )
}

const MONTHS: [&str; 13] = ["", "jan", "Feb", "MAR", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEK: [&str; 7] = ["sun", "Mon", "TUE", "wed", "thu", "fri", "sat"];

#[derive(Debug, Clone)]
struct Line {
    fields: [Vec<Element>; 5],
    plus: bool,
}

impl Line {
    fn text(&self) -> String {
        let names: [&[&str]; 5] = [&[], &[], &[], &MONTHS, &WEEK];
        let field = |place: usize| self.fields[place].iter().map(|element| element.text(names[place])).collect::<Vec<_>>().join(",");
        format!("{} {} {} {} {}{}", field(0), field(1), field(2), field(3), if self.plus { "+" } else { "" }, field(4))
    }

    fn starred(&self, place: usize) -> bool {
        matches!(self.fields[place][0], Element::Star(_))
    }

    fn any(&self, place: usize, number: i8, date: Option<Date>) -> bool {
        let least = [0, 0, 1, 1, 0][place];
        self.fields[place].iter().any(|element| element.takes(number, least, date))
    }

    fn takes_day(&self, date: Date) -> bool {
        let day = self.any(2, date.day(), Some(date));
        let weekday = self.any(4, date.weekday().to_sunday_zero_offset(), Some(date));
        let either = !self.plus && !self.starred(2) && !self.starred(4);
        self.any(3, date.month(), None) && if either { day || weekday } else { day && weekday }
    }
}

/// What a line says of each minute of a day, and of each day as soon as it is asked.
struct Watcher<'a> {
    line: &'a Line,
    times: Vec<bool>,
    days: Vec<Option<bool>>,
}

impl<'a> Watcher<'a> {
    fn of(line: &'a Line) -> Self {
        let takes = |minute: i16| line.any(0, (minute % 60) as i8, None) && line.any(1, (minute / 60) as i8, None);
        Self { line, times: (0..1440).map(takes).collect(), days: vec![None; DAYS + 5] }
    }

    /// Whether the watcher sees it fire in this minute.
    fn fires(&mut self, minute: &Minute) -> bool {
        if self.line.starred(0) || self.line.starred(1) {
            return self.on(minute.shows);
        }
        minute.skipped.iter().any(|time| self.on(*time)) || !minute.again && self.on(minute.shows)
    }

    fn on(&mut self, (day, minute): Wall) -> bool {
        let date = || FIRST + jiff::Span::new().days(day);
        self.times[minute as usize] && *self.days[day as usize].get_or_insert_with(|| self.line.takes_day(date()))
    }
}

fn line() -> impl Strategy<Value = Line> {
    let times = (list(plain(0, 59)), list(plain(0, 23)));
    (times, day_of_month(), list(plain(1, 12)), weekday(), prop::bool::weighted(0.2))
        .prop_map(|((minute, hour), day, month, weekday, plus)| Line { fields: [minute, hour, day, month, weekday], plus })
}

fn agrees(line: &Line, which: usize, place: usize, near: Option<usize>) -> Result<(), TestCaseError> {
    let Watched { zone: name, minutes: watched, changes } = &WATCHED[which];
    // Anywhere, or shortly before a change of the clock.
    let mut here = near.map_or(place, |which| changes[which % changes.len()].saturating_sub(place % 2000));
    let text = line.text();
    let Ok(schedule) = super::Schedule::parse(&text, zone(name)) else {
        // Only what never fires may be refused.
        let mut watcher = Watcher::of(line);
        prop_assert!(!watched.iter().any(|minute| watcher.fires(minute)), "{text} was refused and fires");
        return Ok(());
    };
    let mut watcher = Watcher::of(line);
    for _ in 0..4 {
        let now = watched[here].at;
        let seen = (here + 1..watched.len().min(here + PATIENCE)).find(|at| watcher.fires(&watched[*at]));
        let next = schedule.next_after(now);
        let Some(seen) = seen else {
            let horizon = watched[watched.len().min(here + PATIENCE) - 1].at;
            prop_assert!(next.is_none_or(|next| next > horizon), "{text} in {name} after {now}: {next:?}, and nothing was seen");
            return Ok(());
        };
        prop_assert_eq!(next, Some(watched[seen].at), "{} in {} after {}", text, name, now);
        here = seen;
    }
    Ok(())
}

/// Each of them looks at four slots.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(1200))]
    #[test]
    fn every_cron_line_fires_when_the_watcher_sees_it(line in line(), which in 0..3_usize, place in 0..300_000_usize, near in prop::option::of(0..4_usize)) {
        agrees(&line, which, place, near)?;
    }

}

proptest! {
    #![proptest_config(cases(800))]
    /// A change of the clock is rarely on a day and at a time that fit when all fields are drawn at random; here it always is.
    #[test]
    fn every_time_of_the_night_fires_when_the_watcher_sees_it(minute in list(plain(0, 59)), hour in list(plain(0, 4)), which in 0..3_usize, place in 0..2000_usize, near in 0..4_usize) {
        let star = || vec![Element::Star(1)];
        agrees(&Line { fields: [minute, hour, star(), star(), star()], plus: false }, which, place, Some(near))?;
    }

}

proptest! {
    #![proptest_config(cases(400))]
    #[test]
    fn days_and_times_are_cron_lines(days in prop::collection::btree_set(0..7_usize, 1..4), hour in 0..24, minute in 0..60, which in 0..3_usize, place in 0..300_000_usize) {
        let Watched { zone: name, minutes: watched, .. } = &WATCHED[which];
        let names: Vec<_> = days.iter().map(|day| WEEK[*day]).collect();
        let weekly = schedule(&format!("{} {hour}:{minute:02}", names.join(",")), name);
        let cron = schedule(&format!("{minute} {hour} * * {}", names.join(",")), name);
        prop_assert_eq!(weekly.next_after(watched[place].at), cron.next_after(watched[place].at));
    }

    #[test]
    fn any_text_is_a_schedule_or_an_error_on_one_of_its_lines(text in "(?s).{0,40}|[0-9*,/LW#+ a-z-]{0,30}|[@a-z0-9:. \\n]{0,30}") {
        match super::Schedule::parse(&text, zone(PRAGUE)) {
            Ok(schedule) => prop_assert!(schedule.at_boot() || schedule.next_after(super::at("2026-01-01T00:00Z")).is_some()),
            Err(error) => prop_assert!(error.line < text.lines().count().max(1)),
        }
    }
}

#[test]
fn croner_finds_the_same_days_when_its_rule_is_ours() {
    use croner::parser::CronParser;
    let from = super::at("2026-11-21T00:00Z").to_zoned(jiff::tz::TimeZone::UTC);
    let lines = [
        "0 0 L * *",
        "5 4 LW 2 *",
        "0 0 1W,15W,31W * *",
        "0 9 * * 1#1,5L",
        "0 0 13 * 5",
        "0 0 13 * +5",
        "*/7 3-9/2 * 2,8 6,0",
        "0 0 29 2 *",
    ];
    for line in lines {
        let croner = CronParser::new().parse(line).unwrap();
        let theirs: Vec<_> = croner.iter_after(from.clone()).take(50).map(|time| time.timestamp()).collect();
        assert_eq!(schedule(line, "UTC").slots_after(from.timestamp()).take(50).collect::<Vec<_>>(), theirs, "{line}");
    }
}
