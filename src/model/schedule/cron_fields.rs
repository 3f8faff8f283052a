//! Cron expressions as people write them, translated into what the `cron` crate reads.
//!
//! That crate wants seconds first, counts Sunday as 1, and takes a day only if day of month *and* day of week match.
//! Everybody else's cron has five fields, counts Sunday as 0 or 7, and takes either when both are restricted.

use super::ScheduleError;

const DAY_NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A cron expression, field by field, days of the week already counted from Sunday = 1.
pub(super) struct CronFields {
    second: String,
    minute: String,
    hour: String,
    day_of_month: String,
    month: String,
    day_of_week: String,
}

impl CronFields {
    pub(super) fn read(text: &str) -> Result<Self, ScheduleError> {
        let text = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (second, rest) = match fields.len() {
            5 => ("0", &fields[..]),
            6 => (fields[0], &fields[1..]),
            _ => return Err(ScheduleError::NotASchedule(text.to_owned())),
        };
        Ok(Self {
            second: second.to_owned(),
            minute: rest[0].to_owned(),
            hour: rest[1].to_owned(),
            day_of_month: rest[2].to_owned(),
            month: rest[3].to_owned(),
            day_of_week: days_of_week(rest[4])?,
        })
    }

    /// Whether it runs over and over within a day, rather than at hours that were picked.
    pub(super) fn is_repeating(&self) -> bool {
        self.hour.contains(['*', '/', '-'])
    }

    /// One expression, or two of which either may match.
    pub(super) fn expressions(&self) -> Vec<String> {
        let restricted = |field: &str| !field.starts_with(['*', '?']);
        if restricted(&self.day_of_month) && restricted(&self.day_of_week) {
            return vec![
                self.expression(&self.day_of_month, "*"),
                self.expression("*", &self.day_of_week),
            ];
        }
        vec![self.expression(&self.day_of_month, &self.day_of_week)]
    }

    /// Gaps are measured in minutes, so that an expression with many seconds stays cheap to walk.
    pub(super) fn without_seconds(self) -> Self {
        Self {
            second: "0".to_owned(),
            ..self
        }
    }

    fn expression(&self, day_of_month: &str, day_of_week: &str) -> String {
        let Self {
            second,
            minute,
            hour,
            month,
            ..
        } = self;
        format!("{second} {minute} {hour} {day_of_month} {month} {day_of_week}")
    }
}

/// Spells a day-of-week field out as a list of numbers from Sunday = 1, or `*`.
fn days_of_week(field: &str) -> Result<String, ScheduleError> {
    let fault = || ScheduleError::NotADayOfWeek(field.to_owned());
    if field == "*" || field == "?" {
        return Ok("*".to_owned());
    }
    let mut chosen = [false; 7];
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (
                range,
                step.parse::<usize>().ok().filter(|step| (1..=7).contains(step)),
            ),
            None => (item, Some(1)),
        };
        let step = step.ok_or_else(fault)?;
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (day(first).ok_or_else(fault)?, day(last).ok_or_else(fault)?),
            None if range == "*" => (0, 6),
            None if item.contains('/') => (day(range).ok_or_else(fault)?, 6),
            None => (day(range).ok_or_else(fault)?, day(range).ok_or_else(fault)?),
        };
        // "fri-mon" goes round the end of the week; so does "5-0".
        let last = if last < first { last + 7 } else { last };
        for number in (first..=last).step_by(step) {
            chosen[number % 7] = true;
        }
    }
    let numbers: Vec<String> = (1..=7)
        .filter(|number| chosen[number - 1])
        .map(|number| number.to_string())
        .collect();
    Ok(numbers.join(","))
}

/// 0 and 7 are Sunday; names may be short or long.
fn day(text: &str) -> Option<usize> {
    if let Ok(number) = text.parse::<usize>() {
        return (number <= 7).then_some(number);
    }
    let text = text.to_ascii_lowercase();
    let long_name = |name: &str| match name {
        "tue" => "tuesday".to_owned(),
        "wed" => "wednesday".to_owned(),
        "thu" => "thursday".to_owned(),
        "sat" => "saturday".to_owned(),
        _ => format!("{name}day"),
    };
    DAY_NAMES
        .iter()
        .position(|name| text == *name || text == long_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_week_are_counted_as_everybody_does() {
        for (written, read) in [
            ("0", "1"),
            ("7", "1"),
            ("sun", "1"),
            ("Monday", "2"),
            ("1-5", "2,3,4,5,6"),
            ("mon-fri", "2,3,4,5,6"),
            ("fri-mon", "1,2,6,7"),
            ("5-7", "1,6,7"),
            ("*/2", "1,3,5,7"),
            ("wed,saturday", "4,7"),
            ("?", "*"),
        ] {
            assert_eq!(days_of_week(written).unwrap(), read, "{written}");
        }
    }

    #[test]
    fn what_is_not_a_day_of_the_week_is_refused() {
        for field in ["8", "moonday", "1-", "*/0", "", "1,,2"] {
            assert!(days_of_week(field).is_err(), "{field:?} was taken");
        }
    }
}
