//! `release`: makes a release and drives it through the environments.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tidegate_core::plan::{Plan, StableRef};
use tidegate_core::spec::{EnvironmentSpec, Platform, ProjectSpec, ReleaseRef, ServiceSpec};
use tidegate_core::{Digest, StreamId};
use tidegate_wire::api::{ReleaseAccepted, ReleaseRequest, Status};
use tidegate_wire::home::Home;

use super::{Context, block_on, plan};
use crate::cli::{Output, ReleaseArgs};
use crate::client::Engine;
use crate::exit::{Exit, Failure, with_chain};
use crate::follow::{Feed, Following, Interrupts, Release, Target};
use crate::project::{self, Loaded};
use crate::source::Source;
use crate::{home, principal};

/// What is to go where.
pub(super) struct Prepared<'a> {
    /// The service.
    pub(super) service: &'a ServiceSpec,
    /// The environments in order.
    pub(super) environments: Vec<&'a EnvironmentSpec>,
    /// The version, its digest and where it lies.
    pub(super) release: ReleaseRef,
}

impl<'a> Prepared<'a> {
    /// Names, artifact and digest of a release.
    ///
    /// # Errors
    /// What is wrong with the input (exit code 2), or what this build cannot do (3).
    pub(super) fn new(
        context: &Context,
        loaded: &'a Loaded,
        version: &str,
        to: Option<&str>,
    ) -> Result<Self, Failure> {
        project::version_name(version)?;
        let spec = loaded.spec();
        let service = project::service(spec, context.common.service.as_deref())?;
        let to = to.or(context.common.environment.as_deref());
        let environments = project::environments(spec, to)?;
        let names: Vec<&str> = environments.iter().map(|e| e.name.as_str()).collect();
        project::supported(spec, &names, &service.name)?;
        let path = loaded.folder.join(service.artifact.replace("{version}", version));
        let digest = digest(&path, service, version)?;
        start_command(&path, service)?;
        let path = path.canonicalize().unwrap_or(path).to_string_lossy().into_owned();
        let release = ReleaseRef { version: version.to_owned(), digest, path };
        Ok(Self { service, environments, release })
    }

    /// Names of the environments.
    pub(super) fn names(&self) -> Vec<&'a str> {
        self.environments.iter().map(|environment| environment.name.as_str()).collect()
    }

    /// The plan, given what runs now.
    ///
    /// # Errors
    /// If the home cannot be read.
    pub(super) fn plan(&self, spec: &ProjectSpec, home: &Home) -> Result<Plan, Failure> {
        let status = block_on(async { Source::open(home).await?.status(home, &[]).await })?;
        let stable = |environment: &str| -> Option<StableRef> {
            status
                .environments
                .iter()
                .find(|lane| lane.name == environment && lane.service == self.service.name)
                .and_then(|lane| lane.stable.clone())
                .map(|stable| StableRef { version: stable.version, digest: stable.digest })
        };
        let mut plan = plan::make(spec, &self.names(), &self.service.name, &self.release, &stable);
        plan.refusals.extend(self.taken_ports(home, &status));
        let mut known = std::collections::BTreeSet::new();
        plan.warnings.retain(|warning| known.insert(warning.clone()));
        Ok(plan)
    }

    /// Listeners that somebody else holds. Those of our own switch are fine.
    fn taken_ports(&self, home: &Home, status: &Status) -> Vec<String> {
        let switch = home::living(home, "switch").is_some();
        let is_ours = |environment: &str| {
            switch && status.environments.iter().any(|lane| lane.name == environment)
        };
        self.environments
            .iter()
            .filter(|environment| !is_ours(&environment.name))
            .filter_map(|environment| {
                let Platform::Process { listen } = &environment.platform;
                let address: SocketAddr = listen.parse().ok()?;
                let error = TcpListener::bind(address).err()?;
                Some(format!(
                    "{}: {address} cannot be opened for its clients: {error}",
                    environment.name
                ))
            })
            .collect()
    }
}

fn digest(path: &PathBuf, service: &ServiceSpec, version: &str) -> Result<Digest, Failure> {
    let on = path.display().to_string();
    if let Err(error) = std::fs::metadata(path) {
        return Err(Failure::input(
            "noArtifact",
            format!("the artifact of {} {version} cannot be read", service.name),
            &on,
        )
        .cause(error.to_string())
        .fix(format!("build it there, or change `artifact: {}`", service.artifact)));
    }
    tidegate_host::artifact_digest(path).map_err(|error| {
        with_chain(
            Failure::input(
                "badArtifact",
                format!("the artifact of {} {version} cannot be used", service.name),
                &on,
            ),
            &error,
        )
    })
}

/// A program that is named with a slash lies in the artifact and can be executed. Archives are
/// looked into by the host.
fn start_command(artifact: &Path, service: &ServiceSpec) -> Result<(), Failure> {
    let Some(program) = service.command.first().filter(|program| program.contains('/')) else {
        return Ok(());
    };
    if !artifact.is_dir() || program.contains('{') {
        return Ok(());
    }
    let path = artifact.join(program);
    let wrong = |why: &str| {
        let message = format!("the start command of {} {why}", service.name);
        Err(Failure::input("startCommand", message, path.display().to_string()))
    };
    match std::fs::metadata(&path) {
        Err(error) => wrong("is not in the artifact").map_err(|failure: Failure| {
            failure.cause(error.to_string()).fix("build it there, or change `command:`")
        }),
        Ok(meta) if !meta.is_file() => wrong("is no file"),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => wrong("is not executable")
            .map_err(|failure: Failure| failure.fix(format!("chmod +x {}", path.display()))),
        Ok(_) => Ok(()),
    }
}

/// Makes the release and follows it.
pub(super) fn run(context: &Context, args: &ReleaseArgs) -> Result<Exit, Failure> {
    let loaded = project::load(&context.common)?;
    let prepared = Prepared::new(context, &loaded, &args.version, args.to.as_deref())?;
    let home = context.home_of(&loaded)?;
    home::prepare(&home)?;
    home::room(&home)?;
    let plan = prepared.plan(loaded.spec(), &home)?;
    plan::refuse(&plan)?;
    context.printer.progress(&plan::summary(loaded.spec(), &prepared, &plan));
    for warning in &plan.warnings {
        context.printer.warning(warning);
    }
    let request = ReleaseRequest {
        version: prepared.release.version.clone(),
        service: prepared.service.name.clone(),
        path: prepared.release.path.clone(),
        digest: prepared.release.digest.clone(),
        environments: prepared.names().into_iter().map(str::to_owned).collect(),
        project: loaded.spec().clone(),
        principal: principal::me(),
        request_id: principal::request_id(),
    };
    block_on(drive(context, args, &home, &request))
}

async fn drive(
    context: &Context,
    args: &ReleaseArgs,
    home: &Home,
    request: &ReleaseRequest,
) -> Result<Exit, Failure> {
    let printer = &context.printer;
    let interrupts = Interrupts::new().map_err(|error| {
        Failure::unreachable("noSignals", "signals cannot be taken", "").cause(error.to_string())
    })?;
    let engine = Engine::ensure(home).await?;
    let accepted: ReleaseAccepted = engine.post("/v1/releases", request).await?;
    if let Some(text) = &accepted.no_op {
        printer.progress(text);
    }
    if context.common.no_wait {
        return Ok(announce(context, &engine, &accepted).await);
    }
    let stream = StreamId::new(&request.project.project, "release", &accepted.release);
    let target = Target::Release(Release::of(&stream));
    let follow = args.follow.clone();
    Following::new(printer, home, target, follow, args.abort_on_interrupt)
        .run(Feed::new(home, Some(engine), accepted.seq), interrupts)
        .await
}

/// The answer of `--no-wait`: accepted, or held if it waits for a person already.
async fn announce(context: &Context, engine: &Engine, accepted: &ReleaseAccepted) -> Exit {
    let printer = &context.printer;
    let mut exit = Exit::Done;
    if let Some(id) = &accepted.rollout {
        let path = format!("/v1/rollouts/{}", crate::source::encode(id));
        let rollout: Option<tidegate_wire::api::Rollout> =
            engine.get(&path, std::time::Duration::from_secs(5)).await.ok();
        let waits = rollout.and_then(|rollout| rollout.waiting).and_then(|waiting| waiting.needs);
        if waits.is_some() {
            exit = Exit::Held;
        }
    }
    match printer.output {
        Output::Text => {
            let id = accepted.rollout.as_deref().unwrap_or("it");
            printer.answer(&format!("accepted {}: {id} is in progress", accepted.release));
            printer.hint("follow it with `tidegate watch`, stop it with `tidegate abort`");
        }
        Output::Json | Output::Jsonl => {
            printer.document(&crate::documents::with_kind("ReleaseAccepted", accepted));
        }
    }
    exit
}
