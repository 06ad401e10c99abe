// SPDX-License-Identifier: Apache-2.0
//! A process that is to join a container: what was asked for, checked, and
//! what the runtime is told.

use std::path::PathBuf;

use oci_spec::runtime::{BoxBuilder, Capability, Process};

use super::{command, container::Document, spec, validate};
use crate::error::{Error, Kind, Result};

/// What to run in a container, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecConfig {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `NAME=value` sets, `NAME` removes; beyond the container's own.
    pub env: Vec<String>,
    /// Absolute; empty is the container's.
    pub working_dir: String,
    /// `user[:group]`; empty is the container's.
    pub user: String,
    /// Allocate a terminal.
    pub tty: bool,
    /// Rows and columns that it begins with.
    pub size: Option<(u16, u16)>,
    /// All capabilities.
    pub privileged: bool,
}

impl ExecConfig {
    /// Whether it can be honoured.
    ///
    /// # Errors
    /// `InvalidArgument` naming the field.
    pub fn check(&self) -> Result<()> {
        let invalid = |what: &str| Err(Error::new(Kind::InvalidArgument, what));
        if self.command.first().is_none_or(String::is_empty) {
            return invalid("No exec command specified");
        }
        validate::no_nul("command", &self.command)?;
        validate::environment(&self.env)?;
        validate::no_nul("working directory", [&self.working_dir])?;
        validate::no_nul("user", [&self.user])?;
        if !self.working_dir.is_empty() && !self.working_dir.starts_with('/') {
            return invalid("Cwd must be an absolute path");
        }
        Ok(())
    }

    /// What the runtime is told. What isn't said here is as for the
    /// container's first process.
    #[must_use]
    pub fn process(&self, document: &Document, all: &[Capability]) -> Process {
        let effective = &document.effective;
        let mut env = effective.env.clone();
        if self.tty && !document.config.tty {
            env.push("TERM=xterm".to_owned());
        }
        command::change(&mut env, &self.env);
        let cwd = if self.working_dir.is_empty() { &effective.working_dir } else { &self.working_dir };
        let mut process = Process::default();
        process
            .set_terminal(Some(self.tty))
            .set_user(spec::with_groups(spec::user(self.user_in(document)), &document.config.host.group_add))
            .set_args(Some(self.command.clone()))
            .set_env(Some(env))
            .set_cwd(PathBuf::from(cwd))
            .set_capabilities(self.privileged.then(|| spec::sets(all)))
            .set_rlimits(None)
            .set_no_new_privileges(None);
        if let Some((rows, columns)) = self.size {
            let size = BoxBuilder::default().height(rows).width(columns).build();
            process.set_console_size(size.ok());
        }
        process
    }

    /// What to look up in the container: as whom it runs.
    #[must_use]
    pub fn lookup(&self, document: &Document) -> String {
        spec::lookup(self.user_in(document), &document.config.host.group_add)
    }

    fn user_in<'a>(&'a self, document: &'a Document) -> &'a str {
        if self.user.is_empty() { &document.effective.user } else { &self.user }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::container::Effective;

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|s| (*s).to_owned()).collect()
    }

    fn exec() -> ExecConfig {
        ExecConfig { command: strings(&["ls"]), ..ExecConfig::default() }
    }

    fn document() -> Document {
        let effective = Effective {
            env: strings(&["PATH=/bin", "A=1", "B=2"]),
            working_dir: "/srv".to_owned(),
            user: "web".to_owned(),
            ..Effective::default()
        };
        Document { effective, ..Document::default() }
    }

    #[test]
    fn what_is_not_said_is_the_containers() {
        let process = exec().process(&document(), &[Capability::Chown]);
        assert_eq!(*process.env(), Some(strings(&["PATH=/bin", "A=1", "B=2"])));
        assert_eq!(process.cwd(), &PathBuf::from("/srv"));
        assert_eq!(*process.capabilities(), None);
        assert_eq!(exec().lookup(&document()), "web");
        let mut grouped = document();
        grouped.config.host.group_add = strings(&["logs", "777", "adm"]);
        assert_eq!(exec().lookup(&grouped), "web::logs,adm");
        assert_eq!(*exec().process(&grouped, &[]).user().additional_gids(), Some(vec![777]));
    }

    #[test]
    fn a_part_of_the_user_is_no_list_of_groups() {
        let groups = strings(&["logs"]);
        for (user, groups, wanted) in [
            ("", &[][..], ""),
            ("a:b:c", &[], "a:b"),
            ("a:b:c,d", &groups, "a:b:logs"),
            ("", &groups, "::logs"),
            ("0", &strings(&["7"]), "0"),
        ] {
            assert_eq!(spec::lookup(user, groups), wanted, "{user}");
        }
    }

    #[test]
    fn what_is_said_counts() {
        let exec = ExecConfig {
            env: strings(&["A=3", "B", "C=4"]),
            working_dir: "/tmp".to_owned(),
            user: "0".to_owned(),
            tty: true,
            size: Some((30, 100)),
            privileged: true,
            ..exec()
        };
        let process = exec.process(&document(), &[Capability::Chown]);
        assert_eq!(*process.env(), Some(strings(&["PATH=/bin", "A=3", "TERM=xterm", "C=4"])));
        assert_eq!(process.cwd(), &PathBuf::from("/tmp"));
        let size = process.console_size().expect("size");
        assert_eq!((size.height(), size.width()), (30, 100));
        assert!(process.capabilities().is_some());
        assert_eq!(exec.lookup(&document()), "0");
    }

    #[test]
    fn what_cannot_be_run_is_refused_in_dockers_words() {
        let refused = |exec: ExecConfig| exec.check().expect_err("refused").chain();
        assert_eq!(refused(ExecConfig::default()), "No exec command specified");
        assert_eq!(
            refused(ExecConfig { working_dir: "tmp".to_owned(), ..exec() }),
            "Cwd must be an absolute path"
        );
        assert!(refused(ExecConfig { env: strings(&["=x"]), ..exec() }).contains("environment"));
        assert!(refused(ExecConfig { command: strings(&["a\0b"]), ..exec() }).contains("NUL"));
    }
}
