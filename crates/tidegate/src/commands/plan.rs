//! `plan`: every step, its undo and what happens if Tidegate dies there.

pub(super) use tidegate_core::plan::make;
use tidegate_core::plan::{Plan, PlanStep};
use tidegate_core::spec::ProjectSpec;
use tidegate_wire::error::ErrorBody;

use super::Context;
use super::release::Prepared;
use crate::cli::{Output, PlanArgs};
use crate::exit::{Exit, Failure, Report};
use crate::output::numbers::count;
use crate::output::table::{layout, wrap};
use crate::output::{BOLD, DIM, Printer, YELLOW, live, printable};
use crate::project;

/// Prints it; changes nothing.
pub(super) fn run(context: &Context, args: &PlanArgs) -> Result<Exit, Failure> {
    let loaded = project::load(&context.common)?;
    let prepared = Prepared::new(context, &loaded, &args.version, args.to.as_deref())?;
    let home = context.home_of(&loaded)?;
    let plan = prepared.plan(loaded.spec(), &home)?;
    match context.printer.output {
        Output::Text => text(&context.printer, &plan),
        Output::Json | Output::Jsonl => context.printer.document(&plan),
    }
    refuse(&plan)?;
    Ok(Exit::Done)
}

/// Refuses a plan that cannot work.
///
/// # Errors
/// All reasons at once (exit code 3).
pub(super) fn refuse(plan: &Plan) -> Result<(), Failure> {
    if plan.refusals.is_empty() {
        return Ok(());
    }
    let on = format!("{} {}", plan.service, plan.version);
    let errors = plan
        .refusals
        .iter()
        .map(|text| Report {
            body: ErrorBody::new("planRefused", text, &on),
            rendered: None,
            document: None,
        })
        .collect();
    Err(Failure { exit: Exit::Refused, errors })
}

/// The plan in one line.
pub(super) fn summary(spec: &ProjectSpec, prepared: &Prepared<'_>, plan: &Plan) -> String {
    let undo = plan
        .steps
        .iter()
        .filter_map(|step| step.undo_seconds)
        .fold(None, |slowest: Option<f64>, seconds| {
            Some(slowest.map_or(seconds, |slowest| slowest.max(seconds)))
        })
        .map(|seconds| format!(", undo ≤ {seconds} s"))
        .unwrap_or_default();
    let no_return: Vec<String> = plan
        .steps
        .iter()
        .filter(|step| step.point_of_no_return)
        .map(|step| step.n.to_string())
        .collect();
    let end = if no_return.is_empty() {
        "nothing irreversible".to_owned()
    } else {
        format!("step {} is not undone", no_return.join(", "))
    };
    format!(
        "release {BOLD}{} {}{BOLD:#} of {} to {}  {}  plan {}  {}{undo}, {end}",
        prepared.service.name,
        prepared.release.version,
        spec.project,
        prepared.names().join(", "),
        prepared.release.digest.short(),
        plan.digest.short(),
        count(plan.steps.len() as u64, "step", "steps"),
    )
}

fn text(printer: &Printer, plan: &Plan) {
    let columns = live::columns().clamp(60, 120);
    printer.answer(&format!(
        "{BOLD}plan{BOLD:#} {} {} of {}  release {}  plan {}",
        plan.service,
        printable(&plan.version),
        plan.project,
        plan.release.short(),
        plan.digest.short(),
    ));
    let mut environment = "";
    let mut rows: Vec<Vec<String>> = Vec::new();
    let flush = |rows: &mut Vec<Vec<String>>| {
        let head = ["", "does", "undo", "if we die there"].map(str::to_owned).to_vec();
        let mut all = vec![head];
        all.append(rows);
        for (index, line) in layout(&all, 3, columns).into_iter().enumerate() {
            let line = if index == 0 { format!("{DIM}{line}{DIM:#}") } else { line };
            printer.answer(&line);
        }
    };
    for step in &plan.steps {
        if step.environment != environment {
            if !rows.is_empty() {
                flush(&mut rows);
            }
            environment = &step.environment;
            printer.answer(&format!("\n{BOLD}{environment}{BOLD:#}"));
        }
        rows.push(row(step));
    }
    if !rows.is_empty() {
        flush(&mut rows);
    }
    if !plan.warnings.is_empty() {
        printer.answer("");
    }
    for warning in &plan.warnings {
        for (index, line) in wrap(&printable(warning), columns - 2).iter().enumerate() {
            let mark = if index == 0 { format!("{YELLOW}!{YELLOW:#}") } else { " ".to_owned() };
            printer.answer(&format!("{mark} {line}"));
        }
    }
}

fn row(step: &PlanStep) -> Vec<String> {
    let mark = if step.point_of_no_return { "!" } else { "" };
    let undo = match step.undo_seconds {
        Some(seconds) => format!("{} (≤ {seconds} s)", step.undo),
        None => step.undo.clone(),
    };
    vec![
        format!("{}{mark}", step.n),
        printable(&step.action),
        printable(&undo),
        printable(&step.if_we_die_here),
    ]
}
