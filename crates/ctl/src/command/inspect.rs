// SPDX-License-Identifier: Apache-2.0
//! `berth inspect`: containers first, then images.

use berth::api::v1::{Filter, InspectContainerRequest, InspectImageRequest, ListContainersRequest};
use serde_json::Value;
use tonic::Code;

use super::{inspect_image::ImageView, inspect_view::ContainerView};
use crate::{
    cli::system::{Inspect, Type},
    context::Context,
    error::{Error, FAILED, Result},
    output::{self, json, listing, template::Template},
};

/// One object, in the order of its fields and as a template sees it.
#[derive(Debug)]
enum Found {
    Container(Box<ContainerView>),
    Image(Box<ImageView>),
}

impl serde::Serialize for Found {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Container(view) => view.serialize(serializer),
            Self::Image(view) => view.serialize(serializer),
        }
    }
}

/// `berth inspect`. What exists is printed, also when something else doesn't.
pub(super) async fn inspect(context: &Context, args: Inspect) -> Result<u8> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(&listing::unescape(text))?),
    };
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in &args.names {
        match find(context, name, &args).await? {
            Some(object) => found.push(object),
            None => missing.push(name),
        }
    }
    match template {
        Some(template) => {
            for object in &found {
                let value: Value = serde_json::to_value(object).map_err(|e| Error::new(e.to_string()))?;
                output::print(&(template.render(&value)? + "\n"))?;
            }
        }
        None if args.format.as_deref() == Some("json") => {
            output::print(&(json::line(&found)? + "\n"))?;
        }
        None => output::print(&json::pretty(&found)?)?,
    }
    let what = match args.kind {
        None => "object",
        Some(Type::Container) => "container",
        Some(Type::Image) => "image",
    };
    for name in &missing {
        output::warn(&format!("Error: No such {what}: {name}"));
    }
    Ok(if missing.is_empty() { 0 } else { FAILED })
}

async fn find(context: &Context, name: &str, args: &Inspect) -> Result<Option<Found>> {
    if args.kind != Some(Type::Image) {
        let container = container(context, name, args.size).await?;
        if container.is_some() {
            return Ok(container);
        }
    }
    if args.kind == Some(Type::Container) {
        return Ok(None);
    }
    let request = InspectImageRequest { namespace: context.namespace.clone(), image: name.to_owned() };
    match context.client.images().inspect(request).await {
        Ok(answer) => Ok(Some(Found::Image(Box::new(ImageView::of(answer.into_inner()))))),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        // What can't be a reference may be the name of a container that
        // isn't there.
        Err(status) if status.code() == Code::InvalidArgument && args.kind.is_none() => Ok(None),
        Err(status) => Err(status.into()),
    }
}

async fn container(context: &Context, name: &str, size: bool) -> Result<Option<Found>> {
    let request =
        InspectContainerRequest { namespace: context.namespace.clone(), container: name.to_owned() };
    let container = match context.client.containers().inspect(request).await {
        Ok(answer) => answer.into_inner().container.unwrap_or_default(),
        Err(status) if status.code() == Code::NotFound => return Ok(None),
        Err(status) => return Err(status.into()),
    };
    let mut view = ContainerView::of(container);
    if size {
        let request = ListContainersRequest {
            namespace: context.namespace.clone(),
            all: true,
            limit: 0,
            filters: vec![Filter { key: "id".into(), value: view.id.clone() }],
            size: true,
        };
        let list = context.client.containers().list(request).await?.into_inner().containers;
        if let Some(summary) = list.first() {
            view.size_rw = summary.size_rw;
            view.size_root_fs = summary.size_root_fs;
        }
    }
    Ok(Some(Found::Container(Box::new(view))))
}
