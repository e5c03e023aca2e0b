//! What every section needs while it is turned into a spec.

use tidegate_core::spec::Unsupported;

use crate::diagnostic::{Code, Diagnostic, Sink, shown};
use crate::source::{Sources, Span};

use super::ProjectInput;

/// Where mistakes go, and what may be asked.
pub(crate) struct Context<'a> {
    /// Where spans lead.
    pub(crate) sources: &'a Sources,
    /// Where mistakes go.
    pub(crate) sink: &'a mut Sink,
    /// What the caller gave.
    pub(crate) input: &'a ProjectInput<'a>,
    /// What this build cannot do.
    pub(crate) unsupported: Vec<Unsupported>,
}

/// Something that this build cannot do, before it is known what it touches.
#[derive(Debug, Clone)]
pub(crate) struct Missing {
    /// As a sentence.
    pub(crate) text: String,
    /// Where it stands.
    pub(crate) span: Span,
    /// What to use instead.
    pub(crate) hint: Option<String>,
}

impl Missing {
    /// From its sentence, its place and what to use instead.
    pub(crate) fn new(text: impl Into<String>, span: Span, hint: Option<&str>) -> Self {
        Self { text: text.into(), span, hint: hint.map(str::to_owned) }
    }
}

impl<'a> Context<'a> {
    /// A context without unsupported things yet.
    pub(crate) fn new(
        input: &'a ProjectInput<'a>,
        sources: &'a Sources,
        sink: &'a mut Sink,
    ) -> Self {
        Self { sources, sink, input, unsupported: Vec::new() }
    }

    /// An error at a place, with what to do.
    pub(crate) fn error(
        &mut self,
        code: Code,
        message: impl Into<String>,
        span: Span,
        label: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let diagnostic = Diagnostic::error(code, message).at(self.sources, span, label).fix(fix);
        self.sink.push(diagnostic);
    }

    /// A warning at a place, with what to do.
    pub(crate) fn warning(
        &mut self,
        code: Code,
        message: impl Into<String>,
        span: Span,
        label: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let diagnostic = Diagnostic::warning(code, message).at(self.sources, span, label).fix(fix);
        self.sink.push(diagnostic);
    }

    /// Something that this build cannot do, in every release.
    pub(crate) fn unsupported_everywhere(
        &mut self,
        text: impl Into<String>,
        span: Span,
        hint: Option<String>,
    ) {
        let missing = Missing { text: text.into(), span, hint };
        self.push_unsupported(missing, Vec::new(), Vec::new(), "every release is refused for it");
    }

    /// Something that this build cannot do, in releases of these environments; if there are none,
    /// it is only said.
    pub(crate) fn unsupported_in(&mut self, missing: Missing, environments: Vec<String>) {
        if environments.is_empty() {
            let label = "nothing uses it, so no release is refused";
            return self.say_unsupported(&missing, label.to_owned());
        }
        let label = format!("releases to {} are refused for it", listed(&environments));
        self.push_unsupported(missing, environments, Vec::new(), &label);
    }

    /// Something that this build cannot do, in releases of this service.
    pub(crate) fn unsupported_for(&mut self, missing: Missing, service: &str) {
        self.unsupported_for_all(missing, vec![service.to_owned()]);
    }

    /// Something that this build cannot do, in releases of these services; all if there are none.
    pub(crate) fn unsupported_for_all(&mut self, missing: Missing, services: Vec<String>) {
        let label = if services.is_empty() {
            "every release is refused for it".to_owned()
        } else {
            format!("releases of {} are refused for it", listed(&services))
        };
        self.push_unsupported(missing, Vec::new(), services, &label);
    }

    fn push_unsupported(
        &mut self,
        missing: Missing,
        environments: Vec<String>,
        services: Vec<String>,
        label: &str,
    ) {
        self.say_unsupported(&missing, label.to_owned());
        self.unsupported.push(Unsupported {
            environments,
            services,
            text: missing.text,
            at: self.sources.at(missing.span),
            hint: missing.hint,
        });
    }

    fn say_unsupported(&mut self, missing: &Missing, label: String) {
        let diagnostic = Diagnostic::warning(Code::NotInThisVersion, missing.text.as_str())
            .at(self.sources, missing.span, label)
            .fix_if(missing.hint.clone());
        self.sink.push(diagnostic);
    }
}

/// The first of many names, so that a message stays short.
fn listed(names: &[String]) -> String {
    const MOST: usize = 6;
    let first: Vec<String> = names.iter().take(MOST).map(|name| shown(name)).collect();
    match names.len().saturating_sub(MOST) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
