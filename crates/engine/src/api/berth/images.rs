// SPDX-License-Identifier: Apache-2.0
//! berth.v1.Images.

use std::{future::Future, path::Path, sync::Arc};

use berth::{
    api::v1::{
        HistoryEntry, Image, ImageConfig, ImageMount, ImportImageRequest, ImportImageResponse,
        InspectImageRequest, InspectImageResponse, LayerProgress, ListImageMountsRequest,
        ListImageMountsResponse, ListImagesRequest, ListImagesResponse, ListTagsRequest, ListTagsResponse,
        LoadImageRequest, LoadImageResponse, LoadedImage, LoginRequest, LoginResponse, MountImageRequest,
        MountImageResponse, PinImageRequest, PinImageResponse, PruneImagesRequest, PruneImagesResponse,
        PullDone, PullImageRequest, PullImageResponse, PullResolved, PushImageRequest, PushImageResponse,
        PushedTag, RegistryAuth, RemoveImageRequest, RemoveImageResponse, SaveImageRequest,
        SaveImageResponse, TagImageRequest, TagImageResponse, UnmountImageRequest, UnmountImageResponse,
        images_server, import_image_request, layer_progress::Phase, load_image_response, pull_image_response,
        push_image_response, save_image_request,
    },
    ids::Namespace,
};
use prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::{
    api::{contained::contained, status::to_status},
    domain::digest::Digest,
    error::{Context as _, Error, Kind, Result},
    lifecycle::images::{
        self as lifecycle, Credentials, Event, Follower, Format, ImageDetails, ImageFilter, ImageSummary,
        Images, ImportRequest, MountedImage, Packing, Platform, PruneOptions, PullRequest, PushRequest,
        Shape,
    },
};

/// Messages of a stream that wait for the client.
const QUEUE: usize = 32;

/// berth.v1.Images over the engine's own.
#[derive(Debug)]
pub struct ImagesService(pub Arc<Images>);

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[async_trait]
impl images_server::Images for ImagesService {
    type PullStream = Answers<PullImageResponse>;
    type PushStream = Answers<PushImageResponse>;
    type LoadStream = Answers<LoadImageResponse>;
    type SaveStream = Answers<SaveImageResponse>;

    async fn pull(&self, request: Request<PullImageRequest>) -> Result<Response<Self::PullStream>, Status> {
        contained(async {
            let request = request.into_inner();
            let follower = self.0.pull(PullRequest {
                namespace: namespace(&request.namespace)?,
                reference: request.image.parse()?,
                platform: Platform::of_request(&request.platform)?,
                credentials: request.auth.and_then(credentials),
                verify: request.verify,
            });
            Ok(follow(follower, pull_answer))
        })
        .await
    }

    async fn list_tags(
        &self,
        request: Request<ListTagsRequest>,
    ) -> Result<Response<ListTagsResponse>, Status> {
        contained(async {
            let ListTagsRequest { repository, auth } = request.into_inner();
            let tags = self.0.tags(&repository.parse()?, auth.and_then(credentials)).await?;
            Ok(ListTagsResponse { tags })
        })
        .await
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        contained(async {
            let LoginRequest { registry, auth } = request.into_inner();
            let nobody =
                || Error::new(Kind::InvalidArgument, "a login needs a user name or an identity token");
            let credentials = auth.and_then(credentials).ok_or_else(nobody)?;
            let token = self.0.login(&registry, &credentials).await?;
            Ok(LoginResponse { identity_token: token.unwrap_or_default() })
        })
        .await
    }

    async fn push(&self, request: Request<PushImageRequest>) -> Result<Response<Self::PushStream>, Status> {
        contained(async {
            let request = request.into_inner();
            let follower = self.0.push(PushRequest {
                namespace: namespace(&request.namespace)?,
                reference: request.image.parse()?,
                all_tags: request.all_tags,
                credentials: request.auth.and_then(credentials),
            });
            Ok(follow(follower, push_answer))
        })
        .await
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let pairs = request.filters.iter().map(|f| (f.key.as_str(), f.value.as_str()));
            let (namespace, filter) = (namespace(&request.namespace)?, ImageFilter::parse(pairs)?);
            let images = self.run(move |images| images.list(&namespace, &filter)).await?;
            Ok(ListImagesResponse { images: images.into_iter().map(image).collect() })
        })
        .await
    }

    async fn inspect(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let namespace = namespace(&request.namespace)?;
            self.run(move |images| images.inspect(&namespace, &request.image)).await.map(details)
        })
        .await
    }

    async fn remove(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let namespace = namespace(&request.namespace)?;
            let removed =
                self.run(move |images| images.remove(&namespace, &request.image, request.force)).await?;
            Ok(RemoveImageResponse { untagged: removed.untagged, deleted: removed.deleted })
        })
        .await
    }

    async fn prune(
        &self,
        request: Request<PruneImagesRequest>,
    ) -> Result<Response<PruneImagesResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let options = PruneOptions {
                namespace: namespace(&request.namespace)?,
                all: request.all,
                until: super::containers::config::nanos(request.until),
                labels: request.labels,
                without_labels: request.without_labels,
                dry_run: request.dry_run,
            };
            let removed = self.run(move |images| images.prune(&options)).await?;
            Ok(PruneImagesResponse {
                untagged: removed.untagged,
                deleted: removed.deleted,
                space_reclaimed: removed.reclaimed,
            })
        })
        .await
    }

    async fn pin(&self, request: Request<PinImageRequest>) -> Result<Response<PinImageResponse>, Status> {
        contained(async {
            let PinImageRequest { namespace: space, image, unpin } = request.into_inner();
            let space = namespace(&space)?;
            self.run(move |images| images.pin(&space, &image, !unpin)).await?;
            Ok(PinImageResponse {})
        })
        .await
    }

    async fn mount(
        &self,
        request: Request<MountImageRequest>,
    ) -> Result<Response<MountImageResponse>, Status> {
        contained(async {
            let MountImageRequest { namespace: space, image, path } = request.into_inner();
            let space = namespace(&space)?;
            let mounted = self.run(move |images| images.mount(&space, &image, Path::new(&path))).await?;
            Ok(MountImageResponse { path: mounted.path, image_id: mounted.image_id })
        })
        .await
    }

    async fn unmount(
        &self,
        request: Request<UnmountImageRequest>,
    ) -> Result<Response<UnmountImageResponse>, Status> {
        contained(async {
            let UnmountImageRequest { namespace: space, path, force } = request.into_inner();
            let space = namespace(&space)?;
            self.run(move |images| images.unmount(&space, Path::new(&path), force)).await?;
            Ok(UnmountImageResponse {})
        })
        .await
    }

    async fn list_mounts(
        &self,
        request: Request<ListImageMountsRequest>,
    ) -> Result<Response<ListImageMountsResponse>, Status> {
        contained(async {
            let space = namespace(&request.into_inner().namespace)?;
            let mounts = self.run(move |images| images.mounted(&space)).await?.into_iter();
            let mount = |of: MountedImage| ImageMount { path: of.path, image_id: of.image_id };
            Ok(ListImageMountsResponse { mounts: mounts.map(mount).collect() })
        })
        .await
    }

    async fn tag(&self, request: Request<TagImageRequest>) -> Result<Response<TagImageResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let namespace = namespace(&request.namespace)?;
            self.run(move |images| images.tag(&namespace, &request.source, &request.target)).await?;
            Ok(TagImageResponse {})
        })
        .await
    }

    async fn load(
        &self,
        request: Request<Streaming<LoadImageRequest>>,
    ) -> Result<Response<Self::LoadStream>, Status> {
        contained(async {
            let mut parts = request.into_inner();
            let mut archive = self.0.loading();
            let mut head = None;
            while let Some(part) = parts.message().await.map_err(|e| broken_off(&e))? {
                archive.write(part.data).await?;
                head.get_or_insert((part.namespace, part.platform));
            }
            let (name, platform) = head.unwrap_or_default();
            let follower = archive.load(namespace(&name)?, Platform::of_request(&platform)?).await?;
            Ok(follow(follower, load_answer))
        })
        .await
    }

    async fn import(
        &self,
        request: Request<Streaming<ImportImageRequest>>,
    ) -> Result<Response<ImportImageResponse>, Status> {
        use import_image_request::Kind as Part;
        contained(async {
            let mut parts = request.into_inner();
            let mut next = async || {
                Ok::<_, Error>(parts.message().await.map_err(|e| broken_off(&e))?.and_then(|p| p.kind))
            };
            let Some(Part::Open(open)) = next().await? else {
                let what = "the first message of Import must be `open`";
                return Err(Error::new(Kind::InvalidArgument, what));
            };
            let request = ImportRequest {
                namespace: namespace(&open.namespace)?,
                reference: open.reference,
                platform: Platform::of_request(&open.platform)?,
                message: open.message,
                changes: open.changes,
            };
            let mut upload = self.0.upload().await?;
            loop {
                match next().await? {
                    Some(Part::Data(data)) => upload.write(&data).await?,
                    Some(Part::End(_)) => break,
                    _ => return Err(Error::new(Kind::Cancelled, "the archive broke off")),
                }
            }
            Ok(ImportImageResponse { image_id: upload.import(request).await?.to_string() })
        })
        .await
    }

    async fn save(&self, request: Request<SaveImageRequest>) -> Result<Response<Self::SaveStream>, Status> {
        contained(async {
            let request = request.into_inner();
            let shape = Shape {
                format: match request.format() {
                    save_image_request::Format::Unspecified => Format::Both,
                    save_image_request::Format::Docker => Format::Docker,
                    save_image_request::Format::Oci => Format::Oci,
                },
                compression: match request.compression() {
                    save_image_request::Compression::Unspecified => None,
                    save_image_request::Compression::Gzip => Some(Packing::Gzip),
                    save_image_request::Compression::Zstd => Some(Packing::Zstd),
                },
            };
            let mut saving = self.0.save(namespace(&request.namespace)?, request.images, shape).await?;
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(async move {
                while let Some(piece) = saving.next().await {
                    let answer = piece.map(|data| SaveImageResponse { data }).map_err(|e| to_status(&e));
                    if sender.send(answer).await.is_err() {
                        return;
                    }
                }
            });
            Ok(ReceiverStream::new(receiver))
        })
        .await
    }
}

impl ImagesService {
    /// Runs what blocks where it may.
    fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Images) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> {
        let images = Arc::clone(&self.0);
        async move { tokio::task::spawn_blocking(move || f(&images)).await.context("serve a request")? }
    }
}

/// Passes events on until the client goes, which ends the follower too.
fn follow<T: Send + 'static>(mut follower: Follower, encode: fn(Event) -> Option<T>) -> Answers<T> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = follower.next() => event,
                () = sender.closed() => return,
            };
            let answer = match event {
                Some(Ok(event)) => encode(event).map(Ok),
                Some(Err(error)) => Some(Err(to_status(&error))),
                None => return,
            };
            if let Some(answer) = answer
                && sender.send(answer).await.is_err()
            {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

fn namespace(name: &str) -> Result<Namespace> {
    Namespace::of_request(name).map_err(|e| Error::new(Kind::InvalidArgument, e.to_string()))
}

fn credentials(auth: RegistryAuth) -> Option<Credentials> {
    let RegistryAuth { username, password, identity_token } = auth;
    let some = !username.is_empty() || !identity_token.is_empty();
    some.then_some(Credentials { username, password, identity_token })
}

fn broken_off(status: &Status) -> Error {
    Error::new(Kind::Cancelled, format!("the archive broke off: {}", status.message()))
}

fn pull_answer(event: Event) -> Option<PullImageResponse> {
    use pull_image_response::Kind;
    let kind = match event {
        Event::Resolved { reference, layers } => Kind::Resolved(resolved(reference, &layers)),
        Event::Layer(progress) => Kind::Layer(layer(progress)),
        Event::Pulled(pulled) => Kind::Done(PullDone {
            digest: pulled.digest.to_string(),
            image_id: pulled.image_id.to_string(),
            reference: pulled.reference,
            up_to_date: pulled.up_to_date,
        }),
        Event::Loaded(_) | Event::Pushed(_) => return None,
    };
    Some(PullImageResponse { kind: Some(kind) })
}

fn push_answer(event: Event) -> Option<PushImageResponse> {
    use push_image_response::Kind;
    let kind = match event {
        Event::Resolved { reference, layers } => Kind::Resolved(resolved(reference, &layers)),
        Event::Layer(progress) => Kind::Layer(layer(progress)),
        Event::Pushed(pushed) => {
            let left_out = pushed.left_out.map(|index| index.to_string()).unwrap_or_default();
            let digest = pushed.digest.to_string();
            Kind::Pushed(PushedTag { tag: pushed.tag, digest, size: pushed.size, left_out })
        }
        Event::Loaded(_) | Event::Pulled(_) => return None,
    };
    Some(PushImageResponse { kind: Some(kind) })
}

fn resolved(reference: String, layers: &[Digest]) -> PullResolved {
    PullResolved { reference, layers: layers.iter().map(ToString::to_string).collect() }
}

fn load_answer(event: Event) -> Option<LoadImageResponse> {
    use load_image_response::Kind;
    let kind = match event {
        Event::Layer(progress) => Kind::Layer(layer(progress)),
        Event::Loaded(loaded) => {
            Kind::Loaded(LoadedImage { id: loaded.image_id.to_string(), references: loaded.references })
        }
        Event::Resolved { .. } | Event::Pulled(_) | Event::Pushed(_) => return None,
    };
    Some(LoadImageResponse { kind: Some(kind) })
}

fn layer(progress: lifecycle::LayerProgress) -> LayerProgress {
    let phase = match progress.phase {
        lifecycle::Phase::Waiting => Phase::Waiting,
        lifecycle::Phase::Downloading => Phase::Downloading,
        lifecycle::Phase::Extracting => Phase::Extracting,
        lifecycle::Phase::Complete => Phase::Complete,
        lifecycle::Phase::Exists => Phase::Exists,
        lifecycle::Phase::Retrying => Phase::Retrying,
        lifecycle::Phase::Pushing => Phase::Pushing,
        lifecycle::Phase::Pushed => Phase::Pushed,
        lifecycle::Phase::AlreadyThere => Phase::AlreadyThere,
        lifecycle::Phase::Mounted => Phase::Mounted,
    };
    LayerProgress {
        digest: progress.digest.to_string(),
        phase: phase.into(),
        current: progress.current,
        total: progress.total,
    }
}

fn image(summary: ImageSummary) -> Image {
    Image {
        id: summary.id.to_string(),
        repo_tags: summary.repo_tags,
        repo_digests: summary.repo_digests,
        created_at: timestamp(summary.created_at),
        size: summary.size,
        labels: summary.labels.into_iter().collect(),
        architecture: summary.architecture,
        os: summary.os,
        variant: summary.variant,
        containers: summary.containers,
        content_size: summary.content_size,
        manifest_digest: summary.manifest_digest,
        pinned: summary.pinned,
        used_at: timestamp(summary.used_at),
    }
}

fn details(details: ImageDetails) -> InspectImageResponse {
    let configuration = &details.configuration;
    // Steps without an empty layer are the layers. From the top: an image that
    // was made of one without a history has steps for its own layers only.
    let mut sizes = details.layers.iter().map(|(size, _)| *size);
    let steps = configuration.history().iter().flatten().rev().map(|entry| HistoryEntry {
        created_at: entry.created().as_deref().and_then(parse_time),
        created_by: entry.created_by().clone().unwrap_or_default(),
        comment: entry.comment().clone().unwrap_or_default(),
        empty_layer: entry.empty_layer().unwrap_or_default(),
        size: if entry.empty_layer() == Some(true) { 0 } else { sizes.next().unwrap_or(0) },
    });
    let mut history: Vec<_> = steps.collect();
    history.reverse();
    InspectImageResponse {
        history,
        config: configuration.config().as_ref().map(config),
        author: configuration.author().clone().unwrap_or_default(),
        diff_ids: configuration.rootfs().diff_ids().clone(),
        manifest_digest: details.summary.manifest_digest.clone(),
        configuration: details.raw,
        layer_dirs: details.layers.iter().map(|(_, dir)| dir.to_string_lossy().into_owned()).collect(),
        tagged_at: timestamp(details.tagged_at),
        manifest_media_type: details.manifest.0,
        manifest_size: details.manifest.1,
        image: Some(image(details.summary)),
    }
}

fn config(config: &oci_spec::image::Config) -> ImageConfig {
    ImageConfig {
        user: config.user().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        cmd: config.cmd().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
        stop_signal: config.stop_signal().clone().unwrap_or_default(),
        exposed_ports: config.exposed_ports().clone().unwrap_or_default(),
        volumes: config.volumes().clone().unwrap_or_default(),
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    timestamp(i64::try_from(time.as_nanosecond()).ok()?)
}

/// Nanoseconds since the epoch; 0 is none.
fn timestamp(nanos: i64) -> Option<Timestamp> {
    const SECOND: i64 = 1_000_000_000;
    let part = i32::try_from(nanos.rem_euclid(SECOND)).ok()?;
    (nanos != 0).then(|| Timestamp { seconds: nanos.div_euclid(SECOND), nanos: part })
}
