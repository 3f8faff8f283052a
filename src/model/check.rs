//! A target's own checks: an SQL query, and what its one value must be.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A query to run in the restored copy. It must return one row with one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub sql: String,
    pub expect: Expectation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// What a check's value must be: `> 0`, `= 5`, `!= 0`, `true`, or a text that must be equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Expectation {
    Boolean(bool),
    /// The number as written, kept as text: comparing must not lose digits.
    Number(Comparison, String),
    Text {
        text: String,
        equal: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpectationError {
    #[error(
        "an expectation cannot be empty: write `> 0`, `= 5`, `true` or the text that the query must return"
    )]
    Empty,
    #[error("`{0}` needs a number after its sign, such as `> 0`")]
    NumberMissing(String),
    #[error(
        "the query returned {value:?}, which is not a number, but the check expects `{expectation}`: correct the check's sql or expect"
    )]
    ValueNotANumber { value: String, expectation: String },
    #[error(
        "the query returned {value:?}, which is not a boolean, but the check expects `{expectation}`: correct the check's sql or expect"
    )]
    ValueNotABoolean { value: String, expectation: String },
}

impl Expectation {
    /// Whether a value, as PostgreSQL writes it as text, is as expected.
    pub fn holds(&self, value: &str) -> Result<bool, ExpectationError> {
        match self {
            Self::Boolean(expected) => match value {
                "t" | "true" => Ok(*expected),
                "f" | "false" => Ok(!*expected),
                _ => Err(ExpectationError::ValueNotABoolean {
                    value: value.to_owned(),
                    expectation: self.to_string(),
                }),
            },
            Self::Number(comparison, number) => {
                let ordering = compare_numbers(value.trim(), number).ok_or_else(|| {
                    ExpectationError::ValueNotANumber {
                        value: value.to_owned(),
                        expectation: self.to_string(),
                    }
                })?;
                Ok(comparison.accepts(ordering))
            }
            Self::Text { text, equal } => Ok((value == text) == *equal),
        }
    }
}

impl Comparison {
    /// Longer signs first, so that `>=` is not read as `>`.
    const ALL: [(&'static str, Self); 7] = [
        (">=", Self::GreaterOrEqual),
        ("<=", Self::LessOrEqual),
        ("!=", Self::NotEqual),
        ("<>", Self::NotEqual),
        (">", Self::Greater),
        ("<", Self::Less),
        ("=", Self::Equal),
    ];

    fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }

    fn sign(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, comparison)| *comparison == self)
            .map_or("=", |(sign, _)| sign)
    }
}

impl FromStr for Expectation {
    type Err = ExpectationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match text {
            "" => return Err(ExpectationError::Empty),
            "true" => return Ok(Self::Boolean(true)),
            "false" => return Ok(Self::Boolean(false)),
            _ => {}
        }
        let signed = Comparison::ALL.iter().find_map(|(sign, comparison)| {
            text.strip_prefix(sign)
                .map(|operand| (*comparison, operand.trim().trim_start_matches('=').trim()))
        });
        let Some((comparison, operand)) = signed else {
            return Ok(match compare_numbers(text, text) {
                Some(_) => Self::Number(Comparison::Equal, text.to_owned()),
                None => Self::Text {
                    text: text.to_owned(),
                    equal: true,
                },
            });
        };
        if compare_numbers(operand, operand).is_some() {
            return Ok(Self::Number(comparison, operand.to_owned()));
        }
        match comparison {
            Comparison::Equal if !operand.is_empty() => Ok(Self::Text {
                text: operand.to_owned(),
                equal: true,
            }),
            Comparison::NotEqual if !operand.is_empty() => Ok(Self::Text {
                text: operand.to_owned(),
                equal: false,
            }),
            _ => Err(ExpectationError::NumberMissing(text.to_owned())),
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(expected) => write!(formatter, "{expected}"),
            Self::Number(comparison, number) => write!(formatter, "{} {number}", comparison.sign()),
            Self::Text { text, equal: true } => write!(formatter, "= {text}"),
            Self::Text { text, equal: false } => write!(formatter, "!= {text}"),
        }
    }
}

impl TryFrom<String> for Expectation {
    type Error = ExpectationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Expectation> for String {
    fn from(expectation: Expectation) -> Self {
        expectation.to_string()
    }
}

/// Exact for plain decimals of any length (PostgreSQL's bigint and numeric); by f64 for exponents. `None`: no number.
fn compare_numbers(left: &str, right: &str) -> Option<Ordering> {
    if let (Some(left), Some(right)) = (Decimal::read(left), Decimal::read(right)) {
        return Some(left.compare(&right));
    }
    let finite = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    finite(left)?.partial_cmp(&finite(right)?)
}

struct Decimal<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        // There is only one zero.
        let negative = negative && !(whole.is_empty() && fraction.is_empty());
        Some(Self {
            negative,
            whole,
            fraction,
        })
    }

    fn compare(&self, other: &Self) -> Ordering {
        let magnitude = || {
            let by_length = self.whole.len().cmp(&other.whole.len());
            by_length
                .then_with(|| self.whole.cmp(other.whole))
                .then_with(|| self.fraction.cmp(other.fraction))
        };
        match (self.negative, other.negative) {
            (false, false) => magnitude(),
            (true, true) => magnitude().reverse(),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(expectation: &str, value: &str) -> bool {
        expectation.parse::<Expectation>().unwrap().holds(value).unwrap()
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(holds("> 0", "1") && !holds("> 0", "0") && !holds("> 0", "-1"));
        assert!(holds("= 5", "5.00") && holds("5", "5") && !holds("= 5", "6"));
        assert!(holds(">= 1", "1") && holds(">9", "10") && holds("< 3", "-20"));
        assert!(holds("!= 0", "0.1") && !holds("!= 0", "-0"));
        assert!(holds("> 1.5", "1.50001") && holds("< 1e3", "999"));
        assert!(holds("== 5", "5") && holds("<> 5", "4"));
    }

    #[test]
    fn no_digit_of_a_large_number_is_lost() {
        assert!(holds(
            "> 12345678901234567890123456789",
            "12345678901234567890123456790"
        ));
        assert!(!holds("= 9007199254740993", "9007199254740992"));
    }

    #[test]
    fn booleans_and_texts_are_compared_as_such() {
        assert!(holds("true", "t") && holds("false", "false") && !holds("true", "f"));
        assert!(holds("done", "done") && holds("= done", "done") && holds("!= done", "open"));
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_an_error_and_not_a_mismatch() {
        assert!("> 0".parse::<Expectation>().unwrap().holds("many").is_err());
        assert!("true".parse::<Expectation>().unwrap().holds("1").is_err());
    }

    #[test]
    fn an_expectation_without_its_number_is_refused() {
        for text in ["", "> many", ">", "=", "< "] {
            assert!(text.parse::<Expectation>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        for text in ["> 0", "= 5", "true", "done", "!= open", "<> 7"] {
            let expectation: Expectation = text.parse().unwrap();
            assert_eq!(
                expectation.to_string().parse::<Expectation>().unwrap(),
                expectation
            );
        }
    }
}
