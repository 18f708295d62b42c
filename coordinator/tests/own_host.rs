//! For whom somebody acts: every method of the descriptors, by everybody there can be, for the caller's own host and another's.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_coordinator::api::roles::{Caller, METHODS};
use baton_core::problem::Code;
use baton_proto::problem::{code, from_status};
use baton_proto::v1;
use baton_proto::v1::control_client::ControlClient;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use http::uri::PathAndQuery;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, encode_varint, skip_field};
use protox::prost_reflect::{DescriptorPool, Kind, MessageDescriptor};
use site::{Line, Site, fetch, token, upload};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

/// Fields of requests that name a host, and what they hold for one.
const NAMING: &[(&str, &str)] = &[
    ("baton.v1.PlaceRequest.host", ""),
    ("baton.v1.HostRequest.host", ""),
    ("baton.v1.LabelRequest.host", ""),
    ("baton.v1.RecoverRequest.without", ""),
    ("baton.v1.RevokeCertificatesRequest.whose", "host/"),
    ("baton.v1.CreateTokenRequest.names", ""),
    ("baton.v1.JoinRequest.name", ""),
    ("baton.v1.UpgradeAgentsRequest.hosts", ""),
    ("baton.v1.RebootRequest.hosts", ""),
];

/// Texts of requests that name none. Which hosts a manifest is for is the service's matter, and a host deploys nothing.
const OTHERS: &[&str] = &[
    "baton.v1.AbortRequest.queued",
    "baton.v1.AbortRequest.service",
    "baton.v1.AbortRequest.why",
    "baton.v1.AcceptAuditLossRequest.why",
    "baton.v1.CreateTokenRequest.role",
    "baton.v1.CreateTokenRequest.services",
    "baton.v1.DeployRequest.if_plan",
    "baton.v1.DeployRequest.manifest",
    "baton.v1.DeployRequest.manifest_path",
    "baton.v1.DeployRequest.version",
    "baton.v1.FreezeRequest.service",
    "baton.v1.FreezeRequest.why",
    "baton.v1.HistoryRequest.rollout",
    "baton.v1.HistoryRequest.service",
    "baton.v1.HostRequest.why",
    "baton.v1.JoinRequest.bearer",
    "baton.v1.JoinRequest.csr_pem",
    "baton.v1.LabelRequest.SetEntry.key",
    "baton.v1.LabelRequest.SetEntry.value",
    "baton.v1.LabelRequest.unset",
    "baton.v1.PlaceRequest.hook",
    "baton.v1.PlaceRequest.service",
    "baton.v1.PlaceRequest.why",
    "baton.v1.RebootRequest.service",
    "baton.v1.RebootRequest.why",
    "baton.v1.RecordBackupRequest.file",
    "baton.v1.RecoverRequest.why",
    "baton.v1.RenewRequest.csr_pem",
    "baton.v1.RetireAuthorityRequest.why",
    "baton.v1.RevokeCertificatesRequest.why",
    "baton.v1.RevokeTokenRequest.id",
    "baton.v1.RollbackRequest.service",
    "baton.v1.RollbackRequest.version",
    "baton.v1.RollbackRequest.why",
    "baton.v1.RotateAuthorityRequest.why",
    "baton.v1.ServiceRequest.service",
    "baton.v1.ServiceRequest.why",
    "baton.v1.StatusRequest.service",
    "baton.v1.SteerAgentsRequest.why",
    "baton.v1.SteerRebootRequest.to",
    "baton.v1.SteerRebootRequest.why",
    "baton.v1.UpgradeAgentsRequest.architecture",
    "baton.v1.UpgradeAgentsRequest.rings",
    "baton.v1.UpgradeAgentsRequest.version",
];

fn requests() -> BTreeMap<String, MessageDescriptor> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let files: Vec<_> = std::fs::read_dir(root.join("baton/v1")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let pool = DescriptorPool::from_file_descriptor_set(protox::compile(files, [root]).unwrap()).unwrap();
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| (format!("/{}/{}", method.parent_service().full_name(), method.name()), method.input())).collect()
}

/// The texts a request may hold, in the messages in it too.
fn texts(message: &MessageDescriptor, seen: &mut BTreeSet<String>, found: &mut BTreeSet<String>) {
    if !seen.insert(message.full_name().to_owned()) {
        return;
    }
    for field in message.fields() {
        match field.kind() {
            Kind::String => drop(found.insert(field.full_name().to_owned())),
            Kind::Message(inner) => texts(&inner, seen, found),
            _ => {}
        }
    }
}

/// What an agent says on its stream is of its own host: whose it is stands in the certificate.
const STREAM: &str = "/baton.v1.AgentLink/Connect";

#[test]
fn of_every_text_in_a_request_it_is_known_whether_it_names_a_host() {
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    for (_, request) in requests().iter().filter(|(path, _)| *path != STREAM) {
        texts(request, &mut seen, &mut found);
    }
    let known: BTreeSet<String> =
        NAMING.iter().map(|(field, _)| *field).chain(OTHERS.iter().copied()).map(ToOwned::to_owned).collect();
    assert_eq!(found, known, "a new field of a request stands in NAMING where it names a host, else in OTHERS");
}

/// A message as its bytes.
#[derive(Debug, Default)]
struct Bytes(Vec<u8>);

impl Message for Bytes {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        skip_field(wire, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// A request that names this host wherever it can name one, and how many places those are.
fn naming(request: &MessageDescriptor, host: &str) -> (Bytes, usize) {
    let (mut bytes, mut places) = (Vec::new(), 0);
    for field in request.fields() {
        if let Some((_, prefix)) = NAMING.iter().find(|(name, _)| *name == field.full_name()) {
            let text = format!("{prefix}{host}");
            encode_varint(u64::from(field.number() << 3 | 2), &mut bytes);
            encode_varint(text.len() as u64, &mut bytes);
            bytes.extend(text.into_bytes());
            places += 1;
        }
    }
    (Bytes(bytes), places)
}

/// Calls a method, whatever its kind; the code of what came back, if it was refused.
async fn refusal(channel: &Channel, path: &str, request: Bytes) -> Option<Code> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Bytes, Bytes>::default();
    let path = PathAndQuery::try_from(path).unwrap();
    let answer = async {
        let request = tonic::Request::new(tokio_stream::once(request));
        let mut answers = client.streaming(request, path, codec).await?.into_inner();
        answers.next().await.transpose()
    };
    // A stream that says nothing is one that was let in.
    let answer = timeout(Duration::from_secs(1), answer).await.ok()?;
    answer.err().map(|status| from_status(&status).code)
}

impl Site {
    /// Hosts and certificates, as far as somebody could have changed them.
    async fn state(&self) -> String {
        let mut control = ControlClient::new(self.admin.clone());
        let fleet = control.status(v1::StatusRequest::default()).await.unwrap().into_inner();
        let hosts: Vec<_> = fleet.hosts.iter().map(|host| (host.name.clone(), host.maintenance.clone())).collect();
        let certificates = control.list_certificates(v1::ListCertificatesRequest {}).await.unwrap().into_inner();
        format!("{hosts:?} {certificates:?}")
    }
}

#[tokio::test]
async fn every_method_decides_by_the_table_whichever_host_is_named() {
    let site = Site::new().await;
    let everybody = site.everybody().await;
    let requests = requests();
    assert_eq!(requests.len(), METHODS.len());
    let before = site.state().await;
    let (mut wrong, mut both) = (Vec::new(), BTreeSet::new());
    for (caller, name, channel) in &everybody {
        for (path, callers) in METHODS {
            for host in ["web1", "web2"] {
                let (request, places) = naming(&requests[*path], host);
                if places == 0 && host == "web2" {
                    continue;
                }
                if places > 0 && *caller == Caller::Host && callers.contains(caller) {
                    both.insert(*path);
                }
                let refused = refusal(channel, path, request).await;
                let kept_out = matches!(refused, Some(code::NOT_ALLOWED | code::WHO_ARE_YOU));
                if kept_out == callers.contains(caller) {
                    wrong.push(format!("{path} by {name} for {host}: {refused:?}"));
                }
            }
        }
        if matches!(caller, Caller::Anonymous | Caller::Host | Caller::Viewer) {
            assert_eq!(site.state().await, before, "{name} changed something");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Of what a host may call, this alone takes a name, and there the token decides: see the test below.
    assert_eq!(both, BTreeSet::from(["/baton.v1.Enrollment/Join"]));
}

fn request() -> (rcgen::KeyPair, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    (key, csr)
}

#[tokio::test]
async fn what_a_host_may_call_it_may_for_its_own_name_alone() {
    let site = Site::new().await;
    let (web1, web2) = (site.member("host", "web1").await, site.member("host", "web2").await);
    let own = site.dial(&web1);
    for (path, callers) in METHODS {
        if !callers.contains(&Caller::Host) {
            continue;
        }
        match *path {
            "/baton.v1.Enrollment/Greet" => {
                let greeted = EnrollmentClient::new(own.clone()).greet(v1::GreetRequest {}).await.unwrap().into_inner();
                assert_eq!(greeted.identity, "host/web1");
            }
            "/baton.v1.Enrollment/Renew" => {
                let (key, csr) = request();
                let endpoint = site.running.listen.to_string();
                let renewed = baton_proto::renewal::renew(&endpoint, &web1, key.serialize_pem(), csr).await.unwrap();
                assert_eq!(renewed.subject().unwrap().identity.to_string(), "host/web1");
            }
            "/baton.v1.Enrollment/Kept" => {
                let (key, csr) = request();
                let endpoint = site.running.listen.to_string();
                let renewed = baton_proto::renewal::renew(&endpoint, &web1, key.serialize_pem(), csr).await.unwrap();
                baton_proto::renewal::kept(&endpoint, &renewed).await.unwrap();
                let mut control = ControlClient::new(site.admin.clone());
                let view = control.authority_status(v1::AuthorityStatusRequest {}).await.unwrap().into_inner();
                let in_use: Vec<_> = view.bearers.into_iter().map(|bearer| bearer.serial).collect();
                assert_eq!(in_use, [&renewed, &web2].map(|one| one.subject().unwrap().serial));
            }
            // Its certificate helps it to no other name: the token decides.
            "/baton.v1.Enrollment/Join" => {
                for (made_for, replace) in [("web1", true), ("web3", false)] {
                    let secret = token(&site.admin, "host", 1, &[made_for]).await.secret.to_vec();
                    let wish = |name: &str| v1::JoinRequest {
                        secret: secret.clone(),
                        csr_pem: request().1,
                        name: name.into(),
                        replace,
                        ..v1::JoinRequest::default()
                    };
                    let refused = EnrollmentClient::new(own.clone()).join(wish("web2")).await.unwrap_err();
                    assert_eq!(from_status(&refused).code, code::NAME, "{made_for}");
                }
                let greeted = EnrollmentClient::new(site.dial(&web2)).greet(v1::GreetRequest {}).await.unwrap();
                assert_eq!(greeted.into_inner().identity, "host/web2", "nobody took its place");
            }
            STREAM => {
                let line = Line::open(&own).await.unwrap();
                site::until(&site.admin, |view| view.hosts.iter().any(|host| host.name == "web1" && host.connected)).await;
                let mut control = ControlClient::new(site.admin.clone());
                let fleet = control.status(v1::StatusRequest::default()).await.unwrap().into_inner();
                assert!(fleet.hosts.iter().any(|host| host.name == "web2" && !host.connected), "{:?}", fleet.hosts);
                drop(line);
            }
            // What its own spec names it gets: `a_host_fetches_its_own_release_and_another_host_does_not`.
            "/baton.v1.Artifacts/Fetch" => {
                upload(&site.admin, b"nobody's", 0).await.unwrap();
                assert_eq!(fetch(&own, b"nobody's", 0).await.unwrap_err().code, Code(601));
            }
            other => panic!("{other}: show here that a host may do it for itself and for nobody else"),
        }
    }
}
