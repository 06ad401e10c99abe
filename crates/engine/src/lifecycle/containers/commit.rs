// SPDX-License-Identifier: Apache-2.0
//! What a container has changed becomes a layer, and it and the container's
//! configuration an image.

use std::sync::Arc;

use berth::failpoint;
use serde_json::{Value, json};

use super::{Containers, event};
use crate::{
    domain::{
        command,
        container::{Config, Document},
        digest::Digest,
        instruction,
        record::Record,
        state::Status,
        users::IdMap,
    },
    error::{Error, Kind, Result},
    lifecycle::images::build::{Base, NewImage, StoredLayer, new_name},
};

/// How an image is made of a container.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Its name; may be empty.
    pub reference: String,
    /// Who says so.
    pub author: String,
    /// For its history.
    pub message: String,
    /// Instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// Freeze it meanwhile, when it runs.
    pub pause: bool,
}

impl Containers {
    /// Makes an image of a container. The image's id.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad name or instruction, `NotFound` when the
    /// container's image isn't here any more.
    pub async fn commit(self: &Arc<Self>, record: Record, options: CommitOptions) -> Result<Digest> {
        // Runs to its end, whatever becomes of the caller: a container must
        // not stay frozen.
        let this = Arc::clone(self);
        Self::detached(async move { this.commit_now(record, options).await }).await
    }

    async fn commit_now(self: &Arc<Self>, record: Record, options: CommitOptions) -> Result<Digest> {
        let reference = new_name(&options.reference)?;
        if record.status == Status::Removing {
            let what = "cannot commit a container that is being removed";
            return Err(Error::new(Kind::FailedPrecondition, what));
        }
        let row = record.clone();
        let (document, base) = self
            .blocking(move |this| {
                Ok((this.read_document(&row.id)?, this.images.base(&row.namespace, &row.image_id)?))
            })
            .await?;
        let config = configuration(&document.config, &base.config, &options)?;
        let paused = options.pause && record.status == Status::Running && !record.paused;
        if paused {
            self.pause(record.clone()).await?;
        }
        let row = record.clone();
        let maps = document.effective.id_maps.clone();
        let layer = self.blocking(move |this| this.changed_layer(&row, &maps)).await;
        if paused {
            self.thaw(&record).await?;
        }
        let layer = layer?;
        failpoint::hit("commit.packed")?;
        let config = described(config, &base, &document, &options, layer.is_none());
        let new = NewImage { base: Some(base), layer, config, reference };
        let (namespace, message) = (record.namespace.clone(), options.message);
        self.images
            .add(namespace, new, move |id, shown| {
                let more =
                    [("imageID", id.to_string()), ("imageRef", shown.to_owned()), ("comment", message)];
                event(&record, "commit", &more)
            })
            .await
    }

    /// The writable layer as a layer of an image; none when it is empty. Blocks.
    fn changed_layer(&self, record: &Record, maps: &[IdMap]) -> Result<Option<StoredLayer>> {
        let mut writer = self.images.layer()?;
        let what = || format!("archive what container {} has changed", record.name);
        let ids: Vec<_> = maps.iter().map(|map| (map.host, map.container, map.size)).collect();
        match self.snapshots.pack(record.id.as_str(), &ids, &mut writer)? {
            0 => Ok(None),
            _ => writer.finish().with_context_of(what).map(Some),
        }
    }
}

trait ContextOf {
    fn with_context_of(self, what: impl FnOnce() -> String) -> Self;
}

impl<T> ContextOf for Result<T> {
    fn with_context_of(self, what: impl FnOnce() -> String) -> Self {
        self.map_err(|e| Error::new(e.kind(), what()).with_source(e))
    }
}

/// The new image's `config`: the image's, what the container was asked to be,
/// and the changes.
fn configuration(own: &Config, image: &Value, options: &CommitOptions) -> Result<instruction::Config> {
    let mut config = image.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(entrypoint) = &own.entrypoint {
        let cleared = entrypoint.iter().all(String::is_empty);
        config.insert("Entrypoint".to_owned(), if cleared { Value::Null } else { json!(entrypoint) });
        config.insert("Cmd".to_owned(), Value::Null);
    }
    if !own.command.is_empty() {
        config.insert("Cmd".to_owned(), json!(own.command));
    }
    let env = config.get("Env").and_then(Value::as_array).into_iter().flatten();
    let mut env: Vec<String> = env.filter_map(Value::as_str).map(str::to_owned).collect();
    command::change(&mut env, &own.env);
    config.insert("Env".to_owned(), json!(env));
    let given = [("User", &own.user), ("WorkingDir", &own.working_dir), ("StopSignal", &own.stop_signal)];
    for (field, value) in given.into_iter().filter(|(_, value)| !value.is_empty()) {
        config.insert(field.to_owned(), json!(value));
    }
    if !own.labels.is_empty() {
        let mut labels = config.get("Labels").and_then(Value::as_object).cloned().unwrap_or_default();
        labels.extend(own.labels.iter().map(|(name, value)| (name.clone(), json!(value))));
        config.insert("Labels".to_owned(), labels.into());
    }
    instruction::apply(&mut config, &options.changes)?;
    Ok(config)
}

/// The whole document, but for the layers.
fn described(
    config: instruction::Config,
    base: &Base,
    document: &Document,
    options: &CommitOptions,
    empty: bool,
) -> Value {
    let now = jiff::Timestamp::now().to_string();
    let mut entry = json!({
        "created": now,
        "created_by": document.effective.args.join(" "),
        "comment": options.message,
    });
    let mut whole = base.config.clone();
    if !options.author.is_empty() {
        entry["author"] = json!(options.author);
    }
    if empty {
        entry["empty_layer"] = json!(true);
    }
    whole["author"] = json!(options.author);
    whole["created"] = json!(now);
    whole["config"] = config.into();
    let mut history = whole.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    history.push(entry);
    whole["history"] = history.into();
    // What Docker once noted of how the image below was made.
    if let Some(whole) = whole.as_object_mut() {
        whole.remove("container");
        whole.remove("container_config");
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_container_was_asked_to_be_wins_over_the_image() {
        let image = json!({"config": {
            "Cmd": ["sh"], "Entrypoint": ["/init"], "Env": ["PATH=/bin", "A=1"],
            "Labels": {"l": "1"}, "Healthcheck": {"Test": ["NONE"]},
        }});
        let own = Config {
            command: vec!["run".into()],
            env: vec!["A".into(), "B=2".into()],
            user: "7".into(),
            labels: [("m".to_owned(), "2".to_owned())].into(),
            ..Config::default()
        };
        let options = CommitOptions { changes: vec!["EXPOSE 80".into()], ..CommitOptions::default() };
        let made = configuration(&own, &image, &options).expect("valid");
        assert_eq!(
            Value::from(made),
            json!({
                "Cmd": ["run"], "Entrypoint": ["/init"], "Env": ["PATH=/bin", "B=2"], "User": "7",
                "Labels": {"l": "1", "m": "2"}, "Healthcheck": {"Test": ["NONE"]},
                "ExposedPorts": {"80/tcp": {}},
            })
        );
        let own = Config { entrypoint: Some(vec!["/new".into()]), ..Config::default() };
        let made = configuration(&own, &image, &CommitOptions::default()).expect("valid");
        assert_eq!((&made["Entrypoint"], &made["Cmd"]), (&json!(["/new"]), &Value::Null));
    }
}
