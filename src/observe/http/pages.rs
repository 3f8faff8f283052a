//! The pages themselves.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use super::{SharedProtection, Source, current};
use crate::observe::metrics;
use crate::observe::view::View;

const INDEX: &str = "<!doctype html>
<html lang=\"en\">
<title>Ernstfall</title>
<h1>Ernstfall</h1>
<ul>
<li><a href=\"/metrics\">/metrics</a>: for Prometheus
<li><a href=\"/api/v1/status\">/api/v1/status</a>: how every target stands, as JSON
<li><a href=\"/healthz\">/healthz</a>: whether the daemon lives
<li><a href=\"/readyz\">/readyz</a>: whether it has seen the repository
</ul>
</html>
";

/// Nothing is loaded, framed, guessed or kept.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

#[derive(Clone)]
struct Pages {
    source: Source,
    protection: SharedProtection,
    /// Folding years of records takes processor time: one answer at a time, so that backups keep theirs.
    turn: Arc<Semaphore>,
}

pub(super) fn router(source: Source, protection: SharedProtection) -> Router {
    let pages = Pages {
        source,
        protection,
        turn: Arc::new(Semaphore::new(1)),
    };
    let guarded = Router::new()
        .route("/", get(async || Html(INDEX)))
        .route("/metrics", get(show_metrics))
        .route("/api/v1/status", get(show_status))
        .route_layer(from_fn_with_state(pages.clone(), require_token));
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readiness))
        .merge(guarded)
        .fallback(async || (StatusCode::NOT_FOUND, "there is no such page\n"))
        .layer(map_response(with_headers))
        .with_state(pages)
}

async fn with_headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn require_token(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    if current(&pages.protection).admits(authorization.map(HeaderValue::as_bytes)) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"ernstfall\"")];
    let advice = "a token is needed: send `Authorization: Bearer TOKEN` with that of [http]\n";
    (StatusCode::UNAUTHORIZED, challenge, advice).into_response()
}

/// Ready once the whole repository was seen: from then on every number is true of that moment. That it is out of reach
/// later is an alert, and no reason to ask elsewhere. Neither tells a name: this page needs no token.
async fn readiness(State(pages): State<Pages>) -> (StatusCode, &'static str) {
    let gathered = pages.source.gathered.borrow();
    match (&gathered.repository_seen_at, &gathered.repository_fault) {
        (Some(_), _) => (StatusCode::OK, "ready\n"),
        (None, Some(_)) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the repository cannot be seen; /api/v1/status and the log say why\n",
        ),
        (None, None) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the repository has not been looked at yet\n",
        ),
    }
}

async fn show_metrics(State(pages): State<Pages>) -> Response {
    pages
        .answer(metrics::CONTENT_TYPE, |view| Ok(metrics::render(view)?))
        .await
}

async fn show_status(State(pages): State<Pages>) -> Response {
    let json = |view: &View| Ok(serde_json::to_string_pretty(view)? + "\n");
    pages.answer("application/json", json).await
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

impl Pages {
    async fn answer(
        &self,
        content_type: &'static str,
        write: impl FnOnce(&View) -> Result<String, Fault> + Send + 'static,
    ) -> Response {
        let gathered = Arc::clone(&self.source.gathered.borrow());
        let now = (self.source.clock)();
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        let written = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            write(&View::of(&gathered, now))
        });
        match written.await.unwrap_or_else(|panic| Err(panic.into())) {
            Ok(text) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
            Err(fault) => {
                tracing::error!("answer a request: {fault}");
                let advice = "a fault of the program: the log has it\n";
                (StatusCode::INTERNAL_SERVER_ERROR, advice).into_response()
            }
        }
    }
}
