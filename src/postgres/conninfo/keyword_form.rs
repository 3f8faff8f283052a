//! The keyword form: `host=db.example.com password='a b\'c'`.
//!
//! Errors name positions, not words: a word out of place is often a part of a password.

use super::ConninfoError;
use super::keyword::{self, Parameters};
use std::iter::Peekable;
use std::str::Chars;

pub(super) fn parse(text: &str) -> Result<Parameters, ConninfoError> {
    let mut parameters = Parameters::new();
    let mut characters = text.chars().peekable();
    let mut position = 0;
    loop {
        skip_space(&mut characters);
        if characters.peek().is_none() {
            return Ok(parameters);
        }
        position += 1;
        let name = read_name(&mut characters);
        skip_space(&mut characters);
        if characters.next_if_eq(&'=').is_none() {
            return Err(malformed(
                position,
                "has no `=`; a value with spaces is written 'in single quotes'",
            ));
        }
        if name.is_empty() {
            return Err(malformed(
                position,
                "has no name before its `=`; a value with `=` or spaces is quoted",
            ));
        }
        skip_space(&mut characters);
        let value = match characters.next_if_eq(&'\'') {
            Some(_) => read_quoted(&mut characters)
                .ok_or_else(|| malformed(position, "has a quoted value without its closing quote"))?,
            None => read_plain(&mut characters),
        };
        keyword::store(&mut parameters, &name, value)?;
    }
}

fn malformed(position: usize, fault: &str) -> ConninfoError {
    ConninfoError::Malformed {
        fault: format!("parameter {position} of the connection string {fault}"),
    }
}

fn skip_space(characters: &mut Peekable<Chars<'_>>) {
    while characters
        .next_if(|character| character.is_ascii_whitespace())
        .is_some()
    {}
}

fn read_name(characters: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(character) =
        characters.next_if(|character| *character != '=' && !character.is_ascii_whitespace())
    {
        name.push(character);
    }
    name
}

fn read_plain(characters: &mut Peekable<Chars<'_>>) -> String {
    let mut value = String::new();
    while let Some(character) = characters.next_if(|character| !character.is_ascii_whitespace()) {
        // As in libpq a backslash takes the next character as it is; at the very end it stands for nothing.
        match character {
            '\\' => value.extend(characters.next()),
            _ => value.push(character),
        }
    }
    value
}

fn read_quoted(characters: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut value = String::new();
    loop {
        match characters.next()? {
            '\'' => return Some(value),
            '\\' => value.push(characters.next()?),
            character => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(&'static str, String)> {
        parse(text).unwrap().into_iter().collect()
    }

    fn pair(name: &'static str, value: &str) -> (&'static str, String) {
        (name, value.to_owned())
    }

    #[test]
    fn the_documented_example_is_read() {
        assert_eq!(
            pairs("host=localhost port=5432 dbname=mydb connect_timeout=10"),
            [
                pair("connect_timeout", "10"),
                pair("dbname", "mydb"),
                pair("host", "localhost"),
                pair("port", "5432")
            ]
        );
    }

    #[test]
    fn spaces_around_the_equals_sign_are_optional() {
        assert_eq!(
            pairs("  host = a\tuser= b\n"),
            [pair("host", "a"), pair("user", "b")]
        );
    }

    #[test]
    fn quotes_and_backslashes_are_taken_as_libpq_does() {
        assert_eq!(pairs(r"password='a b\'c\\d'"), [pair("password", r"a b'c\d")]);
        assert_eq!(pairs(r"password=a\ b\'c"), [pair("password", "a b'c")]);
        assert_eq!(pairs("host='' user=x"), [pair("host", ""), pair("user", "x")]);
        assert_eq!(pairs("password=a'b"), [pair("password", "a'b")]);
    }

    #[test]
    fn the_last_of_two_equal_names_holds() {
        assert_eq!(pairs("user=a user=b"), [pair("user", "b")]);
    }

    #[test]
    fn faults_are_told_without_any_part_of_a_password() {
        for text in [
            "password=open sesame",
            "password='open sesame",
            "password=x =sesame",
            r"password='sesame\",
        ] {
            let Err(error) = parse(text) else {
                panic!("{text} was accepted")
            };
            assert!(!error.to_string().contains("sesame"), "{error}");
        }
    }

    #[test]
    fn an_unknown_name_is_told() {
        let Err(error) = parse("hots=db") else {
            panic!("accepted")
        };
        assert!(error.to_string().contains("`hots`"), "{error}");
    }
}
