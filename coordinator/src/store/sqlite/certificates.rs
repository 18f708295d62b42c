//! The rows of certificates.

use crate::store::certificate::Certificate;
use crate::store::token::TokenId;
use crate::store::{StoreError, WallTime};
use baton_proto::identity::Identity;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyPool, Row, Transaction};

/// Where a token's id stands for certificates that needed none.
pub(super) const RENEWED: &str = "renewal";

/// Certificates that expired; not the last one of an identity, so that its name does not become free by time alone.
pub(super) async fn forget_old(transaction: &mut Transaction<'_, Any>, now: WallTime) -> Result<(), StoreError> {
    let text = "DELETE FROM certificates WHERE expires < $1 AND EXISTS (SELECT 1 FROM certificates AS newer
                WHERE newer.identity = certificates.identity AND newer.expires > certificates.expires)";
    sqlx::query(text).bind(now.0).execute(&mut **transaction).await?;
    Ok(())
}

pub(super) async fn put(
    transaction: &mut Transaction<'_, Any>,
    certificate: &Certificate,
    token: &str,
) -> Result<(), StoreError> {
    let text = "INSERT INTO certificates (serial, identity, token, issued, expires, revoked, authority, used)
                VALUES ($1, $2, $3, $4, $5, 0, $6, 0)";
    sqlx::query(text)
        .bind(certificate.serial.as_str())
        .bind(certificate.identity.as_str())
        .bind(token)
        .bind(certificate.issued.0)
        .bind(certificate.expires.0)
        .bind(certificate.authority.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Whether somebody has redeemed a token under this name: each of its uses is for another one.
pub(super) async fn came_with(
    transaction: &mut Transaction<'_, Any>,
    identity: &Identity,
    token: &TokenId,
) -> Result<bool, StoreError> {
    let text = "SELECT COUNT(*) FROM certificates WHERE identity = $1 AND token = $2";
    let query = sqlx::query(text).bind(identity.to_string()).bind(token.0.as_str());
    Ok(query.fetch_one(&mut **transaction).await?.try_get::<i64, _>(0)? > 0)
}

fn certificate(row: &AnyRow) -> Result<Certificate, StoreError> {
    Ok(Certificate {
        serial: row.try_get(0)?,
        identity: row.try_get(1)?,
        issued: WallTime(row.try_get(2)?),
        expires: WallTime(row.try_get(3)?),
        revoked: row.try_get::<i64, _>(4)? != 0,
        authority: row.try_get(5)?,
        used: row.try_get::<i64, _>(6)? != 0,
    })
}

/// Where a token's id stands for certificates that came before anybody knew them.
const SHOWN: &str = "shown";

pub(super) async fn note_use(transaction: &mut Transaction<'_, Any>, used: &Certificate) -> Result<(), StoreError> {
    let text = "UPDATE certificates SET used = 1 WHERE serial = $1";
    let note = || sqlx::query(text).bind(used.serial.as_str());
    if note().execute(&mut **transaction).await?.rows_affected() == 0 {
        put(transaction, used, SHOWN).await?;
        note().execute(&mut **transaction).await?;
    }
    Ok(())
}

pub(super) async fn list(pool: &AnyPool, now: WallTime) -> Result<Vec<Certificate>, StoreError> {
    let text = "SELECT serial, identity, issued, expires, revoked, authority, used FROM certificates WHERE expires > $1
                ORDER BY identity, issued, serial";
    sqlx::query(text).bind(now.0).fetch_all(pool).await?.iter().map(certificate).collect()
}

pub(super) async fn revoke(pool: &AnyPool, whose: &str) -> Result<Vec<String>, StoreError> {
    let text = "UPDATE certificates SET revoked = 1 WHERE revoked = 0 AND (identity = $1 OR serial = $1) RETURNING serial";
    let rows = sqlx::query(text).bind(whose).fetch_all(pool).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Revokes what is signed by none of these, and gives what nobody signed by name to the last of them.
pub(super) async fn believe(
    transaction: &mut Transaction<'_, Any>,
    authorities: &[String],
) -> Result<Vec<String>, StoreError> {
    let oldest = authorities.last().map_or("", String::as_str);
    let text = "UPDATE certificates SET authority = $1 WHERE authority = ''";
    sqlx::query(text).bind(oldest).execute(&mut **transaction).await?;
    let mut revoked = Vec::new();
    let others = "SELECT DISTINCT authority FROM certificates WHERE revoked = 0";
    for row in sqlx::query(others).fetch_all(&mut **transaction).await? {
        let authority: String = row.try_get(0)?;
        if authorities.contains(&authority) {
            continue;
        }
        let text = "UPDATE certificates SET revoked = 1 WHERE revoked = 0 AND authority = $1 RETURNING serial";
        for row in sqlx::query(text).bind(authority).fetch_all(&mut **transaction).await? {
            revoked.push(row.try_get(0)?);
        }
    }
    Ok(revoked)
}
