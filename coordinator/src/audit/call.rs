//! The call under way: who makes it, and what its method notes down for the log.
//!
//! It travels beside the call, set by the gate and by nobody else, so that no method can forget to pass it on.

use baton_core::name::ServiceName;
use baton_core::problem::{Code, Problem};
use baton_proto::identity::Identity;
use baton_proto::problem::code;
use baton_proto::tls::Peer;
use serde_json::Value;
use std::cell::RefCell;
use std::future::Future;

/// What a method knows better than the gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    pub about: String,
    pub why: String,
    pub before: String,
    pub after: String,
}

tokio::task_local! {
    static CALL: (Peer, RefCell<Note>);
}

/// Carries a call out on behalf of a peer, and gives what was noted during it.
pub async fn on_behalf_of<T>(peer: Peer, work: impl Future<Output = T>) -> (T, Note) {
    let work = async {
        let answer = work.await;
        let note = CALL.try_with(|(_, note)| note.take()).unwrap_or_default();
        (answer, note)
    };
    CALL.scope((peer, RefCell::default()), work).await
}

/// Notes what the call is about.
pub fn about(about: impl Into<String>) {
    note(|note| note.about = about.into());
}

/// Notes why, as the caller said it.
pub fn why(why: impl Into<String>) {
    note(|note| note.why = why.into());
}

/// Notes what the call changes: of two documents, only what differs.
pub fn changed(before: Value, after: Value) {
    let (before, after) = difference(before, after);
    note(|note| {
        note.before = shown(&before);
        note.after = shown(&after);
    });
}

/// Whether the caller may command this service; one whose certificate names services may command those and nothing else.
///
/// # Errors
/// B0511, and B1006 where nobody is known to call, which is a mistake in Baton.
pub fn may_command(service: Option<&ServiceName>) -> Result<(), Problem> {
    let unknown = |_| Problem::new(Code(1006), "nobody is known to make this call: this is a bug in Baton");
    let (identity, services) = CALL.try_with(|(peer, _)| (peer.identity.clone(), peer.services.clone())).map_err(unknown)?;
    if services.is_empty() || service.is_some_and(|service| services.contains(service)) {
        return Ok(());
    }
    Err(out_of_scope(&identity, service, &services))
}

fn out_of_scope(identity: &Identity, service: Option<&ServiceName>, services: &[ServiceName]) -> Problem {
    let what = match service {
        Some(service) => format!("{identity} may not command {service}"),
        None => format!("{identity} may command services only, and this is not about one"),
    };
    let names: Vec<_> = services.iter().map(ServiceName::as_str).collect();
    Problem::new(code::NOT_ALLOWED, what)
        .saw("may command", names.join(", "))
        .help("an admin can make a token for more: baton token create --role ROLE --service SERVICE")
}

fn note(write: impl FnOnce(&mut Note)) {
    // Outside a call there is nothing to note: a restart, a test.
    let _ = CALL.try_with(|(_, note)| write(&mut note.borrow_mut()));
}

fn shown(value: &Value) -> String {
    if value.is_null() { String::new() } else { value.to_string() }
}

/// Of two documents, the parts that differ.
fn difference(before: Value, after: Value) -> (Value, Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(mut after)) => {
            let (mut old, mut new) = (serde_json::Map::new(), serde_json::Map::new());
            for (key, was) in before {
                let is = after.remove(&key).unwrap_or(Value::Null);
                if was != is {
                    let (was, is) = difference(was, is);
                    old.insert(key.clone(), was);
                    new.insert(key, is);
                }
            }
            new.extend(after.into_iter().filter(|(_, value)| !value.is_null()));
            let whole = |map: serde_json::Map<_, _>| if map.is_empty() { Value::Null } else { Value::Object(map) };
            (whole(old), whole(new))
        }
        (before, after) if before == after => (Value::Null, Value::Null),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn peer(services: &[&str]) -> Peer {
        let identity = "deployer/ana".parse().unwrap();
        let services = services.iter().map(|service| service.parse().unwrap()).collect();
        Peer { services, ..Peer::bare(identity, None) }
    }

    #[tokio::test]
    async fn what_a_method_notes_comes_out_at_the_gate() {
        let work = async {
            about("shop");
            why("too slow");
            changed(
                json!({"state": "running", "by": "ana"}),
                json!({"state": "paused", "by": "ana", "pause": {"by": "bob"}}),
            );
            7
        };
        let (answer, note) = on_behalf_of(peer(&[]), work).await;
        assert_eq!(answer, 7);
        assert_eq!((note.about.as_str(), note.why.as_str()), ("shop", "too slow"));
        assert_eq!(note.before, r#"{"state":"running"}"#);
        assert_eq!(note.after, r#"{"pause":{"by":"bob"},"state":"paused"}"#);
    }

    #[tokio::test]
    async fn a_certificate_for_services_commands_those_and_nothing_else() {
        let may = |scope: &'static [&'static str], service: Option<&'static str>| async move {
            let service = service.map(|service| service.parse().unwrap());
            on_behalf_of(peer(scope), async move { may_command(service.as_ref()).is_ok() }).await.0
        };
        assert!(may(&[], Some("shop")).await && may(&[], None).await);
        assert!(may(&["shop"], Some("shop")).await);
        assert!(!may(&["shop"], Some("blog")).await);
        assert!(!may(&["shop"], None).await, "what is about the whole fleet is about other services too");
        assert!(may_command(Some(&"shop".parse().unwrap())).is_err(), "without a caller nobody may");
    }
}
