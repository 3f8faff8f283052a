//! Time zones by their IANA names. With `schedule`, the only file that names `chrono_tz`.

pub use chrono_tz::Tz;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeZoneError {
    #[error("{0:?} is not a time zone: write an IANA name such as \"Europe/Berlin\" or \"UTC\"")]
    Unknown(String),
    #[error("{0:?} is not a time zone: did you mean {1:?}?")]
    Misspelt(String, &'static str),
}

/// Reads a name as it stands in the IANA database. A different case is refused, but the right one is named.
pub fn parse(text: &str) -> Result<Tz, TimeZoneError> {
    text.parse().map_err(|_| {
        let city_matches = |name: &str| {
            name.rsplit('/')
                .next()
                .is_some_and(|city| city.eq_ignore_ascii_case(text))
        };
        let names = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
        let near = names()
            .find(|name| name.eq_ignore_ascii_case(text))
            .or_else(|| names().find(|name| name.contains('/') && city_matches(name)));
        match near {
            Some(name) => TimeZoneError::Misspelt(text.to_owned(), name),
            None => TimeZoneError::Unknown(text.to_owned()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_iana_database() {
        assert_eq!(parse("Europe/Berlin").unwrap(), Tz::Europe__Berlin);
        assert_eq!(parse("UTC").unwrap(), Tz::UTC);
    }

    #[test]
    fn near_misses_are_named() {
        for text in ["europe/berlin", "Berlin"] {
            assert_eq!(
                parse(text).unwrap_err(),
                TimeZoneError::Misspelt(text.to_owned(), "Europe/Berlin")
            );
        }
        assert_eq!(
            parse("Mars").unwrap_err(),
            TimeZoneError::Unknown("Mars".to_owned())
        );
    }
}
