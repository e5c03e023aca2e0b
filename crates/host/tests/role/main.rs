//! The roles of the binary for the tests of this crate, and stand-ins for engine and switch.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for tests")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tidegate_host::HostConfig;
use tidegate_wire::home::Home;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["shim", spec] => tidegate_host::shim(Path::new(spec)),
        ["exec-instance", spec] => tidegate_host::exec_instance(Path::new(spec)),
        ["host", "--home", home, options @ ..] => host(home, options),
        [role @ ("engine" | "switch"), "--home", home] => stand_in(role, home),
        ["service", port, version] => service(port, version),
        _ => {
            eprintln!("unknown arguments {words:?}");
            ExitCode::from(2)
        }
    }
}

fn host(home: &str, options: &[&str]) -> ExitCode {
    let Ok(binary) = std::env::current_exe() else { return ExitCode::FAILURE };
    let mut config = HostConfig::new(Home::new(PathBuf::from(home)), binary, "test");
    if !options.contains(&"--with-switch") {
        config.switch = None;
    }
    config.restart_after_ms = 100;
    config.log_bytes = 4096;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map(|runtime| runtime.block_on(tidegate_host::run(config))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(e)) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Writes its process id, notes its start, and waits to be killed.
fn stand_in(role: &str, home: &str) -> ExitCode {
    use std::io::Write;
    let home = Home::new(PathBuf::from(home));
    let pid = std::process::id().to_string();
    let fresh = home.root().join(format!("{role}.pid.new"));
    let started = home.root().join(format!("{role}.started"));
    let noted = std::fs::File::options()
        .append(true)
        .create(true)
        .open(started)
        .and_then(|mut file| writeln!(file, "{pid}"));
    let written =
        std::fs::write(&fresh, &pid).and_then(|()| std::fs::rename(&fresh, home.pid(role)));
    if noted.and(written).is_err() {
        return ExitCode::FAILURE;
    }
    // Ends at once with the code that the test has written down.
    let ends = std::fs::read_to_string(home.root().join(format!("{role}.ends")));
    if let Some(code) = ends.ok().and_then(|text| text.parse::<u8>().ok()) {
        return ExitCode::from(code);
    }
    loop {
        std::thread::park();
    }
}

/// A service: `/version` and `/health` answer, `/crash` ends it with status 3, `/leave` with 0,
/// `/say/TEXT` writes to its standard output.
fn service(port: &str, version: &str) -> ExitCode {
    use std::io::{BufRead, BufReader, Write};
    let Ok(listener) = std::net::TcpListener::bind(format!("127.0.0.1:{port}")) else {
        return ExitCode::from(98);
    };
    for stream in listener.incoming().flatten() {
        let mut line = String::new();
        let mut reader = BufReader::new(&stream);
        if reader.read_line(&mut line).is_err() {
            continue;
        }
        let mut rest = String::new();
        while reader.read_line(&mut rest).is_ok_and(|n| n > 2) {
            rest.clear();
        }
        let path = line.split(' ').nth(1).unwrap_or_default();
        let body = match path {
            "/crash" => return ExitCode::from(3),
            "/leave" => return ExitCode::SUCCESS,
            "/version" => format!("{{\"version\":\"{version}\"}}"),
            other => {
                if let Some(text) = other.strip_prefix("/say/") {
                    println!("{text}");
                }
                "fine".to_owned()
            }
        };
        let _ = write!(
            &stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    ExitCode::SUCCESS
}
