//! `run.listen`: the sockets a host holds for the service, and what they need to be a hand-over.

use super::codes;
use super::reader::{Finding, Reader, quoted};
use crate::strategy::Placement;
use std::net::SocketAddr;
use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;

const PLACE: &str = "run.listen";

/// The addresses: one string, or a list of them. Empty where there are none.
pub(super) fn listen(reader: &mut Reader<'_, '_>) -> Option<Vec<SocketAddr>> {
    let Some(value) = reader.value(PLACE) else { return Some(Vec::new()) };
    let items: Vec<&Spanned<DeValue<'_>>> = match value.get_ref().as_array() {
        Some(items) => items.iter().collect(),
        None => vec![value],
    };
    let mut addresses = Vec::new();
    for item in &items {
        let Some(address) = address(reader, item) else { continue };
        if addresses.contains(&address) {
            reader.duplicate(PLACE, &address.to_string(), item.span());
        } else {
            addresses.push(address);
        }
    }
    let words: Vec<String> = addresses.iter().map(|address| quoted(&address.to_string())).collect();
    reader.note(PLACE, format!("[{}]", words.join(", ")), Some(value.span()));
    let good = addresses.len() == items.len() && apart(reader, &addresses, value.span()) && direct(reader, value.span());
    good.then_some(addresses)
}

fn address(reader: &mut Reader<'_, '_>, item: &Spanned<DeValue<'_>>) -> Option<SocketAddr> {
    let Some(text) = item.get_ref().as_str() else {
        let finding = Finding::error(codes::WRONG_TYPE, item.span(), "an address to listen on is a string");
        let help = "write an IP address and a port: \"0.0.0.0:8100\"";
        reader.report(finding.label(format!("this is of type {}", item.get_ref().type_str())).help(help));
        return None;
    };
    let address = text.parse().ok().filter(|address: &SocketAddr| address.port() > 0);
    if address.is_none() {
        let what = format!("{} is not an address to listen on", quoted(text));
        let finding = Finding::error(codes::BAD_ADDRESS, item.span(), what).label("an IP address, a colon and a port");
        reader.report(finding.help("for example \"0.0.0.0:8100\" or \"[::]:8100\""));
    }
    address
}

/// The public port is everybody's, the ports of [run] are one instance's each.
fn apart(reader: &mut Reader<'_, '_>, addresses: &[SocketAddr], span: Range<usize>) -> bool {
    let ports = reader.value("run.ports").and_then(|ports| ports.get_ref().as_array());
    let private = |port: u16| {
        let numbers = ports.into_iter().flatten().filter_map(|item| item.get_ref().as_integer());
        numbers.into_iter().any(|number| number.as_str().parse() == Ok(port))
    };
    let Some(shared) = addresses.iter().find(|address| private(address.port())) else { return true };
    let what = format!("port {} is in run.listen and in run.ports", shared.port());
    let finding = Finding::error(codes::CONTRADICTION, span, what).label("shared by all instances here, one's own there");
    reader.report(finding.help("run.ports are private: give each instance one that clients do not use"));
    false
}

/// Clients come to the socket, or to a balancer.
fn direct(reader: &mut Reader<'_, '_>, span: Range<usize>) -> bool {
    if !reader.has_table("balancer") {
        return true;
    }
    let finding = Finding::error(codes::CONTRADICTION, span, "`run.listen` and [balancer] exclude each other");
    reader.report(
        finding
            .label("clients come here directly, and through the balancer")
            .help("for a hand-over leave [balancer] out; behind a balancer leave `run.listen` out"),
    );
    false
}

/// Hand-over is side by side with a socket that both instances get.
pub(super) fn handover(reader: &mut Reader<'_, '_>, span: Range<usize>, ports: Option<usize>) -> Option<Placement> {
    let refuse = |what: &str| Finding::error(codes::CONTRADICTION, span.clone(), what);
    let finding = if reader.value(PLACE).is_none() {
        let help = "name the public address in [run]: listen = \"0.0.0.0:8100\"";
        refuse("a hand-over needs a socket to hand over").label("`run.listen` names none").help(help)
    } else if ports == Some(1) {
        let help = "give run.ports two: they are private, one an instance, and its probe asks there";
        refuse("a hand-over needs a second port: the new instance starts before the old one stops")
            .label("`run.ports` has one")
            .help(help)
    } else {
        return Some(Placement::SideBySide);
    };
    reader.report(finding);
    None
}
