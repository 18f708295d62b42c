//! The one gate in front of every method: who are you, may you, and a panic behind it stays one request's.

use super::revoked::Revoked;
use super::roles::{authorise, is_recorded, shows_use};
use super::used::Used;
use crate::audit::Audit;
use crate::audit::call::{self, Note};
use baton_core::problem::{Code, Problem};
use baton_proto::problem::{from_status, to_status};
use baton_proto::tls::{Peer, peer_in};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// Puts the gate in front of a service.
#[derive(Debug, Clone)]
pub struct GateLayer {
    revoked: Revoked,
    used: Used,
    audit: Arc<Audit>,
}

/// A service behind the gate.
#[derive(Debug, Clone)]
pub struct Gate<S> {
    inner: S,
    revoked: Revoked,
    used: Used,
    audit: Arc<Audit>,
}

impl GateLayer {
    #[must_use]
    pub const fn new(revoked: Revoked, used: Used, audit: Arc<Audit>) -> Self {
        Self { revoked, used, audit }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, revoked: self.revoked.clone(), used: self.used.clone(), audit: Arc::clone(&self.audit) }
    }
}

impl<S> Gate<S> {
    fn admit(&self, peer: &Peer, path: &str) -> Result<(), Problem> {
        if self.revoked.has(peer) {
            return Err(self.revoked.turn_away(peer));
        }
        authorise(&peer.identity, path)
    }
}

impl<S> Service<http::Request<Body>> for Gate<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let peer = peer_in(request.extensions());
        let path = request.uri().path().to_owned();
        if let Err(problem) = self.admit(&peer, &path) {
            tracing::info!(peer = %peer.identity, remote = ?peer.remote, call = %path, %problem, "refused");
            let audit = Arc::clone(&self.audit);
            return Box::pin(async move {
                audit.record(&peer, &path, Some(&problem), Note::default()).await;
                Ok(to_status(problem).into_http())
            });
        }
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let (revoked, used, audit) = (self.revoked.clone(), self.used.clone(), Arc::clone(&self.audit));
        Box::pin(async move {
            if shows_use(&path)
                && let Err(error) = used.note(&peer).await
            {
                tracing::warn!(peer = %peer.identity, problem = %error.problem(), "the use of a certificate was not noted");
            }
            let (answer, note) = tokio::select! {
                answered = call::on_behalf_of(peer.clone(), answer) => answered,
                () = revoked.strikes(&peer) => return Ok(to_status(revoked.turn_away(&peer)).into_http()),
            };
            if is_recorded(&path) {
                audit.record(&peer, &path, outcome(&answer).as_ref(), note).await;
            }
            match answer {
                Ok(answer) if peer.serial.is_none() => answer,
                Ok(answer) => Ok(answer?.map(|body| revoked.cut(body, peer))),
                Err(_) => {
                    tracing::error!(call = %path, "a call panicked: this is a bug in Baton");
                    Ok(to_status(Problem::new(Code(1006), "the coordinator made a mistake in this call")).into_http())
                }
            }
        })
    }
}

/// The refusal an answer carries, when it does. A call that was carried out has its status at the end of its body.
fn outcome<E>(answer: &std::thread::Result<Result<http::Response<Body>, E>>) -> Option<Problem> {
    match answer {
        Ok(Ok(answer)) => Status::from_header_map(answer.headers()).map(|status| from_status(&status)),
        Ok(Err(_)) => None,
        Err(_) => Some(Problem::new(Code(1006), "the call panicked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::authority::Authority;
    use crate::identity::rotation::Authorities;
    use crate::identity::wall_time;
    use baton_proto::identity::Identity;
    use baton_proto::problem::code;
    use tokio::sync::watch;
    use tower::ServiceExt;

    async fn call(revoked: &[&str], inner: fn() -> http::Response<Body>) -> Problem {
        let identity: Identity = "admin/ana".parse().unwrap();
        let peer = Peer { serial: Some("ab12".into()), ..Peer::bare(identity, None) };
        let store = Arc::new(crate::store::memory::MemoryStore::default());
        let audit = Arc::new(Audit::open(store.clone()).await.unwrap());
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), wall_time()).unwrap();
        let (_authorities, believed) = watch::channel(Arc::new(Authorities { signer: authority, before: None }));
        let used = Used::new(store, believed, std::collections::BTreeSet::new());
        let revoked = Revoked::new(revoked.iter().map(|serial| (*serial).into()).collect());
        let service =
            tower::service_fn(move |_: http::Request<Body>| async move { Ok::<_, std::convert::Infallible>(inner()) });
        let mut request = http::Request::new(Body::default());
        *request.uri_mut() = "/baton.v1.Control/Status".parse().unwrap();
        request.extensions_mut().insert(peer);
        let response = GateLayer::new(revoked, used, audit).layer(service).oneshot(request).await.unwrap();
        from_status(&tonic::Status::from_header_map(response.headers()).unwrap())
    }

    #[tokio::test]
    async fn a_panic_becomes_a_status_of_its_own_call() {
        assert_eq!(call(&[], || panic!("the handler broke")).await.code, Code(1006));
    }

    #[tokio::test]
    async fn a_revoked_certificate_is_refused_before_any_method() {
        assert_eq!(call(&["ab12"], || panic!("must not be reached")).await.code, code::REFUSED);
    }
}
