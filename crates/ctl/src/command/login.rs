// SPDX-License-Identifier: Apache-2.0
//! `berth login` and `berth logout`.

use std::io::{self, BufRead as _, Read as _, Write as _};

use berth::api::v1::{LoginRequest, RegistryAuth};

use crate::{
    auth::{self, Kept, Server},
    cli::image::{Login, Logout},
    context::Context,
    error::{Error, Result},
    output,
    terminal::{self, Hidden},
};

/// Longest password: tokens are long, mistakes longer.
const MAX_SECRET: u64 = 64 << 10;

/// `berth login`.
pub(super) async fn login(context: &Context, args: Login) -> Result<u8> {
    let server = Server::of(args.server.as_deref().unwrap_or_default());
    if let Some(kept) = known(&args, &server)? {
        output::print("Authenticating with existing credentials...\n")?;
        if ask(context, &server, kept.clone()).await.is_ok() {
            output::print("Login Succeeded\n")?;
            return Ok(0);
        }
        output::warn("Login did not succeed: the credentials that were kept are not good any more");
    }
    let mut auth = credentials(&args, &server)?;
    let identity_token = ask(context, &server, auth.clone()).await?;
    if !identity_token.is_empty() {
        auth = RegistryAuth { username: auth.username, identity_token, password: String::new() };
    }
    if let Kept::File(path) = auth::keep(&server, &auth)? {
        output::warn(&format!("WARNING! Your credentials are stored unencrypted in '{path}'."));
    }
    output::print("Login Succeeded\n")?;
    Ok(0)
}

/// `berth logout`.
pub(super) fn logout(args: &Logout) -> Result<u8> {
    let server = Server::of(args.server.as_deref().unwrap_or_default());
    let known = auth::forget(&server)?;
    let words = if known { "Removing login credentials for" } else { "Not logged in to" };
    output::print(&format!("{words} {}\n", server.key))?;
    Ok(0)
}

async fn ask(context: &Context, server: &Server, auth: RegistryAuth) -> Result<String> {
    let request = LoginRequest { registry: server.registry.clone(), auth: Some(auth) };
    Ok(context.client.images().login(request).await?.into_inner().identity_token)
}

/// What is kept already, when the user named nobody.
fn known(args: &Login, server: &Server) -> Result<Option<RegistryAuth>> {
    if args.username.is_some() || args.password.is_some() || args.password_stdin {
        return Ok(None);
    }
    auth::find(server)
}

fn credentials(args: &Login, server: &Server) -> Result<RegistryAuth> {
    if args.password.is_some() {
        output::warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let username = match &args.username {
        Some(username) => username.clone(),
        None if args.password_stdin => {
            return Err(Error::new("Must provide --username with --password-stdin"));
        }
        None => prompt_for_name(server)?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => from_stdin()?,
        None => prompt_for_password()?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(Error::new("user name and password must not be empty"));
    }
    Ok(RegistryAuth { username, password, identity_token: String::new() })
}

fn from_stdin() -> Result<String> {
    let mut text = String::new();
    let mut input = io::stdin().lock().take(MAX_SECRET);
    input.read_to_string(&mut text).map_err(|e| Error::io("read the password from stdin", &e))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn interactive() -> Result<()> {
    if terminal::stdin_is_terminal() {
        return Ok(());
    }
    Err(Error::new(
        "cannot perform an interactive login from a non TTY device: use --username and --password-stdin",
    ))
}

fn prompt_for_name(server: &Server) -> Result<String> {
    interactive()?;
    prompt(&format!("Username for {}: ", server.registry))
}

fn prompt_for_password() -> Result<String> {
    interactive()?;
    let hidden = Hidden::enter()?;
    let password = prompt("Password: ");
    drop(hidden);
    output::print("\n")?;
    password
}

fn prompt(text: &str) -> Result<String> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(MAX_SECRET)
        .read_line(&mut line)
        .map_err(|e| Error::io("read from the terminal", &e))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
