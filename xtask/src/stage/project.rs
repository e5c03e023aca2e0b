//! What lies in the project's folder: `tidegate.yaml` and artifacts that start the example service.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tidegate_example_service::Behaviour;

use super::Stage;

/// A canary of about four seconds with every kind of step that a kill can hit: a one-shot, weights,
/// pauses, a bake window; watched by a limit on the counts.
pub const CANARY: &str = "
      steps:
        - run: { name: effect, command: [./effect.sh], once: true, timeout: 10s }
        - setWeight: 25
        - pause: { duration: 1s }
        - setWeight: 60
        - pause: { duration: 1s }
      analysis: [errors]
      scaleDownDelay: 1s";

/// What the project says.
#[derive(Debug, Clone)]
pub struct Project {
    /// The canary's keys, indented by six.
    pub canary: String,
    /// `bake:`
    pub bake: String,
}

impl Default for Project {
    fn default() -> Self {
        Self { canary: CANARY.into(), bake: "1s".into() }
    }
}

impl Project {
    /// `tidegate.yaml` for a stage.
    #[must_use]
    pub fn text(&self, stage: &Stage) -> String {
        let (home, address) = (stage.home(), stage.address());
        format!(
            r#"version: 1
project: stage
home: {home}
services:
  web:
    artifact: dist/web-{{version}}
    command: [./run.sh, "{{address}}", "{{version}}"]
    instances: 1
    stop: {{ signal: SIGTERM, grace: 5s }}
    probes:
      readiness: {{ http: /health/ready, periodSeconds: 1 }}
      version: {{ http: /version, field: version }}
environments:
  production:
    platform: {{ process: {{ listen: "{address}" }} }}
    strategy: careful
    bake: {bake}
strategies:
  careful:
    canary:{canary}
checks:
  errors: {{ counts: errorRate, limit: 5%, minimumSample: 20 }}
"#,
            home = home.display(),
            bake = self.bake,
            canary = self.canary,
        )
    }
}

impl Stage {
    /// Writes `tidegate.yaml`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_project(&self, project: &Project) -> Result<()> {
        self.write("tidegate.yaml", &project.text(self))
    }

    /// Writes a file of the project.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder().join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Where effects of one-shots are written, a line each: the version that had it.
    #[must_use]
    pub fn effects(&self) -> PathBuf {
        self.folder().join("effects")
    }

    /// How often the one-shot of `version` was carried out.
    #[must_use]
    pub fn effects_of(&self, version: &str) -> usize {
        let text = std::fs::read_to_string(self.effects()).unwrap_or_default();
        text.lines().filter(|line| *line == version).count()
    }

    /// Makes the artifact `dist/web-VERSION`: a start script of the example service with this
    /// behaviour, and a one-shot that leaves an effect.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn artifact(&self, version: &str, behaviour: &Behaviour) -> Result<()> {
        let folder = self.folder().join(format!("dist/web-{version}"));
        std::fs::create_dir_all(&folder)?;
        let (example, flags) = (self.binaries().example.display(), behaviour.flags().join(" "));
        let run = format!(
            "#!/bin/sh\n# {version}\nexec {example} serve --listen \"$1\" --version \"$2\" {flags}\n"
        );
        // One write of one line: two of them never mix.
        let effect = format!("#!/bin/sh\necho {version} >>{}\n", self.effects().display());
        script(&folder.join("run.sh"), &run)?;
        script(&folder.join("effect.sh"), &effect)
    }
}

fn script(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Binaries, Stage};
    use std::process::Command;
    use tidegate_example_service::Behaviour;

    #[test]
    fn an_artifact_leaves_one_effect_for_each_time_it_is_run() {
        let program: std::path::PathBuf = "/bin/true".into();
        let binaries = Binaries { tidegate: program.clone(), example: program };
        let stage = Stage::new(&binaries).unwrap();
        stage.artifact("v1", &Behaviour::default()).unwrap();
        stage.artifact("v10", &Behaviour { errors: 0.5, ..Behaviour::default() }).unwrap();
        assert_eq!(stage.effects_of("v1"), 0);
        for (version, times) in [("v1", 2), ("v10", 1)] {
            for _ in 0..times {
                let script = stage.folder().join(format!("dist/web-{version}/effect.sh"));
                assert!(Command::new(script).status().unwrap().success());
            }
        }
        assert_eq!((stage.effects_of("v1"), stage.effects_of("v10")), (2, 1));
        let run = stage.folder().join("dist/web-v10/run.sh");
        let text = std::fs::read_to_string(&run).unwrap();
        assert!(text.contains("--errors 0.5"), "{text}");
        assert!(Command::new(run).args(["127.0.0.1:1", "v10"]).status().unwrap().success());
    }
}
