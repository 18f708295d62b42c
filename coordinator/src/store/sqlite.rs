//! The store in one SQLite file.
//!
//! Written ahead (WAL) and synced on every commit (`synchronous=FULL`): the price of "durable before it is sent" is one
//! `fsync` a transaction, and a pass of the driver is one transaction. One connection: SQLite has one writer anyway, and
//! so transactions never meet `SQLITE_BUSY`.

mod certificates;
mod past;
mod rollouts;
#[cfg(test)]
mod tests;

use super::certificate::{Certificate, Renewal};
use super::token::{Admits, Had, Redeemed, Redemption, Token, TokenId};
use super::{About, Changes, Dated, HostRecord, Snapshot, Store, StoreError, Thaw, WallTime, Which, connection, schema};
use crate::audit::chain::{Entry, Head, Record};
use baton_core::fleet::past::Forgotten;
use baton_core::name::{Digest, Epoch, ServiceName};
use baton_core::reboot::Reboot;
use baton_core::rollout::Rollout;
use baton_core::time::Moment;
use baton_core::upgrade::Upgrade;
use baton_proto::identity::Identity;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::AnyPool;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, Row, Transaction};
use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

/// How long an expired token is still called expired instead of unknown, in seconds: a week.
const TOKEN_MEMORY: i64 = 7 * 24 * 3600;

/// The store of a coordinator that has a disk of its own.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: AnyPool,
}

impl SqliteStore {
    /// Writes a document of a writer of its own, where it still holds the epoch.
    async fn keep(&self, text: &'static str, held: Epoch, document: String) -> Result<(), StoreError> {
        let query = sqlx::query(text).bind(document).bind(signed(held.0));
        if query.execute(&self.pool).await?.rows_affected() == 1 {
            return Ok(());
        }
        let row = sqlx::query("SELECT epoch FROM driver").fetch_one(&self.pool).await?;
        Err(StoreError::Fenced { held, found: Epoch(unsigned(&row, 0)?) })
    }

    /// Opens the file, made and brought to this version's shape where needed.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be opened, or a newer version wrote it.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let pool = connection::pool(path).await?;
        schema::migrate(&mut *pool.acquire().await?).await?;
        Ok(Self { pool })
    }

    /// Appends one entry to the audit log of a store that nobody drives. Its shape stays what it is, also an older one.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read or written.
    pub async fn append_alone(path: &Path, at: WallTime, entry: &Entry) -> Result<Head, StoreError> {
        if !path.exists() {
            return Err(StoreError::Unavailable(format!("{} is not there", path.display())));
        }
        let store = Self { pool: connection::pool(path).await? };
        let appended = store.append(at, entry).await;
        store.close().await;
        appended
    }

    /// Writes a copy of a store as it is at one moment, also while a coordinator writes it. Nothing of the store changes.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read, or the copy not be written.
    pub async fn copy(from: &Path, to: &str) -> Result<(), StoreError> {
        if !from.exists() {
            return Err(StoreError::Unavailable(format!("{} is not there", from.display())));
        }
        let store = Self { pool: connection::pool(from).await? };
        let copied = sqlx::query("VACUUM INTO $1").bind(to).execute(&store.pool).await;
        store.close().await;
        Ok(copied.map(drop)?)
    }

    /// Closes the file once what is under way has ended.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

#[tonic::async_trait]
impl Store for SqliteStore {
    async fn load(&self) -> Result<Snapshot, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let driver =
            sqlx::query("SELECT epoch, moment, sequence, freeze, fence FROM driver").fetch_one(&mut *transaction).await?;
        let mut snapshot = Snapshot {
            epoch: Epoch(unsigned(&driver, 0)?),
            moment: Moment(unsigned(&driver, 1)?),
            sequence: unsigned(&driver, 2)?,
            freeze: document(&driver, 3)?,
            fence: document(&driver, 4)?,
            ..Snapshot::default()
        };
        for row in
            rows(&mut transaction, "SELECT name, address, issued, maintenance, dead_balancer, labels, accepted FROM hosts")
                .await?
        {
            let record = HostRecord {
                address: parsed(&row, 1)?,
                issued: document(&row, 2)?,
                maintenance: document(&row, 3)?,
                dead_balancer: document(&row, 4)?,
                labels: document(&row, 5)?,
                accepted: row.try_get::<i64, _>(6)? != 0,
            };
            snapshot.hosts.insert(parsed(&row, 0)?, record);
        }
        for row in rows(&mut transaction, "SELECT name, document FROM services").await? {
            snapshot.services.insert(parsed(&row, 0)?, document(&row, 1)?);
        }
        for row in rows(&mut transaction, "SELECT id, document FROM releases").await? {
            let release: baton_core::release::Release = document(&row, 1)?;
            let id: String = row.try_get(0)?;
            if release.id().to_string() != id {
                return Err(StoreError::Unreadable(format!("release {id} is not what its digest says")));
            }
            snapshot.releases.insert(release.id(), release.into());
        }
        for row in rows(&mut transaction, rollouts::LIVE).await? {
            let rollout: Rollout = document(&row, 0)?;
            snapshot.rollouts.insert(rollout.id.clone(), rollout);
        }
        for row in rows(&mut transaction, "SELECT serial FROM certificates WHERE revoked = 1").await? {
            snapshot.revoked.insert(row.try_get(0)?);
        }
        Ok(snapshot)
    }

    async fn commit(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let fenced = sqlx::query("UPDATE driver SET epoch = $1, moment = $2, sequence = $3 WHERE epoch = $4")
            .bind(signed(changes.epoch.0))
            .bind(signed(changes.moment.0))
            .bind(signed(changes.sequence))
            .bind(signed(changes.held.0))
            .execute(&mut *transaction)
            .await?;
        if fenced.rows_affected() != 1 {
            let row = sqlx::query("SELECT epoch FROM driver").fetch_one(&mut *transaction).await?;
            return Err(StoreError::Fenced { held: changes.held, found: Epoch(unsigned(&row, 0)?) });
        }
        for (name, record) in &changes.hosts {
            let text = "INSERT INTO hosts (name, address, issued, maintenance, dead_balancer, labels, accepted)
                        VALUES ($1, $2, $3, $4, $5, $6, $7)
                        ON CONFLICT (name) DO UPDATE SET address = excluded.address, issued = excluded.issued,
                        maintenance = excluded.maintenance, dead_balancer = excluded.dead_balancer, labels = excluded.labels,
                        accepted = excluded.accepted";
            let query = sqlx::query(text).bind(name.as_str()).bind(record.address.to_string());
            let query = query.bind(json(&record.issued)?).bind(json(&record.maintenance)?);
            let query =
                query.bind(json(&record.dead_balancer)?).bind(json(&record.labels)?).bind(i64::from(record.accepted));
            query.execute(&mut *transaction).await?;
        }
        for (name, service) in &changes.services {
            let text = "INSERT INTO services (name, document) VALUES ($1, $2)
                        ON CONFLICT (name) DO UPDATE SET document = excluded.document";
            sqlx::query(text).bind(name.as_str()).bind(json(service)?).execute(&mut *transaction).await?;
        }
        for (id, release) in &changes.releases {
            let text = "INSERT INTO releases (id, document) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
            sqlx::query(text).bind(id.to_string()).bind(json(release)?).execute(&mut *transaction).await?;
        }
        past::move_in(&mut transaction, changes).await?;
        if let Some(Thaw(freeze)) = &changes.freeze {
            sqlx::query("UPDATE driver SET freeze = $1").bind(json(freeze)?).execute(&mut *transaction).await?;
        }
        if changes.fence.is_some() {
            sqlx::query("UPDATE driver SET fence = $1").bind(json(&changes.fence)?).execute(&mut *transaction).await?;
        }
        for name in &changes.gone_hosts {
            sqlx::query("DELETE FROM hosts WHERE name = $1").bind(name.as_str()).execute(&mut *transaction).await?;
        }
        forget(&mut transaction, &changes.gone_services).await?;
        rollouts::put(&mut transaction, changes).await?;
        Ok(transaction.commit().await?)
    }

    async fn upgrade(&self) -> Result<Option<Upgrade>, StoreError> {
        document(&sqlx::query("SELECT upgrade FROM driver").fetch_one(&self.pool).await?, 0)
    }

    async fn keep_upgrade(&self, held: Epoch, upgrade: &Upgrade) -> Result<(), StoreError> {
        self.keep("UPDATE driver SET upgrade = $1 WHERE epoch = $2", held, json(upgrade)?).await
    }

    async fn reboot(&self) -> Result<Option<Reboot>, StoreError> {
        document(&sqlx::query("SELECT reboot FROM driver").fetch_one(&self.pool).await?, 0)
    }

    async fn keep_reboot(&self, held: Epoch, reboot: &Reboot) -> Result<(), StoreError> {
        self.keep("UPDATE driver SET reboot = $1 WHERE epoch = $2", held, json(reboot)?).await
    }

    async fn history(&self, about: &About) -> Result<Vec<Dated>, StoreError> {
        rollouts::history(&self.pool, about).await
    }

    async fn forgotten(&self, which: &Which) -> Result<Vec<Forgotten>, StoreError> {
        past::find(&self.pool, which).await
    }

    async fn tokens(&self, now: WallTime) -> Result<Vec<Token>, StoreError> {
        let text = format!("SELECT {TOKEN} FROM tokens WHERE uses_left > 0 AND expires > $1 ORDER BY created, id");
        sqlx::query(sqlx::AssertSqlSafe(text)).bind(now.0).fetch_all(&self.pool).await?.iter().map(token).collect()
    }

    async fn keep_token(&self, token: &Token) -> Result<(), StoreError> {
        let forgotten = "DELETE FROM tokens WHERE expires < $1";
        sqlx::query(forgotten).bind(token.created.0.saturating_sub(TOKEN_MEMORY)).execute(&self.pool).await?;
        let text = "INSERT INTO tokens (id, secret_hash, admits, names, uses_left, created, expires, services, life)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        sqlx::query(text)
            .bind(token.id.0.as_str())
            .bind(token.secret_hash.to_string())
            .bind(token.admits.to_string())
            .bind(json(&token.names)?)
            .bind(i64::from(token.uses_left))
            .bind(token.created.0)
            .bind(token.expires.0)
            .bind(json(&token.services)?)
            .bind(token.life.unwrap_or(0))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    async fn redeem(&self, redemption: &Redemption) -> Result<Redeemed, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // The write comes first, so that the transaction holds the lock before it reads anything.
        let taken = sqlx::query(
            "UPDATE tokens SET uses_left = uses_left - 1 WHERE secret_hash = $1 AND uses_left > 0 AND expires > $2",
        )
        .bind(redemption.secret_hash.to_string())
        .bind(redemption.now.0)
        .execute(&mut *transaction)
        .await?;
        let text = format!("SELECT {TOKEN} FROM tokens WHERE secret_hash = $1");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(redemption.secret_hash.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(token) = row.as_ref().map(token).transpose()? else { return Ok(Redeemed::Unknown) };
        if taken.rows_affected() != 1 {
            return Ok(token.worthless(redemption.now).unwrap_or(Redeemed::Spent));
        }
        let identity = match token.identity_for(redemption) {
            Ok(identity) => identity,
            Err(refused) => return Ok(refused),
        };
        let revoked: Vec<String> = sqlx::query("SELECT serial FROM certificates WHERE identity = $1 AND revoked = 0")
            .bind(identity.to_string())
            .fetch_all(&mut *transaction)
            .await?
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()?;
        let accepted = match &identity {
            Identity::Host(host) => {
                let text = "SELECT COUNT(*) FROM hosts WHERE name = $1 AND accepted = 1";
                unsigned(&sqlx::query(text).bind(host.as_str()).fetch_one(&mut *transaction).await?, 0)? > 0
            }
            Identity::Operator { .. } | Identity::Coordinator | Identity::Anonymous => false,
        };
        if let Some(refused) = token.keeps_out(redemption.replace, Had::by(!revoked.is_empty(), accepted)) {
            return Ok(refused);
        }
        if certificates::came_with(&mut transaction, &identity, &token.id).await? {
            return Ok(Redeemed::Spent);
        }
        certificates::forget_old(&mut transaction, redemption.now).await?;
        sqlx::query("UPDATE certificates SET revoked = 1 WHERE identity = $1")
            .bind(identity.to_string())
            .execute(&mut *transaction)
            .await?;
        let issued = Certificate {
            serial: redemption.serial.clone(),
            identity: identity.to_string(),
            authority: redemption.authority.clone(),
            issued: redemption.now,
            expires: token
                .life
                .map_or(redemption.certificate_expires, |life| WallTime(redemption.now.0.saturating_add(life))),
            revoked: false,
            used: false,
        };
        certificates::put(&mut transaction, &issued, &token.id.0).await?;
        transaction.commit().await?;
        let named = !token.names.is_empty();
        Ok(Redeemed::Granted { identity, revoked, services: token.services, life: token.life, named })
    }

    async fn token_id(&self, secret_hash: &Digest) -> Result<Option<TokenId>, StoreError> {
        let query = sqlx::query("SELECT id FROM tokens WHERE secret_hash = $1").bind(secret_hash.to_string());
        Ok(query.fetch_optional(&self.pool).await?.map(|row| row.try_get(0).map(TokenId)).transpose()?)
    }

    async fn revoke_token(&self, id: &TokenId) -> Result<bool, StoreError> {
        let text = "UPDATE tokens SET uses_left = 0 WHERE id = $1 AND uses_left > 0";
        Ok(sqlx::query(text).bind(id.0.as_str()).execute(&self.pool).await?.rows_affected() == 1)
    }

    async fn renew(&self, renewal: &Renewal) -> Result<bool, StoreError> {
        let mut transaction = self.pool.begin().await?;
        certificates::forget_old(&mut transaction, renewal.next.issued).await?;
        let text = "SELECT COUNT(*) FROM certificates WHERE serial = $1 AND revoked = 1";
        let row = sqlx::query(text).bind(renewal.shown.as_str()).fetch_one(&mut *transaction).await?;
        if unsigned(&row, 0)? > 0 {
            return Ok(false);
        }
        certificates::put(&mut transaction, &renewal.next, certificates::RENEWED).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn certificates(&self, now: WallTime) -> Result<Vec<Certificate>, StoreError> {
        certificates::list(&self.pool, now).await
    }

    async fn note_use(&self, used: &Certificate) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        certificates::note_use(&mut transaction, used).await?;
        Ok(transaction.commit().await?)
    }

    async fn believe(&self, authorities: &[String]) -> Result<Vec<String>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let revoked = certificates::believe(&mut transaction, authorities).await?;
        transaction.commit().await?;
        Ok(revoked)
    }

    async fn append(&self, at: WallTime, entry: &Entry) -> Result<Head, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // One connection: nobody else appends between this read and the write.
        let record = last_head(&mut transaction).await?.next(at, json(entry)?);
        let text = "INSERT INTO audit (number, at, entry, hash) VALUES ($1, $2, $3, $4)";
        sqlx::query(text)
            .bind(signed(record.number))
            .bind(record.at.0)
            .bind(record.text.as_str())
            .bind(record.hash.to_string())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(record.head())
    }

    async fn audit(&self, after: u64, most: u32) -> Result<Vec<Record>, StoreError> {
        let text = "SELECT number, at, entry, hash FROM audit WHERE number > $1 ORDER BY number LIMIT $2";
        let rows = sqlx::query(text).bind(signed(after)).bind(i64::from(most)).fetch_all(&self.pool).await?;
        rows.iter().map(record).collect()
    }

    async fn audit_head(&self) -> Result<Head, StoreError> {
        last_head(&mut *self.pool.acquire().await?).await
    }

    async fn revoke(&self, whose: &str) -> Result<Vec<String>, StoreError> {
        certificates::revoke(&self.pool, whose).await
    }
}

/// Forgets services and their releases. What a release is of stands in its document only.
async fn forget(transaction: &mut Transaction<'_, Any>, services: &BTreeSet<ServiceName>) -> Result<(), StoreError> {
    if services.is_empty() {
        return Ok(());
    }
    for row in rows(transaction, "SELECT document FROM releases").await? {
        let release: baton_core::release::Release = document(&row, 0)?;
        if services.contains(&release.service) {
            let query = sqlx::query("DELETE FROM releases WHERE id = $1").bind(release.id().to_string());
            query.execute(&mut **transaction).await?;
        }
    }
    for name in services {
        sqlx::query("DELETE FROM services WHERE name = $1").bind(name.as_str()).execute(&mut **transaction).await?;
        sqlx::query("DELETE FROM forgotten WHERE service = $1").bind(name.as_str()).execute(&mut **transaction).await?;
    }
    Ok(())
}

async fn rows(connection: &mut AnyConnection, text: &'static str) -> Result<Vec<AnyRow>, StoreError> {
    Ok(sqlx::query(text).fetch_all(connection).await?)
}

fn token(row: &AnyRow) -> Result<Token, StoreError> {
    Ok(Token {
        id: TokenId(row.try_get(0)?),
        secret_hash: parsed(row, 1)?,
        admits: parsed::<Admits>(row, 2)?,
        names: document(row, 3)?,
        uses_left: u32::try_from(row.try_get::<i64, _>(4)?).unwrap_or(0),
        created: WallTime(row.try_get(5)?),
        expires: WallTime(row.try_get(6)?),
        services: document(row, 7)?,
        life: Some(row.try_get::<i64, _>(8)?).filter(|life| *life > 0),
    })
}

/// What [`token`] reads, in its order.
const TOKEN: &str = "id, secret_hash, admits, names, uses_left, created, expires, services, life";

async fn last_head(connection: &mut AnyConnection) -> Result<Head, StoreError> {
    let text = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1";
    let Some(row) = sqlx::query(text).fetch_optional(connection).await? else { return Ok(Head::none()) };
    Ok(Head { number: unsigned(&row, 0)?, hash: parsed(&row, 1)? })
}

fn record(row: &AnyRow) -> Result<Record, StoreError> {
    Ok(Record { number: unsigned(row, 0)?, at: WallTime(row.try_get(1)?), text: row.try_get(2)?, hash: parsed(row, 3)? })
}

fn document<T: DeserializeOwned>(row: &AnyRow, column: usize) -> Result<T, StoreError> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| StoreError::Unreadable(error.to_string()))
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(row: &AnyRow, column: usize) -> Result<T, StoreError> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error: T::Err| StoreError::Unreadable(error.to_string()))
}

fn unsigned(row: &AnyRow, column: usize) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| StoreError::Unreadable(format!("{number} where a count should be")))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unreadable(error.to_string()))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => {
                Self::Unreadable(error.to_string())
            }
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

#[cfg(test)]
impl SqliteStore {
    pub(super) async fn run_for_test(&self, text: &'static str) {
        sqlx::raw_sql(text).execute(&self.pool).await.unwrap();
    }

    pub(super) async fn ask_for_test(&self, text: &str) -> String {
        let row = sqlx::query(sqlx::AssertSqlSafe(text.to_owned())).fetch_one(&self.pool).await.unwrap();
        row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|number| number.to_string())).unwrap()
    }
}
