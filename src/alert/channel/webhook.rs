//! A request to an address of the operator's choice.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::template::Template;
use super::{Channel, Failure, Receipt};
use crate::alert::facts::Facts;
use crate::alert::http::Receiver;
use crate::alert::late::Late;
use crate::alert::message::Message;
use crate::model::secret::Secret;

/// Where alerts are posted.
pub struct Webhook {
    addressee: Late<Addressee>,
    template: Option<Template>,
}

/// Who is told, and what only they may know.
pub struct Addressee {
    pub receiver: Receiver,
    /// What a template has beside the alert, by name.
    pub values: BTreeMap<String, Secret>,
}

impl Webhook {
    /// Without a template the alert is sent as JSON.
    pub fn new(addressee: Late<Addressee>, template: Option<Template>) -> Self {
        Self { addressee, template }
    }
}

#[async_trait]
impl Channel for Webhook {
    async fn prepare(&self) -> Result<(), Failure> {
        self.addressee.get().await?;
        Ok(())
    }

    async fn deliver(&self, message: &Message, _now: DateTime<Utc>) -> Result<Receipt, Failure> {
        let addressee = self.addressee.get().await?;
        let facts = Facts::of(message);
        let receiver = &addressee.receiver;
        let (content_type, body) = match &self.template {
            Some(template) => {
                let body = template.render(&facts, &addressee.values);
                // What is wrong with a value may be told with the value.
                let body = body.map_err(|error| Failure::lasts(receiver.star_out(&error.to_string())));
                (template.content_type(), body?)
            }
            None => ("application/json", facts.to_json()),
        };
        let answer = receiver.post(receiver.url().clone(), content_type, body).await?;
        Ok(Receipt(answer.status))
    }
}
