//! Receivers that are reached by HTTP: one request, and what its answer means for a delivery.
//!
//! Redirects are not followed: the body would get lost, or go to a stranger together with the token. An address may hold
//! a token itself, so that only scheme and host are ever shown of it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use super::authorities;
use super::channel::Failure;
use super::redaction::Redaction;
use crate::model::causes::chain;
use crate::model::secret::Secret;

/// Nobody asks us for longer: alerts are urgent.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// Of an answer that is read, no more is kept.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Of an answer that is only quoted, no more is read,
const MAX_FAULT_BYTES: usize = 16 << 10;
/// and for no longer: its status says what matters.
const FAULT_TIME: Duration = Duration::from_secs(1);

const USER_AGENT: &str = concat!("ernstfall/", env!("CARGO_PKG_VERSION"));

/// Who is to be reached, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    pub url: Secret,
    /// Sent as bearer token.
    pub token: Option<Secret>,
    pub headers: Vec<(String, Secret)>,
    /// Authorities that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Secrets of the body: no error quotes them.
    pub in_body: Vec<Secret>,
}

/// Somebody who is reached by HTTP.
pub struct Receiver {
    client: Client,
    url: Url,
    headers: HeaderMap,
    /// Scheme and host, for people.
    shown: String,
    redaction: Redaction,
}

/// What an answer said.
pub struct Answer {
    /// `202 Accepted`
    pub status: String,
    response: Response,
}

impl Receiver {
    /// Reads the file of authorities, which blocks. Nothing is sent yet.
    ///
    /// # Errors
    /// A setting cannot be used; it is named, without its secret.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let url = Url::parse(settings.url.expose());
        // The library's error may quote the address.
        let url = url
            .ok()
            .filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
        let url = url.ok_or_else(|| {
            Failure::lasts("the URL is not an address: write http:// or https://, the host and the path")
        })?;
        let mut redaction = Redaction::default();
        redaction.add_url(&url);
        let secrets = settings.token.iter().chain(&settings.in_body);
        let header_values = settings.headers.iter().map(|(_, value)| value);
        secrets
            .chain(header_values)
            .for_each(|secret| redaction.add(secret));
        let client = Client::builder()
            .tls_backend_preconfigured(authorities::client(settings.ca_file.as_deref())?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(USER_AGENT)
            // Messages are rare: a connection kept for the next one would be dead by then, and nobody would know.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| Failure::lasts(format!("set up HTTP: {}", chain(&error.without_url()))))?;
        Ok(Self {
            client,
            headers: headers(settings)?,
            shown: shown(&url),
            url,
            redaction,
        })
    }

    /// The receiver's own address.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Its address with more of a path, before what follows `?`.
    pub fn url_below(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{path}", self.url.path().trim_end_matches('/')));
        url
    }

    /// A text with stars in place of this receiver's secrets.
    pub(super) fn star_out(&self, text: &str) -> String {
        self.redaction.star_out(text)
    }

    /// Sends a body.
    ///
    /// # Errors
    /// The answer is not a good one, or there is none. The receiver may have got it nevertheless.
    pub(super) async fn post(&self, url: Url, content_type: &str, body: String) -> Result<Answer, Failure> {
        let request = self.client.request(Method::POST, url).body(body);
        self.send("POST", request.header(CONTENT_TYPE, content_type))
            .await
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The answer is not a good one, or there is none.
    pub async fn get(&self, url: Url) -> Result<Answer, Failure> {
        self.send("GET", self.client.request(Method::GET, url)).await
    }

    /// The whole of an answer as text.
    ///
    /// # Errors
    /// It is broken off, or longer than 4 MiB.
    pub async fn text(&self, answer: Answer) -> Result<String, Failure> {
        let mut text = Vec::new();
        let mut response = answer.response;
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| self.unreachable("read from", error))?
        {
            if text.len() + piece.len() > MAX_ANSWER_BYTES {
                return Err(Failure::lasts(format!(
                    "{} answers with more than 4 MiB: check the URL",
                    self.shown
                )));
            }
            text.extend_from_slice(&piece);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn send(&self, verb: &str, request: RequestBuilder) -> Result<Answer, Failure> {
        let sent = request.headers(self.headers.clone()).send().await;
        let response = sent.map_err(|error| self.unreachable(verb, error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Answer {
                status: in_words(status),
                response,
            });
        }
        if status.is_redirection() {
            return Err(self.redirected(verb, &response));
        }
        Err(self.refused(verb, response).await)
    }

    fn unreachable(&self, verb: &str, error: reqwest::Error) -> Failure {
        let error = error.without_url();
        let why = self.redaction.quote(&chain(&error));
        let tried = format!("{verb} {}", self.shown);
        if authorities::is_about_certificate(&error) {
            return Failure::lasts(format!(
                "{tried}: {why}; name the authority that signed the server's certificate as `ca_file`, or correct the URL"
            ));
        }
        Failure::may_pass(format!(
            "{tried}: {why}; check the URL, and that the server can be reached from here"
        ))
    }

    fn redirected(&self, verb: &str, response: &Response) -> Failure {
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        let target = location.and_then(|location| response.url().join(location).ok());
        let target = target.map_or_else(
            || "nowhere".to_owned(),
            |url| format!("to {}{}", shown(&url), self.redaction.quote(url.path())),
        );
        Failure::lasts(format!(
            "{verb} {}: {} sends on {target}, which is not followed: a token would go there as well; correct the URL",
            self.shown,
            in_words(response.status())
        ))
    }

    async fn refused(&self, verb: &str, response: Response) -> Failure {
        let status = response.status();
        let retry_after = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                retry_after(response.headers())
            }
            _ => None,
        };
        let said = match self.redaction.quote(&beginning(response).await) {
            said if said.is_empty() => "nothing".to_owned(),
            said => format!("\"{said}\""),
        };
        let may_pass = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        Failure {
            reason: format!(
                "{verb} {}: {}, and it said {said}; {}",
                self.shown,
                in_words(status),
                advice(status)
            ),
            retry_after,
            lasting: !may_pass,
        }
    }
}

fn headers(settings: &Settings) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let value = |text: &str, key: &str| {
        let mut value = HeaderValue::from_str(text).map_err(|_| {
            Failure::lasts(format!(
                "`{key}` cannot be sent: it holds a newline or another control character"
            ))
        })?;
        value.set_sensitive(true);
        Ok(value)
    };
    for (name, secret) in &settings.headers {
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            Failure::lasts(format!(
                "`headers` has {name:?}, which is not the name of a header"
            ))
        })?;
        headers.insert(header, value(secret.expose(), &format!("headers.{name}"))?);
    }
    if let Some(token) = &settings.token {
        headers.insert(
            AUTHORIZATION,
            value(&format!("Bearer {}", token.expose()), "token")?,
        );
    }
    Ok(headers)
}

/// Scheme, host and port.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

fn in_words(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "check the token, and what it allows",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::GONE => "check the URL",
        StatusCode::TOO_MANY_REQUESTS => "it wants to be asked less often",
        status if status.is_server_error() => "look at the receiver's own log",
        _ => "correct what it complains of",
    }
}

/// Seconds, or a moment on the clock of the receiver, which is taken from the same answer.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let asked = text(RETRY_AFTER)?.trim();
    let duration = match asked.parse().ok() {
        Some(seconds) => Duration::from_secs(seconds),
        None => {
            let moment = |text: &str| DateTime::parse_from_rfc2822(text.trim()).ok();
            (moment(asked)? - moment(text(DATE)?)?).to_std().ok()?
        }
    };
    Some(duration.min(MAX_RETRY_AFTER))
}

/// What can be had quickly of an answer's text.
async fn beginning(mut response: Response) -> String {
    let mut text = Vec::new();
    let read = async {
        while text.len() < MAX_FAULT_BYTES {
            // What came before it broke off is still worth showing.
            let Ok(Some(piece)) = response.chunk().await else {
                break;
            };
            let piece: Bytes = piece;
            text.extend_from_slice(&piece);
        }
    };
    // The same holds for what came in time.
    let _ = tokio::time::timeout(FAULT_TIME, read).await;
    String::from_utf8_lossy(&text).into_owned()
}
