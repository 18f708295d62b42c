//! Releases that are forgotten: a table beside the one that is read at every start.

use super::super::{Changes, FORGOTTEN_MAX, StoreError, Which};
use super::{document, json, signed};
use baton_core::fleet::past::Forgotten;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyPool, Transaction};
use std::cmp::Reverse;

/// Moves releases to where they belong after a pass: each stands in one of the two tables.
pub(super) async fn move_in(transaction: &mut Transaction<'_, Any>, changes: &Changes) -> Result<(), StoreError> {
    for id in changes.releases.keys() {
        sqlx::query("DELETE FROM forgotten WHERE id = $1").bind(id.to_string()).execute(&mut **transaction).await?;
    }
    for (id, forgotten) in &changes.forgotten {
        let text = "INSERT INTO forgotten (id, service, version, at, document) VALUES ($1, $2, $3, $4, $5)
                    ON CONFLICT (id) DO UPDATE SET at = excluded.at, document = excluded.document";
        sqlx::query(text)
            .bind(id.to_string())
            .bind(forgotten.release.service.as_str())
            .bind(forgotten.release.version.as_str())
            .bind(signed(forgotten.at.0))
            .bind(json(forgotten)?)
            .execute(&mut **transaction)
            .await?;
        sqlx::query("DELETE FROM releases WHERE id = $1").bind(id.to_string()).execute(&mut **transaction).await?;
    }
    Ok(())
}

pub(super) async fn find(pool: &AnyPool, which: &Which) -> Result<Vec<Forgotten>, StoreError> {
    let most = i64::try_from(FORGOTTEN_MAX).unwrap_or(i64::MAX);
    let rows: Vec<AnyRow> = match which {
        Which::Ids(ids) => {
            let mut rows = Vec::new();
            let text = "SELECT document FROM forgotten WHERE id = $1";
            for id in ids.iter().take(FORGOTTEN_MAX) {
                rows.extend(sqlx::query(text).bind(id.to_string()).fetch_optional(pool).await?);
            }
            rows
        }
        Which::Called(service, version) => {
            let text = "SELECT document FROM forgotten WHERE service = $1 AND version = $2
                        ORDER BY at DESC, id DESC LIMIT $3";
            sqlx::query(text).bind(service.as_str()).bind(version.as_str()).bind(most).fetch_all(pool).await?
        }
        Which::Of(service) => {
            let text = "SELECT document FROM forgotten WHERE $1 = '' OR service = $2 ORDER BY at DESC, id DESC LIMIT $3";
            let service = service.as_ref().map_or("", baton_core::name::ServiceName::as_str);
            sqlx::query(text).bind(service).bind(service).bind(most).fetch_all(pool).await?
        }
    };
    let mut found: Vec<Forgotten> = rows.iter().map(|row| document(row, 0)).collect::<Result<_, _>>()?;
    found.sort_by_key(|it| Reverse((it.at, it.release.id().to_string())));
    Ok(found)
}
