//! Rollouts: those that are under way, and all that were.

use super::super::{About, Changes, Dated, StoreError, WallTime};
use super::{document, json, signed};
use baton_core::name::{RolloutId, ServiceName};
use baton_core::rollout::Rollout;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyPool, Row, Transaction};

/// Active rollouts, and the one of each service that ended last.
pub(super) const LIVE: &str = "
SELECT document FROM rollouts AS this WHERE active = 1 OR NOT EXISTS (
    SELECT 1 FROM rollouts AS other WHERE other.service = this.service AND other.active = 0
        AND (other.ended > this.ended OR (other.ended = this.ended AND other.id > this.id)))";

/// Writes those of a pass; the ones that end make room for those that begin.
pub(super) async fn put(transaction: &mut Transaction<'_, Any>, changes: &Changes) -> Result<(), StoreError> {
    let (active, ended): (Vec<_>, Vec<_>) = changes.rollouts.values().partition(|rollout| rollout.state.is_active());
    for rollout in ended.into_iter().chain(active) {
        one(transaction, rollout, changes.at).await?;
    }
    Ok(())
}

async fn one(transaction: &mut Transaction<'_, Any>, rollout: &Rollout, at: WallTime) -> Result<(), StoreError> {
    let text = "INSERT INTO rollouts (id, service, active, ended, document, ended_at) VALUES ($1, $2, $3, $4, $5, $6)
                ON CONFLICT (id) DO UPDATE
                SET active = excluded.active, ended = excluded.ended, document = excluded.document,
                ended_at = CASE WHEN rollouts.active + excluded.active > 0 THEN excluded.ended_at ELSE rollouts.ended_at END";
    let is_active = rollout.state.is_active();
    let query = sqlx::query(text)
        .bind(rollout.id.as_str())
        .bind(rollout.service.as_str())
        .bind(i64::from(is_active))
        .bind(signed(rollout.ended.unwrap_or_default().0))
        .bind(json(rollout)?)
        .bind(if is_active { 0 } else { at.0 });
    match query.execute(&mut **transaction).await {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
            Err(StoreError::ActiveRollout(ServiceName::clone(&rollout.service)))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn history(pool: &AnyPool, about: &About) -> Result<Vec<Dated>, StoreError> {
    let text = "SELECT document, ended_at FROM rollouts WHERE ($1 = '' OR service = $2) AND ($3 = '' OR id = $4)
                ORDER BY active DESC, ended DESC, id DESC LIMIT $5";
    let service = about.service.as_ref().map_or("", ServiceName::as_str);
    let rollout = about.rollout.as_ref().map_or("", RolloutId::as_str);
    let query = sqlx::query(text).bind(service).bind(service).bind(rollout).bind(rollout).bind(i64::from(about.limit));
    query.fetch_all(pool).await?.iter().map(dated).collect()
}

fn dated(row: &AnyRow) -> Result<Dated, StoreError> {
    let ended: i64 = row.try_get(1)?;
    Ok(Dated { rollout: document(row, 0)?, ended: Some(WallTime(ended)).filter(|ended| ended.0 != 0) })
}
