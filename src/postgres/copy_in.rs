//! Loading rows as COPY text.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::CopyInSink;

use super::error::Error;
use super::session::Session;

/// A COPY FROM in progress. Dropped before `finish`, it is rolled back by the server.
pub struct CopyIn {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    tried: String,
    on: String,
}

/// Begins `COPY … FROM stdin`.
pub async fn begin(session: &Session, statement: &str) -> Result<CopyIn, Error> {
    let tried = format!("load rows with {statement}");
    match session.copy_in(statement).await {
        Ok(sink) => Ok(CopyIn {
            sink: Box::pin(sink),
            tried,
            on: session.description().to_owned(),
        }),
        Err(source) => Err(Error::query(tried, session.description(), source)),
    }
}

impl CopyIn {
    /// Sends whole rows, each with its line feed.
    pub async fn send(&mut self, rows: Bytes) -> Result<(), Error> {
        let sent = self.sink.send(rows).await;
        sent.map_err(|source| Error::query(self.tried.clone(), &self.on, source))
    }

    /// Ends the rows. Returns how many the server took.
    pub async fn finish(mut self) -> Result<u64, Error> {
        let finished = self.sink.as_mut().finish().await;
        finished.map_err(|source| Error::query(self.tried.clone(), &self.on, source))
    }
}
