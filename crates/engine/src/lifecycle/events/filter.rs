// SPDX-License-Identifier: Apache-2.0
//! Which events a subscriber wants, by Docker's rules: values of one key are
//! alternatives, keys and labels must all hold.

use berth::ids::Namespace;

use crate::{
    error::{Error, Kind, Result},
    store::meta::events::Event,
};

/// Things that Docker's events are of and ours are not: a filter by one of
/// these is understood, and nothing passes it.
const OTHERS: [&str; 8] = ["daemon", "network", "volume", "plugin", "node", "service", "secret", "config"];

/// Actions that Docker tells more of, after a colon: their name alone stands
/// for all of them.
const WITH_DETAILS: [&str; 3] = ["health_status", "exec_create", "exec_start"];

/// Docker's word for events of one host.
const SCOPE: &str = "local";

/// Which events a subscriber wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// `None`: of all namespaces.
    namespace: Option<String>,
    types: Vec<String>,
    actions: Vec<String>,
    containers: Vec<String>,
    images: Vec<String>,
    scopes: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    /// It wants events of what has none.
    others: bool,
}

impl EventFilter {
    /// All events of a namespace.
    #[must_use]
    pub fn of(namespace: &Namespace) -> Self {
        Self { namespace: Some(namespace.as_str().to_owned()), ..Self::default() }
    }

    /// Adds `key=value`.
    ///
    /// # Errors
    /// `InvalidArgument` for a key that events can't be filtered by.
    pub fn add(&mut self, key: &str, value: &str) -> Result<()> {
        let values = match key {
            "type" => &mut self.types,
            "event" => &mut self.actions,
            "container" => &mut self.containers,
            "image" => &mut self.images,
            "scope" => &mut self.scopes,
            "label" => {
                self.labels.push(match value.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (value.to_owned(), None),
                });
                return Ok(());
            }
            other if OTHERS.contains(&other) => {
                self.others = true;
                return Ok(());
            }
            _ => {
                let text = format!(
                    "invalid filter '{key}': events have type, event, container, image, label and scope"
                );
                return Err(Error::new(Kind::InvalidArgument, text));
            }
        };
        values.push(value.to_owned());
        Ok(())
    }

    /// Whether `event` is wanted.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == event.namespace)
            && any(&self.types, |t| *t == event.kind)
            && !self.others
            && any(&self.scopes, |scope| scope == SCOPE)
            && any(&self.actions, |action| is_action(&event.action, action))
            && any(&self.containers, |c| is_container(event, c))
            && any(&self.images, |i| is_image(event, i))
            && self.labels.iter().all(|(name, value)| has_label(event, name, value.as_deref()))
    }
}

/// No values: no condition.
fn any(values: &[String], matches: impl FnMut(&String) -> bool) -> bool {
    values.is_empty() || values.iter().any(matches)
}

fn is_action(action: &str, wanted: &str) -> bool {
    action == wanted
        || WITH_DETAILS.contains(&wanted)
            && action.strip_prefix(wanted).is_some_and(|details| details.starts_with(':'))
}

fn is_container(event: &Event, wanted: &str) -> bool {
    event.kind == "container"
        && !wanted.is_empty()
        && (event.id.starts_with(wanted) || attribute(event, "name") == Some(wanted))
}

/// Events of the image itself, and of containers made from it; a name without
/// a tag stands for all of its tags.
fn is_image(event: &Event, wanted: &str) -> bool {
    let name = attribute(event, if event.kind == "image" { "name" } else { "image" });
    let untagged = name.map(without_tag);
    name == Some(wanted) || untagged == Some(wanted) || (event.kind == "image" && event.id == wanted)
}

fn without_tag(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    match name.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

fn has_label(event: &Event, name: &str, value: Option<&str>) -> bool {
    attribute(event, name).is_some_and(|have| value.is_none_or(|value| value == have))
}

fn attribute<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.attributes.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        Event {
            cursor: 1,
            time: 1,
            namespace: "default".into(),
            kind: kind.into(),
            action: action.into(),
            id: id.into(),
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    fn filter(pairs: &[(&str, &str)]) -> EventFilter {
        let mut filter = EventFilter::default();
        for (key, value) in pairs {
            filter.add(key, value).expect("known key");
        }
        filter
    }

    #[test]
    fn values_are_alternatives_and_keys_are_conditions() {
        let die =
            event("container", "die", "abcdef", &[("name", "web"), ("image", "alpine:3.20"), ("tier", "1")]);
        for yes in [
            &[][..],
            &[("type", "container")],
            &[("event", "start"), ("event", "die")],
            &[("container", "web")],
            &[("container", "abc")],
            &[("image", "alpine")],
            &[("image", "alpine:3.20")],
            &[("label", "tier")],
            &[("label", "tier=1"), ("event", "die")],
        ] {
            assert!(filter(yes).matches(&die), "{yes:?}");
        }
        for no in [
            &[("type", "image")][..],
            &[("event", "start")],
            &[("container", "we")],
            &[("container", "")],
            &[("image", "alpine:3.2")],
            &[("label", "tier=2")],
            &[("label", "tier"), ("label", "other")],
            &[("event", "die"), ("container", "db")],
        ] {
            assert!(!filter(no).matches(&die), "{no:?}");
        }
    }

    #[test]
    fn an_action_with_details_is_known_by_its_name() {
        let healthy = event("container", "health_status: healthy", "a", &[]);
        for (wanted, is) in [
            ("health_status", true),
            ("health_status: healthy", true),
            ("health_status: unhealthy", false),
            ("health", false),
        ] {
            assert_eq!(filter(&[("event", wanted)]).matches(&healthy), is, "{wanted}");
        }
        assert!(!filter(&[("event", "die")]).matches(&event("container", "die: x", "a", &[])));
    }

    #[test]
    fn dockers_other_filters_are_understood() {
        let die = event("container", "die", "abc", &[("name", "web")]);
        assert!(filter(&[("scope", "local")]).matches(&die));
        assert!(filter(&[("scope", "swarm"), ("scope", "local")]).matches(&die));
        assert!(!filter(&[("scope", "swarm")]).matches(&die));
        for kind in OTHERS {
            assert!(!filter(&[(kind, "web")]).matches(&die), "{kind}");
        }
    }

    #[test]
    fn an_image_is_known_by_id_name_and_repository() {
        let pull = event("image", "pull", "sha256:12", &[("name", "localhost:5000/a/b:1")]);
        for yes in ["sha256:12", "localhost:5000/a/b:1", "localhost:5000/a/b"] {
            assert!(filter(&[("image", yes)]).matches(&pull), "{yes}");
        }
        assert!(!filter(&[("image", "localhost")]).matches(&pull));
    }

    #[test]
    fn a_namespace_sees_its_own() {
        let e = event("image", "pull", "x", &[]);
        let of = |namespace: &str| EventFilter::of(&namespace.parse().expect("valid"));
        assert!(of("default").matches(&e));
        assert!(!of("other").matches(&e));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = EventFilter::default().add("colour", "red").expect_err("unknown");
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().starts_with("invalid filter 'colour'"));
    }
}
