//! When a task runs next: at an interval, at wall-clock times in a time zone, or after every backup.
//!
//! The only file that names the `cron` crate. That crate is only asked for wall-clock times, as if all the world were
//! UTC: on the days when clocks change it would skip a run, or run it twice. What those days mean is decided here:
//! a time that does not exist runs at the next that does, a fixed time that occurs twice runs once, and what repeats
//! within the day keeps its spacing.

mod cron_fields;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc};

use self::cron_fields::CronFields;
use super::human_duration::HumanDuration;
use super::time_zone::Tz;

/// No clock change of our time moves a clock by more (Lord Howe: 30 minutes; Troll: 2 hours).
const CLOCK_CHANGE: TimeDelta = TimeDelta::hours(4);

/// A gap of minutes is left when as many have passed as a day has: the largest gap there ever was skipped a day.
const LONGEST_CLOCK_GAP_MINUTES: u32 = 24 * 60;

/// Enough slots to see three weeks of an every-minute schedule, hence all its nights and weekends.
const GAP_SLOTS: usize = 30_000;

/// Enough days to see a yearly schedule twice.
const GAP_HORIZON: TimeDelta = TimeDelta::days(400);

/// When a task runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Counted from the recorded start of the last run.
    Every(HumanDuration),
    Cron(CronSchedule),
    /// Only restore tests can follow a backup.
    AfterEveryBackup,
}

/// Wall-clock times in a time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct CronSchedule {
    text: String,
    /// A wall-clock time of any of these is a time of the whole.
    alternatives: Vec<cron::Schedule>,
    repeating: bool,
    time_zone: Tz,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error(
        "{0:?} is not a schedule: write \"every 30m\", a cron expression with 5 or 6 fields such as \"0 3 * * *\", or, for restore tests, \"after every backup\""
    )]
    NotASchedule(String),
    #[error(
        "{0:?} has no usable interval: write \"every\" and a duration of at least one second, such as \"every 30m\""
    )]
    NotAnInterval(String),
    #[error("{0:?} is not a day of the week: write 0 to 7 (0 and 7 are Sunday) or names such as \"mon-fri\"")]
    NotADayOfWeek(String),
    #[error("cron expression {0:?} never comes due: correct its day and month")]
    NeverDue(String),
    #[error(
        "{text:?} is not a cron expression: write `minute hour day-of-month month day-of-week`, such as \"0 3 * * *\""
    )]
    NotCron { text: String },
}

impl Schedule {
    pub fn parse(text: &str, time_zone: Tz) -> Result<Self, ScheduleError> {
        let words: Vec<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
        if words == ["after", "every", "backup"] {
            return Ok(Self::AfterEveryBackup);
        }
        if words.first().is_some_and(|word| word == "every") {
            let interval: Option<HumanDuration> = words[1..].join(" ").parse().ok();
            return interval
                .filter(|interval| interval.as_duration() >= Duration::from_secs(1))
                .map(Self::Every)
                .ok_or_else(|| ScheduleError::NotAnInterval(text.to_owned()));
        }
        CronSchedule::parse(text, time_zone).map(Self::Cron)
    }

    /// When the next run is due, given the start of the last one.
    ///
    /// A moment that is not after `now` is overdue: run at once. So a restart neither delays nor repeats a run, and of
    /// several slots missed while nothing ran, one is made up for. Never run yet: an interval is due now, a wall-clock
    /// schedule at its next slot. `None`: not by the clock, or never again.
    pub fn next_after(&self, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Every(interval) => match last {
                Some(last) => last.checked_add_signed(TimeDelta::from_std(interval.as_duration()).ok()?),
                None => Some(now),
            },
            Self::Cron(cron) => cron.next_instant(last.unwrap_or(now)),
            Self::AfterEveryBackup => None,
        }
    }

    /// The longest time between two slots, clock changes included; what an RPO has to allow for.
    /// `None` for what does not follow the clock.
    pub fn longest_gap(&self) -> Option<Duration> {
        match self {
            Self::Every(interval) => Some(interval.as_duration()),
            Self::Cron(cron) => cron.longest_gap(),
            Self::AfterEveryBackup => None,
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(interval) => write!(formatter, "every {interval}"),
            Self::Cron(cron) => write!(formatter, "{} ({})", cron.text, cron.time_zone),
            Self::AfterEveryBackup => formatter.write_str("after every backup"),
        }
    }
}

impl CronSchedule {
    fn parse(text: &str, time_zone: Tz) -> Result<Self, ScheduleError> {
        let schedule = Self::from_fields(text, &CronFields::read(text)?, time_zone)?;
        if schedule.next_instant(gap_epoch()).is_none() {
            return Err(ScheduleError::NeverDue(text.to_owned()));
        }
        Ok(schedule)
    }

    fn from_fields(text: &str, fields: &CronFields, time_zone: Tz) -> Result<Self, ScheduleError> {
        let alternatives = fields.expressions().into_iter().map(|expression| {
            // What the crate says speaks of its own seven fields, and would only confuse.
            expression
                .parse::<cron::Schedule>()
                .map_err(|_| ScheduleError::NotCron {
                    text: text.to_owned(),
                })
        });
        Ok(Self {
            text: text.to_owned(),
            alternatives: alternatives.collect::<Result<_, _>>()?,
            repeating: fields.is_repeating(),
            time_zone,
        })
    }

    /// The earliest instant after another one at which a run is due.
    fn next_instant(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // Near a change of clocks, a wall-clock time that seems past may still come, and a later one may come sooner.
        let reach = |instant: DateTime<Utc>| match self.clocks_change_near(instant) {
            true => CLOCK_CHANGE,
            false => TimeDelta::zero(),
        };
        let mut wall = after.with_timezone(&self.time_zone).naive_local() - reach(after);
        let mut best: Option<DateTime<Utc>> = None;
        while let Some(next_wall) = self.next_wall_time(wall) {
            wall = next_wall;
            let seen_enough =
                |best: DateTime<Utc>| wall > best.with_timezone(&self.time_zone).naive_local() + reach(best);
            if best.is_some_and(seen_enough) {
                break;
            }
            let coming = self
                .instants(wall)
                .into_iter()
                .flatten()
                .filter(|instant| *instant > after);
            best = best.into_iter().chain(coming).min();
        }
        best
    }

    fn next_wall_time(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let after = after.and_utc();
        let candidates = self
            .alternatives
            .iter()
            .filter_map(|schedule| schedule.after(&after).next());
        candidates.min().map(|instant| instant.naive_utc())
    }

    /// The instants at which a wall-clock time is due: none, one, or two.
    fn instants(&self, wall: NaiveDateTime) -> [Option<DateTime<Utc>>; 2] {
        match self.time_zone.from_local_datetime(&wall) {
            LocalResult::Single(instant) => [Some(instant.to_utc()), None],
            LocalResult::Ambiguous(first, second) => {
                let (first, second) = (first.to_utc(), second.to_utc());
                [
                    Some(first.min(second)),
                    self.repeating.then_some(first.max(second)),
                ]
            }
            LocalResult::None => [self.instant_for_missing(wall), None],
        }
    }

    /// For a wall-clock time that clocks skip: the end of the skipped part; for what repeats, the time that a clock
    /// which had not been changed would have shown.
    fn instant_for_missing(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        let whole_minute = wall.with_second(0)?;
        let after_gap = (1..=LONGEST_CLOCK_GAP_MINUTES).find_map(|minutes| {
            let later = whole_minute + TimeDelta::minutes(i64::from(minutes));
            self.time_zone.from_local_datetime(&later).earliest()
        })?;
        let after_gap = after_gap.to_utc();
        if !self.repeating {
            return Some(after_gap);
        }
        let before_change = (after_gap - TimeDelta::seconds(1)).naive_utc();
        let offset_before = self.time_zone.offset_from_utc_datetime(&before_change).fix();
        Some(wall.and_utc() - TimeDelta::seconds(i64::from(offset_before.local_minus_utc())))
    }

    fn clocks_change_near(&self, instant: DateTime<Utc>) -> bool {
        let offset = |at: DateTime<Utc>| self.time_zone.offset_from_utc_datetime(&at.naive_utc()).fix();
        offset(instant - CLOCK_CHANGE) != offset(instant + CLOCK_CHANGE)
    }

    fn longest_gap(&self) -> Option<Duration> {
        let fields = CronFields::read(&self.text).ok()?.without_seconds();
        let by_minutes = Self::from_fields(&self.text, &fields, self.time_zone).ok()?;
        let mut previous = by_minutes.next_instant(gap_epoch())?;
        let mut longest = TimeDelta::zero();
        for slot in 1..=GAP_SLOTS {
            let Some(next) = by_minutes.next_instant(previous) else {
                break;
            };
            longest = longest.max(next - previous);
            previous = next;
            if slot > 1 && next - gap_epoch() > GAP_HORIZON {
                break;
            }
        }
        longest.to_std().ok()
    }
}

/// Any fixed moment would do: gaps must not depend on when somebody asks.
fn gap_epoch() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default()
}
