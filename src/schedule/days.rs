//! Which days of the calendar a rule means. Decides only, in bits: one number holds a month.

use jiff::civil::Date;

/// After so many months the calendar repeats itself, weekdays and all.
const CALENDAR: u32 = 400 * 12;

/// The days of a rule: by month, by day of month and by weekday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Days {
    /// Bits 1 to 12.
    pub months: u16,
    /// Bits 1 to 31.
    pub in_month: u32,
    /// `L`.
    pub last: bool,
    /// `LW`.
    pub last_workday: bool,
    /// `15W`, bits 1 to 31.
    pub near_workday: u32,
    /// Bits 0 (Sunday) to 6.
    pub weekdays: u8,
    /// `fri#2`: the weekdays of the first to the fifth week of seven days.
    pub nth: [u8; 5],
    /// `friL`.
    pub last_weekdays: u8,
    /// Whether both day of month and weekday have to match; else either.
    pub both: bool,
}

impl Days {
    /// The days of every month with one of `weekdays` (bits 0, Sunday, to 6).
    pub fn of_week(weekdays: u8) -> Self {
        Self { months: 0x1ffe, in_month: !1, weekdays, both: true, ..Self::default() }
    }

    /// The first of these days that is not before `date`, or `None` if there is none in the whole calendar.
    pub fn next_from(&self, date: Date) -> Option<Date> {
        let (mut year, mut month) = (date.year(), date.month());
        let mut from = date.day();
        for _ in 0..=CALENDAR {
            if self.months & (1 << month) != 0 {
                let first = Date::new(year, month, 1).ok()?;
                let rest = self.of_month(first) & (u32::MAX << from);
                if rest != 0 {
                    return Date::new(year, month, rest.trailing_zeros() as i8).ok();
                }
            }
            (year, month) = if month == 12 { (year.checked_add(1)?, 1) } else { (year, month + 1) };
            from = 1;
        }
        None
    }

    /// The days of the month that begins with `first`, bits 1 to 31.
    fn of_month(&self, first: Date) -> u32 {
        let length = u32::from(first.days_in_month().unsigned_abs());
        let start = u32::from(first.weekday().to_sunday_zero_offset().unsigned_abs());
        let all = (u32::MAX >> (31 - length)) & !1;
        let by_date = (self.in_month | self.special_dates(length, start)) & all;
        let by_week = self.by_weekday(length, start) & all;
        if self.both { by_date & by_week } else { by_date | by_week }
    }

    fn special_dates(&self, length: u32, start: u32) -> u32 {
        let weekday = |day: u32| (start + day - 1) % 7;
        let mut dates = if self.last { 1 << length } else { 0 };
        if self.last_workday {
            dates |= 1
                << match weekday(length) {
                    6 => length - 1,
                    0 => length - 2,
                    _ => length,
                };
        }
        let mut wanted = self.near_workday;
        while wanted != 0 {
            let day = wanted.trailing_zeros();
            wanted &= wanted - 1;
            if day > length {
                continue;
            }
            // The nearest workday of the same month: it never leaves it.
            dates |= 1
                << match weekday(day) {
                    6 if day > 1 => day - 1,
                    6 => day + 2,
                    0 if day < length => day + 1,
                    0 => day - 2,
                    _ => day,
                };
        }
        dates
    }

    fn by_weekday(&self, length: u32, start: u32) -> u32 {
        // Bit 1 is the first of the month: the week, turned so that it begins with its weekday.
        let week = |weekdays: u8| {
            let weekdays = u32::from(weekdays);
            (((weekdays >> start) | (weekdays << (7 - start))) & 0x7f) << 1
        };
        let mut days = 0;
        for (number, nth) in self.nth.iter().enumerate() {
            days |= u64::from(week(self.weekdays | *nth)) << (7 * number);
        }
        if self.last_weekdays != 0 {
            let all = week(self.last_weekdays);
            let every = (0..5).fold(0_u64, |days, number| days | u64::from(all) << (7 * number));
            days |= every & (u64::MAX << (length - 6));
        }
        // More than 31 days are cut off with those the month has not.
        (days & u64::from(u32::MAX)) as u32
    }
}
