//! A file that makes the body of a webhook: Jinja, with the alert as variables.
//!
//! It is tried when it is loaded: a template that fails is found at once, and not by the alert that it loses.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

use crate::alert::facts::Facts;
use crate::alert::message::{ALERT_NAME, Message, TEST};
use crate::model::alert_record::AlertState;
use crate::model::secret::Secret;

/// The name under which the library knows it; its errors show it before the line.
const NAME: &str = "template";

/// A template that was tried.
pub struct Template {
    file: PathBuf,
    environment: Environment<'static>,
    is_json: bool,
}

/// Why a template cannot be used. Its text has neither what the template holds nor what it makes.
#[derive(Debug)]
pub struct TemplateError {
    file: PathBuf,
    reason: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "template {}: {}", self.file.display(), self.reason)
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// Reads the file, and tries it on alerts of each kind. `values` are the names that it has beside the alert.
    ///
    /// # Errors
    /// It cannot be read, or is no template, or uses what is not there, or makes no JSON though its name says so.
    pub fn load(file: &Path, values: &[String]) -> Result<Self, TemplateError> {
        let failed = |reason: String| TemplateError {
            file: file.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        let is_json = [".json", ".json.j2"]
            .iter()
            .any(|end| file.to_string_lossy().ends_with(end));
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(move |_| match is_json {
            true => AutoEscape::Json,
            false => AutoEscape::None,
        });
        environment
            .add_template_owned(NAME, text)
            .map_err(|error| failed(in_words(&error)))?;
        let template = Self {
            file: file.to_owned(),
            environment,
            is_json,
        };
        let values = values
            .iter()
            .map(|name| (name.clone(), Secret::new("a secret")))
            .collect();
        for message in examples() {
            template.render(&Facts::of(&message), &values)?;
        }
        Ok(template)
    }

    pub(super) fn content_type(&self) -> &'static str {
        if self.is_json {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        }
    }

    /// The body for an alert.
    ///
    /// # Errors
    /// The template uses what is not there, or makes no JSON though its name says so.
    pub(super) fn render(
        &self,
        facts: &Facts<'_>,
        values: &BTreeMap<String, Secret>,
    ) -> Result<String, TemplateError> {
        let failed = |reason: String| TemplateError {
            file: self.file.clone(),
            reason,
        };
        let values: BTreeMap<&str, &str> = values
            .iter()
            .map(|(name, secret)| (name.as_str(), secret.expose()))
            .collect();
        let values = Value::from_serialize(&values);
        let variables = context! { values, ..Value::from_serialize(facts) };
        let template = self.environment.get_template(NAME);
        let body = template
            .and_then(|template| template.render(variables))
            .map_err(|error| failed(in_words(&error)))?;
        if self.is_json {
            serde_json::from_str::<serde::de::IgnoredAny>(&body).map_err(|error| {
                failed(format!(
                    "what it makes is not JSON ({error}); write {{{{ summary }}}} without quotes around it: texts come with their own"
                ))
            })?;
        }
        Ok(body)
    }
}

/// What is wrong, and where; with a hint for the usual mistake.
fn in_words(error: &minijinja::Error) -> String {
    let line = error
        .line()
        .map(|line| format!("line {line}: "))
        .unwrap_or_default();
    let detail = error
        .detail()
        .map(|detail| format!(": {detail}"))
        .unwrap_or_default();
    let hint = match error.kind() {
        minijinja::ErrorKind::UndefinedError => {
            "; it is not there, or not with every alert: correct its name, or write `| default(\"\")` behind it"
        }
        _ => "",
    };
    format!("{line}{}{detail}{hint}", error.kind())
}

/// An alert about a target, the same once it is resolved, and a test about no target.
fn examples() -> [Message; 3] {
    let labels = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect::<BTreeMap<_, _>>()
    };
    let since = DateTime::UNIX_EPOCH;
    let firing = Message {
        labels: labels(&[
            (ALERT_NAME, "ErnstfallRpoMissed"),
            ("severity", "critical"),
            ("target", "shop"),
            ("environment", "production"),
            ("owner", "commerce"),
        ]),
        state: AlertState::Firing,
        summary: "shop: more would be lost than the RPO allows".to_owned(),
        description: "Two\nlines with a \"quote\" and a \\ in them.".to_owned(),
        runbook_url: "https://example.org/runbook#ernstfallrpomissed".to_owned(),
        since,
        resolved_at: None,
        reminder: false,
    };
    let resolved = Message {
        state: AlertState::Resolved,
        resolved_at: Some(since),
        ..firing.clone()
    };
    let test = Message {
        labels: labels(&[
            (ALERT_NAME, "ErnstfallTest"),
            ("severity", "info"),
            (TEST, "true"),
        ]),
        ..firing.clone()
    };
    [firing, resolved, test]
}
