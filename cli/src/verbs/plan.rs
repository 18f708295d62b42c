//! `baton plan [SERVICE] VERSION`.

use super::deploy::{released, request};
use super::target::TargetArgs;
use crate::Context;
use crate::connection::Connection;
use crate::errors::{Failure, from_wire, warning_page};
use crate::exit::Exit;
use crate::manifest::{FileArgs, load};
use crate::render;
use crate::upload::Archive;
use baton_proto::v1::PlanView;
use clap::Args;

/// The coordinator has no artifact of that digest.
const NO_ARTIFACT: u32 = 601;

/// `baton plan`.
#[derive(Debug, Args)]
#[command(override_usage = "baton plan [OPTIONS] [SERVICE] VERSION")]
pub struct PlanArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub file: FileArgs,
    /// End with 10 when there are changes
    #[arg(long)]
    pub exit_code: bool,
}

/// Shows what a deploy would do. Nothing is uploaded: the digest says enough.
///
/// # Errors
/// When the coordinator cannot be asked, or the manifest or artifact cannot be read.
pub async fn run(args: PlanArgs, context: Context<'_>) -> Result<Exit, Failure> {
    let loaded = load(&args.file, context.output)?.of(args.target.service())?;
    let version = args.target.version_of(&loaded.manifest.service)?;
    let mut connection = Connection::open(context.connect)?;
    let path = loaded.artifact(&version);
    let known = if path.exists() { None } else { released(&mut connection, &loaded, &version).await? };
    let on_disk = known.is_none();
    let artifact = match known {
        Some(artifact) => artifact,
        None => Archive::checked(&path)?.artifact,
    };
    let mut plan = connection.control.plan(request(&loaded, &version, &artifact)).await?.into_inner();
    let uploads = on_disk && missing(&mut plan);
    let mut page = render::plan::plan(&plan, uploads.then_some(artifact.size));
    page.0.extend(plan.warnings.iter().flat_map(|warning| warning_page(&from_wire(warning)).0));
    if let Some(conflicts) = loaded.conflicts(plan.problems.iter().map(from_wire).collect()) {
        page.extend(conflicts.page());
    }
    context.output.answer(&page);
    context.output.json(&plan);
    let exit = exit(&plan, args.exit_code);
    if plan.problems.is_empty() && !plan.already_live {
        context.output.next(&format!("baton deploy{} {} {version}", args.file.again(), plan.service));
    }
    Ok(exit)
}

/// Takes the coordinator's word that it has no such artifact out of the plan, and says whether it was there: a deploy brings
/// the artifact along.
pub(super) fn missing(plan: &mut PlanView) -> bool {
    let before = plan.problems.len();
    plan.problems.retain(|problem| problem.code != NO_ARTIFACT);
    plan.problems.len() < before
}

/// A plan that would be refused ends as the refusal would.
fn exit(plan: &PlanView, exit_code: bool) -> Exit {
    match plan.problems.first() {
        Some(problem) => Failure::from(from_wire(problem)).exit,
        None if exit_code && !plan.already_live => Exit::Changes,
        None => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::{exit, missing};
    use crate::exit::Exit;
    use baton_proto::v1::{PlanView, Problem};

    #[test]
    fn an_artifact_that_a_deploy_brings_along_is_no_objection() {
        let problem = |code| Problem { code, ..Problem::default() };
        let mut plan = PlanView { problems: vec![problem(601), problem(703)], ..PlanView::default() };
        assert!(missing(&mut plan));
        assert_eq!(plan.problems, [problem(703)]);
        assert!(!missing(&mut plan));
    }

    #[test]
    fn changes_end_with_10_only_when_asked() {
        let plan = PlanView::default();
        let live = PlanView { already_live: true, ..PlanView::default() };
        let refused = PlanView { problems: vec![Problem { code: 701, ..Problem::default() }], ..PlanView::default() };
        assert_eq!([exit(&plan, false), exit(&plan, true)], [Exit::Done, Exit::Changes]);
        assert_eq!([exit(&live, false), exit(&live, true)], [Exit::Done, Exit::Done]);
        assert_eq!([exit(&refused, false), exit(&refused, true)], [Exit::Refused, Exit::Refused]);
    }
}
