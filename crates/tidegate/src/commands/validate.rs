//! `validate`: all mistakes of the project file at once.

use serde_json::json;
use tidegate_syntax::Diagnostic;

use super::Context;
use crate::cli::Output;
use crate::exit::{Exit, Failure};
use crate::output::GREEN;
use crate::output::numbers::count;
use crate::project;

/// Says what is in the file, or what is wrong with it.
pub(super) fn run(context: &Context) -> Result<Exit, Failure> {
    let loaded = project::load(&context.common)?;
    let spec = loaded.spec();
    let printer = &context.printer;
    if printer.output != Output::Text {
        let warnings: Vec<_> = loaded.project.warnings.iter().map(Diagnostic::body).collect();
        let services: Vec<_> = spec.services.iter().map(|s| &s.name).collect();
        let environments: Vec<_> = spec.environments.iter().map(|e| &e.name).collect();
        printer.document(&json!({
            "apiVersion": tidegate_wire::API_VERSION,
            "kind": "Validation",
            "file": loaded.name,
            "valid": true,
            "project": spec.project,
            "services": services,
            "environments": environments,
            "checks": spec.checks.iter().map(|c| &c.name).collect::<Vec<_>>(),
            "unsupported": spec.unsupported,
            "warnings": warnings,
        }));
        return Ok(Exit::Done);
    }
    if !loaded.project.warnings.is_empty() {
        printer.progress(project::render(&loaded.project.warnings).trim_end());
    }
    printer.answer(&format!(
        "{GREEN}valid{GREEN:#}: {}, project {}: {} ({}), {} ({})",
        loaded.name,
        spec.project,
        count(spec.services.len() as u64, "service", "services"),
        project::list(spec.services.iter().map(|s| s.name.as_str())),
        count(spec.environments.len() as u64, "environment", "environments"),
        project::list(spec.environments.iter().map(|e| e.name.as_str())),
    ));
    if !spec.unsupported.is_empty() {
        printer.hint("a release that touches what is not in this version will be refused");
    }
    Ok(Exit::Done)
}
