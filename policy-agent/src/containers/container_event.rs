//! Events of an engine: containers that start and stop, and networks that they join and leave.

use serde::Deserialize;

use crate::policy::ContainerEngine;

/// One line of `GET /events`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ContainerEvent {
    #[serde(rename = "Type")]
    kind: String,
    action: String,
    actor: EventActor,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EventActor {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    attributes: EventAttributes,
}

#[derive(Debug, Default, Deserialize)]
struct EventAttributes {
    /// In events of networks.
    container: Option<String>,
    /// That of the network in events of networks.
    name: Option<String>,
}

impl ContainerEvent {
    /// The ID of the container.
    pub(super) fn container_id(&self) -> &str {
        let of_network =
            (self.kind == "network").then_some(self.actor.attributes.container.as_deref());
        of_network.flatten().unwrap_or(&self.actor.id)
    }

    /// The name of the container. `None` in events of networks.
    pub(super) fn container_name(&self) -> Option<&str> {
        let name = self.actor.attributes.name.as_deref();
        name.filter(|_| self.kind == "container")
    }

    /// Whether the container gets an interface right after this.
    pub(super) fn precedes_interface(&self) -> bool {
        self.action == "connect"
    }
}

/// The path that an engine streams its events under.
pub(super) fn events_path(engine: ContainerEngine) -> String {
    let filters = match engine {
        ContainerEngine::Docker => {
            r#"{"type":["container","network"],"event":["start","die","connect","disconnect"]}"#
        }
        ContainerEngine::Podman => r#"{"type":["container"],"event":["start","died","cleanup"]}"#,
    };
    let encoded =
        percent_encoding::utf8_percent_encode(filters, percent_encoding::NON_ALPHANUMERIC);
    format!("/events?filters={encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_name_their_container() {
        for (text, id, name, precedes) in [
            (
                r#"{"Type":"network","Action":"connect","Actor":{"ID":"ff53","Attributes":
                {"container":"40aa","name":"bridge","type":"bridge"}},"time":1}"#,
                "40aa",
                None,
                true,
            ),
            (
                r#"{"status":"start","id":"40aa","Type":"container","Action":"start","Actor":
                {"ID":"40aa","Attributes":{"image":"test","name":"web"}},"scope":"local"}"#,
                "40aa",
                Some("web"),
                false,
            ),
        ] {
            let event: ContainerEvent = serde_json::from_str(text).expect("an event");
            assert_eq!((event.container_id(), event.container_name()), (id, name));
            assert_eq!(event.precedes_interface(), precedes);
        }
    }
}
