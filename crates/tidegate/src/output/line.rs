//! An event as one line.

use serde_json::Value;
use tidegate_wire::api::Event;

use crate::clock;
use crate::output::printable;

/// `HH:MM:SS seq event text`; in CI the time is RFC 3339 in UTC.
pub(crate) fn event_line(event: &Event, ci: bool) -> String {
    let time = match clock::parse(&event.at) {
        Some(ms) if ci => clock::utc_second(ms),
        Some(ms) => clock::local_hms(ms),
        None => event.at.clone(),
    };
    format!("{time} {} {} {}", event.seq, event.event, event_text(event)).trim_end().to_owned()
}

/// What an event says: its reason, or its own fields.
pub(crate) fn event_text(event: &Event) -> String {
    let mut subject = event.stream.splitn(3, '/').nth(2).unwrap_or_default().to_owned();
    let fields = fields(&event.data);
    if !fields.is_empty() {
        subject = format!("{subject} {fields}");
    }
    match &event.reason {
        Some(reason) => printable(&format!("{subject}: {}", reason.text)).replace('\n', " "),
        None => printable(&subject).replace('\n', " "),
    }
}

/// The scalar fields of an event: `environment=production rollout=r-1`.
fn fields(data: &Value) -> String {
    let Some(object) = data.as_object() else { return String::new() };
    let mut words = Vec::new();
    for (key, value) in object {
        let text = match value {
            _ if key == "type" => continue,
            Value::String(text) if text.starts_with("sha256:") => {
                text.chars().take(19).collect::<String>()
            }
            Value::String(text) if text.chars().count() <= 60 => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::String(_) | Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        words.push(format!("{key}={text}"));
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tidegate_core::Reason;

    fn event(data: Value, reason: Option<Reason>) -> Event {
        Event {
            api_version: String::new(),
            kind: String::new(),
            seq: 7,
            at: "2026-07-01T12:00:01.250Z".to_owned(),
            stream: "shop/rollout/r-1".to_owned(),
            event: "rollout.stepStarted".to_owned(),
            data,
            reason,
        }
    }

    #[test]
    fn an_event_is_one_line_with_its_reason() {
        let reason = Some(Reason::new("plan", "the pause is over"));
        let line = event_line(&event(json!({"type": "stepStarted", "step": 2}), reason), true);
        assert_eq!(
            line,
            "2026-07-01T12:00:01Z 7 rollout.stepStarted r-1 step=2: the pause is over"
        );
    }

    #[test]
    fn nothing_in_an_event_can_break_the_line_or_steer_the_terminal() {
        let reason = Some(Reason::new("x", "one\ntwo\u{1b}[2J"));
        let line = event_line(&event(json!({"name": "a\nb"}), reason), false);
        assert!(!line.contains('\n') && !line.contains('\u{1b}'), "{line:?}");
    }
}
