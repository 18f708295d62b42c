//! The fleet as whoever asks sees it.

use super::view;
use crate::driver::{Access, Picture};
use baton_core::name::ServiceName;
use baton_core::problem::{Code, Problem};
use baton_proto::problem::to_status;
use baton_proto::v1::FleetView;
use tonic::Status;

/// The fleet, or one service of it.
pub(super) fn look(access: &Access, service: Option<&ServiceName>) -> Result<FleetView, Status> {
    let picture = access.picture();
    known(&picture, service)?;
    Ok(view::fleet(&picture, &access.links().hellos(), access.now(), service))
}

/// A service that nobody deployed is most often a mistyped one.
pub(super) fn known(picture: &Picture, service: Option<&ServiceName>) -> Result<(), Status> {
    let Some(name) = service.filter(|name| !picture.fleet.services.contains_key(*name)) else { return Ok(()) };
    let known: Vec<_> = picture.fleet.services.keys().map(ServiceName::as_str).collect();
    let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
    Err(to_status(Problem::new(Code(709), format!("there is no service {name}")).saw("services", known)))
}
