//! Files without mistakes.

use std::collections::BTreeMap;

use tidegate_core::spec::{CheckKind, CountMetric, Limit, LostAction, Platform, ProbeAction, Step};
use tidegate_syntax::diagnostic::{Style, render_all};
use tidegate_syntax::{Project, ProjectInput, config, read_project};

const GOOD: &str = include_str!("files/good.yaml");
const SHOP: &str = include_str!("files/shop.yaml");
const COMPOSE: &str = include_str!("files/compose.yaml");

fn read(text: &str) -> Project {
    let variables = BTreeMap::from([("LEVEL", "debug"), ("EMPTY", "")]);
    let input = ProjectInput {
        file: "tidegate.yaml",
        folder: "/srv/shop",
        bytes: text.as_bytes(),
        variable: &|name| variables.get(name).map(|value| (*value).to_owned()),
        include: &|name| match name {
            "more/checks.yaml" => {
                Ok(b"checks: { up: { tcp: '127.0.0.1:80' } }\nx-notes: ours\n".to_vec())
            }
            _ => Err("no such file".to_owned()),
        },
    };
    match read_project(&input) {
        Ok(project) => project,
        Err(mistakes) => panic!("{}", render_all(&mistakes, Style::Plain)),
    }
}

#[test]
fn a_file_becomes_the_spec_that_it_says() {
    let project = read(GOOD);
    assert_eq!(render_all(&project.warnings, Style::Plain), "");
    let spec = &project.spec;
    println!("{spec:#?}");
    println!("{}", config(&project));
}

#[test]
fn p() {
    println!("{}", render_all(&read(SHOP).warnings, Style::Plain));
    println!("{:#?}", read(SHOP).spec);
    println!("{}", config(&read(SHOP)));
    println!("{}", render_all(&read(COMPOSE).warnings, Style::Plain));
    println!("{:#?}", read(COMPOSE).spec);
}
