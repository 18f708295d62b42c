//! The tables, as steps that each run once.
//!
//! Documents are the JSON of core's types; what a query or a constraint needs stands in a column beside them. The text is
//! plain enough for SQLite and PostgreSQL alike.

use super::StoreError;
use sqlx::{AnyConnection, Connection, Row};

/// Each runs once, in order, in a transaction of its own. Never edit one that was released: add one.
const STEPS: &[&str] = &[
    "
CREATE TABLE driver (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    epoch BIGINT NOT NULL,
    moment BIGINT NOT NULL,
    sequence BIGINT NOT NULL
);
INSERT INTO driver (id, epoch, moment, sequence) VALUES (1, 0, 0, 0);
CREATE TABLE hosts (name TEXT PRIMARY KEY, address TEXT NOT NULL, issued TEXT NOT NULL);
CREATE TABLE services (name TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE releases (id TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE rollouts (
    id TEXT PRIMARY KEY,
    service TEXT NOT NULL,
    active BIGINT NOT NULL,
    ended BIGINT NOT NULL,
    document TEXT NOT NULL
);
CREATE UNIQUE INDEX one_active_rollout ON rollouts (service) WHERE active = 1;
CREATE INDEX rollouts_by_end ON rollouts (service, ended);
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    secret_hash TEXT NOT NULL UNIQUE,
    admits TEXT NOT NULL,
    names TEXT NOT NULL,
    uses_left BIGINT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);
CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    token TEXT NOT NULL,
    issued BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT NOT NULL
);
CREATE INDEX certificates_by_identity ON certificates (identity);
",
    "
ALTER TABLE tokens ADD COLUMN services TEXT NOT NULL DEFAULT '[]';
ALTER TABLE tokens ADD COLUMN life BIGINT NOT NULL DEFAULT 0;
CREATE TABLE audit (number BIGINT PRIMARY KEY, at BIGINT NOT NULL, entry TEXT NOT NULL, hash TEXT NOT NULL);
",
    "
ALTER TABLE hosts ADD COLUMN maintenance TEXT NOT NULL DEFAULT 'null';
ALTER TABLE driver ADD COLUMN freeze TEXT NOT NULL DEFAULT 'null';
",
    "
ALTER TABLE hosts ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
",
    "
ALTER TABLE driver ADD COLUMN fence TEXT NOT NULL DEFAULT 'null';
",
    "
ALTER TABLE hosts ADD COLUMN dead_balancer TEXT NOT NULL DEFAULT 'null';
",
    "
ALTER TABLE certificates ADD COLUMN authority TEXT NOT NULL DEFAULT '';
ALTER TABLE certificates ADD COLUMN used BIGINT NOT NULL DEFAULT 0;
",
    "
ALTER TABLE hosts ADD COLUMN accepted BIGINT NOT NULL DEFAULT 1;
",
    "
ALTER TABLE driver ADD COLUMN upgrade TEXT NOT NULL DEFAULT 'null';
",
    "
CREATE TABLE forgotten (
    id TEXT PRIMARY KEY,
    service TEXT NOT NULL,
    version TEXT NOT NULL,
    at BIGINT NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX forgotten_by_version ON forgotten (service, version);
CREATE INDEX forgotten_by_time ON forgotten (at);
",
    "
ALTER TABLE driver ADD COLUMN reboot TEXT NOT NULL DEFAULT 'null';
",
    "
ALTER TABLE rollouts ADD COLUMN ended_at BIGINT NOT NULL DEFAULT 0;
",
];

/// Brings the tables to this version's shape.
///
/// # Errors
/// [`StoreError::Unreadable`] when a newer version wrote the store.
pub(super) async fn migrate(connection: &mut AnyConnection) -> Result<(), StoreError> {
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS schema (step BIGINT PRIMARY KEY)").execute(&mut *connection).await?;
    let row = sqlx::query("SELECT COUNT(*) FROM schema").fetch_one(&mut *connection).await?;
    let done = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
    if done > STEPS.len() {
        return Err(StoreError::Unreadable(format!("its schema is at step {done}, this version knows {}", STEPS.len())));
    }
    for (step, text) in STEPS.iter().enumerate().skip(done) {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(*text).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO schema (step) VALUES ($1)")
            .bind(i64::try_from(step).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    Ok(())
}
