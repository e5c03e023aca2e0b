//! Help, exit codes and errors.

use snapbox::{assert_data_eq, str};

use crate::stage::Stage;

#[test]
fn the_short_help_lists_what_there_is() {
    let said = Stage::empty().run(&["-h"]).code(0);
    assert_data_eq!(
        said.out,
        str![[r#"
Takes a release to production and, when production says so, back again

Usage: tidegate [OPTIONS] <COMMAND>

Commands:
  init         Write a tidegate.yaml from what lies here
  validate     Show all mistakes of the project file at once
  plan         Show every step, its undo and what happens if Tidegate dies there; changes nothing
  release      Make a release and drive it through the environments [alias: deploy]
  watch        Follow a rollout until it ends
  status       What runs where, and what is under way
  explain      Why it is waiting, why it decided as it did
  history      Rollouts so far, newest first
  logs         Output of the instances of a service
  promote      Go on at once: skip the current step, or all of them
  pause        Stay at the current step
  resume       Go on after `pause`
  abort        Stop a rollout and put the version before back
  retry        Once more, after a rollout that did not end promoted
  undo         Put the version before back, or another kept one [alias: rollback]
  doctor       Look for what would be in the way; each finding with its fix
  demo         Three acts on a temporary home: a good release, a bad one, a killed engine
  schema       Print the JSON Schema of tidegate.yaml
  config       Print the project file with all defaults filled in
  completions  Print completions for a shell

Options:
  -e, --environment <E>  Only this environment
  -s, --service <S>      Only this service
  -o, --output <OUTPUT>  Form of the answer: for people, one document, or a stream of documents
                         [default: text] [possible values: text, json, jsonl]
      --home <H>         Where engine and journal live: `local` or a folder [env: TIDEGATE_HOME]
  -f, --file <FILE>      The project file [default: tidegate.yaml]
      --quiet            No progress and no hints, only the answer and errors
      --yes              Answer questions with yes
      --no-wait          Return as soon as it is accepted
  -h, --help             Print help (see more with '--help')
  -V, --version          Print version

"#]]
    );
}

#[test]
fn the_long_help_says_what_is_missing_and_what_exit_codes_mean() {
    let said = Stage::empty().run(&["--help"]).code(0);
    for part in ["Not in this version", "approve", "runbook", "130 detached", "engine, host, shim"]
    {
        assert!(said.out.contains(part), "{part} is missing in\n{}", said.out);
    }
}

#[test]
fn verbs_of_the_interface_that_are_not_here_are_refused_with_3() {
    let stage = Stage::empty();
    for verb in ["approve", "freeze", "simulate", "runbook", "setup", "serve", "run"] {
        let said = stage.run(&[verb, "anything", "--at-all", "-o", "json"]).code(3);
        assert_eq!(said.error()["error"]["code"], "notInThisVersion", "{verb}");
        assert!(said.out.is_empty());
    }
    assert_data_eq!(
        stage.run(&["approve"]).code(3).err,
        str![[r#"
error[notInThisVersion]: `approve` is not in this version
   = fix: `tidegate --help` lists what is

"#]]
    );
}

#[test]
fn a_mistake_on_the_command_line_is_2_in_text_and_json() {
    let stage = Stage::empty();
    let said = stage.run(&["relese", "v1"]).code(2);
    assert!(said.err.contains("release"), "{}", said.err);
    let said = stage.run(&["release", "-o", "json"]).code(2);
    assert_eq!(said.error()["error"]["code"], "usage");
    stage.run(&["watch", "--until", "someday"]).code(2);
    stage.run(&["release", "v1", "--timeout", "5 minutes"]).code(2);
}

#[test]
fn without_a_file_and_a_home_the_error_says_what_to_do() {
    let stage = Stage::empty();
    let output = stage.command(&["status"]).env_remove("TIDEGATE_HOME").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_data_eq!(
        String::from_utf8(output.stderr).unwrap(),
        str![[r#"
error[noProject]: no tidegate.yaml here, and no home named
   = fix: run it in the folder of tidegate.yaml, or name the file with --file
   = fix: or name the home with --home or TIDEGATE_HOME
   = fix: `tidegate init` writes a tidegate.yaml

"#]]
    );
    stage.run(&["release", "v1"]).code(2);
    stage.run(&["validate"]).code(2);
}

#[test]
fn a_home_elsewhere_is_refused_and_one_that_cannot_be_written_is_5() {
    let stage = Stage::project("{ setWeight: 10 }");
    stage.version("v1", 200);
    stage.run(&["status", "--home", "ssh://deploy@web1"]).code(3);
    stage.run(&["release", "v1", "--home", "https://tidegate.example.com"]).code(3);
    stage.write("a-file", "");
    let home = stage.path("a-file").join("home");
    let said = stage.run(&["release", "v1", "--home", home.to_str().unwrap()]).code(5);
    assert!(said.err.contains("a-file/home"), "{}", said.err);
}

#[test]
fn a_damaged_journal_is_5_for_everybody_and_stays_as_it_is() {
    let stage = Stage::project("{ setWeight: 10 }");
    stage.version("v1", 200);
    let garbage = "no journal at all ".repeat(1000);
    stage.write("home/journal.db", &garbage);
    for verb in [&["status"][..], &["history"], &["release", "v1"]] {
        let said = stage.run(&[verb, &["-o", "json"]].concat()).code(5);
        assert_eq!(said.error()["error"]["code"], "journalDamaged", "{verb:?}");
    }
    let after = std::fs::read_to_string(stage.home().join("journal.db")).unwrap();
    assert!(after == garbage, "the journal was touched");
}

#[test]
fn looking_at_an_empty_home_starts_nothing_and_makes_nothing() {
    let stage = Stage::project("{ setWeight: 10 }");
    assert!(stage.run(&["status"]).code(0).out.contains("nothing has been released here"));
    let status = stage.run(&["status", "-o", "json"]).code(0).json();
    assert_eq!(status["apiVersion"], "tidegate/v1");
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["engine"]["state"], "stopped");
    stage.run(&["history"]).code(0);
    stage.run(&["watch"]).code(0);
    stage.run(&["explain"]).code(2);
    stage.run(&["abort"]).code(3);
    stage.run(&["watch", "r-1"]).code(2);
    assert!(!stage.home().exists());
}

#[test]
fn completions_schema_and_config_come_out() {
    let stage = Stage::project("{ setWeight: 10 }");
    for shell in ["bash", "zsh", "fish"] {
        assert!(stage.run(&["completions", shell]).code(0).out.contains("tidegate"));
    }
    let schema = stage.run(&["schema"]).code(0).json();
    assert!(schema["properties"]["services"].is_object(), "{schema}");
    let config = stage.run(&["config"]).code(0).out;
    assert!(config.contains("progressDeadline"), "{config}");
    assert_eq!(stage.run(&["config", "-o", "json"]).code(0).json()["kind"], "Config");
}

#[test]
fn a_home_that_had_a_host_is_not_simulated() {
    let stage = Stage::empty();
    std::fs::create_dir_all(stage.home().join("host")).unwrap();
    let home = stage.home().display().to_string();
    let simulated = ["engine", "--platform", "simulated", "--home", &home, "-o", "json"];
    let said = stage.run(&simulated).code(3);
    assert_eq!(said.error()["error"]["code"], "realHome", "{}", said.err);
    let log = ["engine", "--simulated-log", "x", "--home", &home, "-o", "json"];
    assert_eq!(stage.run(&log).code(2).error()["error"]["code"], "usage");
}
