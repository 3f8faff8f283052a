//! Filling the materialised views of a restored database.

use crate::model::contents::Contents;
use crate::postgres::identifier::qualified;
use crate::postgres::session::Session;
use crate::postgres::silence::Silence;

use super::RestoreError;

/// Refreshes the materialised views that were populated. One that reads another has to wait for it: so it goes in
/// rounds, and ends when a round brings nothing new.
pub(super) async fn refresh(
    session: &Session,
    silence: &Silence,
    contents: &Contents,
) -> Result<(), RestoreError> {
    let mut left: Vec<String> = contents
        .materialized_views
        .iter()
        .filter(|view| view.populated)
        .map(|view| qualified(&view.schema, &view.name))
        .collect();
    while !left.is_empty() {
        let mut failed = Vec::new();
        let mut reason = None;
        for name in &left {
            match session
                .batch(
                    &format!("refresh {name}"),
                    &silence.around(&format!("REFRESH MATERIALIZED VIEW {name}")),
                )
                .await
            {
                Ok(()) => {}
                // Object not in prerequisite state: it reads a view that is not populated yet.
                Err(error) if error.sqlstate() == Some("55000") => {
                    reason = Some(error.to_string());
                    failed.push(name.clone());
                }
                Err(error) if error.is_environment() => return Err(error.into()),
                Err(error) if error.sqlstate() == Some("42501") => {
                    return Err(RestoreError::RefreshDenied(error.to_string()));
                }
                Err(error) => return Err(RestoreError::Refresh(error.to_string())),
            }
        }
        if failed.len() == left.len() {
            return Err(RestoreError::Refresh(reason.unwrap_or_default()));
        }
        left = failed;
    }
    Ok(())
}
