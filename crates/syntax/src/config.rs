//! The file with all defaults filled in.

use crate::project::Project;
use crate::yaml::write;

/// The project as YAML with every default in place and the files of `include:` put in. Values of
/// `{env: NAME}` stay as they are written, so that nothing that may be a secret is printed.
/// Reading it gives the same spec.
#[must_use]
pub fn config(project: &Project) -> String {
    let mut document = project.document.clone();
    let kept = document.entries().iter().filter(|entry| &*entry.key != "include").cloned();
    document = crate::yaml::Node::map(kept.collect(), document.span);
    write(&document)
}
