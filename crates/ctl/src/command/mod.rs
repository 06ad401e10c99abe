// SPDX-License-Identifier: Apache-2.0
//! One file per verb: ask the engine, print the answer.

mod attach;
mod commit;
mod completion;
mod config;
mod cp;
mod create;
mod df;
mod diff;
mod events;
mod exec;
mod export;
mod health;
mod history;
mod images;
mod import;
mod info;
mod inspect;
mod inspect_image;
mod inspect_view;
mod layout_dir;
mod load;
mod login;
mod logs;
mod mount;
mod pause;
mod pipe;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod remove;
mod rename;
mod run;
mod save;
mod start;
mod stats;
mod stop;
mod tag;
mod top;
mod update;
mod version;
mod wait;

use std::future::Future;

use tokio::task::JoinSet;

use crate::{
    cli::{self, Cli, Verb, container, image, system},
    context::Context,
    error::{Error, FAILED, Result},
    output,
};

/// Runs what was asked for. The answer is the exit code.
///
/// # Errors
/// What went wrong, with its exit code.
pub fn run(cli: Cli) -> Result<u8> {
    let Cli { address, namespace, verb } = cli;
    match verb.ungrouped() {
        Verb::Completion { shell } => completion::completion(shell),
        Verb::Man { directory } => completion::man(&directory),
        verb => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(Box::pin(engine_verb(&address, &namespace, verb)))
        }
    }
}

async fn engine_verb(address: &str, namespace: &str, verb: Verb) -> Result<u8> {
    if let Verb::Container(container::Verb::Cp(args)) = &verb {
        cp::check(args)?;
    }
    let connect = Context::connect(address, namespace);
    match verb {
        Verb::Container(container::Verb::Run(args)) => Box::pin(run::run(connect, *args)).await,
        Verb::Container(container::Verb::Create(args)) => Box::pin(create::create(connect, *args)).await,
        Verb::Image(image::Verb::Logout(args)) => login::logout(&args),
        Verb::System(system::Verb::Version(args)) => version::version(connect, args).await,
        Verb::Healthcheck { verb: cli::health::Verb::Run(args) } => health::run(&connect.await?, args).await,
        Verb::Container(verb) => container_verb(&connect.await?, verb).await,
        Verb::Image(verb) => image_verb(&connect.await?, verb).await,
        Verb::System(verb) => system_verb(&connect.await?, verb).await,
        _ => Err(Error::new("this command needs no engine")),
    }
}

async fn container_verb(context: &Context, verb: container::Verb) -> Result<u8> {
    match verb {
        container::Verb::Start(args) => start::start(context, args).await,
        container::Verb::Stop(args) => stop::stop(context, args).await,
        container::Verb::Kill(args) => stop::kill(context, args).await,
        container::Verb::Restart(args) => stop::restart(context, args).await,
        container::Verb::Pause(args) => pause::pause(context, args).await,
        container::Verb::Unpause(args) => pause::unpause(context, args).await,
        container::Verb::Top(args) => top::top(context, args).await,
        container::Verb::Stats(args) => stats::stats(context, args).await,
        container::Verb::Update(args) => update::update(context, *args).await,
        container::Verb::Diff(args) => diff::diff(context, args).await,
        container::Verb::Cp(args) => Box::pin(cp::cp(context, args)).await,
        container::Verb::Export(args) => export::export(context, args).await,
        container::Verb::Commit(args) => commit::commit(context, args).await,
        container::Verb::Prune(args) => prune::prune(context, args).await,
        container::Verb::Rename(args) => rename::rename(context, args).await,
        container::Verb::Port(args) => port::port(context, args).await,
        container::Verb::Wait(args) => wait::wait(context, args).await,
        container::Verb::Rm(args) => remove::rm(context, args).await,
        container::Verb::Ps(args) => ps::ps(context, args).await,
        container::Verb::Logs(args) => logs::logs(context, args).await,
        container::Verb::Exec(args) => exec::exec(context, args).await,
        container::Verb::Attach(args) => attach::attach(context, args).await,
        container::Verb::Run(_) | container::Verb::Create(_) => Err(Error::new("not here")),
    }
}

async fn image_verb(context: &Context, verb: image::Verb) -> Result<u8> {
    match verb {
        image::Verb::Pull(args) => pull::pull(context, args).await,
        image::Verb::Login(args) => login::login(context, args).await,
        image::Verb::Logout(_) => Err(Error::new("not here")),
        image::Verb::Push(args) => push::push(context, args).await,
        image::Verb::Images(args) => images::images(context, args).await,
        image::Verb::Tag(args) => tag::tag(context, args).await,
        image::Verb::Rmi(args) => remove::rmi(context, args).await,
        image::Verb::Load(args) => load::load(context, args).await,
        image::Verb::Save(args) => save::save(context, args).await,
        image::Verb::Import(args) => import::import(context, args).await,
        image::Verb::History(args) => history::history(context, args).await,
        image::Verb::Prune(args) => prune::images(context, args).await,
        image::Verb::Mount(args) => mount::mount(context, args).await,
        image::Verb::Unmount(args) => mount::unmount(context, args).await,
        image::Verb::Pin(args, keep) => prune::pin(context, args, keep).await,
    }
}

async fn system_verb(context: &Context, verb: system::Verb) -> Result<u8> {
    match verb {
        system::Verb::Inspect(args) => inspect::inspect(context, args).await,
        system::Verb::Events(args) => events::events(context, args).await,
        system::Verb::Info(args) => info::info(context, args).await,
        system::Verb::Df(args) => df::df(context, args).await,
        system::Verb::Prune(args) => prune::system(context, args).await,
        system::Verb::Version(args) => version::version(std::future::ready(Ok(context.clone())), args).await,
    }
}

/// Does the same to several things at once. Prints what each one answers, in
/// their order, then the errors; fails when there is one.
async fn each<F>(names: Vec<String>, action: impl Fn(String) -> F) -> Result<u8>
where
    F: Future<Output = Result<String>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for (index, name) in names.into_iter().enumerate() {
        let work = action(name);
        running.spawn(async move { (index, work.await) });
    }
    let mut results: Vec<_> = running.join_all().await;
    results.sort_by_key(|(index, _)| *index);
    let mut failed = false;
    for (_, result) in results {
        match result {
            Ok(line) if line.is_empty() => {}
            Ok(line) => output::print(&(line + "\n"))?,
            Err(error) => {
                failed = true;
                output::warn(&error.to_string());
            }
        }
    }
    Ok(if failed { FAILED } else { 0 })
}
