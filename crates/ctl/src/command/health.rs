// SPDX-License-Identifier: Apache-2.0
//! The flags of a health check as the API has them, and `berth healthcheck`.

use berth::api::v1::{HealthConfig, ProbeHealthRequest};

use crate::{
    cli::health::{Health, Run},
    context::Context,
    error::{Error, FAILED, Result},
    output,
};

/// The check that the flags ask for; `None` when they ask for nothing.
///
/// # Errors
/// When they contradict each other.
pub(super) fn config(flags: &Health) -> Result<Option<HealthConfig>> {
    let tests: Vec<Vec<String>> =
        [("CMD-SHELL", &flags.health_cmd), ("HTTP", &flags.health_http), ("TCP", &flags.health_tcp)]
            .into_iter()
            .filter_map(|(kind, value)| value.as_ref().map(|value| vec![kind.to_owned(), value.clone()]))
            .collect();
    if tests.len() > 1 {
        return Err(Error::new(
            "conflicting options: cannot specify more than one of --health-cmd, --health-http and --health-tcp",
        ));
    }
    let config = HealthConfig {
        test: tests.into_iter().next().unwrap_or_default(),
        interval: flags.health_interval.unwrap_or_default(),
        timeout: flags.health_timeout.unwrap_or_default(),
        start_period: flags.health_start_period.unwrap_or_default(),
        start_interval: flags.health_start_interval.unwrap_or_default(),
        retries: flags.health_retries.unwrap_or_default(),
        on_failure: flags.health_on_failure.clone().unwrap_or_default(),
    };
    let asked = config != HealthConfig::default();
    match (flags.no_healthcheck, asked) {
        (true, true) => Err(Error::new("--no-healthcheck conflicts with --health-* options")),
        (true, false) => Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() })),
        (false, true) => Ok(Some(config)),
        (false, false) => Ok(None),
    }
}

/// `berth healthcheck run`.
pub(super) async fn run(context: &Context, args: Run) -> Result<u8> {
    let request = ProbeHealthRequest { namespace: context.namespace.clone(), container: args.container };
    let answer = context.client.containers().probe_health(request).await?.into_inner();
    let last = answer.health.unwrap_or_default().log.pop().unwrap_or_default();
    if last.exit_code == 0 {
        return Ok(0);
    }
    output::warn(&format!("unhealthy: {}", last.output.lines().next().unwrap_or_default()));
    Ok(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_docker_s_test() {
        let flags = Health { health_cmd: Some("true".into()), health_retries: Some(2), ..Health::default() };
        let config = super::config(&flags).expect("valid").expect("a check");
        assert_eq!((config.test, config.retries), (vec!["CMD-SHELL".into(), "true".into()], 2));
        assert_eq!(super::config(&Health::default()).expect("valid"), None);
        let none = Health { no_healthcheck: true, ..Health::default() };
        assert_eq!(super::config(&none).expect("valid").expect("a check").test, ["NONE"]);
        let both = Health { health_tcp: Some("80".into()), ..none };
        assert!(super::config(&both).expect_err("both").to_string().contains("conflicts with"));
        let two =
            Health { health_http: Some("x".into()), health_tcp: Some("80".into()), ..Health::default() };
        assert!(super::config(&two).is_err());
    }
}
