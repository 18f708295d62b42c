//! An authority that was there before, brought to the real program: hosts join and are served under it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod site;

use baton_coordinator::start;
use baton_core::problem::Code;
use baton_proto::problem::{code, from_status};
use baton_proto::tls::Credentials;
use baton_proto::v1::GreetRequest;
use baton_proto::v1::enrollment_client::EnrollmentClient;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use site::{Line, admin, config, dial, join, token};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_baton-coordinator");

/// A root as a company has one, and what it signed for Baton.
struct Company {
    root: Issuer<'static, KeyPair>,
    certificate: PathBuf,
    key: PathBuf,
}

fn wish(name: &str, below: u8) -> CertificateParams {
    let mut wish = CertificateParams::default();
    wish.distinguished_name.push(DnType::CommonName, name);
    wish.distinguished_name.push(DnType::OrganizationName, "Example & Söhne");
    wish.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    wish.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    wish
}

impl Company {
    fn new(folder: &Path) -> Self {
        let root_key = KeyPair::generate().unwrap();
        let root_pem = wish("Example root", 1).self_signed(&root_key).unwrap().pem();
        let root = Issuer::from_ca_cert_pem(&root_pem, root_key).unwrap();
        let own = KeyPair::generate().unwrap();
        let chain = wish("Example for Baton", 0).signed_by(&own, &root).unwrap().pem() + &root_pem;
        let company = Self { root, certificate: folder.join("example.crt"), key: folder.join("example.key") };
        std::fs::write(&company.certificate, chain).unwrap();
        std::fs::write(&company.key, own.serialize_pem()).unwrap();
        company
    }

    fn init(&self, folder: &Path) -> Output {
        let settings = folder.join("coordinator.toml");
        std::fs::write(&settings, format!("state = \"{}\"\n", config(folder).state.display())).unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("init").arg("--config").arg(settings).stdin(Stdio::null());
        command.arg("--authority-cert").arg(&self.certificate).arg("--authority-key").arg(&self.key);
        command.output().unwrap()
    }
}

#[tokio::test]
async fn hosts_join_under_a_brought_intermediate_and_others_of_its_root_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let company = Company::new(folder.path());
    let done = company.init(folder.path());
    assert!(done.status.success(), "{done:?}");
    let again = company.init(folder.path());
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("nothing to do"), "{again:?}");

    let config = config(folder.path());
    let running = start(&config).await.unwrap();
    let host = join(running.listen, &token(&admin(&config), "host", 1, &[]).await, "web1").await.unwrap();
    assert_eq!(host.authority_pem.matches("BEGIN CERTIFICATE").count(), 1, "the root is not believed");
    let greeted = EnrollmentClient::new(dial(running.listen, &host)).greet(GreetRequest {}).await.unwrap().into_inner();
    assert_eq!(greeted.identity, "host/web1");
    Line::open(&dial(running.listen, &host)).await.unwrap();

    // Somebody else of the company, whom its root made an admin.
    let key = KeyPair::generate().unwrap();
    let mut eve = CertificateParams::default();
    eve.subject_alt_names = vec![SanType::URI("baton://admin/eve".try_into().unwrap())];
    let certificate_pem = eve.signed_by(&key, &company.root).unwrap().pem();
    let eve = Credentials { certificate_pem, key_pem: key.serialize_pem(), authority_pem: host.authority_pem };
    let refused = EnrollmentClient::new(dial(running.listen, &eve)).greet(GreetRequest {}).await.unwrap_err();
    assert_eq!(from_status(&refused).code, code::REFUSED);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_wrong_key_leaves_nothing_behind_and_another_authority_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let company = Company::new(folder.path());
    let good = std::fs::read(&company.key).unwrap();
    std::fs::write(&company.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let refused = company.init(folder.path());
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("error[B1031]"), "{refused:?}");
    assert!(!config(folder.path()).state.exists());

    std::fs::write(&company.key, good).unwrap();
    assert!(company.init(folder.path()).status.success());
    let other = Company::new(folder.path());
    for held in [false, true] {
        let running = if held { Some(start(&config(folder.path())).await.unwrap()) } else { None };
        let refused = other.init(folder.path());
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let code = Code(1008);
        assert!(String::from_utf8_lossy(&refused.stderr).starts_with(&format!("error[{code}]")), "{refused:?}");
        if let Some(running) = running {
            running.stop().await.unwrap();
        }
    }
}
